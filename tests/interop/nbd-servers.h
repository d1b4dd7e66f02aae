/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* Real NBD servers on listeners that are made here and handed over (systemd's socket activation,
 * which qemu-nbd and nbdkit know): nobody has to wait until they are up, and no port is guessed. */
typedef struct NbdServer NbdServer;

/* Runs `argv` (NULL at its end) as a shell would find it.  `path`: a UNIX socket; NULL: TCP on
 * 127.0.0.1.  "@FD@" in an argument becomes the number of the listener. */
NbdServer *nbd_server_start (const char *path, const char *const *argv);
guint16 nbd_server_get_port (const NbdServer *server);
/* Ends it, if it has not ended, and waits for it. */
void nbd_server_stop (NbdServer *server);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (NbdServer, nbd_server_stop)

/* Runs a shell command to its end; aborts the test where it fails. */
void run_command (const char *format, ...) G_GNUC_PRINTF (1, 2);
