/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* The listening socket that the source's QEMU serves NBD on: made here, so that it has the options
 * that QEMU doesn't set (TCP_NODELAY, SO_SNDBUFFORCE, TCP_USER_TIMEOUT, keepalive) and a door: a
 * socket filter that lets one address connect, or nobody.  Our descriptor is a duplicate of the one
 * that QEMU gets, so the door can be closed at any time. */
typedef struct Listener Listener;

/* Binds to a free port of [port_min, port_max] on `address` ("::" or "0.0.0.0" for any), listens,
 * and opens the door for `peer_address` alone (IPv4, IPv6; IPv4-mapped is understood).
 * `send_buffer` is what an accepted socket's send buffer must hold, in bytes as SO_SNDBUF takes
 * them; where it can't be forced (EPERM) *ret_send_buffer is smaller.  What a client has in flight
 * must stay under half of *ret_send_buffer. */
Listener *listener_new (const char *address, guint16 port_min, guint16 port_max,
                        const char *peer_address, gsize send_buffer, gsize *ret_send_buffer,
                        GError **error);
/* After a restart of the agent: takes a duplicate of the socket that listens on `port` out of
 * process `pid` (pidfd_getfd).  G_IO_ERROR_NOT_FOUND where it has none. */
Listener *listener_recover (pid_t pid, guint16 port, GError **error);
/* Closes our duplicate only. */
void listener_free (Listener *listener);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Listener, listener_free)

int listener_get_fd (const Listener *listener);
guint16 listener_get_port (const Listener *listener);

/* From now on nobody new gets in; connections that are there stay. */
gboolean listener_close_door (Listener *listener, GError **error);

/* What inet_diag (NETLINK_SOCK_DIAG) tells of the connections that were accepted on this port. */
typedef struct
{
  guint connections;    /* that QEMU has, or has yet to accept */
  guint64 unsent_bytes; /* queued at us and not acknowledged by the other side, sum over all */
} ListenerStatus;
gboolean listener_query (Listener *listener, ListenerStatus *ret_status, GError **error);
/* SOCK_DESTROY for every connection of this port: QEMU sees them reset at once. */
gboolean listener_destroy_connections (Listener *listener, GError **error);
/* Binds a port of the range for a moment to find one that is free, for QEMU's migration stream:
 * QEMU binds it itself.  Successive calls find different ports as long as there are any. */
gboolean listener_find_port (const char *address, guint16 port_min, guint16 port_max,
                             guint16 *ret_port, GError **error);
