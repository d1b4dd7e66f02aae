/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/client.h"
#include "nbd/rate-limit.h"
#include "nbd/target.h"

/* One pass over one connection: from the extents that the server tells to the last byte written to
 * the target.  Blocks; everything happens in the calling thread. */

#define MIRROR_REQUEST_SIZE (256 * 1024)

/* Shared with whoever watches or steers; lives longer than the pass. */
typedef struct
{
  _Atomic guint64 in_flight; /* bytes; see mirror_set_in_flight () */
  _Atomic guint64 size;
  _Atomic guint64 todo;
  _Atomic guint64 done;
  _Atomic guint64 read_bytes;
  _Atomic guint64 zero_bytes;
} MirrorState;

/* Everything is borrowed. */
typedef struct
{
  NbdClient *client;
  NbdTarget *target;
  RateLimit *limit; /* may be NULL */
  MirrorState *state;
  int bitmap_context;     /* index of the context in the handshake; -1: everything is copied */
  int allocation_context; /* the same; -1: nothing is known about holes */
  gint64 timeout_ms;
  GCancellable *cancellable; /* may be NULL */
} MirrorPassSpec;

/* `ret_bytes` (may be NULL) and errors as mirror_run_pass () has them. */
gboolean mirror_pass_run (const MirrorPassSpec *spec, guint64 *ret_bytes, GError **error);
