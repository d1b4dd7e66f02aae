/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Against libvirt's own test driver, which lives in this process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <libvirt/virterror.h>

#include "daemon/libvirt/virt-ops.h"

#define URI "test:///default"
#define PATIENCE deadline_in (20000, NULL)

static void
test_typical_calls (void **state)
{
  g_autoptr (VirtDomain) domain = virt_domain_new (URI, "test", NULL, NULL);
  g_autoptr (GError) error = NULL;
  g_autofree char *xml = virt_domain_get_xml (domain, 0, PATIENCE, &error);
  gboolean autostart = TRUE;
  VirtState now;

  assert_null (error);
  assert_non_null (strstr (xml, "<name>test</name>"));
  assert_true (virt_domain_get_state (domain, PATIENCE, &now, &error));
  assert_int_equal (now.state, VIR_DOMAIN_RUNNING);
  assert_true (virt_domain_get_autostart (domain, PATIENCE, &autostart, &error));
  assert_false (autostart);
  assert_true (virt_domain_set_autostart (domain, TRUE, PATIENCE, &error));
  assert_true (virt_domain_get_autostart (domain, PATIENCE, &autostart, &error));
  assert_true (autostart);
  assert_true (virt_domain_set_autostart (domain, FALSE, PATIENCE, &error));
  assert_true (virt_domain_check_metadata (domain, PATIENCE, &error));
  assert_false (virt_domain_resume (domain, PATIENCE, &error));
  assert_int_equal (error->domain, VIRT_ERROR);
}

static void
test_one_that_runs_is_not_destroyed (void **state)
{
  g_autoptr (VirtDomain) domain = virt_domain_new (URI, "test", NULL, NULL);
  g_autoptr (GError) error = NULL;
  VirtState now;

  assert_true (virt_domain_destroy_paused (domain, TRUE, PATIENCE, &error));
  assert_true (virt_domain_undefine_off (domain, PATIENCE, &error));
  assert_true (virt_domain_get_state (domain, PATIENCE, &now, &error));
  assert_int_equal (now.state, VIR_DOMAIN_RUNNING);
}

static void
test_absent (void **state)
{
  g_autoptr (VirtDomain) domain = virt_domain_new (URI, "nobody", NULL, NULL);
  g_autoptr (GError) error = NULL;
  VirtState now;

  assert_null (virt_domain_get_xml (domain, 0, PATIENCE, &error));
  assert_true (g_error_matches (error, VIRT_ERROR, VIR_ERR_NO_DOMAIN));
  g_clear_error (&error);
  assert_true (virt_domain_get_state (domain, PATIENCE, &now, &error));
  assert_int_equal (now.state, VIR_DOMAIN_NOSTATE);
  assert_true (virt_domain_destroy_paused (domain, TRUE, PATIENCE, &error));
  assert_true (virt_domain_undefine_off (domain, PATIENCE, &error));
}

static void
test_no_libvirtd (void **state)
{
  g_autoptr (VirtDomain) domain = virt_domain_new ("nonsense:///x", "vm1", NULL, NULL);
  g_autoptr (GError) error = NULL;

  assert_null (virt_domain_get_xml (domain, 0, PATIENCE, &error));
  assert_int_equal (error->domain, VIRT_ERROR);
  assert_true (g_str_has_prefix (error->message, "nonsense:///x: "));
}

typedef struct
{
  GMutex lock;
  GCond cond;
  gboolean go, gone;
} Pause;

static void
pause_clear (gpointer data)
{
  Pause *pause = data;

  g_mutex_clear (&pause->lock);
  g_cond_clear (&pause->cond);
}

static gboolean
run_pause (virDomainPtr domain, gpointer data, GError **error)
{
  Pause *pause = data;

  g_mutex_lock (&pause->lock);
  while (!pause->go)
    g_cond_wait (&pause->cond, &pause->lock);
  pause->gone = TRUE;
  g_cond_broadcast (&pause->cond);
  g_mutex_unlock (&pause->lock);
  return TRUE;
}

/* A deadline ends the waiting, not the call; the domain can go meanwhile. */
static void
test_deadline (void **state)
{
  VirtDomain *domain = virt_domain_new (URI, "test", NULL, NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  Pause *pause = g_atomic_rc_box_new0 (Pause);
  VirtCall *call;

  g_mutex_init (&pause->lock);
  g_cond_init (&pause->cond);
  assert_false (
      virt_domain_run (domain, run_pause, pause, pause_clear, deadline_in (1, NULL), &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT));
  g_clear_error (&error);
  call = virt_domain_begin (domain, run_pause, pause, pause_clear);
  assert_false (virt_call_has_ended (call));
  g_cancellable_cancel (cancellable);
  assert_false (virt_call_wait (call, deadline_in (20000, cancellable), &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED));
  virt_domain_free (domain);
  g_mutex_lock (&pause->lock);
  pause->go = TRUE;
  g_cond_broadcast (&pause->cond);
  while (!pause->gone)
    g_cond_wait (&pause->cond, &pause->lock);
  g_mutex_unlock (&pause->lock);
  assert_true (virt_call_wait (call, PATIENCE, NULL));
  assert_true (virt_call_has_ended (call));
  virt_call_unref (call);
  g_atomic_rc_box_release_full (pause, pause_clear);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_typical_calls), cmocka_unit_test (test_one_that_runs_is_not_destroyed),
    cmocka_unit_test (test_absent),        cmocka_unit_test (test_no_libvirtd),
    cmocka_unit_test (test_deadline),
  };

  return cmocka_run_group_tests_name ("virt-domain", tests, NULL, NULL);
}
