/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/commands.h"
#include "daemon/job.h"
#include "daemon/server.h"

#define PROTOCOL_VERSION 1
/* Far more than an honest client has on its way; one that sends faster than it can be answered is
 * cut off before it takes all memory. */
#define MAX_UNHANDLED 1000

struct Connection
{
  gint refs;
  Agent *agent;
  Server *server; /* NULL once it is closed */
  JsonPump *pump;
  ConnectionOrigin origin;
  char *client_dn;
  gboolean follows_all;
  GHashTable *follows; /* UUIDs of jobs */
  gint unhandled;      /* messages on their way to the main thread */
  gint64 heard_us, timeout_us;
};

struct JobRequest
{
  Connection *connection;
  JsonNode *id; /* NULL: the command had none */
};

typedef struct
{
  Connection *connection;
  JsonObject *message; /* NULL: closed */
} Arrival;

Connection *
connection_ref (Connection *connection)
{
  g_atomic_int_inc (&connection->refs);
  return connection;
}

void
connection_unref (Connection *connection)
{
  if (!connection || !g_atomic_int_dec_and_test (&connection->refs))
    return;
  json_pump_free (connection->pump);
  g_free (connection->origin.identity);
  g_free (connection->origin.local_address);
  g_free (connection->origin.remote_address);
  g_free (connection->client_dn);
  g_hash_table_unref (connection->follows);
  g_free (connection);
}

Agent *
connection_get_agent (Connection *connection)
{
  return connection->agent;
}

const ConnectionOrigin *
connection_get_origin (Connection *connection)
{
  return &connection->origin;
}

void
connection_set_hello (Connection *connection, const char *client_dn)
{
  g_free (connection->client_dn);
  connection->client_dn = g_strdup (client_dn);
}

const char *
connection_get_client_dn (Connection *connection)
{
  return connection->client_dn;
}

void
connection_follow (Connection *connection, Job *job)
{
  if (!job)
    connection->follows_all = TRUE;
  else
    g_hash_table_add (connection->follows, g_strdup (job->uuid));
}

gboolean
connection_follows (Connection *connection, Job *job)
{
  return connection->origin.local
         && (connection->follows_all || g_hash_table_contains (connection->follows, job->uuid));
}

void
connection_set_timeout (Connection *connection, gint64 timeout_ms)
{
  connection->timeout_us = timeout_ms * 1000;
}

void
connection_check_timeout (Connection *connection)
{
  if (connection->timeout_us > 0
      && g_get_monotonic_time () - connection->heard_us > connection->timeout_us)
    {
      g_message ("%s: nothing heard for %" G_GINT64_FORMAT " s: the connection is dead",
                 connection->origin.peer ? connection->origin.peer->name : "a client",
                 connection->timeout_us / G_USEC_PER_SEC);
      connection_close (connection);
    }
}

void
connection_close (Connection *connection)
{
  json_pump_close (connection->pump, 0);
}

void
connection_abandon (Connection *connection)
{
  connection->server = NULL;
  connection_close (connection);
}

/* A pump that is closed can't send; whoever is concerned learns it from the closed handler. */
static void
connection_send (Connection *connection, JsonObject *message)
{
  json_pump_send (connection->pump, message, -1, NULL);
  json_object_unref (message);
}

void
connection_send_event (Connection *connection, const char *event, JsonObject *data)
{
  gint64 now = g_get_real_time ();

  connection_send (connection,
                   json_args ("event", "s", event, "data", "o", data, "timestamp", "o",
                              json_args ("seconds", "i", now / G_USEC_PER_SEC, "microseconds", "i",
                                         now % G_USEC_PER_SEC, NULL),
                              NULL));
}

static void
request_answer (JobRequest *request, JsonObject *message)
{
  if (request->id)
    json_object_set_member (message, "id", g_steal_pointer (&request->id));
  connection_send (request->connection, message);
  connection_unref (request->connection);
  g_free (request);
}

void
request_return (JobRequest *request, JsonNode *value)
{
  JsonObject *message = json_object_new ();

  if (value)
    json_object_set_member (message, "return", value);
  else
    json_object_set_object_member (message, "return", json_object_new ());
  request_answer (request, message);
}

static const char *
error_class (const GError *error)
{
  static const char *const classes[] = {
    [JOB_ERROR_USAGE] = "Usage",      [JOB_ERROR_NOT_FOUND] = "NotFound",
    [JOB_ERROR_DENIED] = "Denied",    [JOB_ERROR_BUSY] = "Busy",
    [JOB_ERROR_TOO_LATE] = "TooLate", [JOB_ERROR_VERSION] = "Version",
    [JOB_ERROR_NEVER] = "Never",      [JOB_ERROR_FAILED] = "Failed",
  };

  return error->domain == JOB_ERROR ? classes[error->code] : "Failed";
}

