/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/run.h"

#include "daemon/cli/copy.h"
#include "daemon/cli/follow.h"
#include "daemon/cli/report.h"
#include "daemon/cli/request.h"
#include "daemon/cli/status.h"
#include "daemon/cli/text.h"
#include "qmp/json-args.h"

#include <string.h>
#include <unistd.h>

typedef struct
{
  const CliOptions *options;
  const CliEnvironment *environment;
  CliTerminal *terminal;
} Run;

static void
print_result (const Run *run, const char *text)
{
  fputs (text, run->environment->out);
  fflush (run->environment->out);
}

static void
print_json_result (const Run *run, JsonObject *job, const char *error)
{
  g_autofree char *line = cli_report_json (job, run->options->guest, error);
  print_result (run, line);
}

/* One line for people, and with --json the result object. */
static int
fail (const Run *run, JsonObject *job, const GError *error)
{
  g_autofree char *text = cli_text_escape (error->message);
  cli_terminal_print (run->terminal, text);
  if (run->options->json)
    print_json_result (run, job, error->message);
  gboolean usage = g_error_matches (error, CLI_ERROR, CLI_ERROR_USAGE)
                   || strcmp (json_client_error_class (error), "Usage") == 0;
  return usage ? CLI_EXIT_USAGE : CLI_EXIT_FAILED;
}

static CliFollow *
new_follow (const Run *run, CliSession *session, gboolean cancels)
{
  const CliFollowConfig config = { .socket = run->options->socket,
                                   .out = run->environment->out,
                                   .json = run->options->json,
                                   .cancels = cancels,
                                   .patience_ms = run->environment->patience_ms };
  return cli_follow_new (session, &config, run->terminal);
}

/* Why the job is as it is, for people. */
static void
print_reason (const Run *run, const CliJob *job)
{
  if (!cli_job_needs_operator (job))
    {
      if (job->error != NULL)
        cli_terminal_print (run->terminal, job->error);
      return;
    }
  g_autofree char *hint
      = g_strdup_printf ("when it is clear which QEMU shall run %s, say so at both hosts: "
                         "vmferry resolve %s --owner source|destination",
                         job->guest, job->id);
  if (*job->message != '\0')
    cli_terminal_print (run->terminal, job->message);
  cli_terminal_print (run->terminal, hint);
}

/* A job that has ended or needs the operator. */
static int
report_end (const Run *run, CliFollow *follow)
{
  const CliJob *job = cli_follow_get_job (follow);
  g_autofree char *report = cli_report_result (job, cli_follow_get_host (follow));
  print_reason (run, job);
  if (run->options->json)
    print_json_result (run, cli_follow_get_object (follow), NULL);
  else
    print_result (run, report);
  return cli_job_exit_status (job);
}

static int
leave_job (const Run *run, const char *id, int status)
{
  g_autofree char *text = g_strdup_printf ("job %s goes on: see 'vmferry status'", id);
  cli_terminal_print (run->terminal, text);
  return status;
}

static int
follow_job (const Run *run, CliFollow *follow, const char *id)
{
  g_autoptr (GError) error = NULL;
  switch (cli_follow_run (follow, id, &error))
    {
    case CLI_FOLLOW_ENDED:
    case CLI_FOLLOW_NEEDS_OPERATOR:
      return report_end (run, follow);
    case CLI_FOLLOW_INTERRUPTED:
      return leave_job (run, id, CLI_EXIT_CANCELLED);
    case CLI_FOLLOW_HANGUP:
      return leave_job (run, id, CLI_EXIT_HANGUP);
    case CLI_FOLLOW_LOST:
      break;
    }
  return fail (run, cli_follow_get_object (follow), error);
}

static void
print_detached (const Run *run, const char *id)
{
  g_autofree char *safe = cli_text_escape (id);
  g_autofree char *line = g_strdup_printf ("%s\n", safe);
  g_autoptr (JsonObject) job
      = json_args ("job", "s", id, "guest", "s", run->options->guest, "owner", "s", "source", NULL);
  if (run->options->json)
    print_json_result (run, job, NULL);
  else
    print_result (run, line);
}

static int
run_migrate (const Run *run, CliSession *session)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *id = NULL;
  /* Before the command is sent: from then on Ctrl-C must cancel it. */
  g_autoptr (CliFollow) follow = new_follow (run, session, TRUE);
  if (!cli_request_migrate (session, run->options, &id, &error))
    return fail (run, NULL, error);
  if (!run->options->detach)
    return follow_job (run, follow, id);
  print_detached (run, id);
  return CLI_EXIT_DONE;
}

static GPtrArray *
parse_jobs (JsonArray *array)
{
  GPtrArray *jobs = g_ptr_array_new_with_free_func ((GDestroyNotify)cli_job_free);
  for (guint i = 0; i < json_array_get_length (array); i++)
    {
      JsonObject *object = json_array_get_object_or_null (array, i);
      if (object != NULL)
        g_ptr_array_add (jobs, cli_job_new (object));
    }
  return jobs;
}

static void
print_jobs (const Run *run, CliSession *session, GPtrArray *jobs)
{
  if (run->options->command == CLI_COMMAND_JOBS)
    {
      g_autofree char *table = cli_report_table (jobs);
      print_result (run, table);
      return;
    }
  if (jobs->len == 0)
    cli_terminal_print (run->terminal, "there are no jobs");
  for (guint i = 0; i < jobs->len; i++)
    {
      g_autofree char *status
          = cli_report_status (g_ptr_array_index (jobs, i), cli_session_get_host (session));
      print_result (run, i > 0 ? "\n" : "");
      print_result (run, status);
    }
}

