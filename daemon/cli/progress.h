/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/cli/job.h"

/* What is shown while a job runs: job objects in, lines of text out.  Pure: the time is passed in.
 * The agent tells the rate of the whole job; those of each disk and of RAM are measured here. */
typedef struct CliProgress CliProgress;

CliProgress *cli_progress_new (void);
void cli_progress_free (CliProgress *progress);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CliProgress, cli_progress_free)

/* `now_us`: any clock that only goes forward. */
void cli_progress_update (CliProgress *progress, const CliJob *job, gint64 now_us);

/* A line about the job, one for each disk and one for RAM; none is wider than `columns` and there
 * are at most `rows` of them.  NULL-terminated; free with g_strfreev. */
char **cli_progress_render (const CliProgress *progress, const CliJob *job, guint columns,
                            guint rows);

/* The line for a log instead: "vm1: converging, pass 2".  The same text as long as the phase is the
 * same. */
char *cli_progress_describe_phase (const CliJob *job);
