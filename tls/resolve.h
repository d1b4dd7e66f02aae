/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tls/deadline.h"

/* The addresses of `host` (a name, or an address without brackets, with or without a zone) as
 * GSocketAddress, in the order of preference, at least one and at most RESOLVE_MAX.  Unlike
 * getaddrinfo(3), a dead name server can't hold it beyond the deadline.
 * Errors: G_IO_ERROR_HOST_NOT_FOUND, _TIMED_OUT, _CANCELLED. */
#define RESOLVE_MAX 8
GPtrArray *resolve_host (const char *host, guint16 port, Deadline deadline, GError **error);