/* `jobs`, and `status` without a job. */
static int
run_jobs (const Run *run, CliSession *session)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonArray) array = cli_request_query_all (session, &error);
  if (array == NULL)
    return fail (run, NULL, error);
  if (run->options->json)
    {
      g_autoptr (JsonObject) all = json_args ("jobs", "a", json_array_ref (array), NULL);
      g_autofree char *line = cli_report_json_line (all);
      print_result (run, line);
      return CLI_EXIT_DONE;
    }
  g_autoptr (GPtrArray) jobs = parse_jobs (array);
  print_jobs (run, session, jobs);
  return CLI_EXIT_DONE;
}

static int
run_status (const Run *run, CliSession *session)
{
  if (run->options->job == NULL)
    return run_jobs (run, session);
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonObject) object = NULL;
  const char *id;
  if (!cli_request_query (session, run->options->job, &object, &id, &error))
    return fail (run, NULL, error);
  if (run->options->json)
    {
      print_json_result (run, object, NULL);
      return CLI_EXIT_DONE;
    }
  g_autoptr (CliJob) job = cli_job_new (object);
  g_autofree char *status = cli_report_status (job, cli_session_get_host (session));
  print_result (run, status);
  return CLI_EXIT_DONE;
}

static int
watch_all (const Run *run, CliFollow *follow)
{
  g_autoptr (GError) error = NULL;
  if (!cli_request_watch (cli_follow_get_session (follow), NULL, &error))
    return fail (run, NULL, error);
  switch (cli_follow_run (follow, NULL, &error))
    {
    case CLI_FOLLOW_LOST:
      return fail (run, NULL, error);
    case CLI_FOLLOW_HANGUP:
      return CLI_EXIT_HANGUP;
    default:
      return CLI_EXIT_CANCELLED;
    }
}

static int
run_watch (const Run *run, CliSession *session)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonObject) object = NULL;
  const char *id;
  g_autoptr (CliFollow) follow = new_follow (run, session, FALSE);
  if (run->options->job == NULL)
    return watch_all (run, follow);
  if (!cli_request_query (session, run->options->job, &object, &id, &error)
      || !cli_request_watch (session, id, &error))
    return fail (run, object, error);
  return follow_job (run, follow, id);
}

static int
run_cancel (const Run *run, CliSession *session)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonObject) object = NULL;
  const char *id;
  g_autoptr (CliFollow) follow = new_follow (run, session, FALSE);
  /* First watched, then cancelled: its end can't be missed. */
  if (!cli_request_query (session, run->options->job, &object, &id, &error)
      || !cli_request_watch (session, id, &error) || !cli_request_cancel (session, id, &error))
    {
      if (strcmp (json_client_error_class (error), "TooLate") == 0)
        g_prefix_error (&error, "too late to cancel: ");
      return fail (run, object, error);
    }
  int status = follow_job (run, follow, id);
  const CliJob *job = cli_follow_get_job (follow);
  if (job != NULL && strcmp (job->state, "cancelled") == 0)
    return CLI_EXIT_DONE;
  return status == CLI_EXIT_DONE ? CLI_EXIT_FAILED : status;
}

static int
run_resolve (const Run *run, CliSession *session)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonObject) object = NULL;
  const char *id;
  const char *owner = run->options->owner;
  if (!cli_request_query (session, run->options->job, &object, &id, &error)
      || !cli_request_resolve (session, id, owner, &error))
    return fail (run, object, error);

  g_autoptr (CliJob) job = cli_job_new (object);
  g_autofree char *text
      = g_strdup_printf ("recorded at %s: the %s owns %s; say the same at %s",
                         cli_session_get_host (session), owner, job->guest, job->peer);
  cli_terminal_print (run->terminal, text);
  json_object_set_string_member (object, "owner", owner);
  if (run->options->json)
    print_json_result (run, object, NULL);
  return CLI_EXIT_DONE;
}

/* Takes over `session` where the command follows a job. */
static int
run_command (const Run *run, CliSession *session)
{
  switch (run->options->command)
    {
    case CLI_COMMAND_MIGRATE:
      return run_migrate (run, session);
    case CLI_COMMAND_WATCH:
      return run_watch (run, session);
    case CLI_COMMAND_CANCEL:
      return run_cancel (run, session);
    default:
      break;
    }
  g_autoptr (CliSession) own = session;
  switch (run->options->command)
    {
    case CLI_COMMAND_JOBS:
      return run_jobs (run, own);
    case CLI_COMMAND_RESOLVE:
      return run_resolve (run, own);
    default:
      return run_status (run, own);
    }
}

int
cli_run (const CliOptions *options, const CliEnvironment *environment)
{
  /* Bars and JSON lines on one screen would be neither. */
  gboolean mixed = options->json && isatty (fileno (environment->out));
  gboolean live = cli_terminal_is_capable (environment->err) && !mixed;
  g_autoptr (CliTerminal) terminal = cli_terminal_new (environment->err, live);
  if (options->command == CLI_COMMAND_COPY)
    return cli_copy_run (options, environment, terminal);
  const Run run = { options, environment, terminal };
  g_autoptr (GError) error = NULL;
  CliSession *session = cli_session_open (options->socket, &error);
  return session != NULL ? run_command (&run, session) : fail (&run, NULL, error);
}

int
cli_main (const char *const *argv, const CliEnvironment *environment)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (CliOptions) options = cli_options_parse (argv, &error);
  if (options == NULL)
    {
      fprintf (environment->err, "vmferry: %s\n", error->message);
      return CLI_EXIT_USAGE;
    }
  if (options->info == NULL)
    return cli_run (options, environment);
  fputs (options->info, environment->out);
  return CLI_EXIT_DONE;
}
