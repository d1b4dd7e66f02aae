/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/image.h"
#include "daemon/tool.h"

/* Targets through the real qemu-img and qemu-nbd. */
#define MIB (1024 * 1024)
#define SIZE (64 * MIB)
#define TIMEOUT_MS 30000

static char *dir;
static char *path;

static gboolean
run (char **ret_output, const char *arg, ...)
{
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  ToolSpec spec = { 0 };
  va_list ap;

  va_start (ap, arg);
  for (; arg != NULL; arg = va_arg (ap, const char *))
    g_ptr_array_add (argv, (gpointer)arg);
  va_end (ap);
  g_ptr_array_add (argv, NULL);
  spec.argv = (const char *const *)argv->pdata;
  return tool_run (&spec, deadline_in (60000, NULL), ret_output, NULL);
}

static int
setup (void **state)
{
  dir = g_dir_make_tmp ("vmferry-image-XXXXXX", NULL);
  path = g_build_filename (dir, "disk,a=b.img", NULL);
  return dir == NULL;
}

static int
teardown (void **state)
{
  g_autoptr (GDir) left = g_dir_open (dir, 0, NULL);
  const char *name;
  gboolean socket_left = FALSE;

  while ((name = g_dir_read_name (left)) != NULL)
    socket_left = socket_left || g_str_has_prefix (name, "nbd-");
  run (NULL, "rm", "-rf", dir, NULL);
  g_clear_pointer (&dir, g_free);
  g_clear_pointer (&path, g_free);
  return socket_left;
}

static Image *
open_image (const char *format, gboolean overwrite, GError **error)
{
  char *dirs[] = { dir, NULL };
  const ConfigPeer peer = { .name = (char *)"hostA", .target_dirs = dirs };
  const ImageSpec spec = { .path = path, .format = format, .size = SIZE, .overwrite = overwrite };

  return image_open (&peer, &spec, error);
}

static void
assert_refused (const char *message)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *expected = g_strconcat (path, message, NULL);

  assert_null (open_image ("qcow2", FALSE, &error));
  assert_string_equal (error->message, expected);
}

static void
write_some (Image *image)
{
  g_autoptr (GError) error = NULL;
  NbdTarget *writer = image_open_writer (image, dir, TIMEOUT_MS, NULL, &error);
  g_autofree char *data = g_malloc (MIB);

  if (writer == NULL)
    fail_msg ("%s", error->message);
  assert_int_equal (writer->size, SIZE);
  memset (data, 'x', MIB);
  assert_true (writer->klass->write (writer, data, MIB, 3 * MIB, &error));
  assert_true (writer->klass->write (writer, data, MIB, SIZE - MIB, &error));
  assert_true (writer->klass->zero (writer, SIZE - MIB, MIB / 2, &error));
  if (!image_close_writer (image, &error))
    fail_msg ("%s", error->message);
}

/* What the guest would read, by another program than the one that wrote it. */
static void
assert_content (const char *format)
{
  g_autofree char *raw = g_build_filename (dir, "check.raw", NULL);
  gboolean is_device = g_file_test (path, G_FILE_TEST_IS_SYMLINK);
  g_autofree char *options
      = g_strdup_printf ("driver=%s,file.driver=%s,file.filename=%s/disk,,a=b.img", format,
                         is_device ? "host_device" : "file", dir);
  g_autofree char *text = NULL;
  g_autofree char *expected = NULL;
  gsize len;

  assert_true (run (NULL, "qemu-img", "convert", "--image-opts", "-O", "raw", options, raw, NULL));
  assert_true (g_file_get_contents (raw, &text, &len, NULL));
  assert_int_equal (len, SIZE);
  expected = g_malloc0 (SIZE);
  memset (expected + 3 * MIB, 'x', MIB);
  memset (expected + SIZE - MIB / 2, 'x', MIB / 2);
  if (memcmp (text, expected, SIZE) != 0)
    fail_msg ("a %s image holds something else than was written", format);
}

static gboolean
was_created (const Image *image)
{
  ImageTrace trace;

  image_get_trace (image, &trace);
  return trace.created;
}

static void
check_format (const char *format)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = open_image (format, FALSE, &error);
  struct stat st;

  if (image == NULL)
    fail_msg ("%s: %s", format, error->message);
  assert_true (was_created (image));
  assert_int_equal (stat (path, &st), 0);
  assert_int_equal (st.st_mode, S_IFREG | 0600);
  write_some (image);
  assert_content (format);
  assert_true (image_discard (image, NULL));
  assert_int_equal (access (path, F_OK), -1);
}

