/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include "qmp/json-client.h"
#include "qmp/qmp-socket.h"
#include "tests/unit/fake-qmp.h"

#define PATIENCE_MS 20000

static Deadline
soon (void)
{
  return deadline_in (PATIENCE_MS, NULL);
}

/* "*" in `expected` stands for a number, which a busy machine may change. */
static void
assert_line (const char *line, const char *expected)
{
  if (!g_pattern_match_simple (expected, line))
    fail_msg ("\"%s\" instead of \"%s\"", line, expected);
}

static void
test_open (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_GREETS, NULL, NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (QmpExecutor) qmp
      = qmp_socket_open (fake_qmp_get_path (fake), NULL, NULL, NULL, soon (), &error);

  if (qmp == NULL)
    fail_msg ("%s", error->message);
  assert_int_equal (qmp_socket_get_version (qmp), 70222);
  assert_int_equal (qmp_socket_get_pid (qmp), getpid ());
  assert_string_equal (qmp->name, fake_qmp_get_path (fake));
  assert_true (qmp_schema_has (qmp->schema, "getfd/fdname"));
  assert_true (qmp_call (qmp, "cont", NULL, -1, NULL, NULL, &error));
  assert_int_equal (fake_qmp_count (fake, "cont"), 1);
  assert_int_equal (fake_qmp_count (fake, NULL), 1);
}

/* {"enable": ["oob"]} where it was not offered is refused by QEMU. */
static void
test_without_oob (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_WITHOUT_OOB, NULL, NULL);
  g_autoptr (QmpExecutor) qmp
      = qmp_socket_open (fake_qmp_get_path (fake), NULL, NULL, NULL, soon (), NULL);

  assert_non_null (qmp);
}

static void
check_refused (FakeQmpGreeting greeting, gint64 timeout_ms, int code, const char *expected)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (greeting, NULL, NULL);
  const char *path = fake_qmp_get_path (fake);
  g_autofree char *line = g_strdup_printf ("%s: %s", path, expected);
  g_autoptr (GError) error = NULL;

  assert_null (qmp_socket_open (path, NULL, NULL, NULL, deadline_in (timeout_ms, NULL), &error));
  assert_line (error->message, line);
  assert_true (g_error_matches (error, JSON_CLIENT_ERROR, code));
}

static void
test_not_qemu (void **state)
{
  check_refused (FAKE_QMP_GARBAGE, PATIENCE_MS, JSON_CLIENT_ERROR_GREETING,
                 "expected the greeting \"QMP\": not JSON at byte 0: a value is expected (is this "
                 "the QMP monitor of a QEMU?)");
  check_refused (FAKE_QMP_ANOTHER, PATIENCE_MS, JSON_CLIENT_ERROR_GREETING,
                 "expected the greeting \"QMP\", got {\"hello\":\"world\"} (is this the QMP "
                 "monitor of a QEMU?)");
  check_refused (FAKE_QMP_CLOSES, PATIENCE_MS, JSON_CLIENT_ERROR_GREETING,
                 "closed the connection instead of greeting with \"QMP\" (is this the QMP monitor "
                 "of a QEMU?)");
}

static void
test_silent (void **state)
{
  check_refused (FAKE_QMP_SILENT, PATIENCE_MS, JSON_CLIENT_ERROR_BUSY,
                 "no greeting within * s: the monitor is in use by another client");
  check_refused (FAKE_QMP_SILENT, 50, JSON_CLIENT_ERROR_BUSY,
                 "no greeting within * ms: the monitor is in use by another client");
}

/* QEMU serves one client and leaves the next one waiting. */
static void
test_second_client (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_GREETS, NULL, NULL);
  const char *path = fake_qmp_get_path (fake);
  QmpExecutor *first = qmp_socket_open (path, NULL, NULL, NULL, soon (), NULL);
  g_autoptr (QmpExecutor) third = NULL;
  g_autoptr (GError) error = NULL;

  assert_non_null (first);
  assert_null (qmp_socket_open (path, NULL, NULL, NULL, deadline_in (50, NULL), &error));
  assert_true (g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_BUSY));
  qmp_executor_free (first);
  third = qmp_socket_open (path, NULL, NULL, NULL, soon (), NULL);
  assert_non_null (third);
}

static void
test_no_socket (void **state)
{
  g_autoptr (GError) error = NULL;

  assert_null (qmp_socket_open ("/nonexistent/qmp", NULL, NULL, NULL, soon (), &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND));
  assert_string_equal (error->message,
                       "cannot connect to /nonexistent/qmp: No such file or directory");
}

typedef struct
{
  GMutex lock;
  GCond changed;
  GPtrArray *events;
  guint n_closed;
} Watcher;

static void
on_event (const char *event, JsonObject *data, gpointer user_data)
{
  Watcher *watcher = user_data;

  g_mutex_lock (&watcher->lock);
  g_ptr_array_add (watcher->events, g_strdup (event));
  g_cond_broadcast (&watcher->changed);
  g_mutex_unlock (&watcher->lock);
}

