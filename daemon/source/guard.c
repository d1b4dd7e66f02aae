/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/source/private.h"
#include "nbd/mirror.h"

#define PERIOD_MS 100
#define MONITOR_TIMEOUT_MS 500
#define PACE_TIMEOUT_MS 2000
#define MIN_IN_FLIGHT (256 * 1024)
/* An honest mirror never has more than MIRROR_MAX_IN_FLIGHT of replies on their way; TLS and the
 * kernel's own headers come on top. */
#define MAX_UNSENT (MIRROR_MAX_IN_FLIGHT + MIRROR_MAX_IN_FLIGHT / 2)

/* Looks at the connections, in a thread of its own: a QEMU that a peer has frozen answers nothing.
 */
typedef struct
{
  SourceJob *job;
  guint64 unsent; /* of the last look */
  gboolean over;  /* it was too much then already */
} Guard;

/* Follows the guest's latency, in another one. */
typedef struct
{
  SourceJob *job;
  Pace pace;
  gsize told; /* the in_flight that the peer knows */
} Pacer;

static gboolean
guard_wait (SourceJob *job)
{
  deadline_poll (deadline_in (PERIOD_MS, job->guard_stop), -1, 0, NULL);
  return !g_cancellable_is_cancelled (job->guard_stop);
}

/* The guest's block devices freeze in the next drain while QEMU waits for such a peer. */
static void
cut_off (SourceJob *job, const char *why)
{
  g_autoptr (GError) reason
      = g_error_new (JOB_ERROR, JOB_ERROR_FAILED,
                     "%s asked for data and didn't read it (%s): its connections were cut off",
                     job->base.peer, why);

  listener_close_door (job->listener, NULL);
  listener_destroy_connections (job->listener, NULL);
  job_post (&job->base, JOB_EVENT_PEER_LOST, reason);
}

static gboolean
monitor_answers (SourceJob *job)
{
  QmpExecutor *qmp = vm_get_executor (job->vm);
  g_autoptr (GError) error = NULL;

  return qmp->klass->call (qmp, "query-status", NULL, -1,
                           deadline_in (MONITOR_TIMEOUT_MS, job->guard_stop), NULL, &error)
         || !g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_TIMEOUT);
}

/* FALSE: it was cut off. */
static gboolean
watch_connections (Guard *guard)
{
  SourceJob *job = guard->job;
  ListenerStatus status;
  gboolean over;

  if (!listener_query (job->listener, &status, NULL))
    return TRUE;
  over = status.unsent_bytes > (guint64)MAX_UNSENT * MAX (job->disks->len, 1);
  if (over && guard->over && status.unsent_bytes >= guard->unsent)
    {
      cut_off (job, "more than it may have in flight");
      return FALSE;
    }
  /* What is clear without QEMU's word needn't wait for it. */
  if (!over && !monitor_answers (job) && status.unsent_bytes > 0
      && listener_query (job->listener, &status, NULL) && status.unsent_bytes > 0
      && status.unsent_bytes >= guard->unsent && guard->unsent > 0)
    {
      cut_off (job, "QEMU's monitor stood still over it");
      return FALSE;
    }
  guard->over = over;
  guard->unsent = status.unsent_bytes;
  return TRUE;
}

static void
tell_pace (Pacer *pacer, gsize in_flight)
{
  SourceJob *job = pacer->job;

  if (in_flight == pacer->told)
    return;
  g_mutex_lock (&job->base.lock);
  job->base.view.in_flight = in_flight;
  g_mutex_unlock (&job->base.lock);
  if (peer_link_call (
          job->link, "pace",
          json_args ("job", "s", job->base.uuid, "in-flight", "i", (gint64)in_flight, NULL),
          deadline_in (PACE_TIMEOUT_MS, job->guard_stop), NULL, NULL))
    pacer->told = in_flight;
}

static void
follow_guest (Pacer *pacer)
{
  SourceJob *job = pacer->job;
  g_autoptr (GPtrArray) stats
      = qmp_query_blockstats (vm_get_executor (job->vm), job->guard_stop, NULL);
  guint64 operations = 0, total_ns = 0;

  if (!stats)
    return;
  for (guint i = 0; i < stats->len; i++)
    {
      const QmpBlockStats *device = g_ptr_array_index (stats, i);
      operations += device->rd_operations + device->wr_operations + device->flush_operations;
      total_ns += device->rd_total_time_ns + device->wr_total_time_ns + device->flush_total_time_ns;
    }
  tell_pace (pacer, pace_update (&pacer->pace, operations, total_ns, g_get_monotonic_time ()));
}

static gpointer
pacer_thread (gpointer data)
{
  Pacer pacer = { .job = data };

  pace_init (&pacer.pace, MIN_IN_FLIGHT, MIRROR_MAX_IN_FLIGHT);
  while (guard_wait (pacer.job))
    follow_guest (&pacer);
  return NULL;
}

static gpointer
guard_thread (gpointer data)
{
  Guard guard = { .job = data };

  while (guard_wait (guard.job) && watch_connections (&guard))
    ;
  return NULL;
}

void
source_start_guard (SourceJob *job)
{
  g_assert (!job->guard);
  job->guard_stop = g_cancellable_new ();
  job->guard = g_thread_new ("guard", guard_thread, job);
  if (!job->full_speed)
    job->pacer = g_thread_new ("pacer", pacer_thread, job);
}

void
source_stop_guard (SourceJob *job)
{
  if (!job->guard)
    return;
  g_cancellable_cancel (job->guard_stop);
  g_clear_pointer (&job->guard, g_thread_join);
  g_clear_pointer (&job->pacer, g_thread_join);
  g_clear_object (&job->guard_stop);
}
