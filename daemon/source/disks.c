/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/fence.h"
#include "daemon/source/private.h"

/* "vd0" of "/machine/peripheral/vd0/virtio-backend", or an id as it is. */
static char *
device_id (const char *qdev)
{
  g_auto (GStrv) parts = g_strsplit (qdev, "/", -1);

  if (g_str_has_prefix (qdev, "/machine/") && g_strv_length (parts) >= 4)
    return g_strdup (parts[3]);
  return g_strdup (qdev);
}

/* QEMU makes up node names that begin with '#': they say nothing to anybody. */
static char *
disk_name (const QmpBlockDevice *device)
{
  if (device->node_name && *device->node_name != '\0' && *device->node_name != '#')
    return g_strdup (device->node_name);
  if (device->device && *device->device != '\0')
    return g_strdup (device->device);
  return device_id (device->qdev);
}

/* What libvirt calls it. */
static const DomainXmlDisk *
find_in_domain (SourceJob *job, const QmpBlockDevice *device)
{
  g_autofree char *id = device_id (device->qdev);

  return source_is_domain (job) ? domain_xml_find_alias (job->libvirt.domain, id) : NULL;
}

static SourceWish *
find_wish (SourceJob *job, const QmpBlockDevice *device)
{
  const DomainXmlDisk *known = find_in_domain (job, device);
  g_autofree char *id = device_id (device->qdev);

  for (guint i = 0; i < job->wishes->len; i++)
    {
      SourceWish *wish = g_ptr_array_index (job->wishes, i);
      if (g_strcmp0 (wish->disk, device->node_name) == 0
          || g_strcmp0 (wish->disk, device->device) == 0 || g_str_equal (wish->disk, id)
          || (known && g_str_equal (wish->disk, known->target)))
        return wish;
    }
  return NULL;
}

static gboolean
refuse_disk (const QmpBlockDevice *device, const char *name, const char *why, GError **error)
{
  g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "disk %s (%s) %s", name,
               device->file ? device->file : "no file", why);
  return FALSE;
}

/* What would get lost, or arrive in another form, and is no reason to stop. */
static void
report_disk (SourceJob *job, const QmpBlockDevice *device, const char *name)
{
  if (device->backing_file)
    job_notice (&job->base, FALSE, "disk %s: its backing chain is flattened: the target has no %s",
                name, device->backing_file);
  if (device->n_snapshots > 0)
    job_notice (&job->base, TRUE, "disk %s: %u internal snapshots stay behind", name,
                device->n_snapshots);
  if (device->persistent_bitmaps->len > 0)
    job_notice (&job->base, TRUE, "disk %s: %u persistent bitmaps stay behind (%s, …)", name,
                device->persistent_bitmaps->len,
                (const char *)g_ptr_array_index (device->persistent_bitmaps, 0));
}

static gboolean
add_disk (SourceJob *job, const QmpBlockDevice *device, GError **error)
{
  const DomainXmlDisk *known = find_in_domain (job, device);
  g_autofree char *name = known ? g_strdup (known->target) : disk_name (device);
  gboolean is_file = device->file && g_path_is_absolute (device->file);
  SourceWish *wish = find_wish (job, device);
  SourceDisk *disk;
  JobDisk shown = { 0 };

  if (source_is_domain (job) && !known)
    return refuse_disk (device, name, "is not in the domain's XML: nobody could move it", error);
  if (device->encrypted)
    return refuse_disk (device, name,
                        "is encrypted: its copy would be in clear text, so it is not moved", error);
  if (device->has_data_file)
    return refuse_disk (device, name, "has an external data-file, which can't be moved yet", error);
  if (device->virtual_size < 0 || !device->node_name || !device->driver)
    return refuse_disk (device, name, "has no block node that could be copied", error);
  if (!is_file && (!wish || !wish->path))
    return refuse_disk (device, name,
                        "is not a plain file or device: say where it goes with --disk NAME=/PATH",
                        error);
  report_disk (job, device, name);

  disk = g_new0 (SourceDisk, 1);
  disk->name = g_steal_pointer (&name);
  disk->qdev = g_strdup (device->qdev);
  disk->node = g_strdup (device->node_name);
  disk->file = is_file ? g_strdup (device->file) : NULL;
  disk->path = g_strdup (wish && wish->path ? wish->path : device->file);
  disk->format = g_strdup (wish && wish->format ? wish->format : device->driver);
  disk->prealloc = g_strdup (wish ? wish->prealloc : "off");
  disk->size = device->virtual_size;
  disk->locked = is_file && fence_image_is_locked (vm_get_pid (job->vm), device->file);
  /* -drive and libvirt name the protocol, not the format, of a block device without one. */
  if (g_str_equal (disk->format, "host_device") || g_str_equal (disk->format, "file"))
    {
      g_free (disk->format);
      disk->format = g_strdup ("raw");
    }
  g_ptr_array_add (job->disks, disk);
  if (wish)
    wish->matched = TRUE;

  shown.disk = g_strdup (disk->name);
  shown.source = g_strdup (disk->file);
  shown.target = g_strdup (disk->path);
  shown.format = g_strdup (disk->format);
  shown.size = disk->size;
  g_mutex_lock (&job->base.lock);
  g_array_append_val (job->base.view.disks, shown);
  g_mutex_unlock (&job->base.lock);
  return TRUE;
}

static gboolean
is_to_be_moved (const QmpBlockDevice *device)
{
  return device->qdev && device->inserted && !device->read_only;
}