static void
test_formats (void **state)
{
  static const char *const formats[] = { "qcow2", "qed", "vdi", "vhdx", "vmdk", "vpc" };

  if (!run (NULL, "qemu-img", "--version", NULL) || !run (NULL, "qemu-nbd", "--version", NULL))
    skip ();
  for (guint i = 0; i < G_N_ELEMENTS (formats); i++)
    check_format (formats[i]);
}

static void
test_existing_qcow2 (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = NULL;

  assert_true (run (NULL, "qemu-img", "create", "-qf", "qcow2", path, "64M", NULL));
  image = open_image ("qcow2", FALSE, &error);
  if (image == NULL)
    fail_msg ("%s", error->message);
  assert_false (was_created (image));
  write_some (image);
  assert_content ("qcow2");
  g_clear_pointer (&image, image_free);
  assert_refused (" has data: --overwrite to replace it");
}

/* What a failed job has filled is empty again for the next one. */
static void
test_emptied_again (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = NULL;

  assert_true (run (NULL, "qemu-img", "create", "-qf", "qcow2", path, "64M", NULL));
  image = open_image ("qcow2", FALSE, &error);
  if (image == NULL)
    fail_msg ("%s", error->message);
  write_some (image);
  if (!image_discard (image, &error))
    fail_msg ("%s", error->message);
  g_clear_pointer (&image, image_free);
  image = open_image ("qcow2", FALSE, &error);
  if (image == NULL)
    fail_msg ("%s", error->message);
}

static void
test_refused (void **state)
{
  g_autofree char *base = g_build_filename (dir, "base", NULL);
  g_autoptr (GError) error = NULL;

  assert_true (run (NULL, "qemu-img", "create", "-qf", "qcow2", path, "32M", NULL));
  assert_refused (" holds 33554432 bytes, the disk has 67108864: --overwrite to replace it");
  assert_true (run (NULL, "qemu-img", "create", "-qf", "raw", base, "64M", NULL));
  assert_true (
      run (NULL, "qemu-img", "create", "-qf", "qcow2", "-b", base, "-F", "raw", path, NULL));
  assert_refused (" has a backing file: --overwrite to replace it");
  assert_true (run (NULL, "qemu-img", "create", "-qf", "qcow2", path, "64M", NULL));
  assert_true (run (NULL, "qemu-img", "snapshot", "-q", "-c", "s", path, NULL));
  assert_refused (" has snapshots: --overwrite to replace it");
  assert_true (g_file_set_contents (path, "no image", -1, NULL));
  assert_null (open_image ("qcow2", FALSE, &error));
  if (!g_str_has_prefix (error->message, "qemu-img: ") || strstr (error->message, path) == NULL
      || strstr (error->message, "not in qcow2 format") == NULL)
    fail_msg ("%s", error->message);
}

/* The file that a running program may have open stays the same file. */
static void
test_overwrite (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = NULL;
  struct stat before, after;

  assert_true (run (NULL, "qemu-img", "create", "-qf", "qcow2", path, "32M", NULL));
  assert_int_equal (stat (path, &before), 0);
  image = open_image ("qcow2", TRUE, &error);
  if (image == NULL)
    fail_msg ("%s", error->message);
  assert_int_equal (stat (path, &after), 0);
  assert_int_equal (before.st_ino, after.st_ino);
  write_some (image);
  assert_content ("qcow2");
  assert_true (image_discard (image, NULL));
  assert_int_equal (access (path, F_OK), 0);
}

/* qemu-nbd holds the locks of a writer: nobody else takes the image meanwhile. */
static void
test_locked (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = open_image ("qcow2", FALSE, NULL);

  assert_non_null (image_open_writer (image, dir, TIMEOUT_MS, NULL, NULL));
  assert_null (open_image ("qcow2", TRUE, &error));
  assert_int_equal (error->code, G_IO_ERROR_BUSY);
  g_clear_error (&error);
  assert_true (image_close_writer (image, NULL));
  image_free (open_image ("qcow2", TRUE, &error));
  assert_null (error);
}

/* What qemu-nbd itself says reaches the user. */
static void
test_damaged (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = open_image ("qcow2", FALSE, NULL);

  assert_int_equal (truncate (path, 10), 0);
  assert_null (image_open_writer (image, dir, TIMEOUT_MS, NULL, &error));
  if (strstr (error->message, "qemu-nbd: ") == NULL || !g_str_has_prefix (error->message, path))
    fail_msg ("%s", error->message);
}

