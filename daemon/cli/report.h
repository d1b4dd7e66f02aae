/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/cli/job.h"

/* What is said about jobs on standard output: job objects in, text out.  Pure; every text ends with
 * a newline, free with g_free. */

/* A job that has ended or needs the operator.  One line is "downtime   143 ms". */
char *cli_report_result (const CliJob *job, const char *local_host);
/* Any job, in detail. */
char *cli_report_status (const CliJob *job, const char *local_host);
/* A table; `jobs` holds CliJob pointers. */
char *cli_report_table (GPtrArray *jobs);

/* The last line of --json: a copy of the job object `job` (may be NULL: there is none) with every
 * member that scripts may count on, or, where `error` isn't NULL, with that error. */
char *cli_report_json (JsonObject *job, const char *guest, const char *error);
/* Any object as one line that is safe to print. */
char *cli_report_json_line (JsonObject *object);
