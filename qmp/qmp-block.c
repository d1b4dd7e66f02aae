/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/qmp-block.h"

#include <string.h>

#include "qmp/qmp-reply.h"

static void
bitmap_free (gpointer data)
{
  QmpBitmap *bitmap = data;

  g_free (bitmap->name);
  g_free (bitmap);
}

void
qmp_block_device_free (QmpBlockDevice *device)
{
  if (device == NULL)
    return;
  g_free (device->qdev);
  g_free (device->device);
  g_free (device->node_name);
  g_free (device->driver);
  g_free (device->file);
  g_free (device->backing_file);
  g_ptr_array_unref (device->persistent_bitmaps);
  g_ptr_array_unref (device->bitmaps);
  g_free (device);
}

static void
add_persistent (QmpBlockDevice *device, const char *name)
{
  if (!g_ptr_array_find_with_equal_func (device->persistent_bitmaps, name, g_str_equal, NULL))
    g_ptr_array_add (device->persistent_bitmaps, g_strdup (name));
}

/* BlockDirtyInfo; one without a name belongs to a job and is of no interest. */
static gboolean
parse_bitmap (QmpReply reply, QmpBlockDevice *device, JsonObject *object, GError **error)
{
  QmpBitmap parsed = { 0 };
  const char *name;

  if (!json_get_string (object, "name", &name))
    return TRUE;
  if (!qmp_reply_count (reply, object, "count", &parsed.dirty, error)
      || !qmp_reply_count (reply, object, "granularity", &parsed.granularity, error)
      || !qmp_reply_bool (reply, object, "recording", &parsed.recording, error)
      || !qmp_reply_bool (reply, object, "busy", &parsed.busy, error)
      || !qmp_reply_bool (reply, object, "persistent", &parsed.persistent, error))
    return FALSE;
  parsed.name = g_strdup (name);
  g_ptr_array_add (device->bitmaps, g_memdup2 (&parsed, sizeof parsed));
  if (parsed.persistent)
    add_persistent (device, name);
  return TRUE;
}

static gboolean
parse_bitmaps (QmpReply reply, QmpBlockDevice *device, JsonObject *inserted, GError **error)
{
  JsonArray *list;

  if (!json_get_array (inserted, "dirty-bitmaps", &list))
    return TRUE;
  for (guint i = 0; i < json_array_get_length (list); i++)
    {
      JsonObject *object = json_array_get_object_or_null (list, i);

      if (object == NULL)
        {
          qmp_set_unexpected (reply.executor, reply.command, "dirty-bitmaps is no list of objects",
                              error);
          return FALSE;
        }
      if (!parse_bitmap (reply, device, object, error))
        return FALSE;
    }
  return TRUE;
}

/* ImageInfoSpecific, of which only qcow2's matters. */
static void
parse_format_specific (QmpBlockDevice *device, JsonObject *image)
{
  JsonObject *specific, *data;
  JsonArray *bitmaps;

  if (!json_get_object (image, "format-specific", &specific)
      || !json_get_object (specific, "data", &data))
    return;
  device->has_data_file = json_object_has_member (data, "data-file");
  device->encrypted |= json_object_has_member (data, "encrypt");
  if (!json_get_array (data, "bitmaps", &bitmaps))
    return;
  for (guint i = 0; i < json_array_get_length (bitmaps); i++)
    {
      const char *name = json_dig_string (json_array_get_object_or_null (bitmaps, i), "name", NULL);

      if (name != NULL)
        add_persistent (device, name);
    }
}

/* ImageInfo */
static gboolean
parse_image (QmpReply reply, QmpBlockDevice *device, JsonObject *image, GError **error)
{
  JsonArray *snapshots;
  gboolean encrypted;

  if (!qmp_reply_count (reply, image, "virtual-size", &device->virtual_size, error))
    return FALSE;
  if (json_get_array (image, "snapshots", &snapshots))
    device->n_snapshots = json_array_get_length (snapshots);
  if (json_get_bool (image, "encrypted", &encrypted))
    device->encrypted |= encrypted;
  parse_format_specific (device, image);
  return TRUE;
}

/* BlockDeviceInfo */
static gboolean
parse_inserted (QmpReply reply, QmpBlockDevice *device, JsonObject *inserted, GError **error)
{
  const char *driver, *file;
  JsonObject *image;

  if (!qmp_reply_string (reply, inserted, "drv", &driver, error)
      || !qmp_reply_string (reply, inserted, "file", &file, error)
      || !qmp_reply_bool (reply, inserted, "ro", &device->read_only, error)
      || !qmp_reply_bool (reply, inserted, "encrypted", &device->encrypted, error)
      || !qmp_reply_object (reply, inserted, "image", &image, error))
    return FALSE;
  device->inserted = TRUE;
  device->driver = g_strdup (driver);
  device->file = g_strdup (file);
  device->node_name = g_strdup (json_dig_string (inserted, "node-name", NULL));
  device->backing_file = g_strdup (json_dig_string (inserted, "backing_file", NULL));
  device->encrypted |= strcmp (driver, "luks") == 0;
  return parse_image (reply, device, image, error)
         && parse_bitmaps (reply, device, inserted, error);
}

