/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/progress.h"

#include "daemon/cli/text.h"

#include <string.h>

#define MAX_NAME 16
#define MIN_BAR 8
#define MAX_BAR 40
/* Shorter intervals say more about scheduling than about the rate. */
#define MIN_SAMPLE_US (100 * 1000)

typedef struct
{
  guint64 done;
  gint64 pass;
  gint64 at_us;
  double rate; /* bytes per second, smoothed; 0: not known yet */
} Meter;

struct CliProgress
{
  GHashTable *meters; /* disk name -> Meter */
  Meter ram;
};

/* One bar. */
typedef struct
{
  const char *name;
  guint64 done, todo;
  double rate;
} Row;

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

static void
meter_update (Meter *meter, guint64 done, gint64 pass, gint64 now_us)
{
  gboolean restarted = pass != meter->pass || done < meter->done;
  if (meter->at_us == 0 || restarted)
    {
      *meter = (Meter){ .done = done, .pass = pass, .at_us = now_us, .rate = meter->rate };
      return;
    }
  gint64 elapsed = now_us - meter->at_us;
  if (elapsed < MIN_SAMPLE_US)
    return;
  double rate = (double)(done - meter->done) * G_USEC_PER_SEC / (double)elapsed;
  meter->rate = meter->rate > 0 ? 0.7 * meter->rate + 0.3 * rate : rate;
  meter->done = done;
  meter->at_us = now_us;
}

void
cli_progress_update (CliProgress *progress, const CliJob *job, gint64 now_us)
{
  for (guint i = 0; i < job->disks->len; i++)
    {
      const CliJobDisk *disk = g_ptr_array_index (job->disks, i);
      Meter *meter = g_hash_table_lookup (progress->meters, disk->name);
      if (meter == NULL)
        {
          meter = g_new0 (Meter, 1);
          g_hash_table_insert (progress->meters, g_strdup (disk->name), meter);
        }
      meter_update (meter, disk->done, disk->pass, now_us);
    }
  meter_update (&progress->ram, job->ram_sent, 0, now_us);
}

static double
disk_rate (const CliProgress *progress, const char *name)
{
  const Meter *meter = g_hash_table_lookup (progress->meters, name);
  return meter != NULL ? meter->rate : 0;
}

static GArray *
collect_rows (const CliProgress *progress, const CliJob *job)
{
  GArray *rows = g_array_new (FALSE, FALSE, sizeof (Row));
  for (guint i = 0; i < job->disks->len; i++)
    {
      const CliJobDisk *disk = g_ptr_array_index (job->disks, i);
      Row row = { disk->name, disk->done, disk->todo, disk_rate (progress, disk->name) };
      g_array_append_val (rows, row);
    }
  if (job->ram_total > 0)
    {
      Row row = { "RAM", job->ram_total - job->ram_left, job->ram_total, progress->ram.rate };
      /* Before the first byte QEMU may say that nothing is left. */
      if (job->ram_sent == 0)
        row.done = 0;
      g_array_append_val (rows, row);
    }
  return rows;
}

static void
append_bar (GString *line, const Row *row, guint width)
{
  guint filled = row->todo > 0 ? (guint)((double)row->done / (double)row->todo * width) : 0;
  g_string_append_c (line, '[');
  for (guint i = 0; i < width; i++)
    g_string_append_c (line, i < filled ? '=' : i == filled && row->done > 0 ? '>' : ' ');
  g_string_append (line, "] ");
}

static char *
format_percent (const Row *row)
{
  if (row->todo == 0)
    return g_strdup ("  -  ");
  /* 100 % is for what is whole. */
  return g_strdup_printf ("%3d %%", (int)((double)row->done / (double)row->todo * 100));
}

static char *
format_left (const Row *row)
{
  if (row->done >= row->todo || row->rate < 1)
    return g_strdup ("");
  g_autofree char *text = cli_text_format_duration ((double)(row->todo - row->done) / row->rate);
  return g_strdup_printf ("%s left", text);
}

/* "1.27 GiB of 2.00 GiB  227 MiB/s  3.2 s left": 20 + 2 + 10 + 2 + 12 columns. */
static char *
format_numbers (const Row *row)
{
  g_autofree char *done = cli_text_format_bytes (row->done);
  g_autofree char *todo = cli_text_format_bytes (row->todo);
  g_autofree char *rate = row->rate >= 1 ? cli_text_format_rate (row->rate) : g_strdup ("");
  g_autofree char *left = format_left (row);
  g_autofree char *bytes = g_strdup_printf ("%s of %s", done, todo);
  return g_strdup_printf ("%20s  %10s  %12s", bytes, rate, left);
}

static char *
render_row (const Row *row, guint name_columns, guint columns)
{
  g_autofree char *cut = cli_text_cut (row->name, name_columns);
  g_autofree char *name = cli_text_pad (cut, name_columns);
  g_autofree char *percent = format_percent (row);
  g_autofree char *numbers = format_numbers (row);
  guint fixed = 2 + name_columns + 1 + 3 + (guint)strlen (percent) + 2 + (guint)strlen (numbers);
  GString *line = g_string_new (NULL);
  g_string_append_printf (line, "  %s ", name);
  /* On a narrow terminal the numbers say more than a short bar. */
  if (columns >= fixed + MIN_BAR)
    append_bar (line, row, MIN (columns - fixed, MAX_BAR));
  g_string_append_printf (line, "%s  %s", percent, numbers);
  g_autofree char *whole = g_string_free (line, FALSE);
  g_strchomp (whole);
  return cli_text_cut (whole, columns);
}

static guint
widest_name (GArray *rows)
{
  guint widest = 0;
  for (guint i = 0; i < rows->len; i++)
    widest = MAX (widest, cli_text_width (g_array_index (rows, Row, i).name));
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
    g_ptr_array_add (lines, render_row (&g_array_index (bars, Row, i), name_columns, columns));
  if (fits < bars->len && rows >= 2)
    {
      g_autofree char *more = g_strdup_printf ("  and %u more", bars->len - fits);
      g_ptr_array_add (lines, cli_text_cut (more, columns));
    }
  g_ptr_array_add (lines, NULL);
  return (char **)g_ptr_array_free (lines, FALSE);
}
