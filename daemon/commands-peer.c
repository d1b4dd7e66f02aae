/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/commands.h"
#include "daemon/destination/destination.h"
#include "daemon/job.h"

#define PROTOCOL_VERSION 1

/* Answers itself unless it fails. */
typedef gboolean (*PeerCommand) (Connection *connection, JsonObject *args, JobRequest *request,
                                 GError **error);

static JsonNode *
object_node (JsonObject *object)
{
  JsonNode *node = json_node_alloc ();

  json_node_init (node, JSON_NODE_OBJECT);
  json_node_take_object (node, object);
  return node;
}

static gboolean
peer_hello (Connection *connection, JsonObject *args, JobRequest *request, GError **error)
{
  Agent *agent = connection_get_agent (connection);
  const ConnectionOrigin *origin = connection_get_origin (connection);
  g_autoptr (Credentials) client = agent_get_credentials (agent, CREDENTIALS_CLIENT);
  g_autoptr (Credentials) server = agent_get_credentials (agent, CREDENTIALS_SERVER);
  const char *client_dn = "", *server_dn = "";
  gint64 version = 0;

  json_get_int (args, "protocol", &version);
  json_get_string (args, "client-dn", &client_dn);
  json_get_string (args, "server-dn", &server_dn);
  if (version < PROTOCOL_VERSION)
    {
      g_set_error (
          error, JOB_ERROR, JOB_ERROR_VERSION,
          "the agent of %s speaks version %d of the control protocol, not %" G_GINT64_FORMAT,
          agent_get_host (agent), PROTOCOL_VERSION, version);
      return FALSE;
    }
  if (!config_peer_allows_dn (origin->peer, client_dn)
      || !config_peer_allows_dn (origin->peer, server_dn))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_DENIED,
                   "[peer %s] of %s doesn't list all of its certificates: %.200s and %.200s",
                   origin->peer->name, agent_get_host (agent), client_dn, server_dn);
      return FALSE;
    }
  connection_set_hello (connection, client_dn);
  request_return (request,
                  object_node (json_args ("protocol", "i", (gint64)PROTOCOL_VERSION, "client-dn",
                                          "s", credentials_get_identity (client), "server-dn", "s",
                                          credentials_get_identity (server), "address", "s",
                                          origin->remote_address, NULL)));
  return TRUE;
}

static gboolean
peer_ping (Connection *connection, JsonObject *args, JobRequest *request, GError **error)
{
  request_return (request, NULL);
  return TRUE;
}

static gboolean
peer_prepare (Connection *connection, JsonObject *args, JobRequest *request, GError **error)
{
  Agent *agent = connection_get_agent (connection);
  Job *job;

  if (!connection_get_client_dn (connection))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE, "say hello first");
      return FALSE;
    }
  job = destination_new (agent, connection, args, error);
  if (!job)
    return FALSE;
  if (!agent_add_job (agent, job, error))
    {
      job_free (job);
      return FALSE;
    }
  job->request = request;
  job_begin (job, JOB_PREPARING, JOB_ACTION_PREPARE);
  return TRUE;
}

/* A job belongs to the peer that opened it: to anybody else it doesn't exist. */
static Job *
find_job (Connection *connection, JsonObject *args, GError **error)
{
  const ConfigPeer *peer = connection_get_origin (connection)->peer;
  const char *uuid = "";
  Job *job;

  json_get_string (args, "job", &uuid);
  job = agent_find_job (connection_get_agent (connection), uuid, NULL);
  if (job && job->role == JOB_DESTINATION && g_str_equal (job->uuid, uuid)
      && g_str_equal (job->peer, peer->name))
    {
      destination_bind (job, connection);
      return job;
    }
  g_set_error (error, JOB_ERROR, JOB_ERROR_NOT_FOUND, "there is no job %.36s", uuid);
  return NULL;
}

static gboolean
peer_pace (Connection *connection, JsonObject *args, JobRequest *request, GError **error)
{
  Job *job = find_job (connection, args, error);
  gint64 in_flight, rate;

  if (!job)
    return FALSE;
  if (json_get_int (args, "in-flight", &in_flight))
    destination_set_in_flight (job, in_flight);
  if (json_get_int (args, "rate", &rate))
    destination_set_rate (job, rate);
  request_return (request, NULL);
  return TRUE;
}

static gboolean
peer_admit (Connection *connection, JsonObject *args, JobRequest *request, GError **error)
{
  Job *job = find_job (connection, args, error);
  gint64 port = 0;

  json_get_int (args, "port", &port);
  if (!job || !destination_admit (job, port, error))
    return FALSE;
  request_return (request, NULL);
  return TRUE;
}

static gboolean
peer_let_go (Connection *connection, JsonObject *args, JobRequest *request, GError **error)
{
  Job *job = find_job (connection, args, error);

  if (!job || !destination_let_go (job, error))
    return FALSE;
  request_return (request, NULL);
  return TRUE;
}

static gboolean
peer_query (Connection *connection, JsonObject *args, JobRequest *request, GError **error)
{
  Job *job = find_job (connection, args, error);

  if (!job)
    return FALSE;
  request_return (request, object_node (job_describe (job)));
  return TRUE;
}

static const struct
{
  const char *name;
  const char *args;
  PeerCommand run; /* NULL: the job's table decides on `event` */
  JobEvent event;
} peer_commands[] = {
  { "hello", "protocol:i host:s client-dn:s server-dn:s", peer_hello, 0 },
  { "ping", "", peer_ping, 0 },
  { "prepare",
    "job:s guest:s dest-qmp:s? domain:s? machine:s timeout:i rate:i disks:a overwrite:b "
    "full-speed:b",
    peer_prepare, 0 },
  { "pace", "job:s in-flight:i? rate:i?", peer_pace, 0 },
  { "query", "job:s", peer_query, 0 },
  { "admit", "job:s port:i", peer_admit, 0 },
  { "let-go", "job:s", peer_let_go, 0 },
  { "copy", "job:s port:i last:b disks:a", NULL, JOB_EVENT_COPY },
  { "incoming", "job:s", NULL, JOB_EVENT_LISTEN },
  { "release", "job:s paused:b?", NULL, JOB_EVENT_RELEASE },
  { "start", "job:s paused:b", NULL, JOB_EVENT_START },
  { "finish", "job:s", NULL, JOB_EVENT_FINISH },
  { "abort", "job:s reason:s", NULL, JOB_EVENT_ABORT },
};

void
commands_run_peer (Connection *connection, const char *command, JsonObject *args,
                   JobRequest *request)
{
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (peer_commands); i++)
    {
      Job *job;

      if (!g_str_equal (peer_commands[i].name, command))
        continue;
      if (commands_check_args (args, peer_commands[i].args, &error))
        {
          if (peer_commands[i].run)
            {
              if (peer_commands[i].run (connection, args, request, &error))
                return;
            }
          else if ((job = find_job (connection, args, &error)))
            {
              job_command (job, peer_commands[i].event, request, args);
              return;
            }
        }
      request_fail (request, error);
      return;
    }
  error = g_error_new (JOB_ERROR, JOB_ERROR_USAGE, "there is no such command");
  request_fail (request, error);
}
