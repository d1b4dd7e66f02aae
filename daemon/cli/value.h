/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* The values that the command line takes, judged before anything is sent to the agent.  Pure. */

#define CLI_ERROR (cli_error_quark ())
GQuark cli_error_quark (void);

typedef enum
{
  CLI_ERROR_USAGE, /* what was typed can't be right: exit status 2 */
  CLI_ERROR_AGENT  /* no agent, one that hangs, or one of another version: exit status 1 */
} CliError;

/* A number of bytes with an optional suffix K, M or G (powers of 1024), between `minimum` and
 * `maximum`.  Errors name `option`, the value and the bounds. */
gboolean cli_value_parse_size (const char *option, const char *text, guint64 minimum,
                               guint64 maximum, guint64 *ret_bytes, GError **error);
/* A decimal number; `unit` ("ms", "seconds") is for the errors. */
gboolean cli_value_parse_number (const char *option, const char *text, const char *unit,
                                 gint64 minimum, gint64 maximum, gint64 *ret_number,
                                 GError **error);
/* UTF-8 without control characters, 1 to 4095 bytes. */
gboolean cli_value_check_text (const char *what, const char *text, GError **error);

/* --disk NAME=/path[,format=F][,prealloc=off|falloc] */
typedef struct
{
  char *name;
  char *path;
  char *format;   /* NULL: as at the source */
  char *prealloc; /* NULL, "off", "falloc" */
} CliDisk;

/* A comma in the path is written twice, as QEMU has it. */
CliDisk *cli_disk_parse (const char *text, GError **error);
void cli_disk_free (CliDisk *disk);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CliDisk, cli_disk_free)
