/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/follow.h"

#include "daemon/cli/progress.h"
#include "daemon/cli/report.h"
#include "daemon/cli/request.h"
#include "daemon/cli/text.h"
#include "daemon/cli/value.h"
#include "qmp/json-args.h"

#include <glib-unix.h>
#include <signal.h>
#include <string.h>

/* How often a lost agent is looked for. */
#define RETRY_MS 250

typedef enum
{
  CANCEL_UNASKED,
  CANCEL_WANTED, /* the agent has not heard of it yet */
  CANCEL_BEGUN,
  CANCEL_TOO_LATE
} CancelState;

struct CliFollow
{
  CliFollowConfig config;
  CliTerminal *terminal;
  CliSession *session; /* NULL: lost */
  char *host;
  guint sources[4];
  gboolean interrupted, hung_up;

  const char *wanted; /* the job's UUID; NULL: all */
  JsonObject *object;
  CliJob *job;
  CliProgress *progress;
  GHashTable *phases; /* UUID -> the phase that was printed last */

  CancelState cancel;
  char *cancel_text;
  gint64 lost_us; /* when the connection was lost */

  gboolean over;
  CliFollowEnd end;
  GError *error;
};

static gboolean
on_interrupt (gpointer data)
{
  CliFollow *follow = data;
  follow->interrupted = TRUE;
  return G_SOURCE_CONTINUE;
}

static gboolean
on_hangup (gpointer data)
{
  CliFollow *follow = data;
  follow->hung_up = TRUE;
  return G_SOURCE_CONTINUE;
}

static gboolean
on_tick (gpointer data)
{
  return G_SOURCE_CONTINUE;
}

CliFollow *
cli_follow_new (CliSession *session, const CliFollowConfig *config, CliTerminal *terminal)
{
  CliFollow *follow = g_new0 (CliFollow, 1);
  follow->config = *config;
  follow->terminal = terminal;
  follow->session = session;
  follow->host = g_strdup (cli_session_get_host (session));
  follow->progress = cli_progress_new ();
  follow->phases = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  follow->sources[0] = g_unix_signal_add (SIGINT, on_interrupt, follow);
  follow->sources[1] = g_unix_signal_add (SIGTERM, on_interrupt, follow);
  follow->sources[2] = g_unix_signal_add (SIGHUP, on_hangup, follow);
  follow->sources[3] = g_timeout_add (RETRY_MS, on_tick, follow);
  return follow;
}

void
cli_follow_free (CliFollow *follow)
{
  if (follow == NULL)
    return;
  for (guint i = 0; i < G_N_ELEMENTS (follow->sources); i++)
    g_source_remove (follow->sources[i]);
  cli_session_free (follow->session);
  g_free (follow->host);
  g_clear_pointer (&follow->object, json_object_unref);
  cli_job_free (follow->job);
  cli_progress_free (follow->progress);
  g_hash_table_unref (follow->phases);
  g_free (follow->cancel_text);
  g_clear_error (&follow->error);
  g_free (follow);
}

CliSession *
cli_follow_get_session (CliFollow *follow)
{
  return follow->session;
}

const CliJob *
cli_follow_get_job (CliFollow *follow)
{
  return follow->job;
}

JsonObject *
cli_follow_get_object (CliFollow *follow)
{
  return follow->object;
}

const char *
cli_follow_get_host (CliFollow *follow)
{
  return follow->host;
}

static void
finish (CliFollow *follow, CliFollowEnd end)
{
  follow->over = TRUE;
  follow->end = end;
}

static void say (CliFollow *follow, const char *format, ...) G_GNUC_PRINTF (2, 3);

static void
say (CliFollow *follow, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *text = g_strdup_vprintf (format, args);
  va_end (args);
  cli_terminal_print (follow->terminal, text);
}

