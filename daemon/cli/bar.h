/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* One line of progress, and the rate that it shows.  Pure: the time is passed in. */

typedef struct
{
  guint64 done;
  gint64 pass;
  gint64 at_us;
  double rate; /* bytes per second, smoothed; 0: not known yet */
} CliMeter;

/* `done` bytes of pass number `pass`; where either goes back, measuring begins anew.  `now_us`: any
 * clock that only goes forward. */
void cli_meter_update (CliMeter *meter, guint64 done, gint64 pass, gint64 now_us);

typedef struct
{
  const char *name;
  guint64 done, todo; /* bytes */
  double rate;        /* bytes per second */
} CliBar;

/* "  NAME [====>    ]   63 %  1.27 GiB of 2.00 GiB  227 MiB/s  3.2 s left", at most `columns` wide;
 * free with g_free. */
char *cli_bar_render (const CliBar *bar, guint name_columns, guint columns);