static void
on_closed (const GError *error, gpointer user_data)
{
  Watcher *watcher = user_data;

  g_mutex_lock (&watcher->lock);
  watcher->n_closed++;
  g_cond_broadcast (&watcher->changed);
  g_mutex_unlock (&watcher->lock);
}

static void
watcher_wait (Watcher *watcher, guint n_events, guint n_closed)
{
  gint64 until = g_get_monotonic_time () + PATIENCE_MS * 1000;

  g_mutex_lock (&watcher->lock);
  while (watcher->events->len < n_events || watcher->n_closed < n_closed)
    if (!g_cond_wait_until (&watcher->changed, &watcher->lock, until))
      g_error ("%u events and %u ends came", watcher->events->len, watcher->n_closed);
  g_mutex_unlock (&watcher->lock);
}

static JsonNode *
crash_at_stop (FakeQmp *fake, const char *command, JsonObject *args, gpointer data)
{
  return strcmp (command, "stop") == 0 ? fake_qmp_crash () : NULL;
}

static void
test_events_and_end (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_GREETS, crash_at_stop, NULL);
  const char *path = fake_qmp_get_path (fake);
  Watcher watcher = { .events = g_ptr_array_new_with_free_func (g_free) };
  g_autoptr (GError) error = NULL, again = NULL;
  QmpExecutor *qmp = qmp_socket_open (path, on_event, on_closed, &watcher, soon (), NULL);

  assert_non_null (qmp);
  fake_qmp_send_event (fake, "RESUME", NULL);
  fake_qmp_send_event (fake, "STOP", NULL);
  watcher_wait (&watcher, 2, 0);
  assert_string_equal (g_ptr_array_index (watcher.events, 0), "RESUME");
  assert_false (qmp_call (qmp, "stop", NULL, -1, NULL, NULL, &error));
  assert_true (g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_LOST));
  watcher_wait (&watcher, 2, 1);
  assert_false (qmp_call (qmp, "cont", NULL, -1, NULL, NULL, &again));
  assert_true (g_error_matches (again, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_LOST));
  qmp_executor_free (qmp);
  assert_int_equal (watcher.n_closed, 1);
  g_ptr_array_unref (watcher.events);
}

/* Our own end of the connection is no news. */
static void
test_free_is_silent (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_GREETS, NULL, NULL);
  Watcher watcher = { .events = g_ptr_array_new_with_free_func (g_free) };
  QmpExecutor *qmp
      = qmp_socket_open (fake_qmp_get_path (fake), on_event, on_closed, &watcher, soon (), NULL);

  assert_non_null (qmp);
  qmp_executor_free (qmp);
  assert_int_equal (watcher.n_closed, 0);
  g_ptr_array_unref (watcher.events);
}

static JsonNode *
hang_at_stop (FakeQmp *fake, const char *command, JsonObject *args, gpointer data)
{
  return strcmp (command, "stop") == 0 ? fake_qmp_hang () : NULL;
}

static void
test_hang (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_GREETS, hang_at_stop, NULL);
  const char *path = fake_qmp_get_path (fake);
  g_autoptr (QmpExecutor) qmp = qmp_socket_open (path, NULL, NULL, NULL, soon (), NULL);
  g_autofree char *line = g_strdup_printf ("%s: stop: no answer within * ms", path);
  g_autoptr (GError) error = NULL;

  assert_non_null (qmp);
  qmp->call_timeout_ms = 50;
  assert_false (qmp_call (qmp, "stop", NULL, -1, NULL, NULL, &error));
  assert_line (error->message, line);
  assert_true (g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_TIMEOUT));
  qmp->call_timeout_ms = PATIENCE_MS;
  assert_true (qmp_call (qmp, "cont", NULL, -1, NULL, NULL, NULL));
}

/* A mistake in a command is seen by the fake, as it would be by QEMU. */
static void
test_schema_is_enforced (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_GREETS, NULL, NULL);
  g_autoptr (QmpExecutor) qmp
      = qmp_socket_open (fake_qmp_get_path (fake), NULL, NULL, NULL, soon (), NULL);
  g_autofree char *violation = NULL;

  assert_non_null (qmp);
  assert_false (
      qmp_call (qmp, "getfd", json_args ("fd-name", "s", "x", NULL), -1, NULL, NULL, NULL));
  violation = fake_qmp_take_violation (fake);
  assert_string_equal (violation, "getfd: parameter 'fdname' is missing");
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_open),           cmocka_unit_test (test_without_oob),
    cmocka_unit_test (test_not_qemu),       cmocka_unit_test (test_silent),
    cmocka_unit_test (test_second_client),  cmocka_unit_test (test_no_socket),
    cmocka_unit_test (test_events_and_end), cmocka_unit_test (test_free_is_silent),
    cmocka_unit_test (test_hang),           cmocka_unit_test (test_schema_is_enforced),
  };

  return cmocka_run_group_tests_name ("qmp-socket", tests, NULL, NULL);
}
