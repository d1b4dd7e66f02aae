/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* How many bytes each mirror may have in flight so that the guest's own I/O stays fast: congestion control on the guest's I/O latency. Pure: time comes
 * in with each sample. */
typedef struct
{
  gsize in_flight;          /* the decision: bytes */
  gsize minimum, maximum;   /* bytes */
  guint64 operations;       /* the last sample's sums */
  guint64 total_ns;
  gint64 at_us;
  double baseline_ns;       /* latency of the guest without us, or the best seen */
  gboolean has_sample;
} Pace;

/* Starts carefully at `minimum`. */
void pace_init (Pace *pace, gsize minimum, gsize maximum);
/* Sums since the start of QEMU over all disks of the guest (query-blockstats: rd/wr/flush_operations and
 * *_total_time_ns), taken at `now_us`.  Returns the new in_flight: an idle guest (no operations since the last sample) lets it grow to the maximum quickly; a latency that
 * rises over the tolerance halves it. */
gsize pace_update (Pace *pace, guint64 operations, guint64 total_ns, gint64 now_us);
