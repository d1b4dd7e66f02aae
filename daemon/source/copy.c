/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/source/private.h"

/* A pass that moved less tells nothing about the rate. */
#define TELLING_BYTES (4 * 1024 * 1024)
/* Connecting and asking for extents, before the first byte. */
#define PASS_OVERHEAD_S 0.02
#define CONVERGED_BYTES (512 * 1024)
#define SEED_SERIAL 0
#define DEATH_MS 200

typedef struct
{
  guint index; /* of the disk */
  char *id;    /* of the export */
} Export;

static void
export_free (Export *export)
{
  g_free (export->id);
  g_free (export);
}

static gboolean
add_exports (SourceJob *job, const char *bitmap, const guint64 *dirty, guint serial,
             GPtrArray *exports, GError **error)
{
  const char *bitmaps[] = { bitmap, NULL };

  for (guint i = 0; i < job->disks->len; i++)
    {
      Export *export;

      if (dirty && dirty[i] == 0)
        continue;
      export = g_new0 (Export, 1);
      export->index = i;
      export->id = source_export_id (job, i, serial);
      g_ptr_array_add (exports, export);
      if (!qmp_export_add (vm_get_executor (job->vm), export->id, source_disk (job, i)->node,
                           export->id, bitmap ? bitmaps : NULL, job_cancellable (&job->base),
                           error))
        return FALSE;
    }
  return TRUE;
}

static gboolean
del_exports (SourceJob *job, GPtrArray *exports, GError **error)
{
  for (guint i = 0; i < exports->len; i++)
    {
      const Export *export = g_ptr_array_index (exports, i);
      if (!qmp_export_del_hard (vm_get_executor (job->vm), export->id, job_cancellable (&job->base),
                                error))
        return FALSE;
    }
  return TRUE;
}

static guint64
take_answer (SourceJob *job, JsonNode *answer)
{
  JsonArray *disks;
  guint64 bytes = 0;

  if (!JSON_NODE_HOLDS_OBJECT (answer)
      || !json_get_array (json_node_get_object (answer), "disks", &disks))
    return 0;
  source_show_disks (job, disks);
  for (guint i = 0; i < json_array_get_length (disks); i++)
    {
      JsonObject *disk = json_array_get_object_or_null (disks, i);
      gint64 n = 0;
      if (disk && json_get_int (disk, "bytes", &n) && n > 0)
        bytes += n;
    }
  return bytes;
}

/* The destination sees only that a connection broke; that QEMU has died is seen here, but maybe a
 * moment later.  FALSE. */
static gboolean
name_cause (SourceJob *job, GError **error)
{
  gint64 until = g_get_monotonic_time () + DEATH_MS * 1000;
  VmEvents events;

  vm_get_events (job->vm, &events);
  while (!events.closed && g_get_monotonic_time () < until
         && !g_cancellable_is_cancelled (job_cancellable (&job->base)))
    vm_wait_event (job->vm, &events, DEATH_MS, job_cancellable (&job->base), &events);
  if (events.closed && error)
    {
      g_clear_error (error);
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "the QEMU of %s is gone (%s)",
                   job->base.guest, job->base.qmp_path);
    }
  return FALSE;
}

/* The destination copies; it answers when all of it is durable there.  No deadline: it watches for
 * progress itself, and the link's pings watch it. */
static gboolean
copy_exports (SourceJob *job, const char *bitmap, GPtrArray *exports, gboolean last,
              guint64 *ret_bytes, GError **error)
{
  JsonArray *disks = json_array_new ();
  g_autoptr (JsonNode) answer = NULL;
  Deadline deadline = DEADLINE_NEVER;

  for (guint i = 0; i < exports->len; i++)
    {
      const Export *export = g_ptr_array_index (exports, i);
      json_array_add_object_element (
          disks, json_args ("disk", "s", source_disk (job, export->index)->name, "export", "s",
                            export->id, "bitmap", "s", bitmap, NULL));
    }
  deadline.cancellable = job_cancellable (&job->base);
  if (!peer_link_call (job->link, "copy",
                       json_args ("job", "s", job->base.uuid, "port", "i",
                                  (gint64)listener_get_port (job->listener), "last", "b", last,
                                  "disks", "a", disks, NULL),
                       deadline, &answer, error))
    return name_cause (job, error);
  *ret_bytes = take_answer (job, answer);
  return TRUE;
}

static void
note_rate (SourceJob *job, guint64 bytes, gint64 took_us)
{
  if (bytes >= TELLING_BYTES && took_us > 0)
    job->copy_rate = bytes * (double)G_USEC_PER_SEC / took_us;
}

static gboolean
copy_pass (SourceJob *job, const char *bitmap, const guint64 *dirty, guint serial, gboolean last,
           guint64 *ret_bytes, GError **error)
{
  g_autoptr (GPtrArray) exports = g_ptr_array_new_with_free_func ((GDestroyNotify)export_free);
  gint64 began = g_get_monotonic_time ();

  *ret_bytes = 0;
  if (!add_exports (job, bitmap, dirty, serial, exports, error))
    return FALSE;
  if (exports->len > 0 && !copy_exports (job, bitmap, exports, last, ret_bytes, error))
    return FALSE;
  note_rate (job, *ret_bytes, g_get_monotonic_time () - began);
  return del_exports (job, exports, error);
}

