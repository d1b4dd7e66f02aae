/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/pull.h"
#include "nbd/nbd-error.h"
#include "nbd/pull-worker.h"

/* What the workers share */

gboolean
pull_take (Pull *pull, WorkRange *ret_range)
{
  gboolean over;

  g_mutex_lock (&pull->lock);
  while (!pull->over && !work_list_take (pull->spec->work, ret_range))
    {
      if (pull->n_busy == 0)
        pull->over = TRUE;
      else
        g_cond_wait (&pull->changed, &pull->lock);
    }
  over = pull->over;
  if (!over)
    pull->n_busy++;
  else
    {
      g_cond_broadcast (&pull->changed);
      /* Whoever is still connecting isn't needed any more. */
      g_cancellable_cancel (pull->stop);
    }
  g_mutex_unlock (&pull->lock);
  return !over;
}

/* Under the lock; takes `error`. */
static void
pull_end (Pull *pull, GError *error)
{
  if (pull->over)
    g_error_free (error);
  else
    pull->error = error;
  pull->over = TRUE;
  g_cond_broadcast (&pull->changed);
  g_cancellable_cancel (pull->stop);
}

void
pull_put (Pull *pull, const WorkRange *range, const GArray *beyond, const GError *fatal)
{
  g_mutex_lock (&pull->lock);
  if (fatal != NULL)
    pull_end (pull, g_error_copy (fatal));
  work_list_give_back (pull->spec->work, range->end, (const WorkRange *)(void *)beyond->data,
                       beyond->len);
  pull->n_busy--;
  g_cond_broadcast (&pull->changed);
  g_mutex_unlock (&pull->lock);
}

gboolean
pull_may_retry (Pull *pull, Deadline *ret_deadline)
{
  gint64 now = g_get_monotonic_time ();
  guint64 done = pull->spec->state->done;
  gint64 timeout_us = pull->spec->timeout_ms * 1000;

  g_mutex_lock (&pull->lock);
  if (pull->stuck_since == 0 || done != pull->stuck_done)
    pull->stuck_since = now;
  pull->stuck_done = done;
  *ret_deadline = (Deadline){ .at = timeout_us < 0 ? G_MAXINT64 : pull->stuck_since + timeout_us,
                              .cancellable = pull->stop };
  g_mutex_unlock (&pull->lock);
  return now < ret_deadline->at;
}

static void
pull_fail (Pull *pull, GError *error)
{
  g_mutex_lock (&pull->lock);
  pull_end (pull, error);
  g_mutex_unlock (&pull->lock);
}

static gpointer
pull_thread (gpointer data)
{
  PullWorker *worker = data;
  GError *error = NULL;

  if (!pull_worker_run (worker, &error))
    pull_fail (worker->pull, error);
  return NULL;
}

static guint
pull_count_connections (const Pull *pull)
{
  gboolean several = (pull->export.flags & NBD_FLAG_CAN_MULTI_CONN) != 0;

  return several ? MAX (pull->spec->n_connections, 1) : 1;
}

static void
pull_run_workers (Pull *pull, NbdClient *first)
{
  guint n = pull_count_connections (pull);
  g_autoptr (GPtrArray) threads = g_ptr_array_new ();
  g_autofree PullWorker *workers = g_new0 (PullWorker, n);

  for (guint i = 0; i < n; i++)
    {
      pull_worker_init (&workers[i], pull, i == 0 ? first : NULL, PULL_MAX_IN_FLIGHT / n);
      g_ptr_array_add (threads, g_thread_new ("pull", pull_thread, &workers[i]));
    }
  for (guint i = 0; i < n; i++)
    {
      g_thread_join (threads->pdata[i]);
      pull_worker_clear (&workers[i]);
    }
}

/* Pieces have to be whole blocks, which a request for less can't give. */
static gboolean
pull_check_export (const Pull *pull, NbdClient *client, GError **error)
{
  const NbdExport *export = &pull->export;

  if (export->max_payload >= pull->block || export->size <= export->max_payload)
    return TRUE;
  g_set_error (error, NBD_ERROR, NBD_ERROR_REFUSED,
               "%s: the server reads at most %u bytes at a time; at least %u are needed",
               nbd_client_get_name (client), export->max_payload, pull->block);
  return FALSE;
}

static void
pull_stop (GCancellable *cancellable, gpointer stop)
{
  g_cancellable_cancel (stop);
}

gboolean
pull_run (const PullSpec *spec, NbdClient *first, GError **error)
{
  Pull pull = { .spec = spec, .export = *nbd_client_get_export (first) };
  g_autoptr (GCancellable) stop = g_cancellable_new ();
  g_auto (GStrv) contexts = pull_get_contexts (spec->bitmap);
  gulong handler = 0;

  pull.zeroed = spec->bitmap == NULL && spec->target->is_zero;
  pull.block = MAX (pull.export.min_block, PULL_BLOCK);
  pull.stop = stop;
  pull.contexts = (const char *const *)contexts;
  if (!pull_check_bitmap (first, spec->bitmap, error) || !pull_check_export (&pull, first, error))
    {
      nbd_client_free (first);
      return FALSE;
    }
  spec->state->size = pull.export.size;
  spec->state->progress_at = g_get_monotonic_time ();
  g_mutex_init (&pull.lock);
  g_cond_init (&pull.changed);
  if (spec->cancellable != NULL)
    handler = g_cancellable_connect (spec->cancellable, G_CALLBACK (pull_stop), stop, NULL);
  pull_run_workers (&pull, first);
  g_cancellable_disconnect (spec->cancellable, handler);
  g_cond_clear (&pull.changed);
  g_mutex_clear (&pull.lock);
  if (pull.error == NULL)
    return TRUE;
  g_propagate_error (error, pull.error);
  return FALSE;
}
