/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/progress.h"

#include "daemon/cli/bar.h"
#include "daemon/cli/text.h"

#include <string.h>

#define MAX_NAME 16

struct CliProgress
{
  GHashTable *meters; /* disk name -> CliMeter */
  CliMeter ram;
};

CliProgress *
cli_progress_new (void)
{
  CliProgress *progress = g_new0 (CliProgress, 1);
  progress->meters = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  return progress;
}

void
cli_progress_free (CliProgress *progress)
{
  if (progress == NULL)
    return;
  g_hash_table_unref (progress->meters);
  g_free (progress);
}

void
cli_progress_update (CliProgress *progress, const CliJob *job, gint64 now_us)
{
  for (guint i = 0; i < job->disks->len; i++)
    {
      const CliJobDisk *disk = g_ptr_array_index (job->disks, i);
      CliMeter *meter = g_hash_table_lookup (progress->meters, disk->name);
      if (meter == NULL)
        {
          meter = g_new0 (CliMeter, 1);
          g_hash_table_insert (progress->meters, g_strdup (disk->name), meter);
        }
      cli_meter_update (meter, disk->done, disk->pass, now_us);
    }
  cli_meter_update (&progress->ram, job->ram_sent, 0, now_us);
}

static double
disk_rate (const CliProgress *progress, const char *name)
{
  const CliMeter *meter = g_hash_table_lookup (progress->meters, name);
  return meter != NULL ? meter->rate : 0;
}

static GArray *
collect_rows (const CliProgress *progress, const CliJob *job)
{
  GArray *rows = g_array_new (FALSE, FALSE, sizeof (CliBar));
  for (guint i = 0; i < job->disks->len; i++)
    {
      const CliJobDisk *disk = g_ptr_array_index (job->disks, i);
      CliBar row = { disk->name, disk->done, disk->todo, disk_rate (progress, disk->name) };
      g_array_append_val (rows, row);
    }
  if (job->ram_total > 0)
    {
      CliBar row = { "RAM", job->ram_total - job->ram_left, job->ram_total, progress->ram.rate };
      /* Before the first byte QEMU may say that nothing is left. */
      if (job->ram_sent == 0)
        row.done = 0;
      g_array_append_val (rows, row);
    }
  return rows;
}

static guint
widest_name (GArray *rows)
{
  guint widest = 0;
  for (guint i = 0; i < rows->len; i++)
    widest = MAX (widest, cli_text_width (g_array_index (rows, CliBar, i).name));
  return MIN (widest, MAX_NAME);
}

/* What the job is at: its state, and what the agent adds to it. */
static char *
format_phase (const CliJob *job)
{
  gint64 pass = 0;
  for (guint i = 0; i < job->disks->len; i++)
    pass = MAX (pass, ((const CliJobDisk *)g_ptr_array_index (job->disks, i))->pass);
  gboolean converging = strcmp (job->state, "converging") == 0;
  if (converging && pass > 0)
    return g_strdup_printf ("converging, pass %" G_GINT64_FORMAT, pass);
  return g_strdup (job->state);
}

char *
cli_progress_describe_phase (const CliJob *job)
{
  g_autofree char *phase = format_phase (job);
  return g_strdup_printf ("%s: %s", job->guest, phase);
}

static char *
render_head (const CliJob *job, guint columns)
{
  g_autofree char *phase = format_phase (job);
  g_autofree char *elapsed = cli_text_format_duration (job->total_s);
  gboolean incoming = strcmp (job->role, "destination") == 0;
  GString *line = g_string_new (NULL);
  g_string_append_printf (line, "%s %s %s: %s, %s", job->guest, incoming ? "<-" : "->", job->peer,
                          phase, elapsed);
  if (!cli_job_has_ended (job) && job->rate > 0)
    {
      g_autofree char *rate = cli_text_format_rate ((double)job->rate);
      g_string_append_printf (line, ", %s", rate);
    }
  if (!cli_job_has_ended (job) && job->left_s >= 0)
    {
      g_autofree char *left = cli_text_format_duration (job->left_s);
      g_string_append_printf (line, ", %s left", left);
    }
  if (*job->message != '\0' && strcmp (job->message, job->state) != 0)
    g_string_append_printf (line, " (%s)", job->message);
  g_autofree char *whole = g_string_free (line, FALSE);
  return cli_text_cut (whole, columns);
}

char **
cli_progress_render (const CliProgress *progress, const CliJob *job, guint columns, guint rows)
{
  g_autoptr (GArray) bars = collect_rows (progress, job);
  guint name_columns = widest_name (bars);
  GPtrArray *lines = g_ptr_array_new ();
  g_ptr_array_add (lines, render_head (job, columns));
  /* The last row tells what found no place. */
  guint fits = bars->len + 1 <= rows ? bars->len : rows > 2 ? rows - 2 : 0;
  for (guint i = 0; i < fits; i++)
    g_ptr_array_add (lines,
                     cli_bar_render (&g_array_index (bars, CliBar, i), name_columns, columns));
  if (fits < bars->len && rows >= 2)
    {
      g_autofree char *more = g_strdup_printf ("  and %u more", bars->len - fits);
      g_ptr_array_add (lines, cli_text_cut (more, columns));
    }
  g_ptr_array_add (lines, NULL);
  return (char **)g_ptr_array_free (lines, FALSE);
}
