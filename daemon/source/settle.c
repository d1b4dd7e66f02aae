/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/source/private.h"

#include "daemon/fence.h"
#include "qmp/json-client.h"

/* Where the handover broke off both sides have to come to know the same, however long it takes. */

#define CALL_TIMEOUT_MS 5000
#define ASK_AGAIN_MS 1000
#define BUSY_TRIES 50
#define LIFT_TIMEOUT_MS 60000
#define POLL_MS 100

/* FALSE: cancelled. */
static gboolean
pause_for (gint64 ms, GCancellable *cancellable)
{
  for (gint64 slept = 0; slept < ms && !g_cancellable_is_cancelled (cancellable); slept += POLL_MS)
    g_usleep (POLL_MS * 1000);
  return !g_cancellable_is_cancelled (cancellable);
}

SourceAnswer
source_send_end (SourceJob *job, const char *command, gint64 timeout_ms, GError **error)
{
  Job *base = &job->base;
  JsonObject *args = json_args ("job", "s", base->uuid, NULL);
  g_autoptr (GError) failed = NULL;
  const char *class;

  if (g_str_equal (command, "abort"))
    {
      g_mutex_lock (&base->lock);
      json_object_set_string_member (args, "reason",
                                     base->error ? base->error->message : "the job has ended");
      g_mutex_unlock (&base->lock);
    }
  if (peer_link_call (job->link, command, args, deadline_in (timeout_ms, NULL), NULL, &failed))
    return SOURCE_ANSWER_DONE;
  class = json_client_error_class (failed);
  g_propagate_error (error, g_steal_pointer (&failed));
  /* It has ended there and is forgotten. */
  if (g_str_equal (class, "NotFound"))
    return SOURCE_ANSWER_DONE;
  if (g_str_equal (class, "TooLate"))
    return SOURCE_ANSWER_OWNED;
  if (g_str_equal (class, "Never"))
    return SOURCE_ANSWER_NEVER;
  return g_str_equal (class, "Busy") ? SOURCE_ANSWER_BUSY : SOURCE_ANSWER_NONE;
}

/* The job has ended here; the destination holds the guest's other half until it knows that. */
JobEvent
source_tell (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  GCancellable *cancellable = job_cancellable (base);
  gboolean owned = base->state == JOB_DONE;

  job_notice (base, TRUE, "%s doesn't know yet that %s: it is told as soon as it answers",
              base->peer, owned ? "the job is done" : "the guest stays here");
  do
    {
      SourceAnswer answer = SOURCE_ANSWER_NONE;

      if (source_link_is_up (job, NULL))
        answer = source_send_end (job, owned ? "finish" : "abort", CALL_TIMEOUT_MS, NULL);
      /* A human gave it the guest here: with that word it may start it. */
      if (answer == SOURCE_ANSWER_BUSY && owned && job->fenced)
        source_tell_start (job, NULL);
      if (answer == SOURCE_ANSWER_OWNED || answer == SOURCE_ANSWER_NEVER)
        job_notice (base, TRUE, "%s says of %s: %s", base->peer, base->guest,
                    answer == SOURCE_ANSWER_OWNED ? "it runs there, too"
                                                  : "it was never started there");
      if (answer != SOURCE_ANSWER_NONE && answer != SOURCE_ANSWER_BUSY)
        {
          g_clear_pointer (&job->link, peer_link_free);
          return JOB_EVENT_DONE;
        }
    }
  while (pause_for (ASK_AGAIN_MS, cancellable));
  g_cancellable_set_error_if_cancelled (cancellable, error);
  return JOB_EVENT_UNTOLD;
}

/* What the destination says without being told to start. */
static JobEvent
query_owner (SourceJob *job, GError **error)
{
  g_autoptr (JsonNode) answer = NULL;
  const char *owner = "", *state = "";

  if (!peer_link_call (job->link, "query", json_args ("job", "s", job->base.uuid, NULL),
                       deadline_in (CALL_TIMEOUT_MS, job_cancellable (&job->base)), &answer, error))
    return JOB_EVENT_UNKNOWN;
  if (JSON_NODE_HOLDS_OBJECT (answer))
    {
      json_get_string (json_node_get_object (answer), "owner", &owner);
      json_get_string (json_node_get_object (answer), "state", &state);
    }
  if (g_str_equal (owner, "destination"))
    return JOB_EVENT_OWNED;
  g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "%s says: %.30s", job->base.peer, state);
  return g_str_equal (state, "failed") || g_str_equal (state, "cancelled") ? JOB_EVENT_NEVER
                                                                           : JOB_EVENT_UNKNOWN;
}

static JobEvent
ask_once (SourceJob *job, GError **error)
{
  JobEvent event;

  if (job->fenced)
    {
      if (!source_link_is_up (job, error))
        return JOB_EVENT_UNKNOWN;
      event = source_tell_start (job, error);
      return event == JOB_EVENT_DONE ? JOB_EVENT_OWNED : event;
    }
  /* A stream that stood still may have ended since. */
  if (job->vm && (event = source_end_stream (job, 0, error)) != JOB_EVENT_UNKNOWN)
    return event;
  g_clear_error (error);
  return source_link_is_up (job, error) ? query_owner (job, error) : JOB_EVENT_UNKNOWN;
}

