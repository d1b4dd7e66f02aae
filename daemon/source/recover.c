/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/source/private.h"

#define CONNECT_TIMEOUT_MS 5000
#define LIBVIRT_TIMEOUT_MS (5 * 60 * 1000)
#define POLL_MS 100

static void
recover_disks (SourceJob *job, JsonObject *begin)
{
  JsonArray *disks = NULL;

  json_get_array (begin, "disks", &disks);
  for (guint i = 0; disks && i < json_array_get_length (disks); i++)
    {
      JsonObject *object = json_array_get_object_or_null (disks, i);
      const char *name = "", *qdev = "", *node = "", *file = NULL;
      SourceDisk *disk = g_new0 (SourceDisk, 1);

      if (object)
        {
          json_get_string (object, "disk", &name);
          json_get_string (object, "qdev", &qdev);
          json_get_string (object, "node", &node);
          json_get_string (object, "file", &file);
          json_get_bool (object, "locked", &disk->locked);
        }
      disk->name = g_strdup (name);
      disk->qdev = g_strdup (qdev);
      disk->node = g_strdup (node);
      disk->file = g_strdup (file);
      g_ptr_array_add (job->disks, disk);
    }
}

/* Only libvirt leads to the QEMU of a domain: while that lives, and libvirtd is being started as we
 * are, nothing can be said of the guest. */
static Vm *
reopen_vm (SourceJob *job, const char *process)
{
  Deadline deadline = deadline_in (LIBVIRT_TIMEOUT_MS, job_cancellable (&job->base));
  Vm *vm;

  while (!(vm = source_open_vm (job, CONNECT_TIMEOUT_MS, NULL)) && source_is_domain (job) && process
         && vm_process_exists (process) && deadline_check (deadline, NULL))
    {
      job_set_message (&job->base, "waiting for libvirt");
      g_usleep (POLL_MS * 1000);
    }
  return vm;
}

/* The same process as before, or none: another one at the same socket is another guest's. */
static void
recover_vm (SourceJob *job, JsonObject *begin)
{
  JsonObject *listener = job_find_record (&job->base, "listener");
  g_autoptr (Vm) vm = NULL;
  g_autofree char *process = NULL;
  const char *known = NULL;
  gint64 port = 0;

  json_get_string (begin, "process", &known);
  vm = reopen_vm (job, known);
  process = vm ? vm_describe_process (vm) : NULL;
  if (!process || g_strcmp0 (process, known) != 0)
    return;
  if (listener && json_get_int (listener, "port", &port))
    job->listener = listener_recover (vm_get_pid (vm), port, NULL);
  job->server = job->listener != NULL;
  job->vm = g_steal_pointer (&vm);
}

/* Released, not fenced, and nobody watched: what does QEMU say? */
static JobEvent
judge_released (SourceJob *job, GError **error)
{
  if (!job->vm)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "the QEMU of %s ended while the agent was away", job->base.guest);
      return JOB_EVENT_UNKNOWN;
    }
  return source_end_stream (job, 0, error);
}

JobEvent
source_recover_action (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  JsonObject *begin = g_ptr_array_index (base->records, 0);

  json_get_bool (begin, "ran", &job->ran);
  job->libvirt.autostart_taken = job_find_record (base, "autostart") != NULL;
  if (job_find_record (base, "released"))
    json_get_bool (job_find_record (base, "released"), "ran", &job->ran);
  job->release_asked = job_find_record (base, "cutover") != NULL;
  recover_disks (job, begin);
  /* What was undone already is somebody else's by now: only the destination must be told. */
  if (!job_find_record (base, "undone"))
    recover_vm (job, begin);
  job->fenced = job_find_record (base, "fenced") && !job_find_record (base, "unfenced");
  /* To tell the destination, where it can be told; it finds out by itself otherwise. */
  source_open_link (job, deadline_in (CONNECT_TIMEOUT_MS, job_cancellable (base)), NULL);
  if (job_find_record (base, "undone"))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "%s had to be told that the guest stays at %s", base->peer,
                   agent_get_host (base->agent));
      return JOB_EVENT_FAILED;
    }
  if (job_find_record (base, "owner"))
    return JOB_EVENT_OWNED;
  if (job->fenced)
    {
      job_set_owner (base, JOB_OWNED_BY_UNKNOWN);
      return JOB_EVENT_FENCED;
    }
  if (job_find_record (base, "unfenced"))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_NEVER, "the agent of %s was restarted",
                   agent_get_host (base->agent));
      return JOB_EVENT_NEVER;
    }
  if (job_find_record (base, "released"))
    {
      job_set_owner (base, JOB_OWNED_BY_UNKNOWN);
      return judge_released (job, error);
    }
  g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "the agent of %s was restarted",
               agent_get_host (base->agent));
  return JOB_EVENT_FAILED;
}
