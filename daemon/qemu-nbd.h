/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/target.h"

/* A qemu-nbd(8) of our own that writes one image of another format than raw.  It serves one
 * connection, ours, on a socket that we make and that is gone from the file system once we are
 * connected; and it ends with that connection. */
typedef struct QemuNbd QemuNbd;

/* `fd` is the image, open for writing; borrowed.  `path` is for messages.  *ret_target is the
 * connection; free it before the server.  `cancellable` (may be NULL) lives as long as the target.
 */
QemuNbd *qemu_nbd_start (int fd, const char *path, const char *format, const char *runtime_dir,
                         gboolean is_zero, gint64 timeout_ms, GCancellable *cancellable,
                         NbdTarget **ret_target, GError **error);
/* Waits for its end, after the target was freed, and so for the release of its image locks.  Kills
 * it after `timeout_ms`.  The error holds its own words. */
gboolean qemu_nbd_finish (QemuNbd *server, gint64 timeout_ms, GError **error);
/* Kills it. */
void qemu_nbd_free (QemuNbd *server);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QemuNbd, qemu_nbd_free)
