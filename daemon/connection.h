/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/agent.h"
#include "qmp/json-pump.h"

struct Server;

/* One client of the control protocol, local or a peer.  Reference counted: it lives on, closed,
 * while a command of it is not answered.  Main thread, except that the last reference may go
 * anywhere. */
typedef struct Connection Connection;

typedef struct
{
  gboolean local;
  const ConfigPeer *peer; /* whom the certificate belongs to; NULL: a local client, or a stranger */
  char *identity;         /* distinguished name, NULL for a local client */
  char *local_address, *remote_address; /* without port; NULL for a local client */
} ConnectionOrigin;

/* Takes over `channel` and the strings of `origin`, greets, and serves. */
Connection *connection_new (Agent *agent, struct Server *server, Channel *channel,
                            const ConnectionOrigin *origin);
Connection *connection_ref (Connection *connection);
void connection_unref (Connection *connection);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Connection, connection_unref)

Agent *connection_get_agent (Connection *connection);
const ConnectionOrigin *connection_get_origin (Connection *connection);

/* What `hello` told: the name of the certificate that the client's QEMU shows as a client.  NULL
 * before. */
void connection_set_hello (Connection *connection, const char *client_dn);
const char *connection_get_client_dn (Connection *connection);

/* A local client gets the events of `job`, or of all jobs (NULL), from here on. */
void connection_follow (Connection *connection, struct Job *job);
gboolean connection_follows (Connection *connection, struct Job *job);
/* Takes over `data`. */
void connection_send_event (Connection *connection, const char *event, JsonObject *data);

/* A client that says nothing for so long is dead: it is closed.  0: never. */
void connection_set_timeout (Connection *connection, gint64 timeout_ms);
void connection_check_timeout (Connection *connection);
void connection_close (Connection *connection);
/* The same for a server that ends: it isn't told. */
void connection_abandon (Connection *connection);

/* A command that waits for its answer: exactly one of request_return () and request_fail (), which
 * free it. */
/* Takes over `value`; NULL: {}. */
void request_return (JobRequest *request, JsonNode *value);
void request_fail (JobRequest *request, const GError *error);
