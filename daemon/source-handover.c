/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/fence.h"
#include "daemon/source-private.h"
#include "qmp/json-client.h"

#define POLL_MS 50
#define CANCEL_TIMEOUT_MS 10000
#define QUIT_TIMEOUT_MS 10000
#define RECONNECT_TIMEOUT_MS 5000
#define ASK_AGAIN_MS 1000

typedef enum
{
  OUTCOME_OPEN,      /* the stream is still on its way */
  OUTCOME_COMPLETED, /* postmigrate: all of it was sent, the guest stands still */
  OUTCOME_BACK,      /* QEMU gave up and has its guest back */
  OUTCOME_GONE       /* the process or its monitor is gone */
} Outcome;

static Outcome
look_at_outcome (SourceJob *job, const VmEvents *events)
{
  QmpExecutor *qmp = vm_get_executor (job->vm);
  g_autoptr (QmpMigration) migration = NULL;
  g_autofree char *status = NULL;
  gboolean running;

  if (events->resumes > job->resumes)
    return OUTCOME_BACK;
  if (events->closed)
    return OUTCOME_GONE;
  if (!(migration = qmp_query_migrate (qmp, NULL, NULL))
      || !qmp_query_status (qmp, NULL, &status, &running, NULL))
    return OUTCOME_OPEN;
  if (running)
    return OUTCOME_BACK;
  if (g_str_equal (migration->status, "completed") && g_str_equal (status, "postmigrate"))
    {
      source_show_ram (job, migration);
      return OUTCOME_COMPLETED;
    }
  if (g_str_equal (migration->status, "failed") || g_str_equal (migration->status, "cancelled"))
    return OUTCOME_BACK;
  return OUTCOME_OPEN;
}

static Outcome
wait_for_outcome (SourceJob *job, gint64 timeout_ms)
{
  gint64 until = g_get_monotonic_time () + timeout_ms * 1000;
  Outcome outcome;
  VmEvents events;

  vm_get_events (job->vm, &events);
  while ((outcome = look_at_outcome (job, &events)) == OUTCOME_OPEN
         && g_get_monotonic_time () < until)
    vm_wait_event (job->vm, &events, POLL_MS, NULL, &events);
  return outcome;
}

/* The process is gone; the agent watched its monitor from the release to the end and saw no
 * RESUME, so the guest never ran again here. */
static JobEvent
fenced_by_death (SourceJob *job, GError **error)
{
  if (vm_wait_exit (job->vm, QUIT_TIMEOUT_MS)
      && job_record (&job->base, json_args ("record", "s", "fenced", "by", "s", "death", NULL),
                     error))
    {
      job->fenced = TRUE;
      return JOB_EVENT_FENCED;
    }
  if (error && !*error)
    g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                 "the monitor %s is gone, but not its QEMU: whether the guest runs there can't be "
                 "told",
                 job->base.qmp_path);
  return JOB_EVENT_UNKNOWN;
}

static JobEvent
judge_outcome (SourceJob *job, Outcome outcome, GError **error)
{
  switch (outcome)
    {
    case OUTCOME_COMPLETED:
      return JOB_EVENT_DONE;
    case OUTCOME_GONE:
      return fenced_by_death (job, error);
    case OUTCOME_BACK:
      job_set_owner (&job->base, JOB_OWNED_BY_SOURCE);
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "the stream to %s broke off at its end: the guest goes on here", job->base.peer);
      return JOB_EVENT_FAILED;
    default:
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "%s: QEMU neither ends its migration nor gives it up", job->base.qmp_path);
      return JOB_EVENT_UNKNOWN;
    }
}

