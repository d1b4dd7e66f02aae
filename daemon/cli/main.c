/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/run.h"
#include "daemon/standard-fds.h"

#include <locale.h>

#define PATIENCE_MS 30000

int
main (int argc, char **argv)
{
  const CliEnvironment environment = { .out = stdout, .err = stderr, .patience_ms = PATIENCE_MS };
  standard_fds_fill ();
  setlocale (LC_CTYPE, "");
  return cli_main ((const char *const *)argv, &environment);
}
