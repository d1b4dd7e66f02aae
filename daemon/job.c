/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/job.h"
#include "daemon/server.h"
#include "qmp/printable.h"

#define MAX_PEER_TEXT 1000

G_DEFINE_QUARK (vmferry - job - error, job_error)

typedef struct
{
  Job *job;
  JobEvent event;
  GError *error;
  gboolean lost;
} Posted;

static void job_step (Job *job, JobStep step);
static void job_start_action (Job *job, JobAction action);

void
job_init (Job *job, const JobClass *klass, Agent *agent, JobRole role, const char *uuid,
          const char *guest, const char *peer)
{
  job->klass = klass;
  job->agent = agent;
  job->role = role;
  job->uuid = g_strdup (uuid);
  job->guest = g_strdup (guest);
  job->peer = g_strdup (peer);
  job->started_us = g_get_monotonic_time ();
  job->cancellable = g_cancellable_new ();
  g_mutex_init (&job->lock);
  job->view.left_s = -1;
  job->view.downtime_us = -1;
  job->view.disks = g_array_new (FALSE, TRUE, sizeof (JobDisk));
  job->view.message = g_strdup ("");
}

static void
job_view_clear (JobView *view)
{
  for (guint i = 0; i < view->disks->len; i++)
    {
      JobDisk *disk = &g_array_index (view->disks, JobDisk, i);
      g_free (disk->disk);
      g_free (disk->source);
      g_free (disk->target);
      g_free (disk->format);
    }
  g_array_unref (view->disks);
  g_free (view->message);
}

void
job_clear (Job *job)
{
  g_assert (!job->running);
  g_free (job->uuid);
  g_free (job->guest);
  g_free (job->peer);
  g_free (job->qmp_path);
  journal_free (job->journal);
  g_clear_pointer (&job->records, g_ptr_array_unref);
  g_clear_object (&job->cancellable);
  g_clear_pointer (&job->answer, json_node_unref);
  g_clear_pointer (&job->command, json_object_unref);
  g_clear_error (&job->error);
  job_view_clear (&job->view);
  g_mutex_clear (&job->lock);
}

void
job_free (Job *job)
{
  if (job)
    job->klass->free (job);
}

static void
job_answer (Job *job, const GError *error)
{
  JobRequest *request = g_steal_pointer (&job->request);

  if (!request)
    g_clear_pointer (&job->answer, json_node_unref);
  else if (error)
    request_fail (request, error);
  else
    request_return (request, g_steal_pointer (&job->answer));
}

static void
job_keep_error (Job *job, const GError *error)
{
  g_mutex_lock (&job->lock);
  if (error && job->doubtful)
    g_clear_error (&job->error);
  if (error && !job->error)
    {
      job->error = g_error_copy (error);
      job->doubtful = FALSE;
    }
  g_mutex_unlock (&job->lock);
}

static void
job_forget (Job *job)
{
  g_autoptr (GError) error = NULL;

  if (job->journal && !journal_remove (job->journal, &error))
    job_notice (job, TRUE, "%s", error->message);
  g_clear_pointer (&job->journal, journal_free);
}

static void
job_end (Job *job)
{
  /* What went wrong on the way is in the log. */
  g_mutex_lock (&job->lock);
  if (job->state == JOB_DONE)
    g_clear_error (&job->error);
  g_mutex_unlock (&job->lock);
  job->ended_us = g_get_monotonic_time ();
  agent_job_ended (job->agent, job);
}

typedef struct
{
  Job *job;
  JobAction action;
  JobEvent event;
  GError *error;
} Finished;

static gboolean
job_on_finished (gpointer data)
{
  Finished *finished = data;
  Job *job = finished->job;
  g_autoptr (GError) error = finished->error;
  JobEvent event = finished->event;
  gboolean superseded = job->superseded;

  g_free (finished);
  job->running = FALSE;
  job->superseded = FALSE;
  if (superseded)
    {
      job_start_action (job, job->queued);
      return G_SOURCE_REMOVE;
    }
  if (error && !job_state_is_final (job->state))
    g_message ("job %.8s: %s: %s", job->uuid, job_state_to_string (job->state), error->message);
  if (event != JOB_EVENT_DONE)
    job_keep_error (job, error);
  if (event == JOB_EVENT_UNKNOWN)
    job->doubtful = TRUE;
  job_answer (job, event == JOB_EVENT_DONE ? NULL : error);
  job_step (job, job_table_step (job->role, job->state, event));
  return G_SOURCE_REMOVE;
}

