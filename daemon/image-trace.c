/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/image-trace.h"
#include "daemon/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/qemu-img.h"
#include "nbd/image-lock.h"

static gboolean
check_identity (const ImageTrace *trace, const struct stat *st, GError **error)
{
  if (S_ISREG (st->st_mode) && st->st_dev == trace->device && st->st_ino == trace->inode)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_EXISTS,
               "%s is not the file that was %s here any more: it stays", trace->path,
               trace->created ? "created" : "filled");
  return FALSE;
}

static gboolean
remove_at (const ImageTrace *trace, int parent, const char *name, GError **error)
{
  struct stat st;

  if (fstatat (parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return errno == ENOENT || fail_errno (trace->path, "cannot look at it", error);
  if (!check_identity (trace, &st, error))
    return FALSE;
  if (unlinkat (parent, name, 0) < 0 && errno != ENOENT)
    return fail_errno (trace->path, "cannot remove it", error);
  return TRUE;
}

/* Keeps the size: a QEMU may have it open, and wait for the next attempt. */
static gboolean
empty_raw (const ImageTrace *trace, int fd, GError **error)
{
  if (fallocate (fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)trace->size) == 0)
    return TRUE;
  if (errno == EOPNOTSUPP && ftruncate (fd, 0) == 0 && ftruncate (fd, (off_t)trace->size) == 0)
    return TRUE;
  return fail_errno (trace->path, "cannot empty it again", error);
}

static gboolean
empty_file (const ImageTrace *trace, const char *link, GError **error)
{
  gboolean raw = g_str_equal (trace->format, "raw"), good;
  int locked = open (link, O_RDWR | O_CLOEXEC), fd;

  if (locked < 0)
    return fail_errno (trace->path, "cannot open it to empty it again", error);
  good = image_lock_writer (locked, trace->path, error)
         && (!raw || empty_raw (trace, locked, error));
  close (locked);
  if (!good || raw)
    return good;
  /* qemu-img takes the locks itself. */
  fd = open (link, O_RDWR | O_CLOEXEC);
  if (fd < 0)
    return fail_errno (trace->path, "cannot open it to empty it again", error);
  good = qemu_img_create (fd, trace->path, trace->format, trace->size, FALSE, error);
  close (fd);
  return good;
}

static gboolean
empty_at (const ImageTrace *trace, int parent, const char *name, GError **error)
{
  int found = openat (parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  g_autofree char *link = g_strdup_printf ("/proc/self/fd/%d", found);
  struct stat st;
  gboolean good;

  if (found < 0)
    return errno == ENOENT || fail_errno (trace->path, "cannot open it to empty it again", error);
  if (fstat (found, &st) < 0)
    good = fail_errno (trace->path, "cannot look at it", error);
  else
    good = check_identity (trace, &st, error) && empty_file (trace, link, error);
  close (found);
  return good;
}

gboolean
image_trace_undo_at (const ImageTrace *trace, int parent, const char *name, GError **error)
{
  if (trace->created)
    return remove_at (trace, parent, name, error);
  return !trace->was_empty || empty_at (trace, parent, name, error);
}

gboolean
image_trace_undo (const ImageTrace *trace, GError **error)
{
  g_autofree char *dir = g_path_get_dirname (trace->path);
  g_autofree char *name = g_path_get_basename (trace->path);
  int parent;
  gboolean good;

  if (!trace->created && !trace->was_empty)
    return TRUE;
  parent = open (dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (parent < 0)
    return errno == ENOENT || fail_errno (trace->path, "cannot open its directory", error);
  good = image_trace_undo_at (trace, parent, name, error);
  close (parent);
  return good;
}