/* Where there are no bars: a line whenever the phase changes. */
static void
print_phase (CliFollow *follow, const CliJob *job)
{
  g_autofree char *phase = cli_progress_describe_phase (job);
  const char *last = g_hash_table_lookup (follow->phases, job->id);
  if (last != NULL && strcmp (last, phase) == 0)
    return;
  say (follow, "%s", phase);
  g_hash_table_insert (follow->phases, g_strdup (job->id), g_steal_pointer (&phase));
}

static void
show_job (CliFollow *follow, const CliJob *job)
{
  cli_progress_update (follow->progress, job, g_get_monotonic_time ());
  if (follow->wanted == NULL || !cli_terminal_is_live (follow->terminal))
    {
      print_phase (follow, job);
      return;
    }
  guint columns, rows;
  cli_terminal_get_size (follow->terminal, &columns, &rows);
  cli_terminal_show (follow->terminal, cli_progress_render (follow->progress, job, columns, rows));
}

static void
take_job (CliFollow *follow, JsonObject *object)
{
  g_autoptr (CliJob) job = cli_job_new (object);
  show_job (follow, job);
  if (follow->wanted == NULL)
    return;
  if (cli_job_has_ended (job))
    finish (follow, CLI_FOLLOW_ENDED);
  else if (cli_job_needs_operator (job))
    finish (follow, CLI_FOLLOW_NEEDS_OPERATOR);
  g_clear_pointer (&follow->object, json_object_unref);
  follow->object = json_object_ref (object);
  cli_job_free (follow->job);
  follow->job = g_steal_pointer (&job);
}

static void
take_message (CliFollow *follow, JsonObject *data)
{
  const char *text = "", *level = "";
  json_get_string (data, "text", &text);
  json_get_string (data, "level", &level);
  g_autofree char *safe = cli_text_escape (text);
  say (follow, "%s%s", strcmp (level, "warning") == 0 ? "warning: " : "", safe);
}

/* {"event": NAME, ...}: the members of its data beside its name. */
static void
print_json (CliFollow *follow, const CliEvent *event)
{
  g_autoptr (JsonObject) line = json_args ("event", "s", event->name, NULL);
  g_autoptr (GList) names = json_object_get_members (event->data);
  for (GList *l = names; l != NULL; l = l->next)
    if (strcmp (l->data, "event") != 0)
      json_object_set_member (line, l->data, json_object_dup_member (event->data, l->data));
  g_autofree char *text = cli_report_json_line (line);
  fputs (text, follow->config.out);
  fflush (follow->config.out);
}

static gboolean
is_wanted (CliFollow *follow, JsonObject *data)
{
  const char *job = NULL;
  if (!json_get_string (data, "job", &job))
    return FALSE;
  return follow->wanted == NULL || strcmp (job, follow->wanted) == 0;
}

static void
take_event (CliFollow *follow, const CliEvent *event)
{
  if (!is_wanted (follow, event->data))
    return;
  if (follow->config.json)
    print_json (follow, event);
  if (strcmp (event->name, "JOB_MESSAGE") == 0)
    take_message (follow, event->data);
  else if (strcmp (event->name, "JOB_PROGRESS") == 0 || strcmp (event->name, "JOB_ENDED") == 0
           || strcmp (event->name, "JOB_NEEDS_OPERATOR") == 0)
    take_job (follow, event->data);
}

static void
lose_session (CliFollow *follow)
{
  g_clear_pointer (&follow->session, cli_session_free);
  follow->lost_us = g_get_monotonic_time ();
  say (follow, "lost the connection to %s, trying again for %d s", follow->config.socket,
       (int)(follow->config.patience_ms / 1000));
}

static void
drain_events (CliFollow *follow)
{
  while (!follow->over && follow->session != NULL)
    {
      g_autoptr (CliEvent) event = cli_session_take_event (follow->session);
      if (event == NULL)
        return;
      if (event->name == NULL)
        lose_session (follow);
      else
        take_event (follow, event);
    }
}

