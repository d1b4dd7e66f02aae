/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "nbd/in-flight.h"

#define MIB (1024u * 1024)
#define REQUEST (512u * 1024)

/* A line whose answers take `way_us` and then come one behind the other, at `rate` bytes per
 * microsecond: n of them, with as much under way as there may be. */
static void
run_line (InFlight *flight, gint64 way_us, double rate, guint n)
{
  g_autoptr (GQueue) asked = g_queue_new (); /* when, microseconds */
  double now = 0;

  for (guint i = 0; i < n; i++)
    {
      double at;

      while ((guint64)(asked->length + 1) * REQUEST <= flight->bytes)
        g_queue_push_tail (asked, GINT_TO_POINTER ((int)now));
      at = GPOINTER_TO_INT (g_queue_pop_head (asked));
      now = MAX (now, at + (double)way_us) + REQUEST / rate;
      in_flight_answered (flight, REQUEST, (gint64)(now - at));
    }
}

static void
test_near_server (void **state)
{
  InFlight flight;

  in_flight_init (&flight, 2 * MIB, 32 * MIB);
  run_line (&flight, 50, 1000, 10000);
  assert_int_equal (flight.bytes, 2 * MIB);
}

/* What a slow line near by holds is in its queue already. */
static void
test_slow_line (void **state)
{
  InFlight flight;

  in_flight_init (&flight, 2 * MIB, 32 * MIB);
  run_line (&flight, 200, 12.5, 10000);
  assert_int_equal (flight.bytes, 2 * MIB);
}

static void
test_far_server (void **state)
{
  InFlight flight;

  in_flight_init (&flight, 2 * MIB, 32 * MIB);
  run_line (&flight, 100 * 1000, 1000, 300);
  assert_int_equal (flight.bytes, 32 * MIB);
}

/* A little more than fills it, not all that there may be. */
static void
test_stops_at_what_the_line_holds (void **state)
{
  InFlight flight;

  in_flight_init (&flight, 2 * MIB, 64 * MIB);
  run_line (&flight, 20 * 1000, 500, 10000);
  assert_in_range (flight.bytes, 10 * MIB, 32 * MIB);
}

static void
test_no_room (void **state)
{
  InFlight flight;

  in_flight_init (&flight, 2 * MIB, MIB);
  run_line (&flight, 100 * 1000, 1000, 300);
  assert_int_equal (flight.bytes, 2 * MIB);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_near_server), cmocka_unit_test (test_slow_line),
    cmocka_unit_test (test_far_server),  cmocka_unit_test (test_stops_at_what_the_line_holds),
    cmocka_unit_test (test_no_room),
  };

  return cmocka_run_group_tests_name ("in-flight", tests, NULL, NULL);
}
