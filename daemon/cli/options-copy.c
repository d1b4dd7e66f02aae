/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/options-private.h"

#include <string.h>

#include "nbd/uri.h"

#define MAX_CONNECTIONS 16
/* The longest that QEMU gives to a bitmap. */
#define MAX_BITMAP 1023

void
cli_options_add_copy (GOptionContext *context, CliRaw *raw)
{
  const GOptionEntry entries[]
      = { { "target-format", 0, 0, G_OPTION_ARG_FILENAME, &raw->target_format,
            "Format of the target: raw, qcow2, vmdk, ... (default: raw)", "F" },
          { "connections", 0, 0, G_OPTION_ARG_FILENAME, &raw->connections,
            "Connections to the server, where it allows several (default: 1 with TLS, else 2)",
            "N" },
          { "rate", 0, 0, G_OPTION_ARG_FILENAME, &raw->rate,
            "Limit, bytes per second, with K, M or G (default: none)", "BYTES" },
          { "bitmap", 0, 0, G_OPTION_ARG_FILENAME, &raw->bitmap,
            "Copy only what dirty bitmap NAME marks, onto a target that is there", "NAME" },
          { "timeout", 0, 0, G_OPTION_ARG_FILENAME, &raw->timeout,
            "Give up after so many seconds without progress (default: 30)", "S" },
          { "resume", 0, 0, G_OPTION_ARG_NONE, &raw->resume,
            "Go on with an interrupted copy, if it is provably the same", NULL },
          { "verify", 0, 0, G_OPTION_ARG_NONE, &raw->verify,
            "Read the target back and compare it with what came", NULL },
          { "allow-plaintext", 0, 0, G_OPTION_ARG_NONE, &raw->allow_plaintext,
            "Let nbd:// go over TCP in clear text", NULL },
          { NULL } };
  g_option_context_add_main_entries (context, entries, NULL);
}

static gboolean
take_bitmap (CliOptions *options, const CliRaw *raw, GError **error)
{
  if (raw->bitmap == NULL)
    return TRUE;
  if (!cli_value_check_text ("--bitmap", raw->bitmap, error))
    return FALSE;
  if (strlen (raw->bitmap) > MAX_BITMAP)
    return cli_options_fail (error, "--bitmap is longer than 1023 bytes");
  options->bitmap = g_strdup (raw->bitmap);
  return TRUE;
}

static gboolean
take_connections (CliOptions *options, const CliRaw *raw, GError **error)
{
  gint64 n = 0;
  if (raw->connections != NULL
      && !cli_value_parse_number ("--connections", raw->connections, "connections", 1,
                                  MAX_CONNECTIONS, &n, error))
    return FALSE;
  options->n_connections = (guint)n;
  return TRUE;
}

gboolean
cli_options_finish_copy (CliOptions *options, const CliRaw *raw, char **words, GError **error)
{
  const char *format = raw->target_format != NULL ? raw->target_format : "raw";
  /* URIs can be longer than any path: copy_new () judges them. */
  if (!nbd_uri_is_uri (words[1]) && !cli_value_check_text ("TARGET", words[1], error))
    return FALSE;
  if (!cli_value_check_text ("--target-format", format, error))
    return FALSE;
  options->uri = g_strdup (words[0]);
  options->target = g_strdup (words[1]);
  options->target_format = g_strdup (format);
  options->resume = raw->resume;
  options->verify = raw->verify;
  options->allow_plaintext = raw->allow_plaintext;
  return take_bitmap (options, raw, error) && take_connections (options, raw, error)
         && cli_options_take_limits (options, raw, error);
}
