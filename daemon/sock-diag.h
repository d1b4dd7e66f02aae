/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* inet_diag (NETLINK_SOCK_DIAG, sock_diag(7)): the TCP connections of this network namespace whose
 * local port is `port`, IPv4 and IPv6, whichever process they belong to.  Connections that nobody
 * owns any more, because they were closed at our end and are only dying away in the kernel
 * (FIN_WAIT, LAST_ACK, TIME_WAIT), are not counted. */
typedef struct
{
  guint connections;    /* a process has it, or has yet to accept it */
  guint64 unsent_bytes; /* queued and not acknowledged by the other side, sum over all */
} SockDiagSum;

gboolean sock_diag_query (guint16 port, SockDiagSum *ret_sum, GError **error);

/* SOCK_DESTROY for each of them: whoever owns it sees it reset at once.  Needs CAP_NET_ADMIN and a
 * kernel with CONFIG_INET_DIAG_DESTROY (G_IO_ERROR_NOT_SUPPORTED without). */
gboolean sock_diag_destroy (guint16 port, GError **error);
