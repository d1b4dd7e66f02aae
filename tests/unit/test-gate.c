/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/copy/gate.h"

#define WINDOW 1000u

static guint64
ask_all (CopyGate *gate, guint64 bytes)
{
  guint64 sum = 0;

  while (copy_gate_admit (gate, bytes) == 0)
    sum += bytes;
  return sum;
}

static void
checkpoint (CopyGate *gate, guint64 start, guint64 end)
{
  g_autoptr (GArray) left = g_array_new (FALSE, FALSE, sizeof (WorkRange));
  WorkRange range = { start, end };

  g_array_append_val (left, range);
  copy_gate_begin_checkpoint (gate);
  copy_gate_end_checkpoint (gate, left);
}

static void
test_gate_window (void **state)
{
  g_autoptr (CopyGate) gate = copy_gate_new (WINDOW, 400);

  assert_int_equal (ask_all (gate, 100), WINDOW);
  checkpoint (gate, 0, 100000);
  assert_int_equal (ask_all (gate, 100), WINDOW);
}

/* What was asked for while a checkpoint was made is beyond it. */
static void
test_gate_during_a_checkpoint (void **state)
{
  g_autoptr (CopyGate) gate = copy_gate_new (WINDOW, 400);
  g_autoptr (GArray) left = g_array_new (FALSE, FALSE, sizeof (WorkRange));

  assert_int_equal (copy_gate_admit (gate, 300), 0);
  copy_gate_begin_checkpoint (gate);
  assert_int_equal (copy_gate_admit (gate, 200), 0);
  assert_int_equal (ask_all (gate, 100), 500);
  copy_gate_end_checkpoint (gate, left);
  assert_int_equal (ask_all (gate, 100), 300);
}

/* Stored out of order, behind something that is still open: no checkpoint covers it. */
static void
test_gate_ahead (void **state)
{
  g_autoptr (CopyGate) gate = copy_gate_new (WINDOW, 400);

  assert_int_equal (ask_all (gate, 100), WINDOW);
  for (guint i = 1; i < 10; i++)
    copy_gate_stored (gate, 100, i * 100);
  checkpoint (gate, 0, 100000);
  assert_int_equal (ask_all (gate, 100), 100);
  checkpoint (gate, 500, 100000);
  assert_int_equal (ask_all (gate, 100), 500);
  checkpoint (gate, 1000, 100000);
  assert_int_equal (ask_all (gate, 100), WINDOW);
}

static void
test_gate_large_request (void **state)
{
  g_autoptr (CopyGate) gate = copy_gate_new (WINDOW, 400);

  assert_int_equal (copy_gate_admit (gate, 5000), 0);
  assert_true (copy_gate_admit (gate, 1) > 0);
  checkpoint (gate, 0, 100000);
  assert_int_equal (copy_gate_admit (gate, 5000), 0);
}

static gpointer
ask_thread (gpointer gate)
{
  copy_gate_admit (gate, 400);
  return NULL;
}

static gpointer
end_thread (gpointer gate)
{
  copy_gate_end (gate);
  return NULL;
}

static void
test_gate_wait (void **state)
{
  g_autoptr (CopyGate) gate = copy_gate_new (WINDOW, 400);
  GThread *thread;

  copy_gate_wait (gate, g_get_monotonic_time ());
  thread = g_thread_new ("ask", ask_thread, gate);
  copy_gate_wait (gate, G_MAXINT64);
  g_thread_join (thread);
  checkpoint (gate, 0, 0);
  assert_false (copy_gate_has_ended (gate));
  thread = g_thread_new ("end", end_thread, gate);
  copy_gate_wait (gate, G_MAXINT64);
  g_thread_join (thread);
  assert_true (copy_gate_has_ended (gate));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_gate_window), cmocka_unit_test (test_gate_during_a_checkpoint),
    cmocka_unit_test (test_gate_ahead),  cmocka_unit_test (test_gate_large_request),
    cmocka_unit_test (test_gate_wait),
  };

  return cmocka_run_group_tests_name ("gate", tests, NULL, NULL);
}
