/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/source/private.h"

#include "daemon/libvirt/virt-ops.h"

#define CANCEL_TIMEOUT_MS 10000
#define CANCEL_CALL_MS 3000
#define ABORT_TIMEOUT_MS 20000
#define DRAIN_TIMEOUT_MS 2000
#define POLL_MS 20

/* The first error is kept, the rest is done all the same. */
static void
keep (GError **error, GError *failed)
{
  if (failed && error && !*error)
    *error = failed;
  else
    g_clear_error (&failed);
}

static gboolean
is_over (const char *status)
{
  return g_str_equal (status, "none") || g_str_equal (status, "completed")
         || g_str_equal (status, "failed") || g_str_equal (status, "cancelled");
}

void
source_cancel_stream (SourceJob *job)
{
  VirtDomain *domain = vm_get_domain (job->vm);

  /* libvirt refuses in some phases of its migration what QEMU takes. */
  if (!domain || !virt_domain_abort_job (domain, deadline_in (CANCEL_CALL_MS, NULL), NULL))
    qmp_migrate_cancel (vm_get_executor (job->vm), NULL, NULL);
}

/* First of all the guest: a stream that is given up makes QEMU resume it by itself. */
static void
rescue_guest (SourceJob *job, GError **error)
{
  QmpExecutor *qmp = vm_get_executor (job->vm);
  gint64 until = g_get_monotonic_time () + CANCEL_TIMEOUT_MS * 1000;
  g_autoptr (QmpMigration) migration = NULL;
  gboolean was_leaving = FALSE;
  GError *failed = NULL;
  VmEvents events;

  vm_get_events (job->vm, &events);
  while ((migration = qmp_query_migrate (qmp, NULL, &failed)) && !is_over (migration->status)
         && g_get_monotonic_time () < until)
    {
      was_leaving = TRUE;
      if (!g_str_equal (migration->status, "cancelling"))
        source_cancel_stream (job);
      g_clear_pointer (&migration, qmp_migration_free);
      vm_wait_event (job->vm, &events, POLL_MS, NULL, &events);
    }
  keep (error, failed);
  /* Switches may have seen the guest elsewhere. */
  if (was_leaving)
    qmp_announce_self (qmp, NULL, NULL);
}

static void
remove_exports (SourceJob *job, GError **error)
{
  g_autofree char *prefix = source_id (job, "");
  GError *failed = NULL;
  g_autoptr (GPtrArray) exports = qmp_query_exports (vm_get_executor (job->vm), NULL, &failed);

  for (guint i = 0; exports && i < exports->len; i++)
    {
      const QmpExport *export = g_ptr_array_index (exports, i);
      if (g_str_has_prefix (export->id, prefix))
        qmp_export_del_hard (vm_get_executor (job->vm), export->id, NULL, failed ? NULL : &failed);
    }
  keep (error, failed);
}

/* QEMU 7.2 freezes for good when it stops its server while somebody negotiates: first nobody new
 * gets in, then nobody is left. */
void
source_stop_server (SourceJob *job, GError **error)
{
  gint64 until = g_get_monotonic_time () + DRAIN_TIMEOUT_MS * 1000;
  GError *failed = NULL;
  ListenerStatus status;

  if (!job->listener)
    return;
  listener_close_door (job->listener, &failed);
  keep (error, g_steal_pointer (&failed));
  while (listener_query (job->listener, &status, NULL) && status.connections > 0
         && g_get_monotonic_time () < until)
    {
      listener_destroy_connections (job->listener, NULL);
      g_usleep (POLL_MS * 1000);
    }
  if (job->server)
    {
      qmp_nbd_server_stop (vm_get_executor (job->vm), NULL, &failed);
      keep (error, failed);
    }
  job->server = FALSE;
  g_clear_pointer (&job->listener, listener_free);
}

