/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/session.h"

#include "daemon/cli/text.h"
#include "daemon/cli/value.h"
#include "qmp/json-args.h"
#include "qmp/json-framer.h"

#include <string.h>

#define PROTOCOL 1
#define CONNECT_MS 5000
#define CALL_MS 15000

struct CliSession
{
  JsonClient *client;
  char *path;
  char *host;
  /* Events wait here as text: json-glib's objects must not be shared between threads. */
  GAsyncQueue *queue; /* Queued */
};

typedef struct
{
  char *name;
  char *data;
} Queued;

static void
queued_free (Queued *queued)
{
  g_free (queued->name);
  g_free (queued->data);
  g_free (queued);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Queued, queued_free)

static void
push (CliSession *session, const char *name, char *data)
{
  Queued *queued = g_new0 (Queued, 1);
  queued->name = g_strdup (name);
  queued->data = data;
  g_async_queue_push (session->queue, queued);
  g_main_context_wakeup (NULL);
}

static void
on_event (const char *event, JsonObject *data, gpointer user_data)
{
  gsize len;

  push (user_data, event, data != NULL ? json_framer_encode (data, &len) : NULL);
}

static void
on_closed (const GError *error, gpointer user_data)
{
  push (user_data, NULL, NULL);
}

static void
fail_connect (const char *path, const GError *cause, GError **error)
{
  const char *hint = "";
  if (g_error_matches (cause, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)
      || g_error_matches (cause, G_IO_ERROR, G_IO_ERROR_CONNECTION_REFUSED))
    hint = ": is vmferryd running?";
  else if (g_error_matches (cause, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED))
    hint = ": it is for root and the group of vmferryd.conf(5)";
  g_set_error (error, CLI_ERROR, CLI_ERROR_AGENT, "%s%s", cause->message, hint);
}

static void
fail_greeting (const char *path, const GError *cause, GError **error)
{
  if (g_error_matches (cause, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_BUSY))
    g_set_error (error, CLI_ERROR, CLI_ERROR_AGENT,
                 "cannot connect to %s: it doesn't answer within %d s: is vmferryd stuck?", path,
                 CONNECT_MS / 1000);
  else
    g_set_error (error, CLI_ERROR, CLI_ERROR_AGENT, "cannot connect to %s: not an agent: %s", path,
                 cause->message);
}

static gboolean
check_greeting (CliSession *session, GError **error)
{
  JsonObject *greeting = json_client_get_greeting (session->client);
  const char *version = NULL, *host = NULL;
  gint64 protocol = 0;
  json_get_string (greeting, "version", &version);
  json_get_string (greeting, "host", &host);
  json_get_int (greeting, "protocol", &protocol);
  session->host = cli_text_escape (host != NULL ? host : "this host");
  if (protocol >= PROTOCOL)
    return TRUE;
  g_autofree char *shown = cli_text_escape (version != NULL ? version : "?");
  g_set_error (error, CLI_ERROR, CLI_ERROR_AGENT,
               "%s: vmferryd %s speaks protocol %" G_GINT64_FORMAT
               ", this vmferry (%s) needs %d: install the same version of both",
               session->path, shown, protocol, VMFERRY_VERSION, PROTOCOL);
  return FALSE;
}

CliSession *
cli_session_open (const char *path, GError **error)
{
  /* An agent's list of jobs may be longer than what the agent reads of us. */
  const JsonPumpLimits limits = { 16 * 1024 * 1024, 64, 1024 * 1024 };
  Deadline deadline = deadline_in (CONNECT_MS, NULL);
  g_autoptr (GError) cause = NULL;
  Channel *channel = channel_connect_unix (path, deadline, &cause);
  if (channel == NULL)
    {
      fail_connect (path, cause, error);
      return NULL;
    }

  g_autoptr (CliSession) session = g_new0 (CliSession, 1);
  session->path = g_strdup (path);
  session->queue = g_async_queue_new_full ((GDestroyNotify)queued_free);
  session->client = json_client_new (channel, &limits, "vmferry", on_event, on_closed, session,
                                     deadline, &cause);
  if (session->client == NULL)
    {
      fail_greeting (path, cause, error);
      return NULL;
    }
  return check_greeting (session, error) ? g_steal_pointer (&session) : NULL;
}

void
cli_session_free (CliSession *session)
{
  if (session == NULL)
    return;
  json_client_free (session->client);
  g_async_queue_unref (session->queue);
  g_free (session->path);
  g_free (session->host);
  g_free (session);
}

const char *
cli_session_get_host (CliSession *session)
{
  return session->host;
}

/* The agent's own words are for people; which command they answer is clear to them. */
static void
strip_prefix (CliSession *session, const char *command, GError *error)
{
  g_autofree char *prefix = g_strdup_printf ("%s: %s: ", session->path, command);
  if (!g_str_has_prefix (error->message, prefix))
    return;
  char *rest = g_strdup (error->message + strlen (prefix));
  g_free (error->message);
  error->message = rest;
}

gboolean
cli_session_call (CliSession *session, const char *command, JsonObject *args, JsonNode **ret_value,
                  GError **error)
{
  g_autoptr (GError) cause = NULL;
  if (json_client_call (session->client, "execute", command, args, -1, deadline_in (CALL_MS, NULL),
                        ret_value, &cause))
    return TRUE;
  if (g_error_matches (cause, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_REPLY))
    strip_prefix (session, command, cause);
  g_propagate_error (error, g_steal_pointer (&cause));
  return FALSE;
}

CliEvent *
cli_session_take_event (CliSession *session)
{
  g_autoptr (Queued) queued = g_async_queue_try_pop (session->queue);
  if (queued == NULL)
    return NULL;
  CliEvent *event = g_new0 (CliEvent, 1);
  event->name = g_steal_pointer (&queued->name);
  g_autoptr (JsonNode) node = queued->data != NULL ? json_from_string (queued->data, NULL) : NULL;
  if (node != NULL && JSON_NODE_HOLDS_OBJECT (node))
    event->data = json_node_dup_object (node);
  else
    event->data = json_object_new ();
  return event;
}

void
cli_event_free (CliEvent *event)
{
  if (event == NULL)
    return;
  g_free (event->name);
  json_object_unref (event->data);
  g_free (event);
}
