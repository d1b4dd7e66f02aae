/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* The established TCP connection to `remote_address` (numeric) and `remote_port` that root has made
 * here, root being libvirtd, which passes it to QEMU (proc(5): /proc/net/tcp).  Its local port, in
 * host order; FALSE where there is none.  Another user's connection is not found. */
gboolean root_socket_find (const char *remote_address, guint16 remote_port,
                           guint16 *ret_local_port);
