/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/copy/copy-private.h"

#include "nbd/protocol.h"

#define MIB (G_GUINT64_CONSTANT (1024) * 1024)
/* What a crash may cost, data that was under way included. */
#define MAX_BEYOND (64 * MIB)
#define MIN_WINDOW (8 * MIB)
#define DUE_BYTES (16 * MIB)
#define DUE_US (2 * G_USEC_PER_SEC)
/* Between two checkpoints: not more of them than are of use. */
#define PAUSE_US 5000
/* So many parts for each connection: the last ones end at about the same time. */
#define PARTS 16
#define MIN_STRIPE (64 * MIB)
/* What a new connection has to read to be believed. */
#define RECONNECT_PROOF MIB

typedef struct
{
  CopyRun *run;
  WorkList *work;
  RateLimit *limit;
  CopyGate *gate;
  GCancellable *stop;
  _Atomic gboolean target_failed;
  guint n_connections;
  gboolean good; /* of the thread */
  GError *error;
} Pull;

static gint64
on_admit (gpointer user_data, guint64 bytes)
{
  Pull *pull = user_data;

  return copy_gate_admit (pull->gate, bytes);
}

static void
on_stored (gpointer user_data, const guint8 *data, gsize len, guint64 offset)
{
  Pull *pull = user_data;

  copy_samples_add (pull->run->samples, data, len, offset);
  if (pull->run->digest != NULL)
    nbd_digest_add (pull->run->digest, data, len, offset);
  if (pull->run->checkpoint != NULL)
    copy_gate_stored (pull->gate, len, offset);
}

static gboolean
on_prove (gpointer user_data, NbdClient *client, GError **error)
{
  Pull *pull = user_data;
  g_autoptr (GArray) samples = copy_samples_get (pull->run->samples, NULL);

  if (!copy_samples_prove (samples, client, NULL, RECONNECT_PROOF, pull->run->copy->timeout_ms,
                           pull->stop, error))
    return FALSE;
  pull->run->copy->n_reconnects++;
  copy_run_note (pull->run, "%s: connected again", nbd_client_get_name (client));
  return TRUE;
}

static void
on_lost (gpointer user_data, const GError *error)
{
  Pull *pull = user_data;

  copy_run_note (pull->run, "a connection failed: %s", error->message);
}

static gpointer
pull_thread (gpointer data)
{
  Pull *pull = data;
  CopyRun *run = pull->run;
  const MirrorObserver observer
      = { .admit = run->checkpoint != NULL ? on_admit : NULL, .stored = on_stored };
  const PullSpec spec = { .dialer = run->copy->dialer,
                          .target = run->target,
                          .work = pull->work,
                          .limit = pull->limit,
                          .state = &run->copy->state,
                          .bitmap = run->copy->bitmap,
                          .n_connections = pull->n_connections,
                          .timeout_ms = run->copy->timeout_ms,
                          .observer = &observer,
                          .prove = on_prove,
                          .lost = on_lost,
                          .target_failed = &pull->target_failed,
                          .user_data = pull,
                          .cancellable = pull->stop };

  pull->good = pull_run (&spec, g_steal_pointer (&run->client), &pull->error);
  copy_gate_end (pull->gate);
  return NULL;
}

/* All but what is left now is durable when this returns TRUE.  Where the target failed, its data
 * may be lost although a flush after that says nothing. */
static gboolean
pull_make_checkpoint (Pull *pull, GError **error)
{
  CopyRun *run = pull->run;
  g_autoptr (GArray) left = NULL;

  copy_gate_begin_checkpoint (pull->gate);
  left = work_list_get_left (pull->work);
  if (!run->target->klass->flush (run->target, error))
    {
      pull->target_failed = TRUE;
      return FALSE;
    }
  if (pull->target_failed)
    return TRUE;
  if (run->checkpoint != NULL && !checkpoint_append (run->checkpoint, left, error))
    return FALSE;
  copy_gate_end_checkpoint (pull->gate, left);
  g_array_unref (run->left);
  run->left = g_steal_pointer (&left);
  return TRUE;
}

