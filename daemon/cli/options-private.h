/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/cli/options.h"

/* What the files that read the command line share: options.c for all commands, options-NAME.c for
 * those with options of their own. */

/* What GOption stores before it is judged. */
typedef struct
{
  gboolean help;
  gboolean version;
  gboolean json;
  char *socket;
  char *owner;

  gboolean overwrite;
  gboolean full_speed;
  gboolean detach;
  char *qmp;
  char *dest_qmp;
  gboolean accepted; /* what virsh has to be told, and vmferry always does */
  gboolean persistent;
  gboolean undefine_source;
  gboolean suspend;
  gboolean auto_converge;
  char *connect;
  char *desturi;
  char *dname;
  char *tls_destination;
  char *bandwidth;
  char **disks;
  char *max_downtime;

  char *rate;
  char *timeout;

  gboolean resume;
  gboolean verify;
  gboolean allow_plaintext;
  char *target_format;
  char *connections;
  char *bitmap;
} CliRaw;

/* Adds the options of the command. */
typedef void (*CliOptionsAdd) (GOptionContext *context, CliRaw *raw);
/* Judges, and takes over what is the command's own; `words` are its arguments. */
typedef gboolean (*CliOptionsFinish) (CliOptions *options, const CliRaw *raw, char **words,
                                      GError **error);

void cli_options_add_migrate (GOptionContext *context, CliRaw *raw);
gboolean cli_options_finish_migrate (CliOptions *options, const CliRaw *raw, char **words,
                                     GError **error);
/* options-virsh.c: what `virsh migrate` has, too. */
void cli_options_add_virsh (GOptionContext *context, CliRaw *raw);
gboolean cli_options_take_virsh (CliOptions *options, const CliRaw *raw, GError **error);
void cli_options_add_copy (GOptionContext *context, CliRaw *raw);
gboolean cli_options_finish_copy (CliOptions *options, const CliRaw *raw, char **words,
                                  GError **error);

/* --rate and --timeout. */
gboolean cli_options_take_limits (CliOptions *options, const CliRaw *raw, GError **error);
/* CLI_ERROR_USAGE; always FALSE. */
gboolean cli_options_fail (GError **error, const char *text);
/* For words and options that a later version has; always FALSE. */
gboolean cli_options_fail_later (const char *name, const char *value, gpointer data,
                                 GError **error);
