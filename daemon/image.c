/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/image.h"
#include "daemon/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "daemon/beneath.h"
#include "daemon/qemu-img.h"
#include "daemon/qemu-nbd.h"
#include "nbd/image-lock.h"

/* For qemu-nbd to end after its connection has: it has flushed before. */
#define FINISH_MS 30000

struct Image
{
  char *path;
  char *format;
  Beneath place;
  int fd; /* holds no lock: each writer opens the file anew */
  struct stat st;
  guint64 size; /* virtual */
  gboolean created, was_empty;
  gboolean is_zero; /* known to read as zeroes when its first writer was opened */
  NbdTarget *writer;
  QemuNbd *server; /* behind the writer of a format that isn't raw */
};

static gboolean
fail_used (const Image *image, const char *what, GError **error)
{
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_EXISTS, "%s %s: --overwrite to replace it",
               image->path, what);
  return FALSE;
}

static gboolean
is_raw (const Image *image)
{
  return g_str_equal (image->format, "raw");
}

/* The very file behind `fd`, as an open file of its own: locks belong to that, and an O_PATH
 * descriptor becomes one that can be written. */
static int
reopen (int fd, int flags)
{
  g_autofree char *link = g_strdup_printf ("/proc/self/fd/%d", fd);

  return open (link, flags | O_CLOEXEC);
}

static gboolean
check_free_space (const Image *image, guint64 size, GError **error)
{
  struct statvfs fs;
  guint64 available;

  if (fstatvfs (image->fd, &fs) < 0)
    return fail_errno (image->path, "cannot ask for the free space", error);
  available = (guint64)fs.f_bavail * fs.f_frsize;
  if (available >= size)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_NO_SPACE,
               "%s needs %" G_GUINT64_FORMAT " bytes, its file system has %" G_GUINT64_FORMAT
               " left: make room, or leave prealloc off",
               image->path, size, available);
  return FALSE;
}

static gboolean
fill_raw (const Image *image, const ImageSpec *spec, GError **error)
{
  if (ftruncate (image->fd, (off_t)spec->size) < 0)
    return fail_errno (image->path, "cannot set its size", error);
  if (spec->prealloc == IMAGE_PREALLOC_FALLOC && fallocate (image->fd, 0, 0, (off_t)spec->size) < 0)
    return fail_errno (image->path, "cannot preallocate", error);
  return TRUE;
}

/* Puts an empty image into the file, whatever was in it. */
static gboolean
fill (const Image *image, const ImageSpec *spec, GError **error)
{
  gboolean prealloc = spec->prealloc == IMAGE_PREALLOC_FALLOC;

  if (prealloc && !check_free_space (image, spec->size, error))
    return FALSE;
  if (is_raw (image))
    return fill_raw (image, spec, error);
  return qemu_img_create (image->fd, image->path, image->format, spec->size, prealloc, error);
}

/* An image is durable only when its name is. */
static gboolean
sync_new_file (const Image *image, GError **error)
{
  int dir = openat (image->place.parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  gboolean good = dir >= 0 && fsync (image->fd) == 0 && fsync (dir) == 0;

  if (!good)
    fail_errno (image->path, "cannot make it durable", error);
  if (dir >= 0)
    close (dir);
  return good;
}

/* TRUE, with image->fd still -1, where the name is taken already. */
static gboolean
try_create (Image *image, const ImageSpec *spec, GError **error)
{
  image->fd = openat (image->place.parent, image->place.name,
                      O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (image->fd < 0)
    return errno == EEXIST || fail_errno (image->path, "cannot create it", error);
  image->created = TRUE;
  image->is_zero = TRUE;
  if (fstat (image->fd, &image->st) < 0)
    return fail_errno (image->path, "cannot look at it", error);
  return fill (image, spec, error) && sync_new_file (image, error);
}

static gboolean
check_device (const Image *image, const ImageSpec *spec, GError **error)
{
  guint64 size;

  if (!is_raw (image))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                   "%s is a block device: its format must be raw, not %s", image->path,
                   image->format);
      return FALSE;
    }
  if (ioctl (image->fd, BLKGETSIZE64, &size) < 0)
    return fail_errno (image->path, "cannot ask for its size", error);
  if (size != spec->size)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_EXISTS,
                   "%s has %" G_GUINT64_FORMAT " bytes, the disk has %" G_GUINT64_FORMAT
                   ": a block device must have exactly the size of the disk",
                   image->path, size, spec->size);
      return FALSE;
    }
  return spec->overwrite
         || fail_used (image, "is a block device, which can't be proven empty", error);
}