static gpointer
job_action_thread (gpointer data)
{
  Finished *finished = data;

  finished->event
      = finished->job->klass->actions[finished->action](finished->job, &finished->error);
  g_assert (finished->event != JOB_EVENT_DONE || !finished->error);
  g_idle_add_full (G_PRIORITY_DEFAULT, job_on_finished, finished, NULL);
  return NULL;
}

static void
job_start_action (Job *job, JobAction action)
{
  Finished *finished = g_new0 (Finished, 1);
  GCancellable *fresh = g_cancellable_new ();
  GCancellable *old;

  g_mutex_lock (&job->lock);
  old = job->cancellable;
  job->cancellable = fresh;
  g_mutex_unlock (&job->lock);
  g_object_unref (old);

  g_assert (job->klass->actions[action]);
  job->queued = JOB_ACTION_NONE;
  job->running = TRUE;
  finished->job = job;
  finished->action = action;
  g_thread_unref (g_thread_new (job_action_to_string (action), job_action_thread, finished));
}

/* Whoever waits for the action that is about to be superseded waits in vain. */
static void
job_interrupt (Job *job, const GError *reason)
{
  g_autoptr (GError) error = NULL;

  if (!job->request)
    return;
  error = g_error_new (JOB_ERROR, JOB_ERROR_FAILED, "interrupted: %s",
                       reason ? reason->message : "the job has ended");
  job_answer (job, error);
}

/* What was lost stays lost: a state that cares learns it on entry. */
static void
job_repeat_lost (Job *job)
{
  for (JobEvent event = JOB_EVENT_PEER_LOST; event <= JOB_EVENT_QEMU_LOST; event++)
    if ((job->sticky & (1u << event)) && !job_state_is_final (job->state))
      {
        JobStep step = job_table_step (job->role, job->state, event);
        if (step.action != JOB_ACTION_IGNORE)
          {
            job_interrupt (job, job->error);
            job_step (job, step);
            return;
          }
      }
}

static void
job_step (Job *job, JobStep step)
{
  if (step.action == JOB_ACTION_IGNORE)
    return;
  if (step.action == JOB_ACTION_FORGET)
    {
      job_forget (job);
      return;
    }
  if (!job_state_is_pass (job->state) && !job_state_is_pass (step.state))
    g_message ("job %.8s (%s): %s", job->uuid, job->guest, job_state_to_string (step.state));
  g_mutex_lock (&job->lock);
  job->state = step.state;
  job->view_changed = TRUE;
  g_mutex_unlock (&job->lock);

  if (job->running)
    {
      job->superseded = TRUE;
      job->queued = step.action;
      g_cancellable_cancel (job->cancellable);
    }
  else if (step.action == JOB_ACTION_END)
    {
      job_forget (job);
      job_end (job);
    }
  else if (step.action != JOB_ACTION_NONE)
    job_start_action (job, step.action);

  if (step.action == JOB_ACTION_TELL)
    job_end (job);
  if (step.action == JOB_ACTION_ASK)
    agent_emit (job->agent, job, "JOB_NEEDS_OPERATOR", job_describe (job));
  job_repeat_lost (job);
}

void
job_begin (Job *job, JobState state, JobAction action)
{
  job_step (job, (JobStep){ state, action });
}

static gboolean
job_step_allowed (Job *job, JobStep step, GError **error)
{
  switch (step.action)
    {
    case JOB_ACTION_REFUSE:
      g_set_error (error, JOB_ERROR, JOB_ERROR_BUSY, "job %.8s: that can't be done while it is %s",
                   job->uuid, job_state_to_string (job->state));
      return FALSE;
    case JOB_ACTION_TOO_LATE:
      g_set_error (error, JOB_ERROR, JOB_ERROR_TOO_LATE,
                   "job %.8s: too late, the guest is being handed over (%s)", job->uuid,
                   job_state_to_string (job->state));
      return FALSE;
    case JOB_ACTION_NEVER:
      g_set_error (error, JOB_ERROR, JOB_ERROR_NEVER,
                   "job %.8s: the guest was not started here and never will be", job->uuid);
      return FALSE;
    default:
      return TRUE;
    }
}

