/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/cli/run.h"
#include "daemon/cli/terminal.h"

/* `vmferry copy`: blocks until it is done; returns the exit status.  SIGINT, SIGTERM and SIGHUP
 * cancel it: there is no agent that could go on. */
int cli_copy_run (const CliOptions *options, const CliEnvironment *environment,
                  CliTerminal *terminal);
