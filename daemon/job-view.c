/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/job.h"

static const char *const owner_names[] = { "source", "destination", "unknown" };

void
job_set_message (Job *job, const char *format, ...)
{
  va_list args;

  va_start (args, format);
  g_mutex_lock (&job->lock);
  g_free (job->view.message);
  job->view.message = g_strdup_vprintf (format, args);
  job->view_changed = TRUE;
  g_mutex_unlock (&job->lock);
  va_end (args);
}

typedef struct
{
  Job *job;
  gboolean warning;
  char *text;
} Notice;

static gboolean
job_on_notice (gpointer data)
{
  Notice *notice = data;

  agent_emit (notice->job->agent, notice->job, "JOB_MESSAGE",
              json_args ("job", "s", notice->job->uuid, "level", "s",
                         notice->warning ? "warning" : "info", "text", "s", notice->text, NULL));
  g_free (notice->text);
  g_free (notice);
  return G_SOURCE_REMOVE;
}

void
job_notice (Job *job, gboolean warning, const char *format, ...)
{
  Notice *notice = g_new0 (Notice, 1);
  va_list args;

  va_start (args, format);
  notice->job = job;
  notice->warning = warning;
  notice->text = g_strdup_vprintf (format, args);
  va_end (args);
  g_log (G_LOG_DOMAIN, warning ? G_LOG_LEVEL_WARNING : G_LOG_LEVEL_MESSAGE, "job %.8s: %s",
         job->uuid, notice->text);
  g_idle_add_full (G_PRIORITY_DEFAULT, job_on_notice, notice, NULL);
}

void
job_set_owner (Job *job, JobOwner owner)
{
  g_mutex_lock (&job->lock);
  job->view.owner = owner;
  job->view_changed = TRUE;
  g_mutex_unlock (&job->lock);
}

JobOwner
job_get_owner (Job *job)
{
  JobOwner owner;

  g_mutex_lock (&job->lock);
  owner = job->view.owner;
  g_mutex_unlock (&job->lock);
  return owner;
}

gboolean
job_take_changed (Job *job)
{
  gboolean changed;

  g_mutex_lock (&job->lock);
  changed = job->view_changed;
  job->view_changed = FALSE;
  g_mutex_unlock (&job->lock);
  return changed;
}

static JsonArray *
job_describe_disks (const JobView *view, gint64 *ret_sent, gint64 *ret_zero)
{
  JsonArray *disks = json_array_new ();

  *ret_sent = *ret_zero = 0;
  for (guint i = 0; i < view->disks->len; i++)
    {
      const JobDisk *disk = &g_array_index (view->disks, JobDisk, i);

      *ret_sent += disk->read;
      *ret_zero += disk->zero;
      json_array_add_object_element (
          disks, json_args ("disk", "s", disk->disk, "source", "s", disk->source, "target", "s",
                            disk->target, "format", "s", disk->format, "size", "i",
                            (gint64)disk->size, "todo", "i", (gint64)disk->todo, "done", "i",
                            (gint64)disk->done, "pass", "i", (gint64)disk->pass, NULL));
    }
  return disks;
}

/* 0 done, 1 failed, 3 needs the operator, 130 cancelled; -1 while it runs. */
static int
job_exit_status (const Job *job)
{
  switch (job->state)
    {
    case JOB_DONE:
      return 0;
    case JOB_FAILED:
      return 1;
    case JOB_CANCELLED:
      return 130;
    case JOB_NEEDS_OPERATOR:
      return 3;
    default:
      return -1;
    }
}

static void
set_or_null (JsonObject *object, const char *name, gboolean known, double value)
{
  if (known)
    json_object_set_double_member (object, name, value);
  else
    json_object_set_null_member (object, name);
}

JsonObject *
job_describe (Job *job)
{
  const JobView *view = &job->view;
  gint64 until = job->ended_us > 0 ? job->ended_us : g_get_monotonic_time ();
  int status = job_exit_status (job);
  gint64 sent, zero;
  JsonObject *object;

  g_mutex_lock (&job->lock);
  object = json_args ("job", "s", job->uuid, "guest", "s", job->guest, "role", "s",
                      job->role == JOB_SOURCE ? "source" : "destination", "peer", "s", job->peer,
                      "state", "s", job_state_to_string (job->state), "owner", "s",
                      owner_names[view->owner], "total_s", "d", (until - job->started_us) / 1e6,
                      "passes", "i", (gint64)view->passes, "rate", "i", (gint64)view->rate,
                      "in_flight", "i", (gint64)view->in_flight, "disks", "a",
                      job_describe_disks (view, &sent, &zero), "ram", "o",
                      json_args ("total", "i", (gint64)view->ram_total, "sent", "i",
                                 (gint64)view->ram_sent, "left", "i", (gint64)view->ram_left, NULL),
                      "message", "s", view->message, NULL);
  json_object_set_int_member (object, "sent_bytes", sent + (gint64)view->ram_sent);
  json_object_set_int_member (object, "zero_bytes", zero);
  set_or_null (object, "downtime_ms", view->downtime_us >= 0, view->downtime_us / 1000.0);
  set_or_null (object, "left_s", view->left_s >= 0, view->left_s);
  if (job->error)
    json_object_set_string_member (object, "error", job->error->message);
  else
    json_object_set_null_member (object, "error");
  if (status >= 0)
    json_object_set_int_member (object, "exit", status);
  else
    json_object_set_null_member (object, "exit");
  g_mutex_unlock (&job->lock);
  return object;
}
