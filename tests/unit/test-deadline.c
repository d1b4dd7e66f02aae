/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "tls/deadline.h"

static void
test_never (void **state)
{
  assert_int_equal (deadline_left_ms (DEADLINE_NEVER), -1);
  assert_int_equal (deadline_left_ms (deadline_in (-1, NULL)), -1);
  assert_int_equal (deadline_left_ms (deadline_in (G_MAXINT64 - 1, NULL)), -1);
  assert_true (deadline_check (DEADLINE_NEVER, NULL));
}

static void
test_left (void **state)
{
  int left = deadline_left_ms (deadline_in (60 * 1000, NULL));

  assert_in_range (left, 50 * 1000, 60 * 1000);
  /* a part of a millisecond is one to poll for, not none */
  Deadline soon = { .at = g_get_monotonic_time () + 999999500 };
  assert_in_range (deadline_left_ms (soon), 1, 1000000);
  assert_int_equal (deadline_left_ms ((Deadline){ .at = 1 }), 0);
  assert_int_equal (deadline_left_ms (deadline_in (G_MAXINT64 / 2000, NULL)), G_MAXINT);
}

static void
test_sooner (void **state)
{
  Deadline hour = deadline_in (3600 * 1000, NULL);

  assert_int_equal (deadline_sooner (hour, 7200 * 1000).at, hour.at);
  assert_true (deadline_sooner (hour, 1000).at < hour.at);
  assert_int_equal (deadline_sooner (hour, -1).at, hour.at);
  assert_int_not_equal (deadline_left_ms (deadline_sooner (DEADLINE_NEVER, 1000)), -1);
}

static void
test_check_words (void **state)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) late = NULL;
  g_autoptr (GError) cancelled = NULL;

  assert_false (deadline_check (deadline_in (0, NULL), &late));
  assert_true (g_error_matches (late, G_IO_ERROR, G_IO_ERROR_TIMED_OUT));
  assert_string_equal (late->message, "timed out");

  g_cancellable_cancel (cancellable);
  assert_false (deadline_check (deadline_in (0, cancellable), &cancelled));
  assert_true (g_error_matches (cancelled, G_IO_ERROR, G_IO_ERROR_CANCELLED));
  assert_string_equal (cancelled->message, "cancelled");
}

static void
test_poll_ready (void **state)
{
  int pair[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM, 0, pair), 0);
  assert_true (deadline_poll (DEADLINE_NEVER, pair[0], POLLOUT, NULL));
  assert_int_equal (write (pair[1], "x", 1), 1);
  assert_true (deadline_poll (DEADLINE_NEVER, pair[0], POLLIN, NULL));
  close (pair[1]);
  /* an end is something to read, too */
  assert_true (deadline_poll (DEADLINE_NEVER, pair[0], POLLIN, NULL));
  close (pair[0]);
}

static void
test_poll_times_out (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GError) bare = NULL;
  int pair[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM, 0, pair), 0);
  gint64 before = g_get_monotonic_time ();
  assert_false (deadline_poll (deadline_in (30, NULL), pair[0], POLLIN, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT));
  assert_true (g_get_monotonic_time () - before >= 30 * 1000);
  assert_false (deadline_poll (deadline_in (5, NULL), -1, 0, &bare));
  assert_true (g_error_matches (bare, G_IO_ERROR, G_IO_ERROR_TIMED_OUT));
  close (pair[0]);
  close (pair[1]);
}

static gpointer
cancel_later (gpointer data)
{
  g_usleep (20 * 1000);
  g_cancellable_cancel (data);
  return NULL;
}

static void
test_poll_cancelled_from_a_thread (void **state)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  int pair[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM, 0, pair), 0);
  GThread *thread = g_thread_new ("cancel", cancel_later, cancellable);
  assert_false (deadline_poll (deadline_in (-1, cancellable), pair[0], POLLIN, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED));
  g_thread_join (thread);
  close (pair[0]);
  close (pair[1]);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_never),
    cmocka_unit_test (test_left),
    cmocka_unit_test (test_sooner),
    cmocka_unit_test (test_check_words),
    cmocka_unit_test (test_poll_ready),
    cmocka_unit_test (test_poll_times_out),
    cmocka_unit_test (test_poll_cancelled_from_a_thread),
  };

  return cmocka_run_group_tests_name ("deadline", tests, NULL, NULL);
}