static void
remember_cancel (CliFollow *follow, CancelState state, char *text)
{
  follow->cancel = state;
  g_free (follow->cancel_text);
  follow->cancel_text = text;
  say (follow, "%s", text);
}

static void
send_cancel (CliFollow *follow)
{
  g_autoptr (GError) error = NULL;
  if (cli_request_cancel (follow->session, follow->wanted, &error))
    {
      remember_cancel (follow, CANCEL_BEGUN,
                       g_strdup ("cancelling: waiting until everything is undone"));
      return;
    }
  if (g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_LOST))
    return; /* stays wanted; that it is lost comes as an event */
  gboolean too_late = strcmp (json_client_error_class (error), "TooLate") == 0;
  remember_cancel (
      follow, too_late ? CANCEL_TOO_LATE : CANCEL_UNASKED,
      g_strdup_printf (too_late ? "too late to cancel: %s" : "cannot cancel: %s", error->message));
}

static void
answer_interrupt (CliFollow *follow)
{
  follow->interrupted = FALSE;
  if (!follow->config.cancels || follow->wanted == NULL)
    finish (follow, CLI_FOLLOW_INTERRUPTED);
  else if (follow->cancel == CANCEL_BEGUN || follow->cancel == CANCEL_TOO_LATE)
    say (follow, "%s", follow->cancel_text);
  else if (follow->session == NULL)
    remember_cancel (follow, CANCEL_WANTED,
                     g_strdup ("will be cancelled as soon as the agent is back"));
  else
    {
      follow->cancel = CANCEL_WANTED;
      send_cancel (follow);
    }
}

static gboolean
watch_again (CliFollow *follow, CliSession *session, GError **error)
{
  g_autoptr (GError) cause = NULL;
  if (cli_request_watch (session, follow->wanted, &cause))
    return TRUE;
  if (strcmp (json_client_error_class (cause), "NotFound") == 0)
    {
      g_set_error (&follow->error, CLI_ERROR, CLI_ERROR_AGENT,
                   "the agent was restarted and doesn't know job %s any more: "
                   "its log tells how the job ended",
                   follow->wanted);
      finish (follow, CLI_FOLLOW_LOST);
    }
  g_propagate_error (error, g_steal_pointer (&cause));
  return FALSE;
}

static void
give_up (CliFollow *follow, const GError *cause)
{
  g_set_error (&follow->error, CLI_ERROR, CLI_ERROR_AGENT,
               "%s; the job may go on: see 'vmferry status%s%s'", cause->message,
               follow->wanted != NULL ? " " : "", follow->wanted != NULL ? follow->wanted : "");
  finish (follow, CLI_FOLLOW_LOST);
}

static void
reconnect (CliFollow *follow)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (CliSession) session = cli_session_open (follow->config.socket, &error);
  if (session != NULL && watch_again (follow, session, &error))
    {
      say (follow, "connected to %s again", follow->config.socket);
      follow->session = g_steal_pointer (&session);
      if (follow->cancel == CANCEL_WANTED)
        send_cancel (follow);
      return;
    }
  gint64 waited_us = g_get_monotonic_time () - follow->lost_us;
  if (!follow->over && waited_us > follow->config.patience_ms * 1000)
    give_up (follow, error);
}

static void
step (CliFollow *follow)
{
  drain_events (follow);
  if (!follow->over && follow->hung_up)
    finish (follow, CLI_FOLLOW_HANGUP);
  if (!follow->over && follow->interrupted)
    answer_interrupt (follow);
  if (!follow->over && follow->session == NULL)
    reconnect (follow);
}

CliFollowEnd
cli_follow_run (CliFollow *follow, const char *job, GError **error)
{
  follow->wanted = job;
  for (;;)
    {
      step (follow);
      if (follow->over)
        break;
      g_main_context_iteration (NULL, TRUE);
    }
  if (follow->error != NULL)
    g_propagate_error (error, g_steal_pointer (&follow->error));
  return follow->end;
}
