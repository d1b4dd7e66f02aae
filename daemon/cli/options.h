/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/cli/value.h"

typedef enum
{
  CLI_COMMAND_NONE, /* only `info` is to be printed */
  CLI_COMMAND_MIGRATE,
  CLI_COMMAND_JOBS,
  CLI_COMMAND_STATUS,
  CLI_COMMAND_WATCH,
  CLI_COMMAND_CANCEL,
  CLI_COMMAND_RESOLVE,
  CLI_COMMAND_COPY
} CliCommand;

/* What was typed, checked.  Members that a command doesn't have are zero. */
typedef struct
{
  CliCommand command;
  char *info; /* the text of --help or --version */

  char *socket; /* of the local agent */
  gboolean json;

  char *guest;
  char *host;
  char *qmp;      /* absolute; NULL: the guest is a domain of libvirt */
  char *dest_qmp; /* absolute, at the destination */
  /* A domain of libvirt; names as virsh has them. */
  char *connect; /* NULL: qmp and dest_qmp are given */
  char *desturi, *dname, *tls_destination;
  gboolean persistent, undefine_source, suspend, auto_converge;
  gint64 bandwidth; /* MiB/s, 0: not given */
  GPtrArray *disks; /* CliDisk; no name twice */
  gboolean overwrite;
  gint64 max_downtime_ms; /* 0: not given */
  guint64 rate;           /* bytes per second, 0: not given */
  gboolean full_speed;
  gint64 timeout_s; /* 0: not given */
  gboolean detach;

  char *uri;
  char *target;
  char *target_format; /* never NULL for `copy` */
  char *bitmap;        /* NULL: not given */
  guint n_connections;
  gboolean resume;
  gboolean verify;
  gboolean allow_plaintext;

  char *job;   /* a UUID or its beginning; NULL: all */
  char *owner; /* "source", "destination" */
} CliOptions;

/* `argv` as main () has it, NULL-terminated; argv[0] is the program.  Prints nothing.
 * Errors: CLI_ERROR_USAGE, one line with a hint at --help. */
CliOptions *cli_options_parse (const char *const *argv, GError **error);
void cli_options_free (CliOptions *options);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CliOptions, cli_options_free)
