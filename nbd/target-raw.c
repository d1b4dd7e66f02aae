/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/image-lock.h"
#include "nbd/target.h"
#include "nbd/zero-scan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* After so many bytes the kernel is told to write them out, and the ones before them are waited
 * for.  So at most twice this is left for a flush, which may be a guest's downtime. */
#define WINDOW (16u * 1024 * 1024)
#define ZERO_BUFFER (256u * 1024)

/* Bytes that were written since the last window ended. */
typedef struct
{
  guint64 start;
  guint64 end;
  guint64 bytes;
} Window;

typedef struct
{
  NbdTarget target;
  int fd;
  gboolean is_device;
  gboolean can_zero; /* atomic, as the next two */
  gboolean can_write_out;
  gboolean is_cached; /* what was written may still be in the page cache */
  GMutex lock;        /* the window that is being filled */
  Window window;
  /* Held while the kernel writes out, also by a flush: an error is told only once, to whoever waits
   * first, so that nobody may call the data durable before that one has said what it was told. */
  GMutex sync;
  Window previous; /* being written out by the kernel */
  gboolean failed; /* the data of a write is lost: no flush succeeds any more */
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

/* TRUE also where the file system knows no such thing.  An error that a wait reports is not
 * reported again by fdatasync(). */
static gboolean
raw_sync_range (RawTarget *raw, const Window *window, unsigned flags, GError **error)
{
  if (!g_atomic_int_get (&raw->can_write_out) || window->bytes == 0)
    return TRUE;
  if (sync_file_range (raw->fd, (off_t)window->start, (off_t)(window->end - window->start), flags)
      == 0)
    return TRUE;
  if (errno == ESPIPE || errno == EINVAL || errno == ENOSYS)
    {
      g_atomic_int_set (&raw->can_write_out, FALSE);
      return TRUE;
    }
  raw->failed = TRUE;
  return raw_fail (raw, errno, "write out", window->start, window->end - window->start, error);
}

static void
raw_drop_window (RawTarget *raw, const Window *window)
{
  /* Scattered blocks of a pass are few, and searching the cache for them takes time. */
  if (window->bytes > 0 && window->bytes >= (window->end - window->start) / 2)
    posix_fadvise (raw->fd, (off_t)window->start, (off_t)(window->end - window->start),
                   POSIX_FADV_DONTNEED);
}

static gboolean
raw_finish_window (RawTarget *raw, Window *window, GError **error)
{
  if (!raw_sync_range (
          raw, window,
          SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER, error))
    return FALSE;
  raw_drop_window (raw, window);
  *window = (Window){ 0 };
  return TRUE;
}

/* TRUE with a window to be written out, once it is full. */
static gboolean
raw_fill_window (RawTarget *raw, guint64 offset, guint64 len, Window *ret_full)
{
  Window *window = &raw->window;
  gboolean full;

  g_mutex_lock (&raw->lock);
  window->start = window->bytes == 0 ? offset : MIN (window->start, offset);
  window->end = window->bytes == 0 ? offset + len : MAX (window->end, offset + len);
  window->bytes += len;
  full = window->bytes >= WINDOW;
  if (full)
    {
      *ret_full = *window;
      *window = (Window){ 0 };
    }
  g_mutex_unlock (&raw->lock);
  return full;
}

static gboolean
raw_account (RawTarget *raw, guint64 offset, guint64 len, GError **error)
{
  Window full;
  gboolean good;

  if (!raw_fill_window (raw, offset, len, &full))
    return TRUE;
  g_mutex_lock (&raw->sync);
  good = raw_sync_range (raw, &full, SYNC_FILE_RANGE_WRITE, error)
         && raw_finish_window (raw, &raw->previous, error);
  if (good)
    raw->previous = full;
  g_mutex_unlock (&raw->sync);
  return good;
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
  return raw_account (raw, offset, len, error);
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

/* The kernel reads ahead into folios of up to some MiB, and drops only what is whole in the range:
 * so that begins where any of them may begin. */
static void
raw_drop_read (RawTarget *raw, guint64 offset, guint64 len)
{
  guint64 start = offset - offset % WINDOW;

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
raw_sync (RawTarget *raw, GError **error)
{
  Window window;

  if (raw->failed)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED,
                   "%s: data that was written before has not reached stable storage",
                   raw->target.name);
      return FALSE;
    }
  if (!raw_finish_window (raw, &raw->previous, error))
    return FALSE;
  g_mutex_lock (&raw->lock);
  window = raw->window;
  raw->window = (Window){ 0 };
  g_mutex_unlock (&raw->lock);
  if (fdatasync (raw->fd) == 0)
    {
      raw_drop_window (raw, &window);
      return TRUE;
    }
  raw->failed = TRUE;
  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno),
               "%s: cannot bring the data to stable storage: %s", raw->target.name,
               g_strerror (errno));
  return FALSE;
}

static gboolean
raw_flush (NbdTarget *target, GError **error)
{
  RawTarget *raw = (RawTarget *)target;
  gboolean good;

  g_mutex_lock (&raw->sync);
  good = raw_sync (raw, error);
  g_mutex_unlock (&raw->sync);
  return good;
}

static void
raw_free (NbdTarget *target)
{
  RawTarget *raw = (RawTarget *)target;

  if (raw->fd >= 0)
    close (raw->fd);
  g_mutex_clear (&raw->lock);
  g_mutex_clear (&raw->sync);
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
  g_mutex_init (&raw->lock);
  g_mutex_init (&raw->sync);
  raw->can_write_out = TRUE;
  if (!raw_inspect (raw, error) || !image_lock_writer (fd, name, error))
    return NULL;
  return g_steal_pointer (&target);
}