JobEvent
source_ask (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  GCancellable *cancellable = job_cancellable (base);

  job_set_message (base,
                   job->fenced
                       ? "fenced here, and no word from %s whether the guest runs there: it "
                         "can't run here. vmferry keeps asking. When %s can't come back: vmferry "
                         "resolve %s --owner source; when the guest runs there: --owner "
                         "destination; on both hosts"
                       : "released, and the QEMU here can't tell what became of the guest; %s "
                         "is being asked. Look at both hosts (%s too), then: vmferry resolve %s "
                         "--owner source|destination, on both",
                   base->peer, base->peer, base->uuid);
  do
    {
      g_autoptr (GError) failed = NULL;
      JobEvent event = ask_once (job, &failed);

      if (event != JOB_EVENT_UNKNOWN)
        {
          if (failed)
            g_propagate_error (error, g_steal_pointer (&failed));
          return event;
        }
    }
  while (pause_for (ASK_AGAIN_MS, cancellable));
  g_cancellable_set_error_if_cancelled (cancellable, error);
  return JOB_EVENT_UNKNOWN;
}

/* A human gives the guest to the source; but a `start` of ours may be under way, or may have come
 * through a moment ago.  A destination that can be asked has to promise first that it never will;
 * of one that can't, the human knows more than we. */
static JobEvent
make_it_promise (SourceJob *job, GError **error)
{
  g_autoptr (GError) failed = NULL;

  /* What the kernel hasn't sent yet must not arrive any more. */
  g_clear_pointer (&job->link, peer_link_abort);
  if (!source_open_link (job, deadline_in (CALL_TIMEOUT_MS, job_cancellable (&job->base)), NULL))
    return JOB_EVENT_DONE;
  for (guint i = 0; i < BUSY_TRIES; i++)
    {
      g_clear_error (&failed);
      switch (source_send_end (job, "abort", CALL_TIMEOUT_MS, &failed))
        {
        case SOURCE_ANSWER_DONE:
        case SOURCE_ANSWER_NEVER:
          return JOB_EVENT_DONE;
        case SOURCE_ANSWER_OWNED:
          g_propagate_error (error, g_steal_pointer (&failed));
          return JOB_EVENT_OWNED;
        case SOURCE_ANSWER_BUSY:
          g_usleep (POLL_MS * 1000);
          break;
        default:
          i = BUSY_TRIES;
        }
    }
  g_propagate_prefixed_error (error, g_steal_pointer (&failed),
                              "%s answers, but doesn't say that it will never start the guest: end "
                              "its agent and try again: ",
                              job->base.peer);
  return JOB_EVENT_UNKNOWN;
}

/* A libvirtd that is being restarted answers soon; a fence that stays would keep the guest from
 * running for as long as its QEMU lives, and no job would know of it any more.  QEMU says no where
 * an earlier try has done it. */
static gboolean
lift_fence (SourceJob *job, const char *fd, GError **error)
{
  Deadline deadline = deadline_in (LIFT_TIMEOUT_MS, NULL);

  for (;;)
    {
      g_autoptr (GError) failed = NULL;
      VmEvents events;

      if (fence_lift (vm_get_executor (job->vm), fd, &failed)
          || g_error_matches (failed, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_REPLY))
        return TRUE;
      vm_get_events (job->vm, &events);
      if (events.closed || !deadline_check (deadline, NULL))
        {
          g_propagate_prefixed_error (error, g_steal_pointer (&failed),
                                      "the guest is fenced still (QMP: closefd %s lifts it): ", fd);
          return FALSE;
        }
      g_usleep (POLL_MS * 1000);
    }
}

JobEvent
source_unfence (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  g_autofree char *fd = source_id (job, "fence");
  VmEvents events = { .closed = TRUE };
  JobEvent event;

  job_set_message (base, "giving the guest back");
  if (base->resolved && (event = make_it_promise (job, error)) != JOB_EVENT_DONE)
    return event;
  /* libvirt has ended it, or it has died: nothing is left to be resumed. */
  if (job->vm)
    vm_get_events (job->vm, &events);
  if (events.closed)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "the QEMU of %s is gone here and the guest was never started at %s: start it "
                   "again from its disks here",
                   base->guest, base->peer);
      return JOB_EVENT_FAILED;
    }
  if (!job_record (base, json_args ("record", "s", "unfenced", NULL), error)
      || !lift_fence (job, fd, error) || (job->ran && !source_run_guest (job, error)))
    return JOB_EVENT_FAILED;
  job->fenced = FALSE;
  job_set_owner (base, JOB_OWNED_BY_SOURCE);
  return JOB_EVENT_DONE;
}
