/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/copy-view.h"

#include "daemon/cli/report.h"
#include "daemon/cli/text.h"
#include "qmp/json-args.h"

#define LABEL_COLUMNS 11

const char *
cli_copy_get_phase (CopyPhase phase)
{
  static const char *const names[]
      = { "connecting", "proving", "copying", "flushing", "verifying", "done" };
  return names[phase];
}

void
cli_copy_get_done (const CopyProgress *progress, guint64 *ret_done, guint64 *ret_todo)
{
  gboolean verifying = progress->phase == COPY_VERIFYING;
  *ret_done = verifying ? progress->verified_bytes : progress->done_bytes;
  *ret_todo = progress->size;
}

char **
cli_copy_render (const CliOptions *options, const CopyProgress *progress, const CliMeter *meter,
                 guint columns)
{
  CliBar bar = { .name = cli_copy_get_phase (progress->phase), .rate = meter->rate };
  g_autofree char *uri = cli_text_escape (options->uri);
  g_autofree char *target = cli_text_escape (options->target);
  g_autofree char *head = g_strdup_printf ("%s -> %s", uri, target);
  char **lines = g_new0 (char *, 3);
  cli_copy_get_done (progress, &bar.done, &bar.todo);
  lines[0] = cli_text_cut (head, columns);
  lines[1] = cli_bar_render (&bar, cli_text_width (bar.name), columns);
  return lines;
}

static JsonObject *
new_numbers (const CopyProgress *progress)
{
  return json_args ("size", "i", (gint64)progress->size, "done_bytes", "i",
                    (gint64)progress->done_bytes, "read_bytes", "i", (gint64)progress->read_bytes,
                    "zero_bytes", "i", (gint64)progress->zero_bytes, "resumed_bytes", "i",
                    (gint64)progress->resumed_bytes, "verified_bytes", "i",
                    (gint64)progress->verified_bytes, "reconnects", "i",
                    (gint64)progress->n_reconnects, NULL);
}

char *
cli_copy_format_event (const CopyProgress *progress, double rate)
{
  g_autoptr (JsonObject) line = new_numbers (progress);
  json_object_set_string_member (line, "event", "COPY_PROGRESS");
  json_object_set_string_member (line, "phase", cli_copy_get_phase (progress->phase));
  json_object_set_int_member (line, "rate", (gint64)rate);
  return cli_report_json_line (line);
}

/* Bytes per second over the network, over the whole run. */
static double
mean_rate (const CliCopyResult *result)
{
  return result->total_s > 0 ? (double)result->progress->read_bytes / result->total_s : 0;
}

char *
cli_copy_format_result (const CliCopyResult *result)
{
  const CliOptions *options = result->options;
  g_autoptr (JsonObject) line = new_numbers (result->progress);
  gboolean verified = options->verify && result->error == NULL;
  json_object_set_string_member (line, "state", result->state);
  json_object_set_string_member (line, "uri", options->uri);
  json_object_set_string_member (line, "target", options->target);
  json_object_set_string_member (line, "format", options->target_format);
  json_object_set_boolean_member (line, "verified", verified);
  json_object_set_double_member (line, "total_s", result->total_s);
  json_object_set_int_member (line, "rate", (gint64)mean_rate (result));
  if (result->error != NULL)
    json_object_set_string_member (line, "error", result->error);
  else
    json_object_set_null_member (line, "error");
  return cli_report_json_line (line);
}

static void
append_bytes (GString *text, const char *label, guint64 bytes, const char *rest)
{
  g_autofree char *shown = cli_text_format_bytes (bytes);
  g_string_append_printf (text, "%-*s%s%s\n", LABEL_COLUMNS, label, shown, rest);
}

static void
append_text (GString *text, const char *label, const char *value)
{
  g_string_append_printf (text, "%-*s%s\n", LABEL_COLUMNS, label, value);
}

char *
cli_copy_report (const CliCopyResult *result)
{
  const CopyProgress *progress = result->progress;
  g_autofree char *target = cli_text_escape (result->options->target);
  g_autofree char *total = cli_text_format_duration (result->total_s);
  g_autofree char *rate = cli_text_format_rate (mean_rate (result));
  GString *text = g_string_new (NULL);
  append_text (text, "result", result->state);
  append_text (text, "target", target);
  append_bytes (text, "size", progress->size, "");
  append_bytes (text, "received", progress->read_bytes, "");
  append_bytes (text, "zeroes", progress->zero_bytes, " skipped");
  if (progress->resumed_bytes > 0)
    append_bytes (text, "resumed", progress->resumed_bytes, " were there already");
  if (progress->n_reconnects > 0)
    g_string_append_printf (text, "%-*s%u times\n", LABEL_COLUMNS, "reconnected",
                            progress->n_reconnects);
  append_text (text, "total time", total);
  append_text (text, "mean rate", rate);
  if (result->options->verify && result->error == NULL)
    append_text (text, "verified", "the target reads back as it came");
  return g_string_free (text, FALSE);
}
