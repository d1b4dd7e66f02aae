/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "daemon/fence.h"
#include "tests/interop/vm.h"

#define FD_NAME "vmferry-fence"
#define DENIED "Failed to get \"write\" lock"

static char *dir;
static char *raw;
static char *qcow2;

static gboolean
run_tool (const char *const *argv)
{
  const ToolSpec spec = { .argv = argv };

  return tool_run (&spec, deadline_in (60000, NULL), NULL, NULL);
}

static int
setup (void **state)
{
  dir = g_dir_make_tmp ("vmferry-fence-XXXXXX", NULL);
  raw = g_build_filename (dir, "d.raw", NULL);
  qcow2 = g_build_filename (dir, "d.qcow2", NULL);
  g_file_set_contents (raw, "", 0, NULL);
  run_tool ((const char *const[]){ "qemu-img", "create", "-q", "-f", "qcow2", qcow2, "1M", NULL });
  return truncate (raw, 1 << 20);
}

static int
teardown (void **state)
{
  run_tool ((const char *const[]){ "rm", "-rf", dir, NULL });
  g_clear_pointer (&dir, g_free);
  g_clear_pointer (&raw, g_free);
  g_clear_pointer (&qcow2, g_free);
  return 0;
}

static char *
make_drive (const char *path, const char *format, const char *locking)
{
  return g_strdup_printf (
      "driver=%s,node-name=d0,file.driver=file,file.filename=%s,file.locking=%s", format, path,
      locking);
}

static Vm *
start (const char *path, const char *format, const char *locking)
{
  g_autofree char *drive = make_drive (path, format, locking);
  Vm *vm = vm_start (dir, (const char *const[]){ "-S", "-blockdev", drive, "-device",
                                                 "virtio-blk-pci,drive=d0,id=vd0", NULL });

  if (vm == NULL)
    skip ();
  return vm;
}

/* As a source is after its migration. */
static void
migrate_away (Vm *vm)
{
  vm_do (vm, "migrate", json_args ("uri", "s", "exec:cat > /dev/null", NULL));
  vm_wait_status (vm, "postmigrate");
}

static void
assert_cont_denied (Vm *vm)
{
  g_autofree char *message = vm_try (vm, "cont", NULL);

  assert_non_null (message);
  if (strstr (message, DENIED) == NULL)
    fail_msg ("%s", message);
}

static void
check_fence (const char *path, const char *format)
{
  g_autoptr (Vm) vm = start (path, format, "on");
  g_autoptr (GError) error = NULL;
  const char *const images[] = { "/nonexistent", path, NULL };
  pid_t pid = tool_get_pid (vm->tool);

  vm_do (vm, "cont", NULL);
  assert_true (fence_image_is_locked (pid, path));
  migrate_away (vm);
  if (!fence_raise (vm->executor, pid, images, FD_NAME, &error))
    fail_msg ("%s", error->message);
  assert_cont_denied (vm);
  assert_cont_denied (vm);
  assert_true (fence_lift (vm->executor, FD_NAME, &error));
  vm_do (vm, "cont", NULL);
  vm_wait_status (vm, "running");
  assert_true (fence_lift (vm->executor, FD_NAME, &error));
}

static void
test_raw (void **state)
{
  check_fence (raw, "raw");
}

static void
test_qcow2 (void **state)
{
  check_fence (qcow2, "qcow2");
}

/* One disk of several is enough, and its file may be gone. */
static void
test_removed_file (void **state)
{
  g_autoptr (Vm) vm = start (raw, "raw", "on");
  const char *const images[] = { raw, NULL };
  pid_t pid = tool_get_pid (vm->tool);

  vm_do (vm, "cont", NULL);
  assert_int_equal (unlink (raw), 0);
  assert_true (fence_image_is_locked (pid, raw));
  migrate_away (vm);
  assert_true (fence_raise (vm->executor, pid, images, FD_NAME, NULL));
  assert_cont_denied (vm);
}

static void
test_symlink (void **state)
{
  g_autoptr (Vm) vm = start (raw, "raw", "on");
  g_autofree char *link = g_build_filename (dir, "link", NULL);
  const char *const images[] = { link, NULL };
  pid_t pid = tool_get_pid (vm->tool);

  assert_int_equal (symlink (raw, link), 0);
  vm_do (vm, "cont", NULL);
  assert_true (fence_image_is_locked (pid, link));
  migrate_away (vm);
  assert_true (fence_raise (vm->executor, pid, images, FD_NAME, NULL));
  assert_cont_denied (vm);
}

static void
test_not_postmigrate (void **state)
{
  g_autoptr (Vm) vm = start (raw, "raw", "on");
  g_autoptr (GError) error = NULL;
  const char *const images[] = { raw, NULL };

  vm_do (vm, "cont", NULL);
  assert_false (fence_raise (vm->executor, tool_get_pid (vm->tool), images, FD_NAME, &error));
  assert_non_null (strstr (error->message, "not fenced: its state is running, not postmigrate"));
  vm_do (vm, "stop", NULL);
  vm_do (vm, "cont", NULL);
}

static void
test_no_image (void **state)
{
  g_autoptr (Vm) vm = start (raw, "raw", "on");
  g_autoptr (GError) error = NULL;
  const char *const images[] = { qcow2, NULL };

  vm_do (vm, "cont", NULL);
  migrate_away (vm);
  assert_false (fence_raise (vm->executor, tool_get_pid (vm->tool), images, FD_NAME, &error));
  assert_non_null (strstr (error->message, "not fenced: none of the images"));
  vm_do (vm, "cont", NULL);
}

/* Without locks of its own QEMU heeds nobody's. */
static void
test_locking_off (void **state)
{
  g_autoptr (Vm) vm = start (raw, "raw", "off");

  vm_do (vm, "cont", NULL);
  assert_false (fence_image_is_locked (tool_get_pid (vm->tool), raw));
  assert_false (fence_image_is_locked (tool_get_pid (vm->tool), qcow2));
  assert_false (fence_image_is_locked (getpid (), raw));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown (test_raw, setup, teardown),
    cmocka_unit_test_setup_teardown (test_qcow2, setup, teardown),
    cmocka_unit_test_setup_teardown (test_removed_file, setup, teardown),
    cmocka_unit_test_setup_teardown (test_symlink, setup, teardown),
    cmocka_unit_test_setup_teardown (test_not_postmigrate, setup, teardown),
    cmocka_unit_test_setup_teardown (test_no_image, setup, teardown),
    cmocka_unit_test_setup_teardown (test_locking_off, setup, teardown),
  };

  return cmocka_run_group_tests_name ("fence", tests, NULL, NULL);
}