static void
test_runtime_dir (void **state)
{
  g_autofree char *missing = g_build_filename (dir, "missing", NULL);
  g_autofree char *deep = g_build_filename (
      dir, "a-name-that-is-so-long-that-a-socket-in-it-can-not-have-an-address-any-more", NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = open_image ("qcow2", FALSE, NULL);

  assert_null (image_open_writer (image, missing, TIMEOUT_MS, NULL, &error));
  assert_int_equal (error->code, G_IO_ERROR_NOT_FOUND);
  g_clear_error (&error);
  assert_null (image_open_writer (image, deep, TIMEOUT_MS, NULL, &error));
  assert_int_equal (error->code, G_IO_ERROR_FILENAME_TOO_LONG);
}

/* Listed literally, as an administrator lists /dev/vg/lv, which is a link. */
static void
test_block_device (void **state)
{
  g_autofree char *backing = g_build_filename (dir, "backing", NULL);
  g_autofree char *device = NULL;
  char *dirs[] = { path, NULL };
  const ConfigPeer peer = { .name = (char *)"hostA", .target_dirs = dirs };
  ImageSpec spec = { .path = path, .format = "raw", .size = SIZE };
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = NULL;

  assert_true (run (NULL, "truncate", "-s", "64M", backing, NULL));
  if (!run (&device, "losetup", "--find", "--show", backing, NULL))
    skip ();
  assert_int_equal (symlink (g_strstrip (device), path), 0);
  assert_null (image_open (&peer, &spec, &error));
  assert_non_null (strstr (error->message, " is a block device, which can't be proven empty"));
  g_clear_error (&error);
  spec.overwrite = TRUE;
  spec.size = SIZE / 2;
  assert_null (image_open (&peer, &spec, &error));
  assert_non_null (strstr (error->message, "must have exactly the size of the disk"));
  g_clear_error (&error);
  spec.size = SIZE;
  image = image_open (&peer, &spec, &error);
  assert_non_null (image);
  write_some (image);
  assert_true (image_discard (image, NULL));
  assert_content ("raw");
  g_clear_pointer (&image, image_free);
  assert_true (run (NULL, "losetup", "--detach", device, NULL));
}

static gboolean
is_served (const char *image)
{
  g_autoptr (GDir) proc = g_dir_open ("/proc", 0, NULL);
  const char *pid;

  while ((pid = g_dir_read_name (proc)) != NULL)
    {
      g_autofree char *exe = g_strdup_printf ("/proc/%s/comm", pid);
      g_autofree char *link = g_strdup_printf ("/proc/%s/fd/4", pid);
      g_autofree char *name = NULL;
      g_autofree char *target = g_file_read_link (link, NULL);

      if (g_file_get_contents (exe, &name, NULL, NULL) && g_str_equal (name, "qemu-nbd\n")
          && g_strcmp0 (target, image) == 0)
        return TRUE;
    }
  return FALSE;
}

/* An agent that is killed takes its writer with it. */
static void
test_agent_killed (void **state)
{
  Deadline deadline = deadline_in (TIMEOUT_MS, NULL);
  int ready[2];
  char byte;
  pid_t pid;

  assert_int_equal (pipe (ready), 0);
  pid = fork ();
  if (pid == 0)
    {
      Image *image = open_image ("qcow2", FALSE, NULL);

      if (image_open_writer (image, dir, TIMEOUT_MS, NULL, NULL) != NULL
          && write (ready[1], "r", 1) == 1)
        pause ();
      _exit (1);
    }
  close (ready[1]);
  assert_int_equal (read (ready[0], &byte, 1), 1);
  assert_true (is_served (path));
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
  while (is_served (path))
    assert_true (deadline_check (deadline, NULL));
  close (ready[0]);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    /* First: it forks, and the thread that starts tools doesn't survive that. */
    cmocka_unit_test_setup_teardown (test_agent_killed, setup, teardown),
    cmocka_unit_test_setup_teardown (test_formats, setup, teardown),
    cmocka_unit_test_setup_teardown (test_existing_qcow2, setup, teardown),
    cmocka_unit_test_setup_teardown (test_emptied_again, setup, teardown),
    cmocka_unit_test_setup_teardown (test_refused, setup, teardown),
    cmocka_unit_test_setup_teardown (test_overwrite, setup, teardown),
    cmocka_unit_test_setup_teardown (test_locked, setup, teardown),
    cmocka_unit_test_setup_teardown (test_damaged, setup, teardown),
    cmocka_unit_test_setup_teardown (test_block_device, setup, teardown),
    cmocka_unit_test_setup_teardown (test_runtime_dir, setup, teardown),
  };

  return cmocka_run_group_tests_name ("image-tools", tests, NULL, NULL);
}
