/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <signal.h>

/* What the program ends with; scripts depend on it. */
enum
{
  CLI_EXIT_DONE = 0,
  CLI_EXIT_FAILED = 1,
  CLI_EXIT_USAGE = 2,
  CLI_EXIT_OPERATOR = 3,
  CLI_EXIT_HANGUP = 128 + SIGHUP,
  CLI_EXIT_CANCELLED = 130
};