/* While the thread copies.  Without a journal, too: all that a server has taken in hours may be
 * more than it can write out in the time that it is given for a flush. */
static gboolean
pull_keep_checkpoints (Pull *pull, GError **error)
{
  guint64 done = pull->run->copy->state.done;

  while (!copy_gate_has_ended (pull->gate))
    {
      g_usleep (PAUSE_US);
      copy_gate_wait (pull->gate, g_get_monotonic_time () + DUE_US);
      if (copy_gate_has_ended (pull->gate) || pull->run->copy->state.done == done)
        continue;
      done = pull->run->copy->state.done;
      if (!pull_make_checkpoint (pull, error))
        return FALSE;
    }
  return TRUE;
}

static gboolean
pull_coordinate (Pull *pull, GError **error)
{
  GThread *thread = g_thread_new ("copy", pull_thread, pull);
  gboolean kept = pull_keep_checkpoints (pull, error);

  if (!kept)
    g_cancellable_cancel (pull->stop);
  g_thread_join (thread);
  if (!kept)
    {
      g_clear_error (&pull->error);
      return FALSE;
    }
  if (pull->good)
    {
      pull->run->copy->phase = COPY_FLUSHING;
      return pull_make_checkpoint (pull, error);
    }
  if (pull->run->checkpoint != NULL && !pull->target_failed)
    pull_make_checkpoint (pull, NULL);
  g_propagate_error (error, pull->error);
  return FALSE;
}

static guint64
pull_get_unit (const CopyRun *run)
{
  guint64 unit = MAX (run->block, MIB);

  return run->digest != NULL ? MAX (unit, nbd_digest_get_segment_size (run->digest)) : unit;
}

/* What one connection copies before it takes something else: for a single one, everything. */
static guint64
pull_get_stripe (const Pull *pull)
{
  guint64 unit = pull_get_unit (pull->run);
  guint64 stripe = pull->run->copy->size / (PARTS * pull->n_connections);

  if (pull->n_connections == 1)
    return G_GUINT64_CONSTANT (1) << 63;
  stripe = MAX (stripe, MIN_STRIPE);
  return (stripe + unit - 1) / unit * unit;
}

/* With digests, the segments that are half done are read again, too. */
static guint64
pull_get_window (const Pull *pull)
{
  guint64 segments
      = pull->run->digest != NULL ? pull->n_connections * pull_get_unit (pull->run) : 0;
  guint64 other = PULL_MAX_IN_FLIGHT + segments;

  return other + MIN_WINDOW < MAX_BEYOND ? MAX_BEYOND - other : MIN_WINDOW;
}

static void
on_cancelled (GCancellable *cancellable, gpointer stop)
{
  g_cancellable_cancel (stop);
}

static guint
count_connections (const CopyRun *run)
{
  gboolean several = (nbd_client_get_export (run->client)->flags & NBD_FLAG_CAN_MULTI_CONN) != 0;

  return several ? run->copy->n_connections : 1;
}

gboolean
copy_run_pull (CopyRun *run, GError **error)
{
  Copy *copy = run->copy;
  g_autoptr (GCancellable) stop = g_cancellable_new ();
  g_autoptr (RateLimit) limit = copy->rate > 0 ? rate_limit_new (copy->rate) : NULL;
  Pull pull = { .run = run, .limit = limit, .stop = stop };
  guint64 window;
  gulong handler = 0;
  gboolean good;

  pull.n_connections = count_connections (run);
  window = pull_get_window (&pull);
  pull.gate = copy_gate_new (window, MIN (DUE_BYTES, window / 2));
  pull.work = work_list_new ((const WorkRange *)(void *)run->left->data, run->left->len,
                             pull_get_stripe (&pull));
  g_mutex_lock (&copy->lock);
  copy->work = pull.work;
  g_mutex_unlock (&copy->lock);
  if (run->cancellable != NULL)
    handler = g_cancellable_connect (run->cancellable, G_CALLBACK (on_cancelled), stop, NULL);
  good = pull_coordinate (&pull, error);
  g_cancellable_disconnect (run->cancellable, handler);
  copy_gate_free (pull.gate);
  return good;
}
