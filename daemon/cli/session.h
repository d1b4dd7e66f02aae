/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/json-client.h"

/* The connection to the local agent (docs/protocol.md).  Main thread. */
typedef struct CliSession CliSession;

/* Something that happened at the other end. */
typedef struct
{
  char *name;       /* "JOB_PROGRESS", ...; NULL: the connection has ended, nothing more comes */
  JsonObject *data; /* never NULL; empty where there is none */
} CliEvent;

void cli_event_free (CliEvent *event);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CliEvent, cli_event_free)

/* Blocks for at most 5 s.  Errors: CLI_ERROR_AGENT (no agent, not an agent, one of another
 * version): one line that names the socket and says what to do. */
CliSession *cli_session_open (const char *path, GError **error);
void cli_session_free (CliSession *session);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CliSession, cli_session_free)

/* How the agent calls its host; escaped for a terminal. */
const char *cli_session_get_host (CliSession *session);

/* Blocks for the answer, at most 15 s.  Takes over `args`.  `ret_value` may be NULL.
 * Errors: JSON_CLIENT_ERROR; what the agent answered stands alone in the message. */
gboolean cli_session_call (CliSession *session, const char *command, JsonObject *args,
                           JsonNode **ret_value, GError **error);

/* The oldest event that wasn't taken yet; NULL where there is none.  A new one wakes the default
 * main context. */
CliEvent *cli_session_take_event (CliSession *session);
