/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* How many bytes are best asked for before they have come.  Near a server, few: what is under way
 * stays in the processor's caches, and QEMU need not fetch new memory for each request.  Over a
 * long way, or from a disk that is slow but wide, more.  Which one it is tells the time that an
 * answer takes: as long as it is about the shortest that was seen, requests don't wait for each
 * other, and there may be more of them.  Pure; of one connection. */
typedef struct
{
  guint64 bytes; /* the decision */
  guint64 minimum;
  guint64 maximum;
  guint n_answers; /* up to the first ones */
  gint64 shortest_us;
} InFlight;

void in_flight_init (InFlight *flight, guint64 minimum, guint64 maximum);
/* `length` bytes have come, `took_us` after they were asked for. */
void in_flight_answered (InFlight *flight, guint32 length, gint64 took_us);
