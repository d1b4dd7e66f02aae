/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/pull-worker.h"
#include "nbd/nbd-error.h"

/* Twice what a pass asks for while a guest waits for its disk: fewer trips through the server. */
#define REQUEST_SIZE (512 * 1024)
/* QEMU keeps the memory of so many of them from one to the next; with more, or larger ones, it
 * fetches each page anew. */
#define FIRST_IN_FLIGHT (4 * REQUEST_SIZE)
/* Between attempts to connect; doubled each time. */
#define MIN_PAUSE_MS 100
#define MAX_PAUSE_MS 1000
/* For one attempt: the kernel's own pauses between attempts grow longer and longer, and a host that
 * comes back should be found soon. */
#define MIN_ATTEMPT_MS 5000

void
pull_worker_init (PullWorker *worker, Pull *pull, NbdClient *client, guint64 max_in_flight)
{
  worker->pull = pull;
  worker->client = client;
  in_flight_init (&worker->flight, FIRST_IN_FLIGHT, max_in_flight);
  worker->memo.beyond = g_array_new (FALSE, FALSE, sizeof (WorkRange));
}

void
pull_worker_clear (PullWorker *worker)
{
  nbd_client_free (worker->client);
  g_array_unref (worker->memo.beyond);
}

/* Copying */

static gint64
worker_admit (gpointer user_data, guint64 bytes)
{
  const PullSpec *spec = ((PullWorker *)user_data)->pull->spec;

  return spec->observer->admit (spec->user_data, bytes);
}

static void
worker_stored (gpointer user_data, const guint8 *data, gsize len, guint64 offset)
{
  const PullSpec *spec = ((PullWorker *)user_data)->pull->spec;

  spec->observer->stored (spec->user_data, data, len, offset);
}

static void
worker_settled (gpointer user_data, guint64 position)
{
  PullWorker *worker = user_data;

  work_list_settle (worker->pull->spec->work, worker->range.end, position);
}

static gboolean
worker_pass (PullWorker *worker, GError **error)
{
  const Pull *pull = worker->pull;
  const PullSpec *spec = pull->spec;
  const MirrorObserver *asked = spec->observer;
  MirrorObserver observer
      = { .admit = asked != NULL && asked->admit != NULL ? worker_admit : NULL,
          .stored = asked != NULL && asked->stored != NULL ? worker_stored : NULL,
          .settled = worker_settled };
  int allocation = spec->bitmap != NULL ? 1 : 0;
  MirrorPassSpec pass
      = { .client = worker->client,
          .target = spec->target,
          .limit = spec->limit,
          .state = spec->state,
          .bitmap_context = spec->bitmap != NULL ? 0 : -1,
          .allocation_context = pull->export.has_context[allocation] ? allocation : -1,
          .start = worker->range.start,
          .end = worker->range.end,
          .block = pull->block,
          .request_size = REQUEST_SIZE,
          .flight = &worker->flight,
          .zeroed = pull->zeroed,
          .observer = &observer,
          .user_data = worker,
          .timeout_ms = spec->timeout_ms,
          .cancellable = pull->stop,
          .memo = &worker->memo };

  g_array_set_size (worker->memo.beyond, 0);
  worker->memo.target_failed = FALSE;
  if (mirror_pass_run (&pass, NULL, error))
    return TRUE;
  if (worker->memo.target_failed && spec->target_failed != NULL)
    *spec->target_failed = TRUE;
  return FALSE;
}

/* Connecting */

static gboolean
is_lost (const GError *error)
{
  return nbd_error_is_lost (error) || g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT);
}

static gboolean
exports_equal (const NbdExport *a, const NbdExport *b)
{
  for (guint i = 0; i < NBD_MAX_CONTEXTS; i++)
    if (a->has_context[i] != b->has_context[i])
      return FALSE;
  return a->size == b->size && a->flags == b->flags && a->min_block == b->min_block
         && a->max_payload == b->max_payload && a->structured == b->structured;
}

static gboolean
worker_check_same (PullWorker *worker, NbdClient *client, GError **error)
{
  const NbdExport *then = &worker->pull->export, *now = nbd_client_get_export (client);

  if (exports_equal (then, now))
    return TRUE;
  g_set_error (error, NBD_ERROR, NBD_ERROR_SIZE,
               "%s: this is not the export that the copy began with: it had %" G_GUINT64_FORMAT
               " bytes and flags 0x%x, and now has %" G_GUINT64_FORMAT " bytes and flags 0x%x, or "
               "other block sizes or contexts",
               nbd_client_get_name (client), then->size, then->flags, now->size, now->flags);
  return FALSE;
}

