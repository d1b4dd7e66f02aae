/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/pace.h"

#define KIB ((gsize)1024)
#define MINIMUM (256 * KIB)
#define MAXIMUM (4096 * KIB)
#define TICK_US 100000

/* A guest and its QEMU, as far as the pace can see them. */
typedef struct
{
  Pace pace;
  guint64 operations;
  double total_ns;
  gint64 now_us;
} World;

static World
new_world (void)
{
  World world = { .now_us = 5000000 };

  pace_init (&world.pace, MINIMUM, MAXIMUM);
  pace_update (&world.pace, 0, 0, world.now_us);
  return world;
}

/* 100 ms in which the guest did `count` operations of that latency. */
static gsize
tick (World *world, guint count, double latency_ms)
{
  world->operations += count;
  world->total_ns += count * latency_ms * 1e6;
  world->now_us += TICK_US;
  return pace_update (&world->pace, world->operations, (guint64)world->total_ns, world->now_us);
}

static gsize
ticks (World *world, guint n, guint count, double latency_ms)
{
  gsize in_flight = world->pace.in_flight;

  for (guint i = 0; i < n; i++)
    in_flight = tick (world, count, latency_ms);
  return in_flight;
}

static void
test_start (void **state)
{
  Pace pace;

  pace_init (&pace, MINIMUM, MAXIMUM);
  assert_int_equal (pace_update (&pace, 1000, 1000000, 1), MINIMUM);
}

static void
test_idle (void **state)
{
  World world = new_world ();

  assert_int_equal (tick (&world, 0, 0), 2 * MINIMUM);
  assert_int_equal (ticks (&world, 3, 0, 0), MAXIMUM);
  assert_int_equal (ticks (&world, 20, 0, 0), MAXIMUM);
}

/* A guest that is as fast as before lets it grow, by steps. */
static void
test_undisturbed (void **state)
{
  World world = new_world ();

  assert_int_equal (tick (&world, 50, 2.0), MINIMUM);
  assert_int_equal (world.pace.hold_until_us, world.now_us + 500000);
  assert_int_equal (ticks (&world, 5, 50, 2.0), MINIMUM + 128 * KIB);
  assert_int_equal (ticks (&world, 50, 50, 2.5), MAXIMUM);
}

static void
test_latency_halves (void **state)
{
  World world = new_world ();

  ticks (&world, 60, 50, 2.0);
  assert_int_equal (world.pace.in_flight, MAXIMUM);
  assert_int_equal (tick (&world, 50, 4.9), MAXIMUM);
  assert_int_equal (tick (&world, 50, 5.1), MAXIMUM / 2);
  assert_int_equal (tick (&world, 50, 5.1), MAXIMUM / 4);
  /* It waits before it tries again. */
  assert_int_equal (ticks (&world, 4, 50, 2.0), MAXIMUM / 4);
  assert_int_equal (tick (&world, 50, 2.0), MAXIMUM / 4 + 128 * KIB);
}

static void
test_latency_far_over (void **state)
{
  World world = new_world ();

  ticks (&world, 60, 50, 2.0);
  assert_int_equal (tick (&world, 20, 215.0), MINIMUM);
}

/* A guest that wakes up while the copy runs at full speed. */
static void
test_idle_then_busy (void **state)
{
  World world = new_world ();

  ticks (&world, 20, 0, 0);
  assert_int_equal (tick (&world, 10, 30.0), MINIMUM);
}

/* One write that waits for us for long: no operation ends meanwhile, and that isn't idleness. */
static void
test_stuck_is_not_idle (void **state)
{
  World world = new_world ();

  ticks (&world, 60, 50, 2.0);
  assert_int_equal (tick (&world, 1, 300.0), MINIMUM);
  assert_int_equal (ticks (&world, 3, 0, 0), MINIMUM);
}

static void
test_rate_falls (void **state)
{
  World world = new_world ();
  gsize before;

  ticks (&world, 30, 50, 2.0);
  before = world.pace.in_flight;
  assert_true (ticks (&world, 5, 40, 2.0) < before);
}

/* Another load, slower by nature, is learnt: the copy doesn't stay at the minimum. */
static void
test_new_baseline (void **state)
{
  World world = new_world ();
  gsize most = 0;

  ticks (&world, 60, 50, 0.2);
  assert_int_equal (tick (&world, 20, 8.0), MINIMUM);
  for (guint i = 0; i < 100; i++)
    most = MAX (most, tick (&world, 20, 8.0));
  assert_int_equal (most, MAXIMUM);
}

/* Latency rises with what is in flight: it settles where the guest is still fast. */
static void
test_settles (void **state)
{
  World world = new_world ();
  double sum = 0, worst = 0;

  ticks (&world, 5, 50, 1.0);
  for (guint i = 0; i < 600; i++)
    {
      double latency = 1.0 + world.pace.in_flight / (double)(512 * KIB);

      tick (&world, 50, latency);
      sum += world.pace.in_flight;
      worst = MAX (worst, latency);
    }
  assert_true (worst < 6.0);
  assert_true (sum / 600 > 1.5 * MINIMUM);
}

/* The rate of a guest is never quite even: that alone must not hold the copy down. */
static void
test_noise (void **state)
{
  World world = new_world ();
  g_autoptr (GRand) rand = g_rand_new_with_seed (7);
  double sum = 0;

  for (guint i = 0; i < 1000; i++)
    {
      tick (&world, g_rand_int_range (rand, 45, 56), g_rand_double_range (rand, 1.5, 2.5));
      sum += world.pace.in_flight;
    }
  assert_true (sum / 1000 > 0.8 * MAXIMUM);
}

static void
test_odd_samples (void **state)
{
  World world = new_world ();
  gsize before;

  ticks (&world, 20, 50, 2.0);
  before = world.pace.in_flight;
  /* Too soon after the last one. */
  assert_int_equal (
      pace_update (&world.pace, world.operations + 9, (guint64)world.total_ns, world.now_us + 1000),
      before);
  /* The sums went back. */
  world.operations = 10;
  world.total_ns = 10;
  assert_int_equal (tick (&world, 0, 0), before);
  assert_true (tick (&world, 50, 2.0) >= before);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_start),
    cmocka_unit_test (test_idle),
    cmocka_unit_test (test_undisturbed),
    cmocka_unit_test (test_latency_halves),
    cmocka_unit_test (test_latency_far_over),
    cmocka_unit_test (test_idle_then_busy),
    cmocka_unit_test (test_stuck_is_not_idle),
    cmocka_unit_test (test_rate_falls),
    cmocka_unit_test (test_new_baseline),
    cmocka_unit_test (test_settles),
    cmocka_unit_test (test_noise),
    cmocka_unit_test (test_odd_samples),
  };

  return cmocka_run_group_tests_name ("pace", tests, NULL, NULL);
}
