/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

/* The local agent's end of docs/protocol.md on a real UNIX socket.  A script in a thread of its own
 * says what comes and what is answered; whatever else comes aborts the test program. */
typedef struct FakeAgent FakeAgent;
typedef void (*FakeAgentScript) (FakeAgent *agent);

FakeAgent *fake_agent_new (void);
/* Waits for the end of the script. */
void fake_agent_free (FakeAgent *agent);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FakeAgent, fake_agent_free)

const char *fake_agent_get_path (FakeAgent *agent);
void fake_agent_start (FakeAgent *agent, FakeAgentScript script);

/* In the script.  A client is waited for and greeted; a NULL `greeting` is the usual one. */
void fake_agent_accept (FakeAgent *agent, const char *greeting);
/* Reads one command, which must be `command`; the arguments (never NULL) live until the next call.
 */
JsonObject *fake_agent_expect (FakeAgent *agent, const char *command);
/* The client closes without another word. */
void fake_agent_expect_eof (FakeAgent *agent);
/* Answers the last command; `json` NULL: {}. */
void fake_agent_return (FakeAgent *agent, const char *json);
void fake_agent_fail (FakeAgent *agent, const char *class, const char *desc);
void fake_agent_event (FakeAgent *agent, const char *name, const char *data);
/* Ends this connection; with `forever` nobody can connect any more. */
void fake_agent_close (FakeAgent *agent, gboolean forever);