gboolean
job_event (Job *job, JobEvent event, const GError *reason, GError **error)
{
  JobStep step = job_table_step (job->role, job->state, event);

  if (!job_step_allowed (job, step, error))
    return FALSE;
  if (step.action == JOB_ACTION_AGAIN || step.action == JOB_ACTION_AWAIT
      || step.action == JOB_ACTION_IGNORE)
    return TRUE;
  job->resolved = event == JOB_EVENT_RESOLVE_SOURCE || event == JOB_EVENT_RESOLVE_DESTINATION;
  job_keep_error (job, reason);
  job_interrupt (job, reason);
  job_step (job, step);
  return TRUE;
}

void
job_command (Job *job, JobEvent event, JobRequest *request, JsonObject *args)
{
  g_autoptr (GError) error = NULL;
  JobStep step = job_table_step (job->role, job->state, event);

  if (!job_step_allowed (job, step, &error))
    {
      request_fail (request, error);
      return;
    }
  if (step.action == JOB_ACTION_AWAIT)
    {
      /* Whoever asked before, over a connection that is dead by now, is answered all the same: but
       * never that it has been done. */
      if (job->request)
        {
          error = g_error_new (JOB_ERROR, JOB_ERROR_BUSY, "job %.8s: asked again", job->uuid);
          request_fail (job->request, error);
        }
      job->request = request;
      return;
    }
  if (step.action == JOB_ACTION_AGAIN)
    {
      request_return (request, NULL);
      return;
    }
  if (event == JOB_EVENT_ABORT)
    {
      const char *reason = "no reason given";
      g_autofree char *why = NULL;

      json_get_string (args, "reason", &reason);
      why = printable (reason, MAX_PEER_TEXT);
      error = g_error_new (JOB_ERROR, JOB_ERROR_FAILED, "%s gave up: %s", job->peer, why);
      job_keep_error (job, error);
    }
  job_interrupt (job, error);
  job->resolved = FALSE;
  job->request = request;
  g_clear_pointer (&job->command, json_object_unref);
  job->command = json_object_ref (args);
  job_step (job, step);
}

static gboolean
job_on_posted (gpointer data)
{
  Posted *posted = data;
  Job *job = posted->job;

  if (!job_state_is_final (job->state))
    {
      if (posted->lost)
        job->sticky |= 1u << posted->event;
      job_event (job, posted->event, posted->error, NULL);
    }
  g_clear_error (&posted->error);
  g_free (posted);
  return G_SOURCE_REMOVE;
}

static void
job_post_full (Job *job, JobEvent event, const GError *reason, gboolean lost)
{
  Posted *posted = g_new0 (Posted, 1);

  /* How an action ended is told by the action alone. */
  g_assert (event >= JOB_EVENT_PEER_LOST);
  posted->job = job;
  posted->event = event;
  posted->error = reason ? g_error_copy (reason) : NULL;
  posted->lost = lost;
  g_idle_add_full (G_PRIORITY_DEFAULT, job_on_posted, posted, NULL);
}

void
job_post (Job *job, JobEvent event, const GError *reason)
{
  job_post_full (job, event, reason, FALSE);
}

void
job_post_lost (Job *job, JobEvent event, const GError *reason)
{
  job_post_full (job, event, reason, TRUE);
}

void
job_forget_lost (Job *job, JobEvent event)
{
  job->sticky &= ~(1u << event);
}

GCancellable *
job_cancellable (Job *job)
{
  GCancellable *cancellable;

  g_mutex_lock (&job->lock);
  cancellable = job->cancellable;
  g_mutex_unlock (&job->lock);
  return cancellable;
}

gboolean
job_record (Job *job, JsonObject *record, GError **error)
{
  gboolean ok = !job->journal || journal_append (job->journal, record, error);

  json_object_unref (record);
  return ok;
}

JsonObject *
job_find_record (Job *job, const char *name)
{
  for (guint i = job->records ? job->records->len : 0; i-- > 0;)
    {
      const char *record = "";
      json_get_string (job->records->pdata[i], "record", &record);
      if (g_str_equal (record, name))
        return job->records->pdata[i];
    }
  return NULL;
}