static gboolean
check_wishes (SourceJob *job, GError **error)
{
  g_autoptr (GString) names = g_string_new (NULL);

  for (guint i = 0; i < job->disks->len; i++)
    g_string_append_printf (names, "%s%s", i > 0 ? ", " : "", source_disk (job, i)->name);
  for (guint i = 0; i < job->wishes->len; i++)
    {
      const SourceWish *wish = g_ptr_array_index (job->wishes, i);
      if (wish->matched)
        continue;
      g_set_error (error, JOB_ERROR, JOB_ERROR_NOT_FOUND,
                   "--disk %s: the guest has no such writable disk; it has: %s", wish->disk,
                   names->len > 0 ? names->str : "none");
      return FALSE;
    }
  return TRUE;
}

/* Where libvirt and QEMU don't mean the same disks, the guest would find at the destination
 * whatever has that name there. */
static gboolean
check_domain_disks (SourceJob *job, GError **error)
{
  for (guint i = 0; source_is_domain (job) && i < job->libvirt.domain->disks->len; i++)
    {
      const DomainXmlDisk *known = job->libvirt.domain->disks->pdata[i];
      gboolean moved = FALSE;

      for (guint k = 0; k < job->disks->len; k++)
        moved = moved || g_str_equal (source_disk (job, k)->name, known->target);
      if (moved)
        continue;
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "disk %s (%s) is writable in the domain's XML and not in QEMU: it would stay "
                   "behind",
                   known->target, known->path);
      return FALSE;
    }
  return TRUE;
}

static guint64
available_memory (void)
{
  g_autofree char *text = NULL;
  const char *line;

  if (!g_file_get_contents ("/proc/meminfo", &text, NULL, NULL)
      || !(line = strstr (text, "MemAvailable:")))
    return G_MAXUINT64;
  return g_ascii_strtoull (line + strlen ("MemAvailable:"), NULL, 10) * 1024;
}

/* A bit for each 4 KiB, because a coarser bitmap multiplies what small writes cost; coarser only
 * where two bitmaps of a disk, as there are during a pass, would take an eighth of the free memory.
 */
static void
choose_granularity (SourceJob *job)
{
  guint64 allowed = available_memory () / 8;
  guint64 total = 0;
  guint32 granularity = 4096;

  for (guint i = 0; i < job->disks->len; i++)
    total += source_disk (job, i)->size;
  while (granularity < 64 * 1024 && total / granularity / 8 * 2 > allowed)
    granularity *= 2;
  for (guint i = 0; i < job->disks->len; i++)
    source_disk (job, i)->granularity = granularity;
}

gboolean
source_find_disks (SourceJob *job, GError **error)
{
  g_autoptr (GPtrArray) devices
      = qmp_query_block (vm_get_executor (job->vm), job_cancellable (&job->base), error);

  if (!devices)
    return FALSE;
  for (guint i = 0; i < devices->len; i++)
    {
      const QmpBlockDevice *device = g_ptr_array_index (devices, i);
      if (!is_to_be_moved (device))
        continue;
      job->n_writable++;
      if (!add_disk (job, device, error))
        return FALSE;
    }
  choose_granularity (job);
  return check_domain_disks (job, error) && check_wishes (job, error);
}

static gboolean
check_disk (SourceJob *job, const SourceDisk *disk, const QmpBlockDevice *device,
            guint64 *ret_dirty, GError **error)
{
  g_autofree char *bitmap_id = source_bitmap_id (job, job->serial);
  const QmpBitmap *bitmap;

  if (!device || !device->inserted)
    g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "disk %s was unplugged during the migration",
                 disk->name);
  else if (g_strcmp0 (device->node_name, disk->node) != 0)
    g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                 "disk %s: the guest writes to node %s now, not to %s any more: a snapshot or "
                 "another block job came between; migrate again when it is done",
                 disk->name, device->node_name, disk->node);
  else if ((guint64)device->virtual_size != disk->size)
    g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                 "disk %s was resized during the migration, from %" G_GUINT64_FORMAT
                 " to %" G_GINT64_FORMAT " bytes: migrate again",
                 disk->name, disk->size, device->virtual_size);
  else if (!(bitmap = qmp_block_find_bitmap (device, bitmap_id)) || !bitmap->recording)
    g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                 "disk %s: our dirty bitmap %s is gone from node %s", disk->name, bitmap_id,
                 disk->node);
  else
    {
      *ret_dirty = bitmap->dirty;
      return TRUE;
    }
  return FALSE;
}

gboolean
source_check_disks (SourceJob *job, guint64 *ret_dirty, GError **error)
{
  g_autoptr (GPtrArray) devices
      = qmp_query_block (vm_get_executor (job->vm), job_cancellable (&job->base), error);
  guint n_writable = 0;

  if (!devices)
    return FALSE;
  for (guint i = 0; i < devices->len; i++)
    n_writable += is_to_be_moved (g_ptr_array_index (devices, i));
  for (guint i = 0; i < job->disks->len; i++)
    {
      const SourceDisk *disk = source_disk (job, i);
      guint64 dirty = 0;

      if (!check_disk (job, disk, qmp_block_find_qdev (devices, disk->qdev), &dirty, error))
        return FALSE;
      if (ret_dirty)
        ret_dirty[i] = dirty;
    }
  if (n_writable == job->n_writable)
    return TRUE;
  g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
               "a disk was plugged in during the migration: there were %u, now there are %u",
               job->n_writable, n_writable);
  return FALSE;
}
