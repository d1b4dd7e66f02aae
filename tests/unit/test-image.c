/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "daemon/image.h"

#define MIB (1024 * 1024)
#define SIZE (8 * MIB)

static char *dir;

static int
setup (void **state)
{
  dir = g_dir_make_tmp ("vmferry-image-XXXXXX", NULL);
  return dir == NULL;
}

static int
teardown (void **state)
{
  const char *const argv[] = { "rm", "-rf", dir, NULL };

  g_spawn_sync (NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
  g_clear_pointer (&dir, g_free);
  return 0;
}

static char *
file (const char *name)
{
  return g_build_filename (dir, name, NULL);
}

static Image *
open_spec (const ImageSpec *spec, GError **error)
{
  char *dirs[] = { dir, NULL };
  const ConfigPeer peer = { .name = (char *)"hostA", .target_dirs = dirs };

  return image_open (&peer, spec, error);
}

static Image *
open_raw (const char *path, gboolean overwrite, GError **error)
{
  const ImageSpec spec = { .path = path, .format = "raw", .size = SIZE, .overwrite = overwrite };

  return open_spec (&spec, error);
}

/* `format` holds one %s: the path. */
static void
assert_error (const GError *error, const char *format, const char *path)
{
  g_auto (GStrv) parts = g_strsplit (format, "%s", -1);
  g_autofree char *expected = g_strjoinv (path, parts);

  assert_non_null (error);
  assert_string_equal (error->message, expected);
}

static void
make_file (const char *path, const char *data, off_t size)
{
  assert_true (g_file_set_contents (path, data, -1, NULL));
  assert_int_equal (truncate (path, size), 0);
}

static gboolean
was_created (const Image *image)
{
  ImageTrace trace;

  image_get_trace (image, &trace);
  return trace.created;
}

static void
test_create (void **state)
{
  g_autofree char *path = file ("a.raw");
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = open_raw (path, FALSE, &error);
  guint64 device, inode;
  struct stat st;

  assert_null (error);
  assert_true (was_created (image));
  assert_string_equal (image_get_path (image), path);
  assert_string_equal (image_get_format (image), "raw");
  assert_int_equal (stat (path, &st), 0);
  assert_int_equal (st.st_size, SIZE);
  assert_int_equal (st.st_blocks, 0);
  assert_int_equal (st.st_mode, S_IFREG | 0600);
  image_get_identity (image, &device, &inode);
  assert_int_equal (device, st.st_dev);
  assert_int_equal (inode, st.st_ino);
  assert_true (image_discard (image, NULL));
  assert_int_equal (access (path, F_OK), -1);
  assert_true (image_discard (image, NULL));
}

static void
test_prealloc (void **state)
{
  g_autofree char *path = file ("a.raw");
  g_autofree char *huge_path = file ("b.raw");
  ImageSpec spec
      = { .path = path, .format = "raw", .size = SIZE, .prealloc = IMAGE_PREALLOC_FALLOC };
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = open_spec (&spec, &error);
  struct stat st;

  assert_non_null (image);
  assert_int_equal (stat (path, &st), 0);
  assert_true (st.st_blocks * 512 >= SIZE);
  spec.path = huge_path;
  spec.size = (guint64)1 << 50;
  assert_null (open_spec (&spec, &error));
  assert_int_equal (error->code, G_IO_ERROR_NO_SPACE);
  assert_non_null (strstr (error->message, " left: make room, or leave prealloc off"));
  assert_int_equal (access (huge_path, F_OK), -1);
}

static void
test_existing (void **state)
{
  g_autofree char *path = file ("a.raw");
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = NULL;

  make_file (path, "", SIZE);
  image = open_raw (path, FALSE, &error);
  assert_null (error);
  assert_false (was_created (image));
  assert_true (image_discard (image, NULL));
  assert_int_equal (access (path, F_OK), 0);
  g_clear_pointer (&image, image_free);
  make_file (path, "data", SIZE);
  assert_null (open_raw (path, FALSE, &error));
  assert_error (error, "%s has data: --overwrite to replace it", path);
  g_clear_error (&error);
  make_file (path, "", SIZE / 2);
  assert_null (open_raw (path, FALSE, &error));
  assert_error (error, "%s has 4194304 bytes, the disk has 8388608: --overwrite to replace it",
                path);
}

static void
test_overwrite (void **state)
{
  g_autofree char *path = file ("a.raw");
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = NULL;
  NbdTarget *writer;
  struct stat before, after;

  make_file (path, "data", SIZE * 2);
  assert_int_equal (stat (path, &before), 0);
  image = open_raw (path, TRUE, &error);
  assert_null (error);
  assert_int_equal (stat (path, &after), 0);
  assert_int_equal (after.st_ino, before.st_ino);
  assert_int_equal (after.st_size, SIZE);
  writer = image_open_writer (image, dir, 1000, NULL, &error);
  assert_null (error);
  assert_false (writer->is_zero);
  assert_true (image_close_writer (image, &error));
}

static void
test_writer (void **state)
{
  g_autofree char *path = file ("a.raw");
  g_autofree char *content = NULL;
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = open_raw (path, FALSE, NULL);
  NbdTarget *writer = image_open_writer (image, dir, 1000, NULL, &error);
  gsize len;

  assert_null (error);
  assert_int_equal (writer->size, SIZE);
  assert_true (writer->is_zero);
  assert_true (writer->klass->write (writer, "hello", 5, 4096, &error));
  /* While it is written nobody else may. */
  assert_null (open_raw (path, FALSE, &error));
  assert_int_equal (error->code, G_IO_ERROR_BUSY);
  g_clear_error (&error);
  assert_null (open_raw (path, TRUE, &error));
  assert_int_equal (error->code, G_IO_ERROR_BUSY);
  g_clear_error (&error);
  assert_true (image_close_writer (image, &error));
  assert_true (image_close_writer (image, &error));
  assert_null (open_raw (path, FALSE, &error));
  assert_int_equal (error->code, G_IO_ERROR_EXISTS);
  assert_true (g_file_get_contents (path, &content, &len, NULL));
  assert_int_equal (len, SIZE);
  assert_memory_equal (content + 4096, "hello", 5);
}

static void
test_not_allowed (void **state)
{
  char *dirs[] = { dir, (char *)"/dev/null", NULL };
  const ConfigPeer peer = { .name = (char *)"hostA", .target_dirs = dirs };
  const ConfigPeer nothing = { .name = (char *)"hostA", .target_dirs = dirs + 2 };
  ImageSpec spec = { .path = "/etc/passwd", .format = "raw", .size = SIZE };
  g_autoptr (GError) error = NULL;
  g_autofree char *up = g_strconcat (dir, "/../x.raw", NULL);
  g_autofree char *beside = g_strconcat (dir, "x/y.raw", NULL);
  g_autofree char *list = g_strconcat (
      "%s is not beneath one of the target-dirs of [peer hostA]: ", dir, "; /dev/null", NULL);

  assert_null (image_open (&peer, &spec, &error));
  assert_int_equal (error->code, G_IO_ERROR_PERMISSION_DENIED);
  assert_error (error, list, "/etc/passwd");
  g_clear_error (&error);
  spec.path = beside;
  assert_null (image_open (&peer, &spec, &error));
  assert_error (error, list, beside);
  g_clear_error (&error);
  assert_null (image_open (&nothing, &spec, &error));
  assert_error (error, "%s is not beneath one of the target-dirs of [peer hostA]: there are none",
                beside);
  g_clear_error (&error);
  spec.path = up;
  assert_null (image_open (&peer, &spec, &error));
  assert_error (error, "\"%s\": expected an absolute path without \"..\", \".\" or \"//\"", up);
  g_clear_error (&error);
  spec.path = dir;
  assert_null (image_open (&peer, &spec, &error));
  assert_error (error, "%s is listed in target-dirs, but is no block device", dir);
  g_clear_error (&error);
  spec.path = "/dev/null";
  assert_null (image_open (&peer, &spec, &error));
  assert_error (error, "%s is listed in target-dirs, but is no block device", "/dev/null");
}

static void
test_links (void **state)
{
  g_autofree char *link = file ("link.raw");
  g_autofree char *dangling = file ("dangling.raw");
  g_autofree char *out = file ("out");
  g_autofree char *through = g_build_filename (out, "x.raw", NULL);
  g_autofree char *expected = g_strdup_printf (
      "%%s: a symbolic link below %s is on its way, and none is followed there", dir);
  g_autoptr (GError) error = NULL;

  assert_int_equal (symlink ("/etc/passwd", link), 0);
  assert_int_equal (symlink ("/tmp/vmferry-nowhere", dangling), 0);
  assert_int_equal (symlink ("/tmp", out), 0);
  assert_null (open_raw (link, TRUE, &error));
  assert_error (error, "%s is a symbolic link, and none is followed", link);
  g_clear_error (&error);
  assert_null (open_raw (dangling, TRUE, &error));
  assert_error (error, "%s is a symbolic link, and none is followed", dangling);
  g_clear_error (&error);
  assert_null (open_raw (through, TRUE, &error));
  assert_error (error, expected, through);
}

static void
test_odd_files (void **state)
{
  g_autofree char *sub = file ("sub");
  g_autofree char *fifo = file ("fifo");
  g_autofree char *nowhere = file ("no/x.raw");
  ImageSpec spec = { .path = fifo, .format = "nbd", .size = SIZE };
  g_autoptr (GError) error = NULL;

  assert_int_equal (mkdir (sub, 0700), 0);
  assert_int_equal (mkfifo (fifo, 0600), 0);
  assert_null (open_raw (sub, TRUE, &error));
  assert_error (error, "%s is a directory", sub);
  g_clear_error (&error);
  assert_null (open_raw (fifo, TRUE, &error));
  assert_error (error, "%s is neither a file nor a block device", fifo);
  g_clear_error (&error);
  assert_null (open_raw (nowhere, TRUE, &error));
  assert_int_equal (error->code, G_IO_ERROR_NOT_FOUND);
  assert_error (error, "%s: cannot open its directory: No such file or directory", nowhere);
  g_clear_error (&error);
  assert_null (open_spec (&spec, &error));
  assert_error (error, "%s: a target can't have the format \"nbd\"", fifo);
}

/* After a crash the journal knows device and inode: another file under that name stays. */
static void
test_undo_created (void **state)
{
  g_autofree char *path = file ("a.raw");
  g_autofree char *keep = file ("keep.raw");
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = open_raw (path, FALSE, NULL);
  ImageTrace trace;

  image_get_trace (image, &trace);
  assert_int_equal (rename (path, keep), 0);
  make_file (path, "other", SIZE);
  assert_false (image_trace_undo (&trace, &error));
  assert_error (error, "%s is not the file that was created here any more: it stays", path);
  assert_int_equal (access (path, F_OK), 0);
  assert_int_equal (rename (keep, path), 0);
  assert_true (image_trace_undo (&trace, NULL));
  assert_int_equal (access (path, F_OK), -1);
  assert_true (image_trace_undo (&trace, NULL));
  trace.path = "/nonexistent/a.raw";
  assert_true (image_trace_undo (&trace, NULL));
}

/* A file that was there and empty is so again, and the next attempt can have it. */
static void
test_undo_empty (void **state)
{
  g_autofree char *path = file ("a.raw");
  g_autofree char *keep = file ("keep.raw");
  g_autoptr (GError) error = NULL;
  g_autoptr (Image) image = NULL;
  ImageTrace trace;
  struct stat st;
  int fd;

  make_file (path, "", SIZE);
  image = open_raw (path, FALSE, &error);
  assert_null (error);
  image_get_trace (image, &trace);
  assert_true (trace.was_empty);
  assert_false (trace.created);
  make_file (keep, "other", SIZE);
  fd = open (path, O_WRONLY | O_CLOEXEC);
  assert_int_equal (pwrite (fd, "data", 4, 4096), 4);
  close (fd);
  assert_true (image_discard (image, &error));
  assert_null (error);
  assert_int_equal (stat (path, &st), 0);
  assert_int_equal (st.st_size, SIZE);
  assert_int_equal (st.st_blocks, 0);

  trace.path = keep;
  assert_false (image_trace_undo (&trace, &error));
  assert_error (error, "%s is not the file that was filled here any more: it stays", keep);
  assert_int_equal (stat (keep, &st), 0);
  assert_int_not_equal (st.st_blocks, 0);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown (test_create, setup, teardown),
    cmocka_unit_test_setup_teardown (test_prealloc, setup, teardown),
    cmocka_unit_test_setup_teardown (test_existing, setup, teardown),
    cmocka_unit_test_setup_teardown (test_overwrite, setup, teardown),
    cmocka_unit_test_setup_teardown (test_writer, setup, teardown),
    cmocka_unit_test_setup_teardown (test_not_allowed, setup, teardown),
    cmocka_unit_test_setup_teardown (test_links, setup, teardown),
    cmocka_unit_test_setup_teardown (test_odd_files, setup, teardown),
    cmocka_unit_test_setup_teardown (test_undo_created, setup, teardown),
    cmocka_unit_test_setup_teardown (test_undo_empty, setup, teardown),
  };

  return cmocka_run_group_tests_name ("image", tests, NULL, NULL);
}
