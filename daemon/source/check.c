/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/canary.h"
#include "daemon/source/private.h"

#define CONNECT_TIMEOUT_MS 10000
#define CANARY_TIMEOUT_MS 20000

static gboolean refuse (SourceJob *job, GError **error, const char *format, ...)
    G_GNUC_PRINTF (3, 4);

static gboolean
refuse (SourceJob *job, GError **error, const char *format, ...)
{
  g_autofree char *text = NULL;
  va_list args;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "%s: %s", job->base.qmp_path, text);
  return FALSE;
}

static gboolean
check_name (SourceJob *job, GError **error)
{
  g_autofree char *name = NULL;

  if (!qmp_query_name (vm_get_executor (job->vm), job_cancellable (&job->base), &name, error))
    return FALSE;
  if (name && !g_str_equal (name, job->base.guest))
    return refuse (job, error, "this is the monitor of the guest %s, not of %s", name,
                   job->base.guest);
  return TRUE;
}

static gboolean
check_state (SourceJob *job, GError **error)
{
  QmpExecutor *qmp = vm_get_executor (job->vm);
  GCancellable *cancellable = job_cancellable (&job->base);
  g_autofree char *status = NULL;
  g_autoptr (QmpMigration) migration = NULL;

  if (!qmp_query_status (qmp, cancellable, &status, &job->ran, error))
    return FALSE;
  if (!job->ran && !g_str_equal (status, "paused") && !g_str_equal (status, "prelaunch"))
    return refuse (job, error, "the guest is %s: only one that runs or is paused can be migrated",
                   status);
  migration = qmp_query_migrate (qmp, cancellable, error);
  if (!migration)
    return FALSE;
  if (migration->blocked_reasons && migration->blocked_reasons[0])
    {
      g_autofree char *reasons = g_strjoinv ("; ", migration->blocked_reasons);
      return refuse (job, error, "QEMU can't migrate this guest: %s", reasons);
    }
  if (!g_str_equal (migration->status, "none") && !g_str_equal (migration->status, "completed")
      && !g_str_equal (migration->status, "failed")
      && !g_str_equal (migration->status, "cancelled"))
    return refuse (job, error, "another migration is under way already (%s)", migration->status);
  return TRUE;
}

static gboolean
check_block_layer (SourceJob *job, GError **error)
{
  QmpExecutor *qmp = vm_get_executor (job->vm);
  GCancellable *cancellable = job_cancellable (&job->base);
  g_autoptr (GPtrArray) exports = NULL;
  g_autoptr (GPtrArray) jobs = qmp_query_block_jobs (qmp, cancellable, error);

  if (!jobs)
    return FALSE;
  if (jobs->len > 0)
    return refuse (job, error, "the block job %.64s is running: wait for its end, or cancel it",
                   (const char *)g_ptr_array_index (jobs, 0));
  exports = qmp_query_exports (qmp, cancellable, error);
  if (!exports)
    return FALSE;
  if (exports->len > 0)
    return refuse (job, error,
                   "an NBD server is running in this QEMU already (export %s): end the backup or "
                   "migration that it belongs to",
                   ((QmpExport *)g_ptr_array_index (exports, 0))->id);
  return TRUE;
}

/* Devices that come without a block node can't be exported: their disks would stay behind. */
static gboolean
check_device (SourceJob *job, const char *dir, JsonObject *child, char **ret_iothread,
              GError **error)
{
  QmpExecutor *qmp = vm_get_executor (job->vm);
  const char *name, *type;
  g_autofree char *path = NULL;
  g_autofree char *iothread = NULL;

  if (!child || !json_get_string (child, "name", &name) || !json_get_string (child, "type", &type)
      || !g_str_has_prefix (type, "child<"))
    return TRUE;
  if (strstr (type, "vhost-user-blk") || strstr (type, "vhost-vdpa")
      || strstr (type, "vhost-user-fs"))
    return refuse (job, error, "the device %s (%s) has no block node: it can't be moved", name,
                   type);
  path = g_strdup_printf ("%s/%s", dir, name);
  iothread = qmp_qom_get_string (qmp, path, "iothread", NULL, NULL);
  if (iothread && *iothread != '\0' && !*ret_iothread)
    *ret_iothread = g_strdup (name);
  return TRUE;
}

static gboolean
check_iothreads (SourceJob *job, const char *device, GError **error)
{
  const Config *config = agent_get_config (job->base.agent);
  CanaryVerdict verdict;

  job_set_message (&job->base, "asking a canary about disks on iothreads");
  if (!canary_run (vm_get_pid (job->vm), config->runtime_dir,
                   deadline_in (CANARY_TIMEOUT_MS, job_cancellable (&job->base)), &verdict, error))
    return FALSE;
  if (verdict == CANARY_AFFECTED)
    return refuse (job, error,
                   "the device %s is on an iothread, and this QEMU would abort when an export of "
                   "its disk is closed (a canary did): start the guest without iothread=, or with "
                   "a newer QEMU",
                   device);
  return TRUE;
}

static gboolean
check_devices (SourceJob *job, GError **error)
{
  static const char *const dirs[] = { "/machine/peripheral", "/machine/peripheral-anon" };
  g_autofree char *iothread = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (dirs); i++)
    {
      g_autoptr (JsonArray) children = qmp_call_array (vm_get_executor (job->vm), "qom-list",
                                                       json_args ("path", "s", dirs[i], NULL),
                                                       job_cancellable (&job->base), error);
      if (!children)
        return FALSE;
      for (guint j = 0; j < json_array_get_length (children); j++)
        if (!check_device (job, dirs[i], json_array_get_object_or_null (children, j), &iothread,
                           error))
          return FALSE;
    }
  return !iothread || check_iothreads (job, iothread, error);
}

static void
on_vm_lost (const GError *error, gpointer data)
{
  Job *base = data;
  g_autoptr (GError) reason = g_error_new (
      JOB_ERROR, JOB_ERROR_FAILED, "the QEMU of %s is gone (%s)", base->guest, base->qmp_path);

  job_post_lost (base, JOB_EVENT_QEMU_LOST, reason);
}

JobEvent
source_check (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;

  job_set_message (base, "checking");
  job->vm = source_open_vm (job, CONNECT_TIMEOUT_MS, error);
  if (!job->vm)
    return JOB_EVENT_FAILED;
  vm_set_lost_handler (job->vm, on_vm_lost, base);
  if (!check_name (job, error) || !check_state (job, error) || !check_block_layer (job, error)
      || !source_check_domain (job, error) || !source_find_disks (job, error)
      || !check_devices (job, error))
    return JOB_EVENT_FAILED;
  if (!source_open_link (job, deadline_in (CONNECT_TIMEOUT_MS, job_cancellable (base)), error))
    return JOB_EVENT_FAILED;
  return JOB_EVENT_DONE;
}
