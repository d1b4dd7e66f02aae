/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/copy/copy-target-private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "daemon/copy/checkpoint.h"
#include "daemon/copy/trusted-path.h"
#include "daemon/fail.h"
#include "daemon/qemu-img.h"
#include "nbd/image-lock.h"

static gboolean
fail_kind (const char *path, mode_t mode, GError **error)
{
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_REGULAR_FILE,
               "%s is %s: a copy goes to a file or a block device", path,
               S_ISLNK (mode)    ? "a symbolic link, and none is followed at the end of a path"
               : S_ISDIR (mode)  ? "a directory"
               : S_ISFIFO (mode) ? "a pipe"
               : S_ISSOCK (mode) ? "a socket"
                                 : "a character device");
  return FALSE;
}

/* An open regular file, or -1 with ret_absent where nothing has that name.  It is looked at before
 * it is opened for good: opening a pipe waits, opening some devices does something. */
static int
open_regular (CopyTarget *target, const char *name, const char *path, struct stat *ret_info,
              gboolean *ret_absent, GError **error)
{
  struct stat info;
  int fd;

  *ret_absent = FALSE;
  if (fstatat (target->dir, name, &info, AT_SYMLINK_NOFOLLOW) < 0)
    {
      *ret_absent = errno == ENOENT;
      if (!*ret_absent)
        fail_errno (path, "cannot look at it", error);
      return -1;
    }
  if (!S_ISREG (info.st_mode))
    {
      fail_kind (path, info.st_mode, error);
      return -1;
    }
  fd = openat (target->dir, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0 || fstat (fd, ret_info) < 0)
    {
      fail_errno (path, "cannot open it for writing", error);
      if (fd >= 0)
        close (fd);
      return -1;
    }
  if (S_ISREG (ret_info->st_mode))
    return fd;
  fail_kind (path, ret_info->st_mode, error);
  close (fd);
  return -1;
}

static gboolean
has_name (CopyTarget *target, const char *name, int fd)
{
  struct stat named, open;

  return fstatat (target->dir, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && fstat (fd, &open) == 0
         && named.st_dev == open.st_dev && named.st_ino == open.st_ino;
}

static gboolean
lock_copy (int fd, const char *path, GError **error)
{
  if (flock (fd, LOCK_EX | LOCK_NB) == 0)
    return TRUE;
  if (errno != EWOULDBLOCK)
    return fail_errno (path, "cannot lock it", error);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_BUSY,
               "%s: another vmferry copy writes to it: wait for its end, or stop it", path);
  return FALSE;
}

/* The file that has the name while it is locked: the one that was opened may have been renamed by
 * another copy that has just ended. */
static gboolean
open_locked (CopyTarget *target, const char *name, const char *path, struct stat *ret_info,
             GError **error)
{
  gboolean absent;

  for (;;)
    {
      int fd = open_regular (target, name, path, ret_info, &absent, error);

      if (fd < 0)
        return absent;
      if (!lock_copy (fd, path, error))
        {
          close (fd);
          return FALSE;
        }
      if (has_name (target, name, fd))
        {
          target->fd = fd;
          return TRUE;
        }
      close (fd);
    }
}

gboolean
target_check_old (CopyTarget *target, GError **error)
{
  gboolean absent, good;
  int fd = open_regular (target, target->name, target->text, &target->old, &absent, error);

  target->has_old = fd >= 0;
  if (fd < 0)
    return absent;
  good = image_lock_writer (fd, target->text, error);
  close (fd);
  return good;
}

gboolean
target_find_file (CopyTarget *target, GError **error)
{
  struct stat info;

  return target_check_old (target, error)
         && open_locked (target, target->part_name, target->part_path, &info, error);
}

gboolean
target_find_in_place (CopyTarget *target, GError **error)
{
  struct stat info;

  if (!open_locked (target, target->name, target->text, &info, error))
    return FALSE;
  if (target->fd < 0)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                   "%s does not exist: --bitmap brings an existing copy up to date", target->text);
      return FALSE;
    }
  return !g_str_equal (target->format, "raw")
         || target_check_in_place_size (target, (guint64)info.st_size, 0, error);
}

gboolean
target_check_in_place_size (CopyTarget *target, guint64 size, guint64 rounding, GError **error)
{
  if (size >= target->size && size - target->size <= rounding)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
               "%s holds %" G_GUINT64_FORMAT " bytes, the export %" G_GUINT64_FORMAT
               ": it is no copy of it that --bitmap could bring up to date",
               target->text, size, target->size);
  return FALSE;
}