JobEvent
source_release (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  QmpExecutor *qmp = vm_get_executor (job->vm);
  g_autoptr (GError) failed = NULL;
  VmEvents events;
  Outcome outcome;

  vm_get_events (job->vm, &events);
  job->resumes = events.resumes;
  if (!job_record (base, json_args ("record", "s", "released", NULL), error))
    return JOB_EVENT_FAILED;
  job_set_owner (base, JOB_OWNED_BY_UNKNOWN);
  job_set_message (base, "released");
  if (!qmp_migrate_continue (qmp, NULL, &failed)
      && g_error_matches (failed, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_REPLY))
    g_message ("%s", failed->message);
  outcome = wait_for_outcome (job, SWITCHOVER_TIMEOUT_MS);
  if (outcome == OUTCOME_OPEN)
    {
      qmp_migrate_cancel (qmp, NULL, NULL);
      outcome = wait_for_outcome (job, CANCEL_TIMEOUT_MS);
    }
  return judge_outcome (job, outcome, error);
}

/* Where no lock can hold it (locking=off), only the end of the process is a fence. */
static JobEvent
fence_by_quitting (SourceJob *job, const GError *why, GError **error)
{
  VmEvents events;

  job_notice (&job->base, FALSE, "the source is fenced by ending its QEMU: %s", why->message);
  qmp_quit (vm_get_executor (job->vm), NULL, NULL);
  if (!vm_wait_exit (job->vm, QUIT_TIMEOUT_MS))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "%s: QEMU was told to quit and is still there", job->base.qmp_path);
      return JOB_EVENT_UNKNOWN;
    }
  vm_get_events (job->vm, &events);
  if (events.resumes > job->resumes)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "%s: QEMU had resumed its guest before it "
                   "could be fenced",
                   job->base.qmp_path);
      return JOB_EVENT_UNKNOWN;
    }
  return JOB_EVENT_DONE;
}

JobEvent
source_fence (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  g_autofree char *fd = source_id (job, "fence");
  g_autoptr (GPtrArray) images = g_ptr_array_new ();
  g_autoptr (GError) failed = NULL;

  job_set_message (base, "fencing");
  for (guint i = 0; i < job->disks->len; i++)
    if (source_disk (job, i)->locked)
      g_ptr_array_add (images, source_disk (job, i)->file);
  g_ptr_array_add (images, NULL);
  if (!fence_raise (vm_get_executor (job->vm), vm_get_pid (job->vm),
                    (const char *const *)images->pdata, fd, &failed))
    {
      VmEvents events;
      JobEvent event;

      vm_get_events (job->vm, &events);
      if (look_at_outcome (job, &events) == OUTCOME_BACK)
        return judge_outcome (job, OUTCOME_BACK, error);
      event = fence_by_quitting (job, failed, error);
      if (event != JOB_EVENT_DONE)
        return event;
    }
  if (!job_record (base, json_args ("record", "s", "fenced", NULL), error))
    return JOB_EVENT_UNKNOWN;
  job->fenced = TRUE;
  return JOB_EVENT_DONE;
}

static gboolean
link_is_up (SourceJob *job, GError **error)
{
  Job *base = &job->base;

  return (job->link
          && peer_link_call (job->link, "ping", NULL,
                             deadline_in (RECONNECT_TIMEOUT_MS, job_cancellable (base)), NULL,
                             NULL))
         || source_open_link (job, deadline_in (RECONNECT_TIMEOUT_MS, job_cancellable (base)),
                              error);
}

JobEvent
source_start (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  Deadline deadline = deadline_in (job->timeout_ms, job_cancellable (base));
  g_autoptr (GError) failed = NULL;
  JobEvent event = JOB_EVENT_UNKNOWN;

  job_set_message (base, "starting the guest at %s", base->peer);
  if (job->link)
    event = source_tell_start (job, &failed);
  while (event == JOB_EVENT_UNKNOWN && deadline_check (deadline, NULL))
    {
      g_clear_error (&failed);
      if (link_is_up (job, &failed))
        event = source_tell_start (job, &failed);
      if (event == JOB_EVENT_UNKNOWN)
        g_usleep (POLL_MS * 1000);
    }
  if (failed)
    g_propagate_error (error, g_steal_pointer (&failed));
  return event;
}

