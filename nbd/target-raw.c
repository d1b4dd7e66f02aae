/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/image-lock.h"
#include "nbd/target.h"
#include "nbd/write-behind.h"
#include "nbd/zero-scan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define ZERO_BUFFER (256u * 1024)
/* The kernel reads ahead into folios of up to some MiB. */
#define FOLIO (16u * 1024 * 1024)

typedef struct
{
  NbdTarget target;
  int fd;
  gboolean is_device;
  gboolean can_zero;  /* atomic, as the next one */
  gboolean is_cached; /* what was written may still be in the page cache */
  WriteBehind *behind;
  guint8 *zeroes;
} RawTarget;

static gboolean
raw_fail (RawTarget *raw, int number, const char *what, guint64 offset, guint64 len, GError **error)
{
  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (number),
               "%s: cannot %s %" G_GUINT64_FORMAT " bytes at offset %" G_GUINT64_FORMAT ": %s",
               raw->target.name, what, len, offset, g_strerror (number));
  return FALSE;
}

static gboolean
raw_check_range (RawTarget *raw, guint64 offset, guint64 len, GError **error)
{
  if (offset <= raw->target.size && len <= raw->target.size - offset)
    return TRUE;
  return raw_fail (raw, EFBIG, "write", offset, len, error);
}

static gboolean
raw_pwrite (RawTarget *raw, const guint8 *buf, gsize len, guint64 offset, GError **error)
{
  gsize done = 0;

  while (done < len)
    {
      ssize_t n = pwrite (raw->fd, buf + done, len - done, (off_t)(offset + done));

      if (n > 0)
        done += (gsize)n;
      else if (n == 0)
        return raw_fail (raw, ENOSPC, "write", offset + done, len - done, error);
      else if (errno != EINTR)
        return raw_fail (raw, errno, "write", offset + done, len - done, error);
    }
  return write_behind_add (raw->behind, offset, len, error);
}

static gboolean
raw_write (NbdTarget *target, const void *buf, gsize len, guint64 offset, GError **error)
{
  RawTarget *raw = (RawTarget *)target;

  if (!raw_check_range (raw, offset, len, error))
    return FALSE;
  if (g_atomic_int_get (&target->is_zero))
    g_atomic_int_set (&target->is_zero, FALSE);
  if (!g_atomic_int_get (&raw->is_cached))
    g_atomic_int_set (&raw->is_cached, TRUE);
  return raw_pwrite (raw, buf, len, offset, error);
}

static gboolean
raw_write_zeroes (RawTarget *raw, guint64 offset, guint64 len, GError **error)
{
  while (len > 0)
    {
      gsize n = (gsize)MIN (len, ZERO_BUFFER);

      if (!raw_pwrite (raw, raw->zeroes, n, offset, error))
        return FALSE;
      offset += n;
      len -= n;
    }
  return TRUE;
}

static int
raw_try_zero (RawTarget *raw, guint64 offset, guint64 len)
{
  guint64 range[2] = { offset, len };
  int result;

  do
    {
      if (raw->is_device)
        result = ioctl (raw->fd, BLKZEROOUT, range);
      else
        result = fallocate (raw->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                            (off_t)len);
    }
  while (result < 0 && errno == EINTR);
  return result;
}

static gboolean
raw_zero (NbdTarget *target, guint64 offset, guint64 len, GError **error)
{
  RawTarget *raw = (RawTarget *)target;

  if (!raw_check_range (raw, offset, len, error))
    return FALSE;
  if (g_atomic_int_get (&target->is_zero) || len == 0)
    return TRUE;
  if (g_atomic_int_get (&raw->can_zero))
    {
      if (raw_try_zero (raw, offset, len) == 0)
        return TRUE;
      if (errno == ENOSPC || errno == EIO)
        return raw_fail (raw, errno, "zero", offset, len, error);
      /* Devices refuse ranges that are not whole sectors: that says nothing about the next one. */
      if (errno != EINVAL)
        g_atomic_int_set (&raw->can_zero, FALSE);
    }
  return raw_write_zeroes (raw, offset, len, error);
}

/* Only folios that are whole in the range are dropped: so that begins where any of them may begin.
 */
static void
raw_drop_read (RawTarget *raw, guint64 offset, guint64 len)
{
  guint64 start = offset - offset % FOLIO;

  posix_fadvise (raw->fd, (off_t)start, (off_t)(offset + len - start), POSIX_FADV_DONTNEED);
}

