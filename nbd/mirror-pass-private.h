/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/buffer-pool.h"
#include "nbd/extent.h"
#include "nbd/mirror-pass.h"
#include "nbd/settle-line.h"

/* What the two halves of a pass share: mirror-ask.c sends requests, mirror-pass.c waits for the
 * answers and has them stored. */

typedef struct
{
  MirrorPassSpec spec;
  const NbdExport *export;
  ExtentScan *scan;
  SettleLine *line;
  BufferPool *pool;
  guint32 request_size;

  ExtentPiece piece; /* being split into requests */
  guint n_reads;
  gsize read_cost;   /* bytes of replies that are under way */
  gsize status_cost; /* the same, at most */
  ExtentQuery query; /* waits for room */
  gboolean has_query;
  guint32 admitted;     /* bytes that the observer let through, and the rate limit did not yet */
  gint64 limited_until; /* when the next request may go; 0: now */

  guint64 position; /* that the observer knows */
  guint64 todo;     /* our part of the shared one */
  guint64 done;
  gint64 progress_at;
  guint64 progress; /* nbd_client_get_progress () at that time */
} MirrorPass;

typedef struct
{
  NbdRequest request;
  gsize cost;
  BufferPool *pool;
  SettlePiece *piece;
  gint64 asked_at; /* READ; monotonic (us) */
} PassRequest;

/* Sends the queries that there is room for now. */
void pass_send_queries (MirrorPass *pass);
/* Does pieces, as long as there is room: zeroes at once, data by asking for it. */
gboolean pass_send_reads (MirrorPass *pass, GError **error);

/* So many bytes more are with the target. */
void pass_count_done (MirrorPass *pass, guint64 bytes);
/* FALSE; the memo knows that the target failed, unless it was only told to stop. */
gboolean pass_fail_target (MirrorPass *pass, GError **error);