static gboolean
check_raw_empty (Image *image, const ImageSpec *spec, GError **error)
{
  g_autofree char *what = NULL;

  if ((guint64)image->st.st_size == spec->size)
    {
      if (!nbd_target_file_is_zero (image->fd))
        return fail_used (image, "has data", error);
      return TRUE;
    }
  what = g_strdup_printf ("has %" G_GINT64_FORMAT " bytes, the disk has %" G_GUINT64_FORMAT,
                          (gint64)image->st.st_size, spec->size);
  return fail_used (image, what, error);
}

/* Whether somebody else writes to it: asked before anything in it is changed. */
static gboolean
check_unlocked (const Image *image, GError **error)
{
  int fd = reopen (image->fd, O_RDWR);
  gboolean good;

  if (fd < 0)
    return fail_errno (image->path, "cannot open it for writing", error);
  good = image_lock_writer (fd, image->path, error);
  close (fd);
  return good;
}

static gboolean
take_over_file (Image *image, const ImageSpec *spec, GError **error)
{
  gboolean raw = is_raw (image);

  if (!check_unlocked (image, error))
    return FALSE;
  if (!spec->overwrite)
    {
      image->was_empty
          = raw ? check_raw_empty (image, spec, error)
                : qemu_img_check_empty (image->fd, image->path, image->format, spec->size, error);
      image->is_zero = image->was_empty;
      return image->was_empty;
    }
  image->is_zero = !raw;
  if (raw && (guint64)image->st.st_size == spec->size)
    return TRUE;
  return fill (image, spec, error);
}

/* Looked at before it is opened for good: opening some devices does something. */
static gboolean
take_over (Image *image, const ImageSpec *spec, GError **error)
{
  int found = beneath_open_path (&image->place);
  gboolean device;

  if (found < 0 || fstat (found, &image->st) < 0)
    {
      fail_errno (image->path, "cannot open it", error);
      if (found >= 0)
        close (found);
      return FALSE;
    }
  device = S_ISBLK (image->st.st_mode);
  if (!device && (!S_ISREG (image->st.st_mode) || image->place.parent < 0))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_REGULAR_FILE, "%s is %s", image->path,
                   S_ISLNK (image->st.st_mode)   ? "a symbolic link, and none is followed"
                   : image->place.parent < 0     ? "listed in target-dirs, but is no block device"
                   : S_ISDIR (image->st.st_mode) ? "a directory"
                                                 : "neither a file nor a block device");
      close (found);
      return FALSE;
    }
  /* O_EXCL: not a device that is mounted, or part of another one. */
  image->fd = reopen (found, device ? O_RDWR | O_EXCL : O_RDWR);
  if (image->fd < 0)
    fail_errno (image->path, "cannot open it for writing", error);
  close (found);
  if (image->fd < 0)
    return FALSE;
  return device ? check_device (image, spec, error) && check_unlocked (image, error)
                : take_over_file (image, spec, error);
}

static gboolean
check_spec (const ImageSpec *spec, GError **error)
{
  if (!g_str_equal (spec->format, "raw") && !qemu_img_knows_format (spec->format))
    {
      g_autofree char *shown = g_strescape (spec->format, NULL);

      g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                   "%s: a target can't have the format \"%s\"", spec->path, shown);
      return FALSE;
    }
  if (spec->size == 0 || spec->size > G_MAXINT64)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                   "%s: a target can't have %" G_GUINT64_FORMAT " bytes", spec->path, spec->size);
      return FALSE;
    }
  return TRUE;
}