/* By the mark in it, or by the journal beside it. */
static gboolean
is_ours (CopyTarget *target)
{
  CopyIdentity found = { 0 };
  g_autoptr (CheckpointState) state = NULL;
  g_autoptr (Checkpoint) checkpoint = NULL;
  gboolean ours;

  if (!target_identify (target, &found, NULL))
    return FALSE;
  ours = found.has_xattr;
  copy_identity_clear (&found);
  if (ours)
    return TRUE;
  checkpoint = checkpoint_open (target->dir, target->journal, &state, NULL);
  return checkpoint != NULL && !state->header.identity.has_xattr
         && target_compare (target, &state->header.identity, NULL);
}

/* That of a copy that is not gone on with may go; what isn't ours stays, and is told. */
static gboolean
check_journal (CopyTarget *target, GError **error)
{
  g_autoptr (CheckpointState) state = NULL;
  g_autoptr (GError) local = NULL;
  g_autoptr (Checkpoint) checkpoint
      = checkpoint_open (target->dir, target->journal, &state, &local);

  if (checkpoint != NULL || g_error_matches (local, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)
      || g_error_matches (local, G_IO_ERROR, G_IO_ERROR_INVALID_DATA))
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}

gboolean
target_remove_journal (CopyTarget *target, GError **error)
{
  g_autofree char *name = g_path_get_basename (target->journal);
  int dir = target->dir;

  return unlinkat (dir, dir >= 0 ? name : target->journal, 0) == 0 || errno == ENOENT
         || fail_errno (target->journal, "cannot remove it", error);
}

static gboolean
take_mode (CopyTarget *target, int fd, GError **error)
{
  if (!target->has_old)
    return TRUE;
  if (fchown (fd, target->old.st_uid, target->old.st_gid) < 0
      || fchmod (fd, target->old.st_mode & 07777) < 0)
    return fail_errno (target->part_path,
                       "cannot give it the owner and mode of the file that it "
                       "will replace",
                       error);
  return TRUE;
}

static gboolean
fill_part (CopyTarget *target, int fd, const char *uuid, GError **error)
{
  if (!lock_copy (fd, target->part_path, error) || !take_mode (target, fd, error)
      || !target_mark (fd, target->part_path, uuid, error))
    return FALSE;
  if (!g_str_equal (target->format, "raw"))
    return qemu_img_create (fd, target->part_path, target->format, target->size, FALSE, error);
  return ftruncate (fd, (off_t)target->size) == 0
         || fail_errno (target->part_path, "cannot set its size", error);
}

/* In the place of an earlier one, which we hold the lock of, or of nothing. */
static gboolean
name_part (CopyTarget *target, const char *temporary, GError **error)
{
  unsigned flags = target->fd < 0 ? RENAME_NOREPLACE : 0;
  int dir = target->dir;

  if (renameat2 (dir, temporary, dir, target->part_name, flags) == 0)
    return TRUE;
  if (flags != 0 && (errno == EINVAL || errno == ENOSYS)
      && linkat (dir, temporary, dir, target->part_name, 0) == 0)
    {
      unlinkat (dir, temporary, 0);
      return TRUE;
    }
  if (errno != EEXIST)
    return fail_errno (target->part_path, "cannot make it", error);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_BUSY,
               "%s: another vmferry copy has just begun to write it", target->part_path);
  return FALSE;
}

gboolean
target_make_part (CopyTarget *target, const char *uuid, GError **error)
{
  g_autofree char *temporary = g_strdup_printf ("%s-%.8s", target->part_name, uuid);
  int fd;

  if (target->fd >= 0 && !is_ours (target))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_EXISTS,
                   "%s is in the way, and nothing proves that vmferry made it: remove it",
                   target->part_path);
      return FALSE;
    }
  if (!check_journal (target, error))
    return FALSE;
  fd = openat (target->dir, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (fd < 0)
    return fail_errno (target->part_path, "cannot make it", error);
  if (!fill_part (target, fd, uuid, error) || !name_part (target, temporary, error))
    {
      unlinkat (target->dir, temporary, 0);
      close (fd);
      return FALSE;
    }
  if (target->fd >= 0)
    close (target->fd);
  target->fd = fd;
  target->made = TRUE;
  /* Now that the name is ours: before, it may be another copy's, and the journal that one's, too.
   */
  return target_remove_journal (target, error);
}

gboolean
target_rename (CopyTarget *target, GError **error)
{
  int dir;
  gboolean good;

  if (!target_check_old (target, error))
    return FALSE;
  if (!has_name (target, target->part_name, target->fd))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED,
                   "%s is not the file any more that was written", target->part_path);
      return FALSE;
    }
  if (fsync (target->fd) < 0)
    return fail_errno (target->part_path, "cannot make it durable", error);
  if (renameat (target->dir, target->part_name, target->dir, target->name) < 0)
    return fail_errno (target->text, "cannot give it its name", error);
  dir = openat (target->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  good = (dir >= 0 && fsync (dir) == 0)
         || fail_errno (target->text, "cannot make its name durable", error);
  if (dir >= 0)
    close (dir);
  return good;
}
