/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/client.h"

/* One request, and its answer: submits `request`, waits until it is handed back, or fails with
 * G_IO_ERROR_TIMED_OUT after `timeout_ms` without a byte from the server, G_IO_ERROR_CANCELLED, or
 * whatever ends the connection.  The server's own error is an error here.  No other request may
 * be under way.  After a failure only nbd_client_free () may follow, unless it is NBD_ERROR_IO. */
gboolean nbd_exchange (NbdClient *client, NbdRequest *request, gint64 timeout_ms,
                       GCancellable *cancellable, GError **error);
/* `len` bytes at `offset`, in as many requests as are needed. */
gboolean nbd_exchange_read (NbdClient *client, void *buf, gsize len, guint64 offset,
                            gint64 timeout_ms, GCancellable *cancellable, GError **error);