/* From the storage: the first read after writes finds an empty page cache, and leaves one. */
static gboolean
raw_read (NbdTarget *target, void *buf, gsize len, guint64 offset, GError **error)
{
  RawTarget *raw = (RawTarget *)target;
  gsize done = 0;

  if (offset > target->size || len > target->size - offset)
    return raw_fail (raw, EFBIG, "read", offset, len, error);
  if (g_atomic_int_compare_and_exchange (&raw->is_cached, TRUE, FALSE))
    posix_fadvise (raw->fd, 0, 0, POSIX_FADV_DONTNEED);
  while (done < len)
    {
      ssize_t n = pread (raw->fd, (guint8 *)buf + done, len - done, (off_t)(offset + done));

      if (n > 0)
        done += (gsize)n;
      else if (n == 0)
        return raw_fail (raw, ENODATA, "read", offset + done, len - done, error);
      else if (errno != EINTR)
        return raw_fail (raw, errno, "read", offset + done, len - done, error);
    }
  raw_drop_read (raw, offset, len);
  return TRUE;
}

/* Where nothing tells holes (block devices), all is data. */
static gboolean
raw_find_data (NbdTarget *target, guint64 offset, guint64 *ret_start, guint64 *ret_end,
               GError **error)
{
  RawTarget *raw = (RawTarget *)target;
  guint64 size = target->size;
  off_t start, end;

  if (offset > size)
    return raw_fail (raw, EFBIG, "look for", offset, 0, error);
  start = raw->is_device ? (off_t)offset : lseek (raw->fd, (off_t)offset, SEEK_DATA);
  if (start < 0 && errno != ENXIO && errno != EINVAL)
    return raw_fail (raw, errno, "look for", offset, size - offset, error);
  if (start < 0)
    start = errno == ENXIO ? (off_t)size : (off_t)offset;
  end = raw->is_device ? (off_t)size : lseek (raw->fd, start, SEEK_HOLE);
  *ret_start = MIN ((guint64)start, size);
  *ret_end = end < 0 ? size : MIN ((guint64)end, size);
  return TRUE;
}

static gboolean
raw_flush (NbdTarget *target, GError **error)
{
  return write_behind_flush (((RawTarget *)target)->behind, error);
}

static void
raw_free (NbdTarget *target)
{
  RawTarget *raw = (RawTarget *)target;

  if (raw->fd >= 0)
    close (raw->fd);
  write_behind_free (raw->behind);
  g_free (raw->zeroes);
  g_free (target->name);
  g_free (raw);
}

static const NbdTargetClass raw_class = { .write = raw_write,
                                          .zero = raw_zero,
                                          .read = raw_read,
                                          .find_data = raw_find_data,
                                          .flush = raw_flush,
                                          .free = raw_free };

#define LITTLE_DATA (64 * 1024)

gboolean
nbd_target_file_is_zero (int fd)
{
  g_autofree guint8 *buf = g_malloc (LITTLE_DATA);
  gsize seen = 0;
  off_t begin = 0, end = 0;

  while ((begin = lseek (fd, end, SEEK_DATA)) >= 0)
    {
      gssize n;

      end = lseek (fd, begin, SEEK_HOLE);
      if (end < 0 || (gsize)(end - begin) > LITTLE_DATA - seen)
        return FALSE;
      n = pread (fd, buf, end - begin, begin);
      if (n != end - begin || !zero_scan_is_zero (buf, n))
        return FALSE;
      seen += n;
    }
  return errno == ENXIO;
}

static gboolean
raw_inspect (RawTarget *raw, GError **error)
{
  NbdTarget *target = &raw->target;
  struct stat info;
  guint64 bytes = 0;

  if (fstat (raw->fd, &info) == 0 && S_ISREG (info.st_mode))
    {
      target->size = (guint64)info.st_size;
      target->is_zero = nbd_target_file_is_zero (raw->fd);
      return TRUE;
    }
  if (S_ISBLK (info.st_mode) && ioctl (raw->fd, BLKGETSIZE64, &bytes) == 0)
    {
      target->size = bytes;
      raw->is_device = TRUE;
      return TRUE;
    }
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED,
               "%s: this is neither a regular file nor a block device", target->name);
  return FALSE;
}

NbdTarget *
nbd_target_new_raw (int fd, const char *name, GError **error)
{
  RawTarget *raw = g_new0 (RawTarget, 1);
  g_autoptr (NbdTarget) target = &raw->target;

  target->klass = &raw_class;
  target->name = g_strdup (name);
  raw->fd = fd;
  raw->can_zero = TRUE;
  raw->is_cached = TRUE;
  raw->zeroes = g_malloc0 (ZERO_BUFFER);
  raw->behind = write_behind_new (fd, name);
  if (!raw_inspect (raw, error) || !image_lock_writer (fd, name, error))
    return NULL;
  return g_steal_pointer (&target);
}