void
request_fail (JobRequest *request, const GError *error)
{
  request_answer (request, json_args ("error", "o",
                                      json_args ("class", "s", error_class (error), "desc", "s",
                                                 error->message, NULL),
                                      NULL));
}

static gboolean
connection_is_stranger (Connection *connection, JobRequest *request)
{
  g_autoptr (GError) error = NULL;

  if (connection->origin.local || connection->origin.peer)
    return FALSE;
  error = g_error_new (
      JOB_ERROR, JOB_ERROR_DENIED,
      "no [peer] of %s lists the certificate %s: add it as dn= to vmferryd.conf there",
      agent_get_host (connection->agent), connection->origin.identity);
  g_message ("%s: %s", connection->origin.remote_address, error->message);
  request_fail (request, error);
  json_pump_close (connection->pump, 1000);
  return TRUE;
}

static void
connection_on_message (Connection *connection, JsonObject *message)
{
  g_autoptr (JsonObject) no_args = json_object_new ();
  JobRequest *request = g_new0 (JobRequest, 1);
  JsonObject *args = no_args;
  const char *command;

  connection->heard_us = g_get_monotonic_time ();
  request->connection = connection_ref (connection);
  if (json_object_has_member (message, "id"))
    request->id = json_node_copy (json_object_get_member (message, "id"));
  if (connection_is_stranger (connection, request))
    return;
  if (!json_get_string (message, "execute", &command)
      || (json_object_has_member (message, "arguments")
          && !json_get_object (message, "arguments", &args)))
    {
      g_autoptr (GError) error = g_error_new (JOB_ERROR, JOB_ERROR_USAGE,
                                              "expected {\"execute\": NAME, \"arguments\": {...}}");
      request_fail (request, error);
      return;
    }
  if (connection->origin.local)
    commands_run_local (connection, command, args, request);
  else
    commands_run_peer (connection, command, args, request);
}

static gboolean
connection_on_arrival (gpointer data)
{
  Arrival *arrival = data;
  Connection *connection = arrival->connection;

  if (arrival->message)
    {
      g_atomic_int_add (&connection->unhandled, -1);
      if (connection->server)
        connection_on_message (connection, arrival->message);
      json_object_unref (arrival->message);
    }
  else if (connection->server)
    {
      Server *server = g_steal_pointer (&connection->server);
      server_forget (server, connection);
    }
  connection_unref (connection);
  g_free (arrival);
  return G_SOURCE_REMOVE;
}

/* In the pump's thread.  The reference of the pump goes to the last arrival. */
static void
connection_arrive (Connection *connection, JsonObject *message)
{
  Arrival *arrival = g_new0 (Arrival, 1);

  arrival->connection = message ? connection_ref (connection) : connection;
  arrival->message = message;
  g_idle_add_full (G_PRIORITY_DEFAULT, connection_on_arrival, arrival, NULL);
}

static void
pump_on_message (JsonObject *message, gpointer data)
{
  Connection *connection = data;

  if (g_atomic_int_add (&connection->unhandled, 1) >= MAX_UNHANDLED)
    json_pump_close (connection->pump, 0);
  connection_arrive (connection, message);
}

static void
pump_on_closed (const GError *error, gpointer data)
{
  Connection *connection = data;

  if (error && !connection->origin.local)
    g_message ("%s: %s", connection->origin.remote_address, error->message);
  connection_arrive (connection, NULL);
}

Connection *
connection_new (Agent *agent, Server *server, Channel *channel, const ConnectionOrigin *origin)
{
  /* A list of jobs may be long; local users are trusted with more of our memory. */
  const JsonPumpLimits limits = { .max_line = 1024 * 1024,
                                  .max_depth = 64,
                                  .max_queued = (origin->local ? 16 : 4) * 1024 * 1024 };
  static const JsonPumpHandlers handlers = { .message = pump_on_message, .closed = pump_on_closed };
  Connection *connection = g_new0 (Connection, 1);

  connection->refs = 2; /* the caller's and the pump's */
  connection->agent = agent;
  connection->server = server;
  connection->origin = *origin;
  connection->follows = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  connection->heard_us = g_get_monotonic_time ();
  if (!origin->local)
    connection_set_timeout (connection, 30 * 1000);
  connection->pump = json_pump_new (channel, &limits, &handlers, connection);
  connection_send (
      connection, json_args ("vmferry", "o",
                             json_args ("protocol", "i", (gint64)PROTOCOL_VERSION, "version", "s",
                                        VMFERRY_VERSION, "host", "s", agent_get_host (agent), NULL),
                             NULL));
  return connection;
}
