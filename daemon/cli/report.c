/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/report.h"

#include "daemon/cli/text.h"
#include "qmp/json-framer.h"

#include <string.h>

#define LABEL_COLUMNS 11
#define SHORT_ID 8

static void append_field (GString *text, const char *label, const char *format, ...)
    G_GNUC_PRINTF (3, 4);

static void
append_field (GString *text, const char *label, const char *format, ...)
{
  g_string_append_printf (text, "%-*s", LABEL_COLUMNS, label);
  va_list args;
  va_start (args, format);
  g_string_append_vprintf (text, format, args);
  va_end (args);
  g_string_append_c (text, '\n');
}

static gboolean
state_is (const CliJob *job, const char *state)
{
  return strcmp (job->state, state) == 0;
}

/* Where the guest is after the end, in words. */
static char *
format_result (const CliJob *job, const char *local_host)
{
  const char *source = cli_job_get_source_host (job, local_host);
  const char *destination = cli_job_get_destination_host (job, local_host);
  const char *owner = strcmp (job->owner, "source") == 0        ? source
                      : strcmp (job->owner, "destination") == 0 ? destination
                                                                : NULL;
  if (cli_job_needs_operator (job) || owner == NULL)
    return g_strdup_printf ("%s: who owns %s must be decided (vmferry resolve)", job->state,
                            job->guest);
  return g_strdup_printf ("%s: %s %s at %s", job->state, job->guest,
                          owner == source && !state_is (job, "done") ? "stays" : "is", owner);
}

static void
append_numbers (GString *text, const CliJob *job)
{
  g_autofree char *total = cli_text_format_duration (job->total_s);
  g_autofree char *sent = cli_text_format_bytes (job->sent_bytes);
  g_autofree char *zero = cli_text_format_bytes (job->zero_bytes);
  append_field (text, "total time", "%s", total);
  if (job->downtime_ms >= 0)
    append_field (text, "downtime", "%.0f ms", job->downtime_ms);
  append_field (text, "sent", "%s", sent);
  append_field (text, "zeroes", "%s skipped", zero);
  append_field (text, "passes", "%" G_GINT64_FORMAT, job->passes);
  if (job->total_s > 0)
    {
      g_autofree char *rate = cli_text_format_rate ((double)job->sent_bytes / job->total_s);
      append_field (text, "mean rate", "%s", rate);
    }
}

/* Once the guest has gone, the source's disks are stale, and only a human may delete them. */
static void
append_old_disks (GString *text, const CliJob *job, const char *local_host)
{
  const char *host = cli_job_get_source_host (job, local_host);
  for (guint i = 0; i < job->disks->len; i++)
    {
      const CliJobDisk *disk = g_ptr_array_index (job->disks, i);
      if (*disk->source != '\0')
        append_field (text, "old disk", "%s: %s at %s, stale", disk->name, disk->source, host);
    }
}

static void
append_hosts (GString *text, const CliJob *job, const char *local_host)
{
  append_field (text, "guest", "%s", job->guest);
  append_field (text, "from, to", "%s -> %s", cli_job_get_source_host (job, local_host),
                cli_job_get_destination_host (job, local_host));
  append_field (text, "job", "%s", job->id);
}

char *
cli_report_result (const CliJob *job, const char *local_host)
{
  g_autofree char *result = format_result (job, local_host);
  GString *text = g_string_new (NULL);
  append_field (text, "result", "%s", result);
  append_hosts (text, job, local_host);
  append_numbers (text, job);
  if (state_is (job, "done"))
    append_old_disks (text, job, local_host);
  return g_string_free (text, FALSE);
}

static void
append_disk_status (GString *text, const CliJobDisk *disk)
{
  g_autofree char *size = cli_text_format_bytes (disk->size);
  g_autofree char *done = cli_text_format_bytes (disk->done);
  g_autofree char *todo = cli_text_format_bytes (disk->todo);
  append_field (text, "disk", "%s -> %s (%s, %s): pass %" G_GINT64_FORMAT ", %s of %s", disk->name,
                disk->target, disk->format, size, disk->pass, done, todo);
}

static void
append_ram_status (GString *text, const CliJob *job)
{
  if (job->ram_total == 0)
    return;
  g_autofree char *total = cli_text_format_bytes (job->ram_total);
  g_autofree char *sent = cli_text_format_bytes (job->ram_sent);
  g_autofree char *left = cli_text_format_bytes (job->ram_left);
  append_field (text, "RAM", "%s: %s sent, %s left", total, sent, left);
}