static void
remove_bitmaps (SourceJob *job, GError **error)
{
  g_autofree char *prefix = source_id (job, "bm");
  GError *failed = NULL;
  g_autoptr (GPtrArray) devices = qmp_query_block (vm_get_executor (job->vm), NULL, &failed);

  for (guint i = 0; devices && i < devices->len; i++)
    {
      const QmpBlockDevice *device = g_ptr_array_index (devices, i);
      for (guint j = 0; device->bitmaps && j < device->bitmaps->len; j++)
        {
          const QmpBitmap *bitmap = g_ptr_array_index (device->bitmaps, j);
          if (g_str_has_prefix (bitmap->name, prefix))
            qmp_bitmap_remove (vm_get_executor (job->vm), device->node_name, bitmap->name, NULL,
                               failed ? NULL : &failed);
        }
    }
  keep (error, failed);
  /* A snapshot or a pivot has moved our node out of the device's sight: the bitmap is there still.
   */
  for (guint i = 0; i < job->disks->len; i++)
    for (guint back = 0; back < 2 && back <= job->serial; back++)
      {
        g_autofree char *name = source_bitmap_id (job, job->serial - back);
        qmp_bitmap_remove (vm_get_executor (job->vm), source_disk (job, i)->node, name, NULL, NULL);
      }
}

static void
remove_objects (SourceJob *job, GError **error)
{
  static const char *const capabilities[] = { "pause-before-switchover", "events", NULL };
  static const char *const objects[] = { "nbd", "authz", "ram" };
  static const char *const descriptors[] = { "listener", "stream", "fence" };
  QmpExecutor *qmp = vm_get_executor (job->vm);
  GError *failed = NULL;

  /* libvirt puts its own back. */
  if (!source_is_domain (job))
    {
      qmp_migrate_set_capabilities (qmp, capabilities, FALSE, NULL, &failed);
      keep (error, g_steal_pointer (&failed));
      qmp_migrate_set_parameters (
          qmp,
          job->old_parameters ? g_steal_pointer (&job->old_parameters)
                              : json_args ("tls-creds", "s", "", "tls-hostname", "s", "", NULL),
          NULL, &failed);
      keep (error, g_steal_pointer (&failed));
    }
  for (guint i = 0; i < G_N_ELEMENTS (objects); i++)
    {
      g_autofree char *id = source_id (job, objects[i]);
      qmp_object_del (qmp, id, NULL, &failed);
      keep (error, g_steal_pointer (&failed));
    }
  for (guint i = 0; i < G_N_ELEMENTS (descriptors); i++)
    {
      g_autofree char *id = source_id (job, descriptors[i]);
      qmp_closefd (qmp, id, NULL, NULL);
    }
}

static void
undo_in_qemu (SourceJob *job, GError **error)
{
  VmEvents events;

  vm_set_lost_handler (job->vm, NULL, NULL);
  vm_get_events (job->vm, &events);
  if (events.closed)
    return;
  if (source_is_domain (job))
    source_end_move (job);
  source_break_stream (job);
  source_await_libvirt (job);
  rescue_guest (job, error);
  source_restore_domain (job, error);
  remove_exports (job, error);
  source_stop_server (job, error);
  remove_bitmaps (job, error);
  remove_objects (job, error);
  vm_get_events (job->vm, &events);
  /* A QEMU that has died meanwhile holds nothing of ours any more. */
  if (events.closed && error)
    g_clear_error (error);
}

/* TRUE: the destination knows, or ends the job by itself because it has lost us. */
static gboolean
undo_at_peer (SourceJob *job)
{
  Job *base = &job->base;
  SourceAnswer answer = SOURCE_ANSWER_NONE;

  if (!base->journal)
    return TRUE;
  if (job->link)
    answer = source_send_end (job, "abort", ABORT_TIMEOUT_MS, NULL);
  if (answer == SOURCE_ANSWER_DONE || !job->release_asked)
    return TRUE;
  /* Nothing of it is left here after a restart, either. */
  job_record (base, json_args ("record", "s", "undone", NULL), NULL);
  return FALSE;
}

JobEvent
source_undo (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  g_autoptr (GError) failed = NULL;
  gboolean told;

  job_set_message (base, "removing what was made");
  source_stop_guard (job);
  if (job->vm && base->journal)
    undo_in_qemu (job, &failed);
  source_restore_autostart (job);
  source_break_stream (job);
  told = undo_at_peer (job);
  g_clear_pointer (&job->link, peer_link_free);
  g_clear_pointer (&job->listener, listener_free);
  if (job->vm)
    vm_set_lost_handler (job->vm, NULL, NULL);
  g_clear_pointer (&job->vm, vm_free);
  if (failed)
    job_notice (base, TRUE, "not everything could be removed from %s: %s", base->qmp_path,
                failed->message);
  if (!failed && told)
    return JOB_EVENT_DONE;
  if (failed)
    g_propagate_error (error, g_steal_pointer (&failed));
  else
    g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "%s can't be told", base->peer);
  return told ? JOB_EVENT_FAILED : JOB_EVENT_UNTOLD;
}
