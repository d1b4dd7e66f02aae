/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/commands.h"
#include "daemon/job.h"
#include "daemon/source/source.h"

/* Answers itself unless it fails. */
typedef gboolean (*LocalCommand) (Connection *connection, JsonObject *args, JobRequest *request,
                                  GError **error);

static gboolean
local_migrate (Connection *connection, JsonObject *args, JobRequest *request, GError **error)
{
  Agent *agent = connection_get_agent (connection);
  Job *job = source_new (agent, args, error);

  if (!job)
    return FALSE;
  if (!agent_add_job (agent, job, error))
    {
      job_free (job);
      return FALSE;
    }
  connection_follow (connection, job);
  request_return (
      request, json_node_init_object (json_node_alloc (), json_args ("job", "s", job->uuid, NULL)));
  job_begin (job, JOB_CHECKING, JOB_ACTION_CHECK);
  return TRUE;
}

static gboolean
local_query_jobs (Connection *connection, JsonObject *args, JobRequest *request, GError **error)
{
  GPtrArray *jobs = agent_get_jobs (connection_get_agent (connection));
  JsonArray *array = json_array_new ();
  JsonNode *node = json_node_alloc ();

  for (guint i = 0; i < jobs->len; i++)
    json_array_add_object_element (array, job_describe (g_ptr_array_index (jobs, i)));
  json_node_init_array (node, array);
  json_array_unref (array);
  request_return (request, node);
  return TRUE;
}

static Job *
find_job (Connection *connection, JsonObject *args, GError **error)
{
  const char *uuid = "";

  json_get_string (args, "job", &uuid);
  return agent_find_job (connection_get_agent (connection), uuid, error);
}

static gboolean
local_query_job (Connection *connection, JsonObject *args, JobRequest *request, GError **error)
{
  Job *job = find_job (connection, args, error);
  JsonNode *node;

  if (!job)
    return FALSE;
  node = json_node_alloc ();
  json_node_init (node, JSON_NODE_OBJECT);
  json_node_take_object (node, job_describe (job));
  request_return (request, node);
  return TRUE;
}

static void
send_progress (Connection *connection, Job *job)
{
  connection_send_event (connection, "JOB_PROGRESS", job_describe (job));
}

static gboolean
local_watch (Connection *connection, JsonObject *args, JobRequest *request, GError **error)
{
  GPtrArray *jobs = agent_get_jobs (connection_get_agent (connection));
  Job *job = NULL;

  if (json_object_has_member (args, "job"))
    {
      job = find_job (connection, args, error);
      if (!job)
        return FALSE;
    }
  connection_follow (connection, job);
  request_return (request, NULL);
  if (job)
    send_progress (connection, job);
  for (guint i = 0; !job && i < jobs->len; i++)
    send_progress (connection, g_ptr_array_index (jobs, i));
  if (job && job_state_is_final (job->state))
    connection_send_event (connection, "JOB_ENDED", job_describe (job));
  return TRUE;
}

static gboolean
local_cancel (Connection *connection, JsonObject *args, JobRequest *request, GError **error)
{
  g_autoptr (GError) reason
      = g_error_new (JOB_ERROR, JOB_ERROR_FAILED, "cancelled by the operator");
  Job *job = find_job (connection, args, error);

  if (!job)
    return FALSE;
  if (!job_event (job, JOB_EVENT_CANCEL, reason, error))
    return FALSE;
  request_return (request, NULL);
  return TRUE;
}

static gboolean
local_resolve (Connection *connection, JsonObject *args, JobRequest *request, GError **error)
{
  Job *job = find_job (connection, args, error);
  const char *owner = "";
  gboolean to_source;

  if (!job)
    return FALSE;
  json_get_string (args, "owner", &owner);
  to_source = g_str_equal (owner, "source");
  if (!to_source && !g_str_equal (owner, "destination"))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE,
                   "owner is \"source\" or \"destination\", not \"%s\"", owner);
      return FALSE;
    }
  if (!job_event (job, to_source ? JOB_EVENT_RESOLVE_SOURCE : JOB_EVENT_RESOLVE_DESTINATION, NULL,
                  error))
    return FALSE;
  request_return (request, NULL);
  return TRUE;
}

static const struct
{
  const char *name;
  const char *args;
  LocalCommand run;
} local_commands[] = {
  { "migrate",
    "guest:s host:s qmp:s? dest-qmp:s? disks:a? overwrite:b? max-downtime:i? rate:i? full-speed:b? "
    "timeout:i? connect:s? desturi:s? dname:s? tls-destination:s? persistent:b? undefinesource:b? "
    "suspend:b? auto-converge:b? bandwidth:i?",
    local_migrate },
  { "query-jobs", "", local_query_jobs },
  { "query-job", "job:s", local_query_job },
  { "watch", "job:s?", local_watch },
  { "cancel", "job:s", local_cancel },
  { "resolve", "job:s owner:s", local_resolve },
};

void
commands_run_local (Connection *connection, const char *command, JsonObject *args,
                    JobRequest *request)
{
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (local_commands); i++)
    if (g_str_equal (local_commands[i].name, command))
      {
        if (!commands_check_args (args, local_commands[i].args, &error)
            || !local_commands[i].run (connection, args, request, &error))
          request_fail (request, error);
        return;
      }
  error = g_error_new (JOB_ERROR, JOB_ERROR_USAGE, "there is no such command");
  request_fail (request, error);
}
