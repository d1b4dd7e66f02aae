/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* A token bucket that several mirrors share.  Thread-safe. */
typedef struct RateLimit RateLimit;

/* Bytes per second; 0: no limit. */
RateLimit *rate_limit_new (guint64 bytes_per_s);
void rate_limit_free (RateLimit *limit);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (RateLimit, rate_limit_free)

void rate_limit_set (RateLimit *limit, guint64 bytes_per_s);
/* Takes `bytes` and returns 0, or takes nothing and returns in how many microseconds to ask again. */
gint64 rate_limit_take (RateLimit *limit, guint64 bytes);