/* What the destination says without being told to start. */
static JobEvent
query_owner (SourceJob *job, GError **error)
{
  g_autoptr (JsonNode) answer = NULL;
  const char *owner = "", *state = "";

  if (!peer_link_call (job->link, "query", json_args ("job", "s", job->base.uuid, NULL),
                       deadline_in (RECONNECT_TIMEOUT_MS, job_cancellable (&job->base)), &answer,
                       error))
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

JobEvent
source_ask (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  gboolean fenced = job->fenced;
  GCancellable *cancellable = job_cancellable (base);

  job_set_message (base,
                   fenced
                       ? "fenced here, and no word from %s whether the guest runs there: it "
                         "can't run here. vmferry keeps asking. When %s can't come back: vmferry "
                         "resolve %s --owner source; when the guest runs there: --owner "
                         "destination; on both hosts"
                       : "released, and the QEMU here can't tell what became of the guest; %s "
                         "is being asked. Look at both hosts (%s too), then: vmferry resolve %s "
                         "--owner source|destination, on both",
                   base->peer, base->peer, base->uuid);
  while (!g_cancellable_is_cancelled (cancellable))
    {
      JobEvent event = JOB_EVENT_UNKNOWN;
      g_autoptr (GError) failed = NULL;

      if (link_is_up (job, &failed))
        event = fenced ? source_tell_start (job, &failed) : query_owner (job, &failed);
      if (event == JOB_EVENT_DONE)
        return JOB_EVENT_OWNED;
      if (event != JOB_EVENT_UNKNOWN)
        {
          if (failed)
            g_propagate_error (error, g_steal_pointer (&failed));
          return event;
        }
      for (guint i = 0; i < ASK_AGAIN_MS / POLL_MS && !g_cancellable_is_cancelled (cancellable);
           i++)
        g_usleep (POLL_MS * 1000);
    }
  g_cancellable_set_error_if_cancelled (cancellable, error);
  return JOB_EVENT_UNKNOWN;
}

JobEvent
source_unfence (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  g_autofree char *fd = source_id (job, "fence");
  QmpExecutor *qmp;

  job_set_message (base, "giving the guest back");
  if (!job->vm)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "the QEMU of %s is gone here and the guest was never started at %s: start it "
                   "again from its disks here",
                   base->guest, base->peer);
      return JOB_EVENT_FAILED;
    }
  qmp = vm_get_executor (job->vm);
  if (!job_record (base, json_args ("record", "s", "unfenced", NULL), error)
      || !fence_lift (qmp, fd, error) || (job->ran && !qmp_cont (qmp, NULL, error)))
    return JOB_EVENT_FAILED;
  job->fenced = FALSE;
  job_set_owner (base, JOB_OWNED_BY_SOURCE);
  return JOB_EVENT_DONE;
}

/* The stale source is quit: its guest runs elsewhere.  Never a QEMU whose guest runs. */
JobEvent
source_finish (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  gboolean running = FALSE;

  job_set_message (base, "ending the QEMU here");
  job_set_owner (base, JOB_OWNED_BY_DESTINATION);
  source_stop_guard (job);
  if (job->vm && qmp_query_status (vm_get_executor (job->vm), NULL, NULL, &running, NULL)
      && running)
    job_notice (base, TRUE, "the guest runs in the QEMU at %s too: it was left alone",
                base->qmp_path);
  else if (job->vm)
    {
      vm_set_lost_handler (job->vm, NULL, NULL);
      if (job->listener)
        {
          listener_close_door (job->listener, NULL);
          listener_destroy_connections (job->listener, NULL);
        }
      qmp_quit (vm_get_executor (job->vm), NULL, NULL);
      if (!vm_wait_exit (job->vm, QUIT_TIMEOUT_MS))
        job_notice (base, TRUE, "the QEMU at %s was told to quit and is still there",
                    base->qmp_path);
    }
  g_clear_pointer (&job->listener, listener_free);
  if (job->link)
    peer_link_call (job->link, "finish", json_args ("job", "s", base->uuid, NULL),
                    deadline_in (SWITCHOVER_TIMEOUT_MS, job_cancellable (base)), NULL, NULL);
  g_clear_pointer (&job->link, peer_link_free);
  g_clear_pointer (&job->vm, vm_free);
  job_set_message (base, "the guest runs at %s", base->peer);
  return JOB_EVENT_DONE;
}
