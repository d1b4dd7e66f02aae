/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/client.h"
#include "nbd/in-flight.h"
#include "nbd/rate-limit.h"
#include "nbd/target.h"
#include "nbd/work-list.h"

/* One pass over one connection: from the extents that the server tells to the last byte written to
 * the target.  Blocks; everything happens in the calling thread. */

#define MIRROR_REQUEST_SIZE (256 * 1024)

/* Shared with whoever watches or steers, and between passes that run at the same time; lives longer
 * than they do.  A pass adds its bytes, and never begins at 0. */
typedef struct
{
  _Atomic guint64 in_flight; /* of each pass, bytes; see mirror_set_in_flight () */
  _Atomic guint64 size;
  _Atomic guint64 todo;
  _Atomic guint64 done;
  _Atomic guint64 read_bytes;
  _Atomic guint64 zero_bytes;
  _Atomic gint64 progress_at; /* monotonic time (us) when `done` last grew */
} MirrorState;

/* Who wants to know what a pass does: called in its thread, never at the same time for one pass.
 * Members may be NULL. */
typedef struct
{
  /* May `bytes` more be asked for?  0: yes; otherwise in how many microseconds to ask again. */
  gint64 (*admit) (gpointer user_data, guint64 bytes);
  /* `data` has been read and is with the target.  Zeroes are told only where they were read. */
  void (*stored) (gpointer user_data, const guint8 *data, gsize len, guint64 offset);
  /* All of the range below `position` is with the target. */
  void (*settled) (gpointer user_data, guint64 position);
} MirrorObserver;

/* What one pass leaves to the next one. */
typedef struct
{
  guint64 span; /* how far to ask at once; 0: nothing is known about it */
  /* After a failure: parts beyond the settled position that are with the target, too.  WorkRange,
   * the caller's, appended to. */
  GArray *beyond;
  gboolean target_failed; /* it was the target, not the server */
} MirrorPassMemo;

/* Everything is borrowed. */
typedef struct
{
  NbdClient *client;
  NbdTarget *target;
  RateLimit *limit; /* may be NULL */
  MirrorState *state;
  int bitmap_context;     /* index of the context in the handshake; -1: everything is copied */
  int allocation_context; /* the same; -1: nothing is known about holes */
  /* The part of the export to copy: multiples of `block`, or the end of the export. */
  guint64 start;
  guint64 end;
  /* Pieces begin and end at multiples of it, as far as the export allows: a power of two, at least
   * the server's minimum. */
  guint32 block;
  guint32 request_size; /* of a read, unless the server's preferred block is larger; 0: the usual */
  /* What may be under way, and learns from what comes; NULL: state->in_flight says it. */
  InFlight *flight;
  gboolean zeroed; /* the target holds nothing but zeroes there: holes are left alone */
  const MirrorObserver *observer; /* may be NULL */
  gpointer user_data;
  gint64 timeout_ms;
  GCancellable *cancellable; /* may be NULL */
  MirrorPassMemo *memo;      /* may be NULL */
} MirrorPassSpec;

/* Copies from `start` to `end`.  `ret_bytes` (may be NULL) and errors as mirror_run_pass () has
 * them.  The target has to reach up to `end`, or what is beyond it to be zero. */
gboolean mirror_pass_run (const MirrorPassSpec *spec, guint64 *ret_bytes, GError **error);

/* All of the export, whatever `start`, `end`, `block` and `zeroed` say, to a target of its size but
 * for the padding to whole sectors on either side; todo and done begin at 0. */
gboolean mirror_pass_run_whole (MirrorPassSpec *spec, guint64 *ret_bytes, GError **error);
