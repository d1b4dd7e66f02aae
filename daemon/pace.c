/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/pace.h"

#define SHORTEST_SAMPLE_US 50000
#define STEP ((gsize)128 * 1024)
/* After a fall: a guest whose one write waits for us shows no operation at all for a while, and
 * isn't idle. */
#define HOLD_US 500000
#define TOLERANCE_FACTOR 2.0
#define TOLERANCE_NS 1e6
/* So many times over the tolerance, halving would take too long. */
#define FAR_OVER 4.0
#define TOLERANCE_RATE 0.9
/* Of a new sample, in what is smoothed. */
#define WEIGHT 0.25

void
pace_init (Pace *pace, gsize minimum, gsize maximum)
{
  *pace = (Pace){ .in_flight = minimum, .minimum = minimum, .maximum = maximum };
}

static double
smooth (double old, double sample)
{
  return old == 0 ? sample : old + (sample - old) * WEIGHT;
}

/* At the minimum the guest is as fast as we can let it be, so that is where the baseline is learnt,
 * also when the guest begins to do something else.  Elsewhere it only gets better. */
static void
learn (Pace *pace, double latency_ns)
{
  if (pace->in_flight <= pace->minimum)
    {
      pace->baseline_ns = smooth (pace->baseline_ns, latency_ns);
      pace->baseline_rate = smooth (pace->baseline_rate, pace->rate);
      return;
    }
  if (pace->baseline_ns == 0 || latency_ns < pace->baseline_ns)
    pace->baseline_ns = latency_ns;
  pace->baseline_rate = MAX (pace->baseline_rate, pace->rate);
}

static void
grow (Pace *pace, gsize step, gint64 now_us)
{
  if (now_us >= pace->hold_until_us)
    pace->in_flight = MIN (pace->in_flight + step, pace->maximum);
}

static void
fall (Pace *pace, gsize to, gint64 now_us)
{
  pace->in_flight = MAX (to, pace->minimum);
  pace->hold_until_us = now_us + HOLD_US;
}

static void
judge (Pace *pace, double latency_ns, gint64 now_us)
{
  double tolerated_ns = pace->baseline_ns * TOLERANCE_FACTOR + TOLERANCE_NS;

  if (pace->baseline_ns == 0)
    fall (pace, pace->minimum, now_us);
  else if (latency_ns > tolerated_ns * FAR_OVER)
    fall (pace, pace->minimum, now_us);
  else if (latency_ns > tolerated_ns || pace->rate < pace->baseline_rate * TOLERANCE_RATE)
    fall (pace, pace->in_flight / 2, now_us);
  else
    grow (pace, STEP, now_us);
}

gsize
pace_update (Pace *pace, guint64 operations, guint64 total_ns, gint64 now_us)
{
  gint64 elapsed_us = now_us - pace->at_us;
  guint64 count = operations - pace->operations;
  guint64 ns = total_ns - pace->total_ns;
  /* A disk that was unplugged takes its sums with it: the sample tells nothing then. */
  gboolean valid = pace->has_sample && operations >= pace->operations && total_ns >= pace->total_ns;

  if (pace->has_sample && elapsed_us < SHORTEST_SAMPLE_US)
    return pace->in_flight;
  pace->has_sample = TRUE;
  pace->operations = operations;
  pace->total_ns = total_ns;
  pace->at_us = now_us;
  if (!valid)
    return pace->in_flight;
  if (count == 0)
    {
      /* What it does next has another rate. */
      pace->rate = pace->baseline_rate = 0;
      grow (pace, pace->in_flight, now_us);
      return pace->in_flight;
    }
  pace->rate = smooth (pace->rate, (double)count * 1e6 / (double)elapsed_us);
  judge (pace, (double)ns / (double)count, now_us);
  learn (pace, (double)ns / (double)count);
  return pace->in_flight;
}