char *
cli_report_status (const CliJob *job, const char *local_host)
{
  GString *text = g_string_new (NULL);
  append_field (text, "state", "%s", job->state);
  append_field (text, "owner", "%s", job->owner);
  append_hosts (text, job, local_host);
  append_numbers (text, job);
  for (guint i = 0; i < job->disks->len; i++)
    append_disk_status (text, g_ptr_array_index (job->disks, i));
  append_ram_status (text, job);
  if (*job->message != '\0' && !state_is (job, job->message))
    append_field (text, "message", "%s", job->message);
  if (job->error != NULL)
    append_field (text, "error", "%s", job->error);
  return g_string_free (text, FALSE);
}

static void
append_table_row (GString *text, const char *const *cells, const guint *columns, guint n)
{
  for (guint i = 0; i + 1 < n; i++)
    {
      g_autofree char *cell = cli_text_pad (cells[i], columns[i]);
      g_string_append_printf (text, "%s  ", cell);
    }
  g_string_append_printf (text, "%s\n", cells[n - 1]);
}

#define N_CELLS 7
typedef struct
{
  const char *cells[N_CELLS];
} TableRow;

char *
cli_report_table (GPtrArray *jobs)
{
  static const TableRow head = { { "JOB", "GUEST", "ROLE", "PEER", "STATE", "OWNER", "TIME" } };
  g_autoptr (GPtrArray) strings = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GArray) rows = g_array_new (FALSE, FALSE, sizeof (TableRow));
  g_array_append_val (rows, head);
  for (guint i = 0; i < jobs->len; i++)
    {
      const CliJob *job = g_ptr_array_index (jobs, i);
      char *id = g_strndup (job->id, SHORT_ID);
      char *time = cli_text_format_duration (job->total_s);
      g_ptr_array_add (strings, id);
      g_ptr_array_add (strings, time);
      TableRow row = { { id, job->guest, job->role, job->peer, job->state, job->owner, time } };
      g_array_append_val (rows, row);
    }

  guint columns[N_CELLS] = { 0 };
  for (guint i = 0; i < rows->len * N_CELLS; i++)
    {
      const char *cell = g_array_index (rows, TableRow, i / N_CELLS).cells[i % N_CELLS];
      columns[i % N_CELLS] = MAX (columns[i % N_CELLS], cli_text_width (cell));
    }
  GString *text = g_string_new (NULL);
  for (guint i = 0; i < rows->len; i++)
    append_table_row (text, g_array_index (rows, TableRow, i).cells, columns, N_CELLS);
  return g_string_free (text, FALSE);
}

char *
cli_report_json_line (JsonObject *object)
{
  gsize len;
  g_autofree char *plain = json_framer_encode (object, &len);
  g_autofree char *safe = NULL;

  plain[len - 1] = '\0'; /* the newline is not to be escaped */
  safe = cli_text_escape_json (plain);
  return g_strdup_printf ("%s\n", safe);
}

static JsonObject *
copy_object (JsonObject *object)
{
  JsonObject *copy = json_object_new ();
  g_autoptr (GList) names = object != NULL ? json_object_get_members (object) : NULL;
  for (GList *l = names; l != NULL; l = l->next)
    json_object_set_member (copy, l->data, json_object_dup_member (object, l->data));
  return copy;
}

static void
add_missing_members (JsonObject *result, const char *guest, const char *error)
{
  static const char *const nulls[] = { "job", "owner", "downtime_ms", "error" };
  static const char *const zeroes[] = { "total_s", "sent_bytes", "zero_bytes", "passes" };
  if (!json_object_has_member (result, "guest"))
    json_object_set_string_member (result, "guest", guest);
  if (!json_object_has_member (result, "state"))
    json_object_set_string_member (result, "state", error != NULL ? "failed" : "checking");
  for (guint i = 0; i < G_N_ELEMENTS (nulls); i++)
    if (!json_object_has_member (result, nulls[i]))
      json_object_set_null_member (result, nulls[i]);
  for (guint i = 0; i < G_N_ELEMENTS (zeroes); i++)
    if (!json_object_has_member (result, zeroes[i]))
      json_object_set_int_member (result, zeroes[i], 0);
}

char *
cli_report_json (JsonObject *job, const char *guest, const char *error)
{
  g_autoptr (JsonObject) result = copy_object (job);
  if (error != NULL)
    json_object_set_string_member (result, "error", error);
  add_missing_members (result, guest, error);
  return cli_report_json_line (result);
}
