/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/destination/private.h"

#define QUIT_TIMEOUT_MS 10000

/* A QEMU that was told to listen can't be told to stop listening, and one that holds half a guest
 * is of no use: it is quit.  Never a QEMU whose guest runs. */
static void
retire_vm (DestinationJob *job)
{
  QmpExecutor *qmp;
  gboolean running = TRUE;

  if (!job->vm)
    return;
  if (!job->listening)
    {
      destination_clean_vm (job);
      return;
    }
  qmp = vm_get_executor (job->vm);
  if (qmp_query_status (qmp, NULL, NULL, &running, NULL) && !running)
    {
      qmp_quit (qmp, NULL, NULL);
      if (!vm_wait_exit (job->vm, QUIT_TIMEOUT_MS))
        job_notice (&job->base, TRUE, "the QEMU at %s was told to quit and is still there",
                    job->base.qmp_path);
    }
  g_clear_pointer (&job->vm, vm_free);
}

static gboolean
discard_images (DestinationJob *job, GError **error)
{
  gboolean ok = TRUE;

  for (guint i = 0; i < job->disks->len; i++)
    {
      DestinationDisk *disk = destination_disk (job, i);
      if (disk->image && !image_discard (disk->image, ok ? error : NULL))
        ok = FALSE;
      g_clear_pointer (&disk->image, image_free);
    }
  return ok;
}

static gboolean
parse_trace (JsonObject *record, ImageTrace *ret_trace)
{
  const char *name = "";
  gint64 size = 0, device = 0, inode = 0;

  json_get_string (record, "record", &name);
  if (!g_str_equal (name, "image") || !json_get_string (record, "path", &ret_trace->path)
      || !json_get_string (record, "format", &ret_trace->format)
      || !json_get_int (record, "size", &size) || !json_get_int (record, "device", &device)
      || !json_get_int (record, "inode", &inode))
    return FALSE;
  json_get_bool (record, "created", &ret_trace->created);
  json_get_bool (record, "was-empty", &ret_trace->was_empty);
  ret_trace->size = size;
  ret_trace->device = device;
  ret_trace->inode = inode;
  return TRUE;
}

/* After a restart the images are known by their journal records only. */
static gboolean
discard_recorded_images (DestinationJob *job, GError **error)
{
  GPtrArray *records = job->base.records;
  gboolean ok = TRUE;

  for (guint i = 0; records && i < records->len; i++)
    {
      ImageTrace trace = { 0 };
      if (parse_trace (g_ptr_array_index (records, i), &trace)
          && !image_trace_undo (&trace, ok ? error : NULL))
        ok = FALSE;
    }
  return ok;
}

/* A start of which nobody knows how it ended may have ended well: then it is too late. */
static JobEvent
look_for_guest (DestinationJob *job, GError **error)
{
  VmEvents events = { .closed = TRUE };
  gboolean running;

  if (job->may_have_run && job->vm)
    vm_get_events (job->vm, &events);
  if (events.closed)
    return JOB_EVENT_NEVER;
  if (!qmp_query_status (vm_get_executor (job->vm), NULL, NULL, &running, error))
    return JOB_EVENT_UNKNOWN;
  if (!running)
    return JOB_EVENT_NEVER;
  job_set_owner (&job->base, JOB_OWNED_BY_DESTINATION);
  g_set_error (error, JOB_ERROR, JOB_ERROR_TOO_LATE, "too late: the guest runs in the QEMU at %s",
               job->base.qmp_path);
  return JOB_EVENT_OWNED;
}

JobEvent
destination_undo (Job *base, GError **error)
{
  DestinationJob *job = (DestinationJob *)base;
  JobEvent guest = destination_is_domain (job) ? destination_undo_domain (job, error)
                                               : look_for_guest (job, error);
  gboolean ok;

  if (guest != JOB_EVENT_NEVER)
    return guest;
  job_set_message (base, "removing what was made");
  if (job->released && !job_record (base, json_args ("record", "s", "never", NULL), error))
    return JOB_EVENT_FAILED;
  retire_vm (job);
  destination_close_writers (job, NULL);
  ok = discard_images (job, error);
  if (!discard_recorded_images (job, ok ? error : NULL))
    ok = FALSE;
  job_set_owner (base, JOB_OWNED_BY_SOURCE);
  if (!ok && error && *error)
    job_notice (base, TRUE, "not everything could be removed: %s", (*error)->message);
  return ok ? JOB_EVENT_DONE : JOB_EVENT_FAILED;
}