static gboolean
worker_dial (PullWorker *worker, Deadline deadline, gboolean again, GError **error)
{
  const PullSpec *spec = worker->pull->spec;
  g_autoptr (NbdClient) client
      = nbd_dialer_connect (spec->dialer, worker->pull->contexts, deadline, error);

  if (client == NULL || !worker_check_same (worker, client, error))
    return FALSE;
  if (again && spec->prove != NULL && !spec->prove (spec->user_data, client, error))
    return FALSE;
  worker->client = g_steal_pointer (&client);
  return TRUE;
}

static void
worker_tell_lost (PullWorker *worker, const GError *error)
{
  const PullSpec *spec = worker->pull->spec;

  if (spec->lost != NULL && !g_cancellable_is_cancelled (worker->pull->stop))
    spec->lost (spec->user_data, error);
}

/* A connection beyond the first is a matter of speed: where the server has none for us, the others
 * do the work. */
static gboolean
worker_join (PullWorker *worker)
{
  g_autoptr (GError) error = NULL;
  Deadline deadline = deadline_in (worker->pull->spec->timeout_ms, worker->pull->stop);

  if (!work_list_has_free (worker->pull->spec->work))
    return FALSE;
  if (worker_dial (worker, deadline, FALSE, &error))
    return TRUE;
  worker_tell_lost (worker, error);
  return FALSE;
}

static gboolean
worker_give_up (PullWorker *worker, GError *loss, GError **error)
{
  gint64 timeout_ms = worker->pull->spec->timeout_ms;

  g_set_error (error, loss->domain, loss->code,
               "%s (nothing could be copied for %" G_GINT64_FORMAT ".%" G_GINT64_FORMAT " s)",
               loss->message, timeout_ms / 1000, timeout_ms % 1000 / 100);
  g_error_free (loss);
  return FALSE;
}

/* Takes `loss`, why the last connection ended. */
static gboolean
worker_reconnect (PullWorker *worker, GError *loss, GError **error)
{
  gint64 attempt = MAX (worker->pull->spec->timeout_ms / 3, MIN_ATTEMPT_MS);
  gint64 pause = MIN_PAUSE_MS;
  Deadline deadline;

  while (pull_may_retry (worker->pull, &deadline))
    {
      g_autoptr (GError) failure = NULL;

      deadline_poll (deadline_sooner (deadline, pause), -1, 0, NULL);
      pause = MIN (pause * 2, MAX_PAUSE_MS);
      if (worker_dial (worker, deadline_sooner (deadline, attempt), TRUE, &failure))
        {
          g_error_free (loss);
          return TRUE;
        }
      /* That there was no time left says less than why the connection was lost. */
      if (g_error_matches (failure, G_IO_ERROR, G_IO_ERROR_TIMED_OUT)
          && g_get_monotonic_time () >= deadline.at)
        break;
      g_error_free (loss);
      loss = g_steal_pointer (&failure);
      if (!is_lost (loss))
        {
          g_propagate_error (error, loss);
          return FALSE;
        }
    }
  return worker_give_up (worker, loss, error);
}

/* May the end of a pass be mended by a new connection?  After a time-out there is no time left for
 * that, unless others have got on. */
static gboolean
worker_can_mend (const PullWorker *worker, const GError *failure)
{
  const PullSpec *spec = worker->pull->spec;

  if (worker->memo.target_failed || !is_lost (failure))
    return FALSE;
  return !g_error_matches (failure, G_IO_ERROR, G_IO_ERROR_TIMED_OUT)
         || g_get_monotonic_time () - spec->state->progress_at < spec->timeout_ms * 1000;
}

/* One range, or as much of it as the connection lives for. */
static gboolean
worker_copy (PullWorker *worker, GError **error)
{
  GError *failure = NULL;
  gboolean good = worker_pass (worker, &failure);
  gboolean fatal = !good && !worker_can_mend (worker, failure);

  pull_put (worker->pull, &worker->range, worker->memo.beyond, fatal ? failure : NULL);
  if (good)
    return TRUE;
  if (fatal)
    {
      g_propagate_error (error, failure);
      return FALSE;
    }
  g_clear_pointer (&worker->client, nbd_client_free);
  worker_tell_lost (worker, failure);
  return worker_reconnect (worker, failure, error);
}

gboolean
pull_worker_run (PullWorker *worker, GError **error)
{
  if (worker->client == NULL && !worker_join (worker))
    return TRUE;
  while (pull_take (worker->pull, &worker->range))
    if (!worker_copy (worker, error))
      return FALSE;
  nbd_client_disconnect (worker->client);
  return TRUE;
}
