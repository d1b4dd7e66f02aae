/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* The socket filter on a listening TCP socket that decides whose packets it sees at all (classic
 * BPF, socket(7) SO_ATTACH_FILTER).  A connection that was accepted keeps the filter that the
 * listener had then. */

/* Lets only `address` (IPv4, IPv6, IPv4-mapped; %scope is not looked at) in. */
gboolean door_open_for (int fd, const char *address, GError **error);
/* Lets nobody in. */
gboolean door_close (int fd, GError **error);
