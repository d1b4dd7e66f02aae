/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/bar.h"

#include "daemon/cli/text.h"

#include <string.h>

#define MIN_BAR 8
#define MAX_BAR 40
/* Shorter intervals say more about scheduling than about the rate. */
#define MIN_SAMPLE_US (100 * 1000)

void
cli_meter_update (CliMeter *meter, guint64 done, gint64 pass, gint64 now_us)
{
  gboolean restarted = pass != meter->pass || done < meter->done;
  if (meter->at_us == 0 || restarted)
    {
      *meter = (CliMeter){ .done = done, .pass = pass, .at_us = now_us, .rate = meter->rate };
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

static void
append_bar (GString *line, const CliBar *bar, guint width)
{
  guint filled = bar->todo > 0 ? (guint)((double)bar->done / (double)bar->todo * width) : 0;
  g_string_append_c (line, '[');
  for (guint i = 0; i < width; i++)
    g_string_append_c (line, i < filled ? '=' : i == filled && bar->done > 0 ? '>' : ' ');
  g_string_append (line, "] ");
}

static char *
format_percent (const CliBar *bar)
{
  if (bar->todo == 0)
    return g_strdup ("  -  ");
  /* 100 % is for what is whole. */
  return g_strdup_printf ("%3d %%", (int)((double)bar->done / (double)bar->todo * 100));
}

static char *
format_left (const CliBar *bar)
{
  if (bar->done >= bar->todo || bar->rate < 1)
    return g_strdup ("");
  g_autofree char *text = cli_text_format_duration ((double)(bar->todo - bar->done) / bar->rate);
  return g_strdup_printf ("%s left", text);
}

/* "1.27 GiB of 2.00 GiB  227 MiB/s  3.2 s left": 20 + 2 + 10 + 2 + 12 columns. */
static char *
format_numbers (const CliBar *bar)
{
  g_autofree char *done = cli_text_format_bytes (bar->done);
  g_autofree char *todo = cli_text_format_bytes (bar->todo);
  g_autofree char *rate = bar->rate >= 1 ? cli_text_format_rate (bar->rate) : g_strdup ("");
  g_autofree char *left = format_left (bar);
  g_autofree char *bytes = g_strdup_printf ("%s of %s", done, todo);
  return g_strdup_printf ("%20s  %10s  %12s", bytes, rate, left);
}

char *
cli_bar_render (const CliBar *bar, guint name_columns, guint columns)
{
  g_autofree char *cut = cli_text_cut (bar->name, name_columns);
  g_autofree char *name = cli_text_pad (cut, name_columns);
  g_autofree char *percent = format_percent (bar);
  g_autofree char *numbers = format_numbers (bar);
  guint fixed = 2 + name_columns + 1 + 3 + (guint)strlen (percent) + 2 + (guint)strlen (numbers);
  GString *line = g_string_new (NULL);
  g_string_append_printf (line, "  %s ", name);
  /* On a narrow terminal the numbers say more than a short bar. */
  if (columns >= fixed + MIN_BAR)
    append_bar (line, bar, MIN (columns - fixed, MAX_BAR));
  g_string_append_printf (line, "%s  %s", percent, numbers);
  g_autofree char *whole = g_string_free (line, FALSE);
  g_strchomp (whole);
  return cli_text_cut (whole, columns);
}
