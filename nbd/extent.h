/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/client.h"

/* Turns an export into pieces of work, in order, out of the answers to block status queries: which
 * ranges to ask about next, and what is to be done with those that are known.  No I/O; memory is
 * bounded whatever the answers are. */
typedef struct ExtentScan ExtentScan;

typedef enum
{
  EXTENT_READ,
  EXTENT_ZERO /* the server says that it reads as zeroes */
} ExtentKind;

typedef struct
{
  guint64 offset;
  guint64 length;
  ExtentKind kind;
} ExtentPiece;

typedef struct
{
  guint64 offset;
  guint32 length;
  guint16 flags; /* NBD_CMD_FLAG_REQ_ONE or 0 */
} ExtentQuery;

/* The shortest and the longest range of a query.  A long answer holds up a QEMU that also runs a
 * guest (64 MiB in 4 KiB extents: 16 ms), so queries begin short and grow while answers are short.
 */
#define EXTENT_MIN_SPAN (64u * 1024 * 1024)
#define EXTENT_MAX_SPAN (G_MAXUINT32 - (NBD_MAX_MIN_BLOCK - 1))

/* Works on the export from `start` (a multiple of `block`) to `end` (one, too, or the export's
 * end). What the answers mean: `bitmap`: only what qemu:dirty-bitmap marks is work; `allocation`:
 * those ranges, or all, are zero where base:allocation says so.  With neither, everything is READ
 * and there are no queries.  `block` is the alignment of READ pieces: a power of two, at most
 * NBD_MAX_MIN_BLOCK. */
ExtentScan *extent_scan_new (guint64 start, guint64 end, guint32 block, gboolean bitmap,
                             gboolean allocation);
void extent_scan_free (ExtentScan *scan);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ExtentScan, extent_scan_free)

/* How long the next query may be: bytes; what one scan has learnt is good for the next one. */
void extent_scan_set_span (ExtentScan *scan, guint64 span);
guint64 extent_scan_get_span (const ExtentScan *scan);

/* The next query to send; FALSE while there is none to send (all is known, or enough for now). */
gboolean extent_scan_next_query (ExtentScan *scan, ExtentQuery *ret_query);
/* The longest answer that is to be expected to a query: bytes. */
gsize extent_query_reply_size (const ExtentScan *scan, const ExtentQuery *query);
/* The answer to the query at `offset`, as NbdRequest.extents has it; NULL for a context that was
 * not asked for.  Answers may come in any order. */
void extent_scan_add_reply (ExtentScan *scan, guint64 offset, const GArray *bitmap,
                            const GArray *allocation);

/* The next piece, not empty; FALSE when there is none now.  They come in order and never overlap.
 */
gboolean extent_scan_next_piece (ExtentScan *scan, ExtentPiece *ret_piece);
/* No more pieces will come. */
gboolean extent_scan_is_done (const ExtentScan *scan);
/* No more pieces will come for what is below it. */
guint64 extent_scan_get_position (const ExtentScan *scan);

/* Bytes found so far: READ and ZERO, handed out or not. */
guint64 extent_scan_get_read_bytes (const ExtentScan *scan);
guint64 extent_scan_get_zero_bytes (const ExtentScan *scan);
