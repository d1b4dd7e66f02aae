/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/handshake.h"
#include "nbd/protocol.h"

/* The transmission phase of one connection: pipelined requests, and replies, structured or
 * simple, of which every cookie, offset, length and chunk is checked against its request.
 * Belongs to one thread; nothing blocks but nbd_client_wait (). */
typedef struct NbdClient NbdClient;

#define NBD_CLIENT_MAX_REQUESTS 256
/* Of a status reply so many extents are kept for each context (256 KiB); what is beyond them has to
 * be asked for again.  QEMU sends up to 131072, an honest 64 MiB in 4 KiB blocks has 16384. */
#define NBD_CLIENT_MAX_EXTENTS 32768

typedef struct
{
  guint32 length; /* bytes */
  guint32 flags;  /* NBD_STATE_ */
} NbdExtent;

/* The caller owns it and leaves it in place from nbd_client_submit () until nbd_client_pop ()
 * hands it back, or the client is freed. */
typedef struct NbdRequest
{
  guint16 command; /* NBD_CMD_ */
  guint16 flags;   /* NBD_CMD_FLAG_ */
  guint64 offset;
  guint32 length;
  guint8 *data; /* READ: `length` bytes to fill; WRITE: to send */
  /* READ with `data` NULL: called when its data begins to come, for a place to put it, so that
   * requests that wait for their turn need no memory.  Not called where all of it is a hole. */
  guint8 *(*take_data) (struct NbdRequest *request);

  /* Set when it is handed back. */
  GError *error;      /* the server's answer, or NULL; the connection goes on */
  guint32 hole_bytes; /* READ: how many of them the server told as a hole; `data` is zeroed there */
  /* BLOCK_STATUS: by context, in the order of the handshake, NbdExtent; the first one starts at
   * `offset`, none is empty; they may cover less or more than was asked for.  NULL where the
   * server does not have the context. */
  GArray *extents[NBD_MAX_CONTEXTS];

  gboolean sent; /* `data` of a WRITE is not needed any more */
  struct NbdPending *pending;
} NbdRequest;

/* Frees what the results hold, not the request. */
void nbd_request_clear (NbdRequest *request);

/* Takes `channel` over, after the handshake. `name` (of the export) is for errors. */
NbdClient *nbd_client_new (Channel *channel, const NbdExport *export, const char *name);
/* Drops the connection and what is under way; NULL is fine. */
void nbd_client_free (NbdClient *client);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (NbdClient, nbd_client_free)

const NbdExport *nbd_client_get_export (const NbdClient *client);
/* "hostB:49216, export \"data\"": what errors begin with. */
const char *nbd_client_get_name (const NbdClient *client);

/* Queues it.  There must be room (nbd_client_get_outstanding () < NBD_CLIENT_MAX_REQUESTS), and the
 * range must lie within the export, by multiples of min_block unless it ends where the export ends.
 */
void nbd_client_submit (NbdClient *client, NbdRequest *request);
/* Requests that were submitted and not handed back. */
guint nbd_client_get_outstanding (const NbdClient *client);

/* Sends and receives what is possible now; returns early when a request is complete. FALSE: the
 * connection is of no more use (NBD_ERROR_PROTOCOL, G_IO_ERROR, TLS_ERROR). */
gboolean nbd_client_pump (NbdClient *client, GError **error);
/* A request that is complete, or NULL. */
NbdRequest *nbd_client_pop (NbdClient *client);

/* Gives up: every request is complete as it is, for nbd_client_pop () to hand it back.  Nothing
 * else but nbd_client_free () may follow. */
void nbd_client_abandon (NbdClient *client);

/* Sleeps until nbd_client_pump () can go on, or the monotonic time `until` (us) has come: both
 * TRUE. FALSE: G_IO_ERROR_CANCELLED. */
gboolean nbd_client_wait (NbdClient *client, gint64 until, GCancellable *cancellable,
                          GError **error);

/* Bytes of valid replies so far, headers included. */
guint64 nbd_client_get_received (const NbdClient *client);
/* What progress is measured by: it grows with each answer, and with each 4 KiB of a long one.  A
 * server that sends a byte now and then doesn't get on. */
guint64 nbd_client_get_progress (const NbdClient *client);

/* Says goodbye (NBD_CMD_DISC) as far as that is possible without waiting.  Only
 * nbd_client_free () may follow. */
void nbd_client_disconnect (NbdClient *client);