/* BlockInfo */
static gpointer
parse_device (QmpReply reply, JsonObject *object, GError **error)
{
  g_autoptr (QmpBlockDevice) device = g_new0 (QmpBlockDevice, 1);
  JsonObject *inserted;
  const char *name;

  device->persistent_bitmaps = g_ptr_array_new_with_free_func (g_free);
  device->bitmaps = g_ptr_array_new_with_free_func (bitmap_free);
  if (!qmp_reply_string (reply, object, "device", &name, error)
      || !qmp_reply_bool (reply, object, "removable", &device->removable, error))
    return NULL;
  device->device = g_strdup (name);
  device->qdev = g_strdup (json_dig_string (object, "qdev", NULL));
  if (json_get_object (object, "inserted", &inserted)
      && !parse_inserted (reply, device, inserted, error))
    return NULL;
  return g_steal_pointer (&device);
}

GPtrArray *
qmp_query_block (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  return qmp_call_list (executor, "query-block", parse_device,
                        (GDestroyNotify)qmp_block_device_free, cancellable, error);
}

QmpBlockDevice *
qmp_block_find_qdev (GPtrArray *devices, const char *qdev)
{
  for (guint i = 0; i < devices->len; i++)
    {
      QmpBlockDevice *device = g_ptr_array_index (devices, i);

      if (g_strcmp0 (device->qdev, qdev) == 0)
        return device;
    }
  return NULL;
}

QmpBlockDevice *
qmp_block_find_node (GPtrArray *devices, const char *node_name)
{
  for (guint i = 0; i < devices->len; i++)
    {
      QmpBlockDevice *device = g_ptr_array_index (devices, i);

      if (g_strcmp0 (device->node_name, node_name) == 0)
        return device;
    }
  return NULL;
}

QmpBitmap *
qmp_block_find_bitmap (const QmpBlockDevice *device, const char *name)
{
  for (guint i = 0; i < device->bitmaps->len; i++)
    {
      QmpBitmap *bitmap = g_ptr_array_index (device->bitmaps, i);

      if (strcmp (bitmap->name, name) == 0)
        return bitmap;
    }
  return NULL;
}

/* BlockJobInfo */
static gpointer
parse_block_job (QmpReply reply, JsonObject *object, GError **error)
{
  const char *id;

  return qmp_reply_string (reply, object, "device", &id, error) ? g_strdup (id) : NULL;
}

GPtrArray *
qmp_query_block_jobs (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  return qmp_call_list (executor, "query-block-jobs", parse_block_job, g_free, cancellable, error);
}

void
qmp_block_stats_free (QmpBlockStats *stats)
{
  if (stats == NULL)
    return;
  g_free (stats->qdev);
  g_free (stats->device);
  g_free (stats->node_name);
  g_free (stats);
}

/* BlockStats and BlockDeviceStats */
static gpointer
parse_stats (QmpReply reply, JsonObject *object, GError **error)
{
  g_autoptr (QmpBlockStats) parsed = g_new0 (QmpBlockStats, 1);
  JsonObject *stats;

  if (!qmp_reply_object (reply, object, "stats", &stats, error)
      || !qmp_reply_count (reply, stats, "rd_operations", &parsed->rd_operations, error)
      || !qmp_reply_count (reply, stats, "rd_bytes", &parsed->rd_bytes, error)
      || !qmp_reply_count (reply, stats, "rd_total_time_ns", &parsed->rd_total_time_ns, error)
      || !qmp_reply_count (reply, stats, "wr_operations", &parsed->wr_operations, error)
      || !qmp_reply_count (reply, stats, "wr_bytes", &parsed->wr_bytes, error)
      || !qmp_reply_count (reply, stats, "wr_total_time_ns", &parsed->wr_total_time_ns, error)
      || !qmp_reply_count (reply, stats, "flush_operations", &parsed->flush_operations, error)
      || !qmp_reply_count (reply, stats, "flush_total_time_ns", &parsed->flush_total_time_ns,
                           error))
    return NULL;
  parsed->qdev = g_strdup (json_dig_string (object, "qdev", NULL));
  parsed->device = g_strdup (json_dig_string (object, "device", NULL));
  parsed->node_name = g_strdup (json_dig_string (object, "node-name", NULL));
  return g_steal_pointer (&parsed);
}

GPtrArray *
qmp_query_blockstats (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  return qmp_call_list (executor, "query-blockstats", parse_stats,
                        (GDestroyNotify)qmp_block_stats_free, cancellable, error);
}
