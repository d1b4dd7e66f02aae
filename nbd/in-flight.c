/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/in-flight.h"

void
in_flight_init (InFlight *flight, guint64 minimum, guint64 maximum)
{
  *flight = (InFlight){ .bytes = minimum, .minimum = minimum, .maximum = MAX (minimum, maximum) };
}

/* What a connection takes in while it waits, in bytes per microsecond, when all goes well: to have
 * more under way than that is of no use. */
#define FASTEST 1500
/* The very first answers wait for others: of what is on the disk, and where. */
#define FIRST_ANSWERS 8

/* Twice as many bytes after each round trip, like TCP when it starts. */
void
in_flight_answered (InFlight *flight, guint32 length, gint64 took_us)
{
  guint64 bytes = flight->bytes;

  if (flight->n_answers == 0 || took_us < flight->shortest_us)
    flight->shortest_us = MAX (took_us, 1);
  if (flight->n_answers < FIRST_ANSWERS)
    flight->n_answers++;
  else if (took_us < flight->shortest_us + flight->shortest_us / 2)
    bytes = MIN (bytes + length, flight->maximum);
  bytes = MIN (bytes, (guint64)flight->shortest_us * FASTEST);
  flight->bytes = MAX (bytes, flight->minimum);
}