Image *
image_open (const ConfigPeer *peer, const ImageSpec *spec, GError **error)
{
  g_autoptr (Image) image = g_new0 (Image, 1);
  gboolean good;

  image->fd = -1;
  if (!check_spec (spec, error)
      || !beneath_find ((const char *const *)peer->target_dirs, spec->path, "target-dirs",
                        peer->name, &image->place, error))
    return NULL;
  image->path = g_strdup (spec->path);
  image->format = g_strdup (spec->format);
  image->size = spec->size;
  good = image->place.parent < 0 || try_create (image, spec, error);
  if (good && image->fd < 0)
    good = take_over (image, spec, error);
  if (!good)
    {
      image_discard (image, NULL);
      return NULL;
    }
  return g_steal_pointer (&image);
}

const char *
image_get_path (const Image *image)
{
  return image->path;
}

const char *
image_get_format (const Image *image)
{
  return image->format;
}

void
image_get_identity (const Image *image, guint64 *ret_device, guint64 *ret_inode)
{
  *ret_device = image->st.st_dev;
  *ret_inode = image->st.st_ino;
}

void
image_get_trace (const Image *image, ImageTrace *ret_trace)
{
  *ret_trace = (ImageTrace){
    .path = image->path,
    .format = image->format,
    .size = image->size,
    .created = image->created,
    .was_empty = image->was_empty,
    .device = image->st.st_dev,
    .inode = image->st.st_ino,
  };
}

static gboolean
open_raw_writer (Image *image, GError **error)
{
  int fd = reopen (image->fd, O_RDWR);

  if (fd < 0)
    return fail_errno (image->path, "cannot open it for writing", error);
  image->writer = nbd_target_new_raw (fd, image->path, error);
  return image->writer != NULL;
}

NbdTarget *
image_open_writer (Image *image, const char *runtime_dir, gint64 timeout_ms,
                   GCancellable *cancellable, GError **error)
{
  g_return_val_if_fail (image->writer == NULL, NULL);
  if (is_raw (image))
    return open_raw_writer (image, error) ? image->writer : NULL;
  image->server = qemu_nbd_start (image->fd, image->path, image->format, runtime_dir,
                                  image->is_zero, timeout_ms, cancellable, &image->writer, error);
  /* From now on only the writer knows. */
  image->is_zero = FALSE;
  return image->server != NULL ? image->writer : NULL;
}

gboolean
image_close_writer (Image *image, GError **error)
{
  g_autoptr (GError) flush_error = NULL;
  g_autoptr (GError) server_error = NULL;

  if (image->writer == NULL)
    return TRUE;
  image->writer->klass->flush (image->writer, &flush_error);
  g_clear_pointer (&image->writer, nbd_target_free);
  if (image->server != NULL)
    qemu_nbd_finish (image->server, FINISH_MS, &server_error);
  g_clear_pointer (&image->server, qemu_nbd_free);
  if (flush_error != NULL && server_error != NULL)
    g_prefix_error (&flush_error, "%s; ", server_error->message);
  if (flush_error == NULL)
    flush_error = g_steal_pointer (&server_error);
  if (flush_error == NULL)
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&flush_error));
  return FALSE;
}

/* Without a flush: what it wrote is of no more use. */
static void
drop_writer (Image *image)
{
  g_clear_pointer (&image->writer, nbd_target_free);
  g_clear_pointer (&image->server, qemu_nbd_free);
}

gboolean
image_discard (Image *image, GError **error)
{
  ImageTrace trace;

  drop_writer (image);
  image_get_trace (image, &trace);
  if (!image_trace_undo_at (&trace, image->place.parent, image->place.name, error))
    return FALSE;
  image->created = image->was_empty = FALSE;
  return TRUE;
}

void
image_free (Image *image)
{
  if (image == NULL)
    return;
  drop_writer (image);
  if (image->fd >= 0)
    close (image->fd);
  beneath_clear (&image->place);
  g_free (image->path);
  g_free (image->format);
  g_free (image);
}
