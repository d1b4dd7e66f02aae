/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "nbd/rate-limit.h"

/* So slow that no time that a test takes makes a difference. */
#define SLOW 10

static void
test_no_limit (void **state)
{
  g_autoptr (RateLimit) limit = rate_limit_new (0);

  for (guint i = 0; i < 1000; i++)
    assert_int_equal (rate_limit_take (limit, G_MAXUINT32), 0);
}

static void
test_waits_for_what_was_taken (void **state)
{
  g_autoptr (RateLimit) limit = rate_limit_new (SLOW);
  gint64 wait;

  assert_int_equal (rate_limit_take (limit, 100 * SLOW), 0);
  wait = rate_limit_take (limit, 1);
  assert_true (wait > 50 * G_USEC_PER_SEC && wait <= 100 * G_USEC_PER_SEC);
  /* Nothing was taken by that. */
  assert_true (rate_limit_take (limit, 1) <= wait);
}

static void
test_new_rate_forgives (void **state)
{
  g_autoptr (RateLimit) limit = rate_limit_new (1);

  assert_int_equal (rate_limit_take (limit, 1000000), 0);
  assert_true (rate_limit_take (limit, 1) > 0);
  rate_limit_set (limit, SLOW);
  assert_int_equal (rate_limit_take (limit, 100 * SLOW), 0);
  assert_true (rate_limit_take (limit, 1) > 0);
  rate_limit_set (limit, 0);
  assert_int_equal (rate_limit_take (limit, 1), 0);
}

static void
test_huge_request_ends (void **state)
{
  g_autoptr (RateLimit) limit = rate_limit_new (1);

  assert_int_equal (rate_limit_take (limit, G_MAXUINT64), 0);
  assert_true (rate_limit_take (limit, 1) <= 3600 * (gint64)G_USEC_PER_SEC);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_no_limit),
    cmocka_unit_test (test_waits_for_what_was_taken),
    cmocka_unit_test (test_new_rate_forgives),
    cmocka_unit_test (test_huge_request_ends),
  };

  return cmocka_run_group_tests_name ("rate-limit", tests, NULL, NULL);
}
