/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/connection.h"
#include "daemon/job.h"

/* The destination's side of a job: pulls the disks, receives the guest, starts it when the source
 * says that it can't run there any more.  Main thread. */

/* From the arguments of `prepare`, which have been checked for their types. Nothing is made yet. */
Job *destination_new (Agent *agent, Connection *connection, JsonObject *args, GError **error);
/* After a restart.  Takes over `journal`; adds the job to the agent. */
gboolean destination_recover (Agent *agent, const char *uuid, Journal *journal, GPtrArray *records,
                              GError **error);

/* The source's agent speaks to the job over this connection from now on. */
void destination_bind (Job *job, Connection *connection);
/* A connection is gone: if it was the job's, the source is lost. */
void destination_unbind (Job *job, Connection *connection);
/* libvirt's stream of the memory is the connection that comes from this port of the source. */
gboolean destination_admit (Job *job, gint64 port, GError **error);
/* The end of the stream that is held may pass: the release. */
gboolean destination_let_go (Job *job, GError **error);
/* Bytes that each disk's mirror may have in flight. */
void destination_set_in_flight (Job *job, gint64 bytes);
/* Bytes per second that all disks together may take; 0: any. */
void destination_set_rate (Job *job, gint64 bytes_per_s);
