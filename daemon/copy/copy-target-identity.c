/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/copy/copy-target-private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>

#include "daemon/fail.h"

#define MARK "user.vmferry.copy"
#define UUID_LENGTH 36

void
copy_identity_clear (CopyIdentity *identity)
{
  g_clear_pointer (&identity->uuid, g_free);
}

gboolean
target_mark (int fd, const char *path, const char *uuid, GError **error)
{
  return fsetxattr (fd, MARK, uuid, strlen (uuid), 0) == 0 || errno == ENOTSUP || errno == ENOSYS
         || fail_errno (path, "cannot set its attribute " MARK, error);
}

void
target_unmark (int fd)
{
  fremovexattr (fd, MARK);
}

static const char *
get_path (const CopyTarget *target)
{
  return target->kind == TARGET_FILE ? target->part_path : target->text;
}

gboolean
target_identify (CopyTarget *target, CopyIdentity *identity, GError **error)
{
  char uuid[UUID_LENGTH + 1] = "";
  struct statx birth = { 0 };
  struct stat info;

  if (fstat (target->fd, &info) < 0)
    return fail_errno (get_path (target), "cannot look at it", error);
  *identity = (CopyIdentity){ .size = target->size };
  if (target->kind == TARGET_DEVICE)
    {
      identity->device = info.st_rdev;
      identity->size = target->device_size;
      return TRUE;
    }
  identity->device = info.st_dev;
  identity->inode = info.st_ino;
  if (statx (target->fd, "", AT_EMPTY_PATH, STATX_BTIME, &birth) == 0
      && (birth.stx_mask & STATX_BTIME))
    identity->birth_ns
        = birth.stx_btime.tv_sec * G_GINT64_CONSTANT (1000000000) + birth.stx_btime.tv_nsec;
  if (g_str_equal (target->format, "raw"))
    identity->size = (guint64)info.st_size;
  identity->has_xattr = fgetxattr (target->fd, MARK, uuid, UUID_LENGTH) == UUID_LENGTH;
  identity->uuid = identity->has_xattr ? g_strdup (uuid) : NULL;
  return TRUE;
}

static const char *
find_difference (const CopyIdentity *a, const CopyIdentity *b)
{
  if (a->device != b->device)
    return "it is on another device";
  if (a->inode != b->inode || a->birth_ns != b->birth_ns)
    return "it is another file";
  if (a->size != b->size)
    return "its size is another";
  if (a->has_xattr != b->has_xattr || (a->has_xattr && g_strcmp0 (a->uuid, b->uuid) != 0))
    return "its attribute " MARK " is not the one of that copy";
  return NULL;
}

gboolean
target_compare (CopyTarget *target, const CopyIdentity *identity, GError **error)
{
  CopyIdentity found = { 0 };
  const char *difference;

  if (!target_identify (target, &found, error))
    return FALSE;
  difference = find_difference (identity, &found);
  copy_identity_clear (&found);
  if (difference == NULL)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
               "%s is not what the earlier copy wrote: %s", get_path (target), difference);
  return FALSE;
}