static gboolean
turn_bitmaps (SourceJob *job, const char *old_name, gboolean last, GError **error)
{
  QmpExecutor *qmp = vm_get_executor (job->vm);
  GCancellable *cancellable = job_cancellable (&job->base);
  g_autofree char *new_name = source_bitmap_id (job, job->serial + 1);
  g_autofree QmpBitmapRef *old = g_new0 (QmpBitmapRef, job->disks->len);
  g_autofree QmpBitmapRef *new = g_new0 (QmpBitmapRef, job->disks->len);

  for (guint i = 0; i < job->disks->len; i++)
    {
      const SourceDisk *disk = source_disk (job, i);
      old[i] = (QmpBitmapRef){ disk->node, old_name, disk->granularity };
      new[i] = (QmpBitmapRef){ disk->node, new_name, disk->granularity };
    }
  if (last)
    return qmp_bitmaps_disable (qmp, old, job->disks->len, cancellable, error);
  if (!qmp_bitmaps_rotate (qmp, new, old, job->disks->len, cancellable, error))
    return FALSE;
  job->serial++;
  return TRUE;
}

static gboolean
remove_bitmaps (SourceJob *job, const char *name, GError **error)
{
  for (guint i = 0; i < job->disks->len; i++)
    if (!qmp_bitmap_remove (vm_get_executor (job->vm), source_disk (job, i)->node, name,
                            job_cancellable (&job->base), error))
      return FALSE;
  return TRUE;
}

/* The bitmap doesn't record any more, so what it tells is final: a disk without a mark is left out.
 */
static gboolean
dirty_of (SourceJob *job, const char *bitmap, guint64 *ret_dirty, GError **error)
{
  g_autoptr (GPtrArray) devices
      = qmp_query_block (vm_get_executor (job->vm), job_cancellable (&job->base), error);

  if (!devices)
    return FALSE;
  for (guint i = 0; i < job->disks->len; i++)
    {
      const QmpBlockDevice *device = qmp_block_find_qdev (devices, source_disk (job, i)->qdev);
      const QmpBitmap *found = device ? qmp_block_find_bitmap (device, bitmap) : NULL;

      /* Unknown counts as dirty: the export or the next check finds out what is wrong. */
      ret_dirty[i] = found ? (guint64)found->dirty : G_MAXUINT64;
    }
  return TRUE;
}

gboolean
source_run_pass (SourceJob *job, gboolean last, guint64 *ret_bytes, GError **error)
{
  guint serial = job->serial;
  g_autofree char *name = source_bitmap_id (job, serial);
  g_autofree guint64 *dirty = g_new0 (guint64, job->disks->len);

  *ret_bytes = 0;
  if (job->disks->len == 0)
    return TRUE;
  if (!source_check_disks (job, NULL, error) || !turn_bitmaps (job, name, last, error)
      || !dirty_of (job, name, dirty, error)
      || !copy_pass (job, name, dirty, serial + 1, last, ret_bytes, error))
    return FALSE;
  if (last)
    job->bitmaps = FALSE;
  g_mutex_lock (&job->base.lock);
  job->base.view.passes++;
  for (guint i = 0; i < job->base.view.disks->len; i++)
    g_array_index (job->base.view.disks, JobDisk, i).pass = job->base.view.passes;
  g_mutex_unlock (&job->base.lock);
  return remove_bitmaps (job, name, error);
}

JobEvent
source_seed (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  guint64 bytes;

  job_set_message (base, "seeding");
  if (!copy_pass (job, NULL, NULL, SEED_SERIAL, FALSE, &bytes, error))
    return JOB_EVENT_FAILED;
  return JOB_EVENT_DONE;
}

/* How long the next pass would take, in seconds. */
static double
predict (const SourceJob *job, guint64 dirty)
{
  return PASS_OVERHEAD_S + (job->copy_rate > 0 ? dirty / job->copy_rate : 0);
}

static gboolean
look_at_dirt (SourceJob *job, guint64 *ret_total, GError **error)
{
  g_autofree guint64 *dirty = g_new0 (guint64, job->disks->len);
  guint64 total = 0;

  if (!source_check_disks (job, dirty, error))
    return FALSE;
  for (guint i = 0; i < job->disks->len; i++)
    total += dirty[i];
  *ret_total = total;
  return TRUE;
}

/* Converged: the last pass, made now, would take less than a fourth of the allowed downtime. */
JobEvent
source_converge (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  gboolean warned = FALSE;

  job_set_message (base, "converging");
  for (guint pass = 1; job->disks->len > 0; pass++)
    {
      gint64 began = g_get_monotonic_time ();
      guint64 bytes, dirty;
      double took_s;

      if (!source_run_pass (job, FALSE, &bytes, error) || !look_at_dirt (job, &dirty, error))
        return JOB_EVENT_FAILED;
      took_s = (g_get_monotonic_time () - began) / 1e6;
      if (dirty <= CONVERGED_BYTES || predict (job, dirty) * 1000 <= job->max_downtime_ms / 4.0)
        break;
      if (pass >= 4 && dirty >= bytes && !warned)
        {
          job_notice (base, TRUE,
                      "this doesn't converge: the guest writes %.1f MB/s, the copy does %.1f MB/s; "
                      "passes go on until it writes less, or until it is cancelled",
                      dirty / took_s / 1e6, job->copy_rate / 1e6);
          warned = TRUE;
        }
    }
  return JOB_EVENT_DONE;
}
