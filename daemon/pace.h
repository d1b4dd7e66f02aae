/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* How many bytes each mirror may have in flight so that the guest's own I/O stays fast: congestion
 * control on the guest's I/O latency, and on its I/O rate, because QEMU's main thread takes
 * processor time too.  Pure: time comes in with each sample. */
typedef struct
{
  gsize in_flight;        /* the decision: bytes */
  gsize minimum, maximum; /* bytes */
  guint64 operations;     /* the last sample's sums */
  guint64 total_ns;
  gint64 at_us;
  gboolean has_sample;
  double baseline_ns;   /* latency at the minimum, or the best seen since; 0: not known yet */
  double baseline_rate; /* operations per second, likewise */
  double rate;          /* smoothed */
  gint64 hold_until_us; /* no growth before */
} Pace;

/* Starts carefully at `minimum`. */
void pace_init (Pace *pace, gsize minimum, gsize maximum);

/* Sums since the start of QEMU over all disks of the guest (query-blockstats:
 * rd/wr/flush_operations and *_total_time_ns), taken at `now_us`, about every 100 ms; a sample that
 * comes within 50 ms of the last one is left for the next.  Returns the new in_flight.  An idle
 * guest (no operations since the last sample) lets it double; a latency over twice the baseline + 1
 * ms, or a rate under 90 % of it, halves it, or sends it to the minimum at once when it is far
 * over; otherwise it grows slowly. */
gsize pace_update (Pace *pace, guint64 operations, guint64 total_ns, gint64 now_us);
