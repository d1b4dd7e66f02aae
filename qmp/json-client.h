/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/json-pump.h"

/* The calling side of a protocol that speaks like QMP: greeting, {"execute", "arguments", "id"},
 * {"return"} or {"error": {"class", "desc"}}, {"event", "data", "timestamp"}.  Used for QEMU's
 * monitor and, with another greeting, between agents and from the command line to its agent. */
typedef struct JsonClient JsonClient;

#define JSON_CLIENT_ERROR (json_client_error_quark ())
GQuark json_client_error_quark (void);

typedef enum
{
  JSON_CLIENT_ERROR_BUSY,     /* no greeting in time: in use by another client */
  JSON_CLIENT_ERROR_GREETING, /* something else answers there */
  JSON_CLIENT_ERROR_REPLY,   /* the server answered with an error; see json_client_error_class () */
  JSON_CLIENT_ERROR_LOST,    /* the connection ended before the answer */
  JSON_CLIENT_ERROR_TIMEOUT, /* no answer in time; a late one is dropped */
  JSON_CLIENT_ERROR_UNEXPECTED, /* an answer, but not of the kind that the command gives */
  JSON_CLIENT_ERROR_LACKING     /* the server lacks commands or arguments that are needed */
} JsonClientError;

/* In the client's pump thread.  `data` is the event's data object, or NULL; both are borrowed. */
typedef void (*JsonClientEvent) (const char *event, JsonObject *data, gpointer user_data);
/* Once, in the pump thread, when the connection has ended for whatever reason but
 * json_client_free (); `error` is NULL after an orderly end. */
typedef void (*JsonClientClosed) (const GError *error, gpointer user_data);

/* Takes over `channel` and waits for the greeting, an object with the member `greeting` ("QMP",
 * "vmferry").  Callbacks may be NULL; none comes when this fails.  Errors name channel_get_peer ():
 * _BUSY, _GREETING, or what the channel reports (a TLS alert, a reset). */
JsonClient *json_client_new (Channel *channel, const JsonPumpLimits *limits, const char *greeting,
                             JsonClientEvent on_event, JsonClientClosed on_closed,
                             gpointer user_data, Deadline deadline, GError **error);
/* Ends the connection; no callback runs any more afterwards.  From a callback it doesn't wait. */
void json_client_free (JsonClient *client);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (JsonClient, json_client_free)

/* The value of the greeting's member; lives with the client. */
JsonObject *json_client_get_greeting (JsonClient *client);

/* Sends a command and blocks for its answer; from any thread but the pump's, several at once.
 * Takes over `args` (NULL: none).  `fd` (or -1) goes along by SCM_RIGHTS.  `exec` is "execute" or
 * "exec-oob".  Calls with a descriptor go one after the other, because QEMU keeps only the newest
 * descriptor that came before it runs the command.  `ret_value` (may be NULL) gets the value of
 * "return"; free with json_node_unref. When the connection ends, every pending call completes
 * exactly once, with _LOST. Errors read "PEER: COMMAND: DESC"; the text of a peer is escaped and
 * bounded. */
gboolean json_client_call (JsonClient *client, const char *exec, const char *command,
                           JsonObject *args, int fd, Deadline deadline, JsonNode **ret_value,
                           GError **error);

/* The "class" of a JSON_CLIENT_ERROR_REPLY ("GenericError", "CommandNotFound", ...; "" for any
 * other error), as an interned string. */
const char *json_client_error_class (const GError *error);
/* JSON_CLIENT_ERROR_REPLY as json_client_call () sets it, "NAME: COMMAND: DESC", from the value of
 * "error" ("class", "desc"): for answers that came another way. */
void json_client_set_reply_error (const char *name, const char *command, JsonObject *object,
                                  GError **error);
