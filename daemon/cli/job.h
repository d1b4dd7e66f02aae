/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>
#include <json-glib/json-glib.h>

/* The job object of docs/protocol.md, as the command line shows it.  All texts are escaped for a
 * terminal and never NULL, except where it says so. */

typedef struct
{
  char *name;
  char *source; /* where it stays at the source; "" where the agent doesn't tell */
  char *target;
  char *format;
  guint64 size, todo, done; /* bytes; of the current pass */
  gint64 pass;              /* 0: seeding */
} CliJobDisk;

typedef struct
{
  char *id;
  char *guest;
  char *role; /* "source", "destination" */
  char *peer;
  char *state;
  char *owner;   /* "source", "destination", "unknown" */
  char *message; /* what it is at, in words */
  char *error;   /* NULL: none */
  double total_s;
  double downtime_ms; /* negative: unknown */
  double left_s;      /* negative: unknown */
  guint64 sent_bytes, zero_bytes, rate;
  guint64 ram_total, ram_sent, ram_left; /* ram_total 0: not begun */
  gint64 passes;
  int exit;         /* -1: still running */
  GPtrArray *disks; /* CliJobDisk */
} CliJob;

/* Members that are absent or of another type become 0, -1 or "". */
CliJob *cli_job_new (JsonObject *object);
void cli_job_free (CliJob *job);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CliJob, cli_job_free)

/* It has ended, and nothing more will come of it. */
gboolean cli_job_has_ended (const CliJob *job);
gboolean cli_job_needs_operator (const CliJob *job);
/* The status for the shell of a job that has ended or needs the operator: 0, 1, 3 or 130. */
int cli_job_exit_status (const CliJob *job);
/* The two hosts of the job, seen from `local_host`. */
const char *cli_job_get_source_host (const CliJob *job, const char *local_host);
const char *cli_job_get_destination_host (const CliJob *job, const char *local_host);
