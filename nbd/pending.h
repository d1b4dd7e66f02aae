/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/client.h"
#include "nbd/wire.h"

/* What has been answered of one request so far, checked piece by piece: no I/O.  Functions that
 * return FALSE set NBD_ERROR_PROTOCOL, whose text is to be prefixed with the server's name. */
typedef struct NbdPending NbdPending;
struct NbdPending
{
  NbdRequest *request;
  guint64 cookie;
  guint n_chunks;
  guint32 data_left; /* READ: bytes that may still come as data */
  GArray *covered; /* READ: ranges that were answered, sorted, apart from each other */
  /* The status chunk that is being received. */
  guint context;
  guint64 status_bytes;
  gboolean status_full; /* more extents than are kept */
};

NbdPending *nbd_pending_new (NbdRequest *request, guint64 cookie);
void nbd_pending_free (NbdPending *pending);

/* May the server answer this request with this header?  `export` tells what was negotiated. */
gboolean nbd_pending_check_header (NbdPending *pending, const WireReply *reply,
                                   const NbdExport *export, GError **error);
/* Where the data of a READ goes. */
guint8 *nbd_pending_get_data (NbdPending *pending);
/* A content chunk of a READ: within the request, and overlapping no earlier one. */
gboolean nbd_pending_cover (NbdPending *pending, guint64 offset, guint64 length, GError **error);
/* The whole payload of an OFFSET_HOLE chunk; zeroes that part of the data. */
gboolean nbd_pending_add_hole (NbdPending *pending, const guint8 *payload, GError **error);
/* The whole payload of an error chunk; sets request->error. `name` begins its text. */
gboolean nbd_pending_add_error (NbdPending *pending, guint16 type, const guint8 *payload, gsize len,
                                const char *name, GError **error);
/* The number that a simple reply gives. */
void nbd_pending_set_errno (NbdPending *pending, guint32 value, const char *name);

/* A BLOCK_STATUS chunk: its context, then its descriptors, then its end. */
gboolean nbd_pending_begin_status (NbdPending *pending, guint32 context_id, const NbdExport *export,
                                   GError **error);
gboolean nbd_pending_add_extent (NbdPending *pending, const guint8 *descriptor, GError **error);

/* The last chunk has come: has everything been answered? */
gboolean nbd_pending_finish (NbdPending *pending, const NbdExport *export, GError **error);

/* "read of 4096 bytes at offset 8192".  Free with g_free. */
char *nbd_request_describe (const NbdRequest *request);
