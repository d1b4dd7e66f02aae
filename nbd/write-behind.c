/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/write-behind.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* After so many bytes the kernel is told to write them out, and the ones before them are waited
 * for.  So at most twice this is left for a flush. */
#define WINDOW (16u * 1024 * 1024)
/* Several connections write at as many places. */
#define MAX_AREAS 16

typedef struct
{
  guint64 start;
  guint64 end;
  guint64 bytes; /* written between them */
} Area;

/* What was written since the last window ended. */
typedef struct
{
  Area areas[MAX_AREAS];
  guint n_areas;
  guint64 bytes;
} Window;

struct WriteBehind
{
  int fd;
  char *name;
  gboolean can_write_out; /* atomic */
  GMutex lock;            /* the window that is being filled */
  Window window;
  /* Held while the kernel writes out, also by a flush: an error is told only once, to whoever waits
   * first, so that nobody may call the data durable before that one has said what it was told. */
  GMutex sync;
  Window previous; /* being written out by the kernel */
  gboolean failed; /* the data of a write is lost */
};

WriteBehind *
write_behind_new (int fd, const char *name)
{
  WriteBehind *behind = g_new0 (WriteBehind, 1);

  behind->fd = fd;
  behind->name = g_strdup (name);
  behind->can_write_out = TRUE;
  g_mutex_init (&behind->lock);
  g_mutex_init (&behind->sync);
  return behind;
}

void
write_behind_free (WriteBehind *behind)
{
  if (behind == NULL)
    return;
  g_mutex_clear (&behind->lock);
  g_mutex_clear (&behind->sync);
  g_free (behind->name);
  g_free (behind);
}

/* ---- filling ---- */

static Area *
window_find_area (Window *window, guint64 offset)
{
  for (guint i = 0; i < window->n_areas; i++)
    {
      Area *area = &window->areas[i];

      if (offset + WINDOW >= area->start && offset <= area->end + WINDOW)
        return area;
    }
  if (window->n_areas == MAX_AREAS)
    return &window->areas[MAX_AREAS - 1];
  window->areas[window->n_areas] = (Area){ .start = offset, .end = offset };
  return &window->areas[window->n_areas++];
}

static void
window_add (Window *window, guint64 offset, guint64 len)
{
  Area *area = window_find_area (window, offset);

  area->start = MIN (area->start, offset);
  area->end = MAX (area->end, offset + len);
  area->bytes += len;
  window->bytes += len;
}

/* Hands the window over, and begins a new one. */
static Window
behind_take_window (WriteBehind *behind)
{
  Window window = behind->window;

  behind->window = (Window){ 0 };
  return window;
}

/* TRUE with a window to be written out, once it is full. */
static gboolean
behind_fill (WriteBehind *behind, guint64 offset, guint64 len, Window *ret_full)
{
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&behind->lock);

  window_add (&behind->window, offset, len);
  if (behind->window.bytes < WINDOW)
    return FALSE;
  *ret_full = behind_take_window (behind);
  return TRUE;
}

/* ---- writing out ---- */

/* TRUE also where the file system knows no such thing.  An error that a wait reports is not
 * reported again by fdatasync(). */
static gboolean
behind_sync_area (WriteBehind *behind, const Area *area, unsigned flags, GError **error)
{
  if (!g_atomic_int_get (&behind->can_write_out))
    return TRUE;
  if (sync_file_range (behind->fd, (off_t)area->start, (off_t)(area->end - area->start), flags)
      == 0)
    return TRUE;
  if (errno == ESPIPE || errno == EINVAL || errno == ENOSYS)
    {
      g_atomic_int_set (&behind->can_write_out, FALSE);
      return TRUE;
    }
  behind->failed = TRUE;
  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno),
               "%s: cannot write out %" G_GUINT64_FORMAT " bytes at offset %" G_GUINT64_FORMAT
               ": %s",
               behind->name, area->end - area->start, area->start, g_strerror (errno));
  return FALSE;
}

static gboolean
behind_sync_window (WriteBehind *behind, const Window *window, unsigned flags, GError **error)
{
  for (guint i = 0; i < window->n_areas; i++)
    if (!behind_sync_area (behind, &window->areas[i], flags, error))
      return FALSE;
  return TRUE;
}

static void
behind_drop_window (WriteBehind *behind, const Window *window)
{
  for (guint i = 0; i < window->n_areas; i++)
    {
      const Area *area = &window->areas[i];
      guint64 span = area->end - area->start;

      /* Scattered blocks of a pass are few, and searching the cache for them takes time. */
      if (area->bytes >= span / 2)
        posix_fadvise (behind->fd, (off_t)area->start, (off_t)span, POSIX_FADV_DONTNEED);
    }
}

static gboolean
behind_finish_previous (WriteBehind *behind, GError **error)
{
  const unsigned flags
      = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;

  if (!behind_sync_window (behind, &behind->previous, flags, error))
    return FALSE;
  behind_drop_window (behind, &behind->previous);
  behind->previous = (Window){ 0 };
  return TRUE;
}

gboolean
write_behind_add (WriteBehind *behind, guint64 offset, guint64 len, GError **error)
{
  Window full;
  gboolean good;

  if (!behind_fill (behind, offset, len, &full))
    return TRUE;
  g_mutex_lock (&behind->sync);
  good = behind_sync_window (behind, &full, SYNC_FILE_RANGE_WRITE, error)
         && behind_finish_previous (behind, error);
  if (good)
    behind->previous = full;
  g_mutex_unlock (&behind->sync);
  return good;
}

/* ---- flushing ---- */

static gboolean
behind_sync (WriteBehind *behind, GError **error)
{
  Window window;

  if (behind->failed)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED,
                   "%s: data that was written before has not reached stable storage", behind->name);
      return FALSE;
    }
  if (!behind_finish_previous (behind, error))
    return FALSE;
  g_mutex_lock (&behind->lock);
  window = behind_take_window (behind);
  g_mutex_unlock (&behind->lock);
  if (fdatasync (behind->fd) == 0)
    {
      behind_drop_window (behind, &window);
      return TRUE;
    }
  behind->failed = TRUE;
  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno),
               "%s: cannot bring the data to stable storage: %s", behind->name, g_strerror (errno));
  return FALSE;
}

gboolean
write_behind_flush (WriteBehind *behind, GError **error)
{
  gboolean good;

  g_mutex_lock (&behind->sync);
  good = behind_sync (behind, error);
  g_mutex_unlock (&behind->sync);
  return good;
}
