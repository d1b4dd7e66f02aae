/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/executor.h"

/* The fence: read locks on the bytes of a disk image by which QEMU asks for the write permission
 * (OFD locks on bytes 101 and 201, block/file-posix.c), taken by us, with the locked descriptor
 * parked in that very QEMU by getfd: as long as that process lives it can't run its guest again. */

/* Whether process `pid` itself holds image locks on the open file `image` (a path, as QEMU's
 * /proc/PID/fd links spell it or as it leads to the same file): only then can a lock fence it.
 * FALSE for locking=off or where it can't be told.  Used before the migration, while the guest
 * runs. */
gboolean fence_image_is_locked (pid_t pid, const char *image);

/* Only when QEMU is in `postmigrate`: locked earlier, libvirt's and QEMU's own rollback aborts.
 * Takes the lock on the first of `images` (NULL-terminated; opened through /proc/PID/fd, so that it
 * is the very file QEMU has) that can be locked, asks query-status again (must still be
 * postmigrate), and parks the descriptor under the name `fd_name`.  Not cancellable.  On failure
 * nothing is held or parked. */
gboolean fence_raise (QmpExecutor *executor, pid_t pid, const char *const *images,
                      const char *fd_name, GError **error);
/* closefd of `fd_name`; absent is fine. */
gboolean fence_lift (QmpExecutor *executor, const char *fd_name, GError **error);
