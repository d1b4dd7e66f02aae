/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/config.h"
#include "tls/credentials.h"
#include <json-glib/json-glib.h>

/* vmferryd as a whole: configuration, credentials, jobs, and who follows them.  Main thread. */
typedef struct Agent Agent;

struct Job;
/* Somebody who waits for an answer; daemon/server.h. */
typedef struct JobRequest JobRequest;

/* Loads everything, opens the sockets, picks up the jobs that the journals tell of. */
Agent *agent_new (const char *config_path, GError **error);
void agent_free (Agent *agent);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Agent, agent_free)

/* Reads certificates and keys again; the old ones stay in use where the new ones are no good. */
gboolean agent_reload (Agent *agent, GError **error);
/* Ends all jobs that can be undone, as after Ctrl-C, and calls `done` when the last one has. */
void agent_stop (Agent *agent, void (*done) (gpointer data), gpointer data);

/* Any thread. */
const Config *agent_get_config (const Agent *agent);
const char *agent_get_host (const Agent *agent);
/* The directory for QEMU's tls-creds-x509 (daemon/qemu-tls.h). */
const char *agent_get_qemu_tls_dir (const Agent *agent);
/* Any thread; a new reference. */
Credentials *agent_get_credentials (Agent *agent, CredentialsEndpoint endpoint);

/* Takes over `job`.  FALSE with JOB_ERROR_BUSY where a live job of the same role has this QMP
 * socket or guest. */
gboolean agent_add_job (Agent *agent, struct Job *job, GError **error);
/* By UUID or an unambiguous beginning of it. */
struct Job *agent_find_job (Agent *agent, const char *uuid, GError **error);
/* Struct Job pointers, oldest first. */
GPtrArray *agent_get_jobs (Agent *agent);

/* From connection.c: a client is gone; destination jobs that it opened learn it. */
struct Connection;
void agent_connection_closed (Agent *agent, struct Connection *connection);

/* From job.c: to whoever follows the job.  Takes over `data`. */
void agent_emit (Agent *agent, struct Job *job, const char *event, JsonObject *data);
void agent_job_ended (Agent *agent, struct Job *job);
