/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/cli/options.h"

#include <stdio.h>

/* The commands of vmferry(1).  Results go to `out`, messages and progress to `err`. */
typedef struct
{
  FILE *out;
  FILE *err;
  gint64 patience_ms; /* how long an agent that went away is waited for */
} CliEnvironment;

/* Blocks until the command is done; returns the exit status. */
int cli_run (const CliOptions *options, const CliEnvironment *environment);

/* The whole program: parses `argv` (NULL-terminated) and runs it. */
int cli_main (const char *const *argv, const CliEnvironment *environment);
