/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "daemon/canary.h"
#include "daemon/tool.h"

#define DEADLINE deadline_in (60000, NULL)

static char *dir;

static int
setup (void **state)
{
  dir = g_dir_make_tmp ("vmferry-canary-XXXXXX", NULL);
  return dir == NULL;
}

/* Fails where something was left behind. */
static int
teardown (void **state)
{
  int code = g_rmdir (dir);

  g_clear_pointer (&dir, g_free);
  return code;
}

static Tool *
start_qemu (void)
{
  const char *const argv[]
      = { "qemu-system-x86_64", "-nodefaults", "-machine", "none", "-display", "none", "-S", NULL };
  const ToolSpec spec = { .argv = argv };

  return tool_spawn (&spec, NULL);
}

static guint
get_version (void)
{
  const char *const argv[] = { "qemu-system-x86_64", "--version", NULL };
  const ToolSpec spec = { .argv = argv };
  g_autofree char *output = NULL;
  guint major = 0, minor = 0;

  assert_true (tool_run (&spec, DEADLINE, &output, NULL));
  assert_int_equal (sscanf (output, "QEMU emulator version %u.%u", &major, &minor), 2);
  return major * 100 + minor;
}

static void
test_verdict (void **state)
{
  g_autoptr (Tool) qemu = start_qemu ();
  g_autoptr (GError) error = NULL;
  CanaryVerdict verdict;

  if (qemu == NULL)
    skip ();
  if (!canary_run (tool_get_pid (qemu), dir, DEADLINE, &verdict, &error))
    fail_msg ("%s", error->message);
  /* What other versions do is theirs to tell. */
  if (get_version () == 702)
    assert_int_equal (verdict, CANARY_AFFECTED);
}

static void
test_not_qemu (void **state)
{
  const char *const argv[] = { "sleep", "1000", NULL };
  const ToolSpec spec = { .argv = argv };
  g_autoptr (Tool) tool = tool_spawn (&spec, NULL);
  g_autofree char *expected = NULL;
  g_autoptr (GError) error = NULL;
  CanaryVerdict verdict;

  assert_false (canary_run (tool_get_pid (tool), dir, DEADLINE, &verdict, &error));
  expected = g_strdup_printf ("cannot try out the QEMU of process %d: ", tool_get_pid (tool));
  assert_true (g_str_has_prefix (error->message, expected));
  if (strstr (error->message, "option") == NULL)
    fail_msg ("%s", error->message);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown (test_verdict, setup, teardown),
    cmocka_unit_test_setup_teardown (test_not_qemu, setup, teardown),
  };

  return cmocka_run_group_tests_name ("canary", tests, NULL, NULL);
}
