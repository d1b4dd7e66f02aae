/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/agent.h"
#include "qmp/json-client.h"

/* A real agent "hostB" on loopback, with a configuration, certificates and directories of its own.
 * Its main loop runs in a thread, so that a test can talk to it as its clients do. */
typedef struct
{
  Agent *agent;
  char *dir;          /* state/, runtime/, target/, qmp/, tls/ and conf below it */
  char *socket;       /* where local users talk to it */
  char *target, *qmp; /* allowed to hostA */
  guint16 port;
} AgentLab;

/* Whose certificate a client shows. */
typedef enum
{
  LAB_HOST_A,  /* [peer hostA] */
  LAB_HOST_C,  /* [peer hostC], which may touch nothing */
  LAB_STRANGER /* of the right CA, but not listed */
} AgentLabPeer;

AgentLab *agent_lab_new (void);
void agent_lab_free (AgentLab *lab);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (AgentLab, agent_lab_free)

/* Runs `func` in the agent's main thread and waits for its end. */
void agent_lab_invoke (AgentLab *lab, void (*func) (gpointer data), gpointer data);
/* Holds the agent's main thread up until agent_lab_resume (). */
void agent_lab_suspend (AgentLab *lab);
void agent_lab_resume (AgentLab *lab);

/* Connections that nothing has been said on yet. */
Channel *agent_lab_connect_local (AgentLab *lab);
Channel *agent_lab_connect (AgentLab *lab, AgentLabPeer peer);
/* The same as clients that have been greeted; hello is said by those of a peer that is listed. */
JsonClient *agent_lab_open_local (AgentLab *lab);
JsonClient *agent_lab_open (AgentLab *lab, AgentLabPeer peer);

/* Takes over `args`.  The error class of the answer, "" for a return; `ret_desc` (may be NULL) gets
 * the words. */
const char *agent_lab_call (JsonClient *client, const char *command, JsonObject *args,
                            char **ret_desc);
/* From text. */
JsonObject *agent_lab_json (const char *text);
