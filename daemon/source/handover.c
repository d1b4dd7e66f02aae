/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/fence.h"
#include "daemon/source/private.h"
#include "qmp/json-client.h"

#define POLL_MS 50
#define CANCEL_TIMEOUT_MS 10000
#define SENT_TIMEOUT_MS 60000
#define QUIT_TIMEOUT_MS 10000

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
  if (job->base.records)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "the QEMU of %s ended, and the agent had not watched it all the time",
                   job->base.guest);
      return JOB_EVENT_UNKNOWN;
    }
  if (source_is_domain (job) && !source_was_migrated (job))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "the QEMU of %s ended, and not because libvirt has migrated it",
                   job->base.guest);
      return JOB_EVENT_UNKNOWN;
    }
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
      /* QEMU waits for nothing any more: what the kernel has yet to send may take its time. */
      if (job->stream_fd >= 0)
        peer_link_tune_socket (job->stream_fd, SENT_TIMEOUT_MS);
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
source_end_stream (SourceJob *job, gint64 patience_ms, GError **error)
{
  Outcome outcome = wait_for_outcome (job, patience_ms);

  if (outcome == OUTCOME_OPEN)
    {
      source_break_stream (job);
      source_cancel_stream (job);
      outcome = wait_for_outcome (job, CANCEL_TIMEOUT_MS);
    }
  return judge_outcome (job, outcome, error);
}

JobEvent
source_release (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  QmpExecutor *qmp = vm_get_executor (job->vm);
  g_autoptr (GError) failed = NULL;
  VmEvents events;

  vm_get_events (job->vm, &events);
  job->resumes = events.resumes;
  job->gaps = events.gaps;
  if (!job_record (base, json_args ("record", "s", "released", "ran", "b", job->ran, NULL), error))
    return JOB_EVENT_FAILED;
  job_set_owner (base, JOB_OWNED_BY_UNKNOWN);
  job_set_message (base, "released");
  if (!(source_is_domain (job) ? source_let_go (job, &failed)
                               : qmp_migrate_continue (qmp, NULL, &failed))
      && g_error_matches (failed, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_REPLY))
    g_message ("%s", failed->message);
  return source_end_stream (job, SWITCHOVER_TIMEOUT_MS, error);
}

/* libvirt has been quicker than the fence, or will be: it ends the QEMU of a migration that has
 * succeeded.  Only that is waited for: of a guest that it brings back nothing is known. */
static JobEvent
fence_by_libvirt (SourceJob *job, const GError *why, GError **error)
{
  gint64 until = g_get_monotonic_time () + QUIT_TIMEOUT_MS * 1000;
  VmEvents events;

  vm_get_events (job->vm, &events);
  while (!events.closed && events.resumes == job->resumes && g_get_monotonic_time () < until)
    vm_wait_event (job->vm, &events, POLL_MS, NULL, &events);
  if (events.resumes > job->resumes)
    return judge_outcome (job, OUTCOME_BACK, error);
  if (events.closed)
    return fenced_by_death (job, error);
  g_propagate_error (error, g_error_copy (why));
  return JOB_EVENT_UNKNOWN;
}

/* Where no lock can hold it (locking=off), only the end of the process is a fence. */
static JobEvent
fence_by_quitting (SourceJob *job, const GError *why, GError **error)
{
  g_autofree char *status = NULL;
  VmEvents events;

  vm_get_events (job->vm, &events);
  /* One that has left postmigrate may have run its guest again meanwhile. */
  if (!events.closed
      && (!qmp_query_status (vm_get_executor (job->vm), NULL, &status, NULL, error)
          || !g_str_equal (status, "postmigrate")))
    {
      if (status)
        g_propagate_error (error, g_error_copy (why));
      return JOB_EVENT_UNKNOWN;
    }
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
      if (source_is_domain (job))
        {
          event = fence_by_libvirt (job, failed, error);
          return event == JOB_EVENT_FENCED ? JOB_EVENT_DONE : event;
        }
      event = fence_by_quitting (job, failed, error);
      if (event != JOB_EVENT_DONE)
        return event;
    }
  if (!job_record (base, json_args ("record", "s", "fenced", NULL), error))
    return JOB_EVENT_UNKNOWN;
  job->fenced = TRUE;
  return JOB_EVENT_DONE;
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
      if (source_link_is_up (job, &failed))
        event = source_tell_start (job, &failed);
      if (event == JOB_EVENT_UNKNOWN)
        g_usleep (POLL_MS * 1000);
    }
  if (failed)
    g_propagate_error (error, g_steal_pointer (&failed));
  return event;
}

/* The stale source is quit: its guest runs elsewhere.  Never a QEMU whose guest runs. */
JobEvent
source_finish (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  gboolean running = FALSE;
  SourceAnswer answer = SOURCE_ANSWER_NONE;

  job_set_message (base, "ending the QEMU here");
  if (base->resolved)
    job_record (base, json_args ("record", "s", "owner", NULL), NULL);
  job_set_owner (base, JOB_OWNED_BY_DESTINATION);
  source_stop_guard (job);
  if (job->vm && qmp_query_status (vm_get_executor (job->vm), NULL, NULL, &running, NULL)
      && running)
    job_notice (base, TRUE, "the guest runs in the QEMU at %s too: it was left alone",
                base->qmp_path);
  else if (job->vm && source_is_domain (job))
    source_finish_domain (job);
  else if (job->vm)
    {
      vm_set_lost_handler (job->vm, NULL, NULL);
      if (job->listener)
        {
          listener_close_door (job->listener, NULL);
          listener_destroy_connections (job->listener, NULL);
        }
      qmp_quit (vm_get_executor (job->vm), NULL, NULL);
      if (vm_wait_exit (job->vm, QUIT_TIMEOUT_MS))
        job->fenced = TRUE;
      else
        job_notice (base, TRUE, "the QEMU at %s was told to quit and is still there",
                    base->qmp_path);
    }
  if (!running && source_is_domain (job))
    source_undefine_domain (job);
  g_clear_pointer (&job->listener, listener_free);
  source_break_stream (job);
  if (job->link)
    answer = source_send_end (job, "finish", SWITCHOVER_TIMEOUT_MS, NULL);
  g_clear_pointer (&job->link, peer_link_free);
  g_clear_pointer (&job->vm, vm_free);
  job_set_message (base, "the guest runs at %s", base->peer);
  return answer == SOURCE_ANSWER_DONE ? JOB_EVENT_DONE : JOB_EVENT_UNTOLD;
}
