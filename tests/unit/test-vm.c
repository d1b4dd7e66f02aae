/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <unistd.h>

#include "daemon/vm.h"
#include "tests/unit/fake-qmp.h"

#define PATIENCE_MS 20000

static gint lost;

static void
on_lost (const GError *error, gpointer data)
{
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CLOSED));
  assert_true (g_str_has_suffix (error->message, ": QEMU is gone"));
  assert_ptr_equal (data, &lost);
  g_atomic_int_inc (&lost);
}

static Vm *
open_vm (FakeQmp *fake)
{
  g_autoptr (GError) error = NULL;
  Vm *vm = vm_open (fake_qmp_get_path (fake), deadline_in (PATIENCE_MS, NULL), &error);

  if (!vm)
    fail_msg ("%s", error->message);
  lost = 0;
  return vm;
}

/* Waits for everything up to the `sequence`th event. */
static VmEvents
wait_events (Vm *vm, guint sequence)
{
  VmEvents events;

  vm_get_events (vm, &events);
  while (events.sequence < sequence)
    {
      guint before = events.sequence;

      vm_wait_event (vm, &events, PATIENCE_MS, NULL, &events);
      assert_true (events.sequence > before);
    }
  return events;
}

static void
test_events (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_GREETS, NULL, NULL);
  g_autoptr (Vm) vm = open_vm (fake);
  VmEvents events;

  assert_int_equal (vm_get_pid (vm), getpid ());
  assert_false (vm_wait_exit (vm, 0));
  vm_get_events (vm, &events);
  assert_int_equal (events.sequence, 0);
  assert_string_equal (events.migration, "");
  fake_qmp_send_event (fake, "STOP", NULL);
  fake_qmp_send_event (fake, "RESUME", NULL);
  fake_qmp_send_event (fake, "STOP", NULL);
  fake_qmp_send_event (fake, "RESET", NULL);
  fake_qmp_send_event (fake, "DEVICE_DELETED", NULL);
  fake_qmp_send_event (fake, "MIGRATION", json_args ("status", "s", "pre-switchover", NULL));
  events = wait_events (vm, 6);
  assert_int_equal (events.stops, 2);
  assert_int_equal (events.resumes, 1);
  assert_int_equal (events.resets, 1);
  assert_true (events.unplugged);
  assert_false (events.powered_off);
  assert_true (events.stopped_us >= events.resumed_us && events.resumed_us > 0);
  assert_string_equal (events.migration, "pre-switchover");
  assert_false (events.closed);
}

/* A QEMU may say anything. */
static void
test_strange_events (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_GREETS, NULL, NULL);
  g_autoptr (Vm) vm = open_vm (fake);
  VmEvents events;

  fake_qmp_send_event (fake, "MIGRATION", NULL);
  fake_qmp_send_event (fake, "MIGRATION", json_args ("status", "i", (gint64)5, NULL));
  fake_qmp_send_event (fake, "MIGRATION",
                       json_args ("status", "s", "a status that is longer than any", NULL));
  fake_qmp_send_event (fake, "SHUTDOWN", json_args ("guest", "s", "yes", NULL));
  events = wait_events (vm, 4);
  assert_string_equal (events.migration, "a status that is longer");
  assert_true (events.powered_off);
}

static void
test_wait (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_GREETS, NULL, NULL);
  g_autoptr (Vm) vm = open_vm (fake);
  g_autoptr (GCancellable) cancelled = g_cancellable_new ();
  VmEvents events, seen;

  vm_get_events (vm, &seen);
  vm_wait_event (vm, &seen, 1, NULL, &events);
  assert_int_equal (events.sequence, 0);
  g_cancellable_cancel (cancelled);
  vm_wait_event (vm, &seen, PATIENCE_MS, cancelled, &events);
  assert_int_equal (events.sequence, 0);
  fake_qmp_send_event (fake, "STOP", NULL);
  wait_events (vm, 1);
  /* What came before is told at once, and `seen` may be the result. */
  vm_wait_event (vm, &seen, PATIENCE_MS, NULL, &seen);
  assert_int_equal (seen.stops, 1);
}

static JsonNode *
crash_on_quit (FakeQmp *fake, const char *command, JsonObject *args, gpointer data)
{
  return g_str_equal (command, "quit") ? fake_qmp_crash () : NULL;
}

static void
test_lost_once (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_GREETS, crash_on_quit, NULL);
  g_autoptr (Vm) vm = open_vm (fake);
  VmEvents events;
  gint64 until = g_get_monotonic_time () + PATIENCE_MS * 1000;

  vm_set_lost_handler (vm, on_lost, &lost);
  assert_true (qmp_quit (vm_get_executor (vm), NULL, NULL));
  events = wait_events (vm, 1);
  assert_true (events.closed);
  while (g_atomic_int_get (&lost) == 0 && g_get_monotonic_time () < until)
    g_usleep (1000);
  assert_int_equal (g_atomic_int_get (&lost), 1);
  /* Told again to a new handler, and to nobody where there is none. */
  vm_set_lost_handler (vm, NULL, NULL);
  assert_int_equal (g_atomic_int_get (&lost), 1);
  vm_set_lost_handler (vm, on_lost, &lost);
  assert_int_equal (g_atomic_int_get (&lost), 2);
}

static void
test_not_told (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_GREETS, crash_on_quit, NULL);
  Vm *vm = open_vm (fake);

  vm_set_lost_handler (vm, on_lost, &lost);
  vm_set_lost_handler (vm, NULL, NULL);
  assert_true (qmp_quit (vm_get_executor (vm), NULL, NULL));
  wait_events (vm, 1);
  vm_free (vm);
  assert_int_equal (g_atomic_int_get (&lost), 0);
}

static void
test_freed (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_GREETS, NULL, NULL);
  Vm *vm = open_vm (fake);

  vm_set_lost_handler (vm, on_lost, &lost);
  vm_free (vm);
  assert_int_equal (g_atomic_int_get (&lost), 0);
  vm_free (NULL);
}

static void
test_not_opened (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_CLOSES, NULL, NULL);
  g_autoptr (GError) error = NULL;

  assert_null (vm_open (fake_qmp_get_path (fake), deadline_in (PATIENCE_MS, NULL), &error));
  assert_non_null (error);
  g_clear_error (&error);
  assert_null (vm_open ("/nonexistent/qmp", deadline_in (PATIENCE_MS, NULL), &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_events),     cmocka_unit_test (test_strange_events),
    cmocka_unit_test (test_wait),       cmocka_unit_test (test_lost_once),
    cmocka_unit_test (test_not_told),   cmocka_unit_test (test_freed),
    cmocka_unit_test (test_not_opened),
  };

  return cmocka_run_group_tests_name ("vm", tests, NULL, NULL);
}
