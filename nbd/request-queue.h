/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/client.h"

/* Writes that don't wait for each other's answers, unless they touch the same range: servers may
 * carry out requests in any order.  Belongs to one thread at a time. */
typedef struct RequestQueue RequestQueue;

/* Of the data of one request, and of all that is sent and not answered: bytes. */
#define REQUEST_QUEUE_MAX_BYTES (8u * 1024 * 1024)

/* Takes `client` over, and a reference of `cancellable` (may be NULL).  `name` (of the target) is
 * what errors begin with; copied. */
RequestQueue *request_queue_new (NbdClient *client, const char *name, gint64 timeout_ms,
                                 GCancellable *cancellable);
/* Says goodbye. */
void request_queue_free (RequestQueue *queue);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (RequestQueue, request_queue_free)

/* For requests whose answer is waited for: after request_queue_drain (). */
NbdClient *request_queue_get_client (RequestQueue *queue);

/* Waits until the request may go; returns when the kernel has its data, so that `data` may be
 * reused.  Its answer is looked at later: FALSE may mean that any earlier request has failed, or
 * that the server has not answered for `timeout_ms`; the queue is of no more use then. */
gboolean request_queue_send (RequestQueue *queue, const NbdRequest *request, GError **error);
/* Waits for all answers. */
gboolean request_queue_drain (RequestQueue *queue, GError **error);
