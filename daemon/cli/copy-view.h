/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/cli/bar.h"
#include "daemon/cli/options.h"
#include "daemon/copy/copy.h"

#include <json-glib/json-glib.h>

/* What is shown of a copy: numbers in, lines of text and JSON out.  Pure. */

/* "copying", and so on. */
const char *cli_copy_get_phase (CopyPhase phase);

/* What the bar of this phase counts. */
void cli_copy_get_done (const CopyProgress *progress, guint64 *ret_done, guint64 *ret_todo);

/* The lines under the messages, none wider than `columns`.  NULL-terminated; free with
 * g_strfreev. */
char **cli_copy_render (const CliOptions *options, const CopyProgress *progress,
                        const CliMeter *meter, guint columns);

/* {"event": "COPY_PROGRESS", ...} as one line; free with g_free. */
char *cli_copy_format_event (const CopyProgress *progress, double rate);

typedef struct
{
  const CliOptions *options;
  const CopyProgress *progress;
  const char *state; /* "done", "failed", "cancelled" */
  double total_s;
  const char *error; /* NULL: none */
} CliCopyResult;

/* The last line of --json; free with g_free. */
char *cli_copy_format_result (const CliCopyResult *result);
/* The same for people, several lines; free with g_free. */
char *cli_copy_report (const CliCopyResult *result);
