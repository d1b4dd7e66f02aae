/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/rate-limit.h"

/* Unused time counts for at most this long, so that a pause is not followed by a burst. */
#define BURST_US 50000

struct RateLimit
{
  GMutex lock;
  guint64 bytes_per_s; /* 0: no limit */
  gint64 free_at;      /* when what was taken so far has been paid for (monotonic, us) */
};

RateLimit *
rate_limit_new (guint64 bytes_per_s)
{
  RateLimit *limit = g_new0 (RateLimit, 1);

  g_mutex_init (&limit->lock);
  limit->bytes_per_s = bytes_per_s;
  return limit;
}

void
rate_limit_free (RateLimit *limit)
{
  if (limit == NULL)
    return;
  g_mutex_clear (&limit->lock);
  g_free (limit);
}

void
rate_limit_set (RateLimit *limit, guint64 bytes_per_s)
{
  g_mutex_lock (&limit->lock);
  limit->bytes_per_s = bytes_per_s;
  /* What was taken at the old rate is forgiven: at a few bytes a second it would take for ever. */
  limit->free_at = g_get_monotonic_time ();
  g_mutex_unlock (&limit->lock);
}

/* Whole requests are let through once what was taken before is paid for, however large they are. */
static gint64
limit_take (RateLimit *limit, guint64 bytes, gint64 now)
{
  guint64 cost;

  if (limit->bytes_per_s == 0)
    return 0;
  if (limit->free_at > now)
    return limit->free_at - now;
  limit->free_at = MAX (limit->free_at, now - BURST_US);
  cost = (guint64)((double)bytes * G_USEC_PER_SEC / (double)limit->bytes_per_s);
  limit->free_at += (gint64)MIN (cost, (guint64)3600 * G_USEC_PER_SEC);
  return 0;
}

gint64
rate_limit_take (RateLimit *limit, guint64 bytes)
{
  gint64 wait;

  g_mutex_lock (&limit->lock);
  wait = limit_take (limit, bytes, g_get_monotonic_time ());
  g_mutex_unlock (&limit->lock);
  return wait;
}
