/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/connection.h"

/* The listening ends of the control protocol: the local UNIX socket, and mutual TLS for peers. Main
 * thread; handshakes run in threads of their own, a bounded number at a time. */
typedef struct Server Server;

Server *server_new (Agent *agent, GError **error);
void server_free (Server *server);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Server, server_free)

/* Sends an event to each local client that follows `job`.  Takes over `data`. */
void server_emit (Server *server, struct Job *job, const char *event, JsonObject *data);

/* From connection.c: it has ended. */
void server_forget (Server *server, Connection *connection);
