/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/image-lock.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* QEMU, block/file-posix.c: the first byte of those for used and for unshared permissions, and
 * the numbers of the permissions (BLK_PERM_). */
#define PERM_BASE 100
#define UNSHARED_BASE 200
#define PERM_CONSISTENT_READ 0
#define PERM_WRITE 1
#define PERM_RESIZE 3

static const off_t lock_bytes[] = { PERM_BASE + PERM_CONSISTENT_READ, PERM_BASE + PERM_WRITE,
                                    UNSHARED_BASE + PERM_WRITE, UNSHARED_BASE + PERM_RESIZE };
/* Who holds one of these does not want what we use, or uses what we do not want. */
static const off_t check_bytes[]
    = { UNSHARED_BASE + PERM_CONSISTENT_READ, UNSHARED_BASE + PERM_WRITE, PERM_BASE + PERM_WRITE,
        PERM_BASE + PERM_RESIZE };

static gboolean
lock_fail (const char *name, const char *what, GError **error)
{
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_BUSY,
               "%s: %s: another program has this image open (QEMU or qemu-nbd); close it there "
               "first",
               name, what);
  return FALSE;
}

gboolean
image_lock_writer (int fd, const char *name, GError **error)
{
  for (guint i = 0; i < G_N_ELEMENTS (lock_bytes); i++)
    {
      struct flock lock
          = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = lock_bytes[i], .l_len = 1 };

      if (fcntl (fd, F_OFD_SETLK, &lock) == 0)
        continue;
      if (errno != EAGAIN && errno != EACCES)
        return TRUE;
      return lock_fail (name, "it is locked", error);
    }
  for (guint i = 0; i < G_N_ELEMENTS (check_bytes); i++)
    {
      struct flock lock
          = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = check_bytes[i], .l_len = 1 };

      if (fcntl (fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
        return lock_fail (name, "it is in use", error);
    }
  return TRUE;
}
