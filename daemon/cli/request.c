/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/request.h"

#include "qmp/json-args.h"

static gboolean
fail_answer (GError **error, const char *command, const char *expected)
{
  g_set_error (error, CLI_ERROR, CLI_ERROR_AGENT, "%s: the agent's answer is not %s", command,
               expected);
  return FALSE;
}

static gboolean
call_object (CliSession *session, const char *command, JsonObject *args, JsonObject **ret_object,
             GError **error)
{
  g_autoptr (JsonNode) node = NULL;
  if (!cli_session_call (session, command, args, &node, error))
    return FALSE;
  if (node == NULL || !JSON_NODE_HOLDS_OBJECT (node))
    return fail_answer (error, command, "an object");
  *ret_object = json_node_dup_object (node);
  return TRUE;
}

static JsonArray *
disks_to_json (const CliOptions *options)
{
  if (options->disks->len == 0)
    return NULL;
  JsonArray *disks = json_array_new ();
  for (guint i = 0; i < options->disks->len; i++)
    {
      const CliDisk *disk = g_ptr_array_index (options->disks, i);
      JsonObject *object = json_args ("disk", "s", disk->name, "path", "s", disk->path, "format",
                                      "s", disk->format, "prealloc", "s", disk->prealloc, NULL);
      json_array_add_object_element (disks, object);
    }
  return disks;
}

static void
add_libvirt (JsonObject *args, const CliOptions *options)
{
  json_object_set_boolean_member (args, "persistent", options->persistent);
  json_object_set_boolean_member (args, "undefinesource", options->undefine_source);
  json_object_set_boolean_member (args, "suspend", options->suspend);
  json_object_set_boolean_member (args, "auto-converge", options->auto_converge);
  if (options->bandwidth > 0)
    json_object_set_int_member (args, "bandwidth", options->bandwidth);
}

static JsonObject *
migrate_arguments (const CliOptions *options)
{
  JsonObject *args = json_args (
      "guest", "s", options->guest, "host", "s", options->host, "qmp", "s", options->qmp,
      "dest-qmp", "s", options->dest_qmp, "disks", "a", disks_to_json (options), "overwrite", "b",
      options->overwrite, "full-speed", "b", options->full_speed, "connect", "s", options->connect,
      "desturi", "s", options->desturi, "dname", "s", options->dname, "tls-destination", "s",
      options->tls_destination, NULL);
  if (options->connect != NULL)
    add_libvirt (args, options);
  /* What wasn't given is the agent's default. */
  if (options->rate > 0)
    json_object_set_int_member (args, "rate", (gint64)options->rate);
  if (options->max_downtime_ms > 0)
    json_object_set_int_member (args, "max-downtime", options->max_downtime_ms);
  if (options->timeout_s > 0)
    json_object_set_int_member (args, "timeout", options->timeout_s);
  return args;
}

gboolean
cli_request_migrate (CliSession *session, const CliOptions *options, char **ret_id, GError **error)
{
  g_autoptr (JsonObject) answer = NULL;
  const char *id = NULL;
  if (!call_object (session, "migrate", migrate_arguments (options), &answer, error))
    return FALSE;
  if (!json_get_string (answer, "job", &id))
    return fail_answer (error, "migrate", "a job");
  *ret_id = g_strdup (id);
  return TRUE;
}

gboolean
cli_request_query (CliSession *session, const char *job, JsonObject **ret_object,
                   const char **ret_id, GError **error)
{
  g_autoptr (JsonObject) answer = NULL;
  if (!call_object (session, "query-job", json_args ("job", "s", job, NULL), &answer, error))
    return FALSE;
  if (!json_get_string (answer, "job", ret_id))
    return fail_answer (error, "query-job", "a job");
  *ret_object = g_steal_pointer (&answer);
  return TRUE;
}

JsonArray *
cli_request_query_all (CliSession *session, GError **error)
{
  g_autoptr (JsonNode) node = NULL;
  if (!cli_session_call (session, "query-jobs", NULL, &node, error))
    return NULL;
  if (node != NULL && JSON_NODE_HOLDS_ARRAY (node))
    return json_node_dup_array (node);
  fail_answer (error, "query-jobs", "an array");
  return NULL;
}

gboolean
cli_request_watch (CliSession *session, const char *job, GError **error)
{
  return cli_session_call (session, "watch", json_args ("job", "s", job, NULL), NULL, error);
}

gboolean
cli_request_cancel (CliSession *session, const char *job, GError **error)
{
  return cli_session_call (session, "cancel", json_args ("job", "s", job, NULL), NULL, error);
}

gboolean
cli_request_resolve (CliSession *session, const char *job, const char *owner, GError **error)
{
  JsonObject *args = json_args ("job", "s", job, "owner", "s", owner, NULL);
  return cli_session_call (session, "resolve", args, NULL, error);
}
