/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/pull.h"

/* One connection of pull_run () and its thread, and what they all share.  For pull.c alone. */

typedef struct
{
  const PullSpec *spec;
  const char *const *contexts;
  NbdExport export; /* as the first connection has it */
  guint32 block;
  gboolean zeroed; /* the target, at the beginning */
  /* Cancelled with the caller's, by the first error, and when there is no more to do. */
  GCancellable *stop;

  GMutex lock; /* for all that follows */
  GCond changed;
  guint n_busy; /* workers that have a range */
  gboolean over;
  GError *error;      /* the first one */
  gint64 stuck_since; /* a connection was lost, and nothing was copied since; monotonic (us) */
  guint64 stuck_done; /* of the state, by then */
} Pull;

/* Waits for work; FALSE when there will be none. */
gboolean pull_take (Pull *pull, WorkRange *ret_range);
/* The worker is not at it any more; what is not settled, nor in `beyond`, is left to whom it may
 * concern.  `fatal`: why nobody may go on with it, or NULL. */
void pull_put (Pull *pull, const WorkRange *range, const GArray *beyond, const GError *fatal);
/* A connection was lost: is there time for another attempt, and until when? */
gboolean pull_may_retry (Pull *pull, Deadline *ret_deadline);

typedef struct
{
  Pull *pull;
  NbdClient *client; /* NULL: not connected */
  WorkRange range;
  MirrorPassMemo memo;
  InFlight flight;
} PullWorker;

/* Takes `client` over; NULL: it connects by itself.  `max_in_flight`: bytes. */
void pull_worker_init (PullWorker *worker, Pull *pull, NbdClient *client, guint64 max_in_flight);
void pull_worker_clear (PullWorker *worker);
/* Until there is no more to do. */
gboolean pull_worker_run (PullWorker *worker, GError **error);
