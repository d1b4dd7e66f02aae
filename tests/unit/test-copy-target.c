/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "daemon/copy/copy-target.h"

#define LEN (4u << 20)
#define SIZE 70001 /* odd, and no multiple of a page */

typedef struct
{
  char *dir;
  char *path;
  char *part;
} Place;

static int
setup (void **state)
{
  Place *place = g_new0 (Place, 1);

  place->dir = g_dir_make_tmp ("vmferry-target-XXXXXX", NULL);
  place->path = g_build_filename (place->dir, "disk", NULL);
  place->part = g_strconcat (place->path, ".vmferry-part", NULL);
  *state = place;
  return 0;
}

static int
teardown (void **state)
{
  Place *place = *state;

  g_remove (place->part);
  g_remove (place->path);
  g_rmdir (place->dir);
  g_free (place->part);
  g_free (place->path);
  g_free (place->dir);
  g_free (place);
  return 0;
}

static CopyTarget *
find (const char *text, guint64 size, GError **error)
{
  CopyTargetSpec spec = { .text = text, .format = "raw", .size = size, .timeout_ms = 10000 };

  return copy_target_find (&spec, error);
}

static void
assert_copy (Place *place, guint64 size)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (CopyTarget) target = find (place->path, size, &error);
  g_autofree char *data = NULL;
  CopyIdentity identity;
  NbdTarget *writer;
  gsize len;

  assert_null (error);
  writer = copy_target_create (target, &identity, &error);
  assert_null (error);
  copy_identity_clear (&identity);
  assert_int_equal (writer->size, size);
  if (size > 0)
    assert_true (writer->klass->write (writer, "end", 3, size - 3, &error));
  assert_true (writer->klass->flush (writer, &error));
  assert_true (copy_target_finish (target, &error));
  assert_null (error);
  assert_true (g_file_get_contents (place->path, &data, &len, NULL));
  assert_int_equal (len, size);
  for (gsize i = 0; i + 3 < len; i++)
    assert_int_equal (data[i], 0);
  assert_true (size == 0 || memcmp (data + len - 3, "end", 3) == 0);
  assert_false (g_file_test (place->part, G_FILE_TEST_EXISTS));
}

static void
test_new (void **state)
{
  assert_copy (*state, SIZE);
}

static void
test_empty (void **state)
{
  assert_copy (*state, 0);
}

static void
test_replace (void **state)
{
  static const gsize sizes[] = { 1, SIZE, 2 * SIZE };
  Place *place = *state;
  struct stat info;

  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++)
    {
      g_autofree char *old = g_malloc (sizes[i]);

      memset (old, 'x', sizes[i]);
      assert_true (g_file_set_contents (place->path, old, (gssize)sizes[i], NULL));
      assert_int_equal (g_chmod (place->path, 0604), 0);
      assert_copy (place, SIZE);
      assert_int_equal (g_stat (place->path, &info), 0);
      assert_int_equal (info.st_mode & 07777, 0604);
    }
}

static void
test_reopen (void **state)
{
  Place *place = *state;
  g_autoptr (GError) error = NULL;
  CopyTarget *target = find (place->path, SIZE, &error);
  CopyIdentity identity;
  NbdTarget *writer = copy_target_create (target, &identity, &error);
  char data[4];

  assert_non_null (writer);
  assert_true (writer->klass->write (writer, "data", 4, 100, &error));
  assert_true (writer->klass->flush (writer, &error));
  copy_target_free (target);
  assert_false (g_file_test (place->path, G_FILE_TEST_EXISTS));

  target = find (place->path, SIZE, &error);
  writer = copy_target_reopen (target, &identity, &error);
  assert_non_null (writer);
  assert_true (writer->klass->read (writer, data, 4, 100, &error));
  assert_memory_equal (data, "data", 4);
  assert_true (copy_target_finish (target, &error));
  copy_target_free (target);
  copy_identity_clear (&identity);
}

static void
test_reopen_another (void **state)
{
  Place *place = *state;
  g_autoptr (GError) error = NULL;
  CopyTarget *target = find (place->path, SIZE, &error);
  CopyIdentity identity;

  assert_non_null (copy_target_create (target, &identity, &error));
  copy_target_free (target);
  identity.uuid[0] = identity.uuid[0] == '0' ? '1' : '0';
  identity.inode++;
  target = find (place->path, SIZE, &error);
  assert_null (copy_target_reopen (target, &identity, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA));
  assert_non_null (strstr (error->message, "another file"));
  copy_target_free (target);
  copy_identity_clear (&identity);
}

/* A tool that is missing today is no reason to throw a copy away. */
static void
test_reopen_without_tool (void **state)
{
  Place *place = *state;
  g_autofree char *tool = g_find_program_in_path ("qemu-nbd");
  g_autofree char *path = g_strdup (g_getenv ("PATH"));
  CopyTargetSpec spec
      = { .text = place->path, .format = "qcow2", .size = 2 << 20, .timeout_ms = 20000 };
  g_autoptr (GError) error = NULL;
  CopyTarget *target = NULL;
  CopyIdentity identity;

  if (tool == NULL)
    skip ();
  target = copy_target_find (&spec, NULL);
  assert_non_null (copy_target_create (target, &identity, NULL));
  copy_target_free (target);
  target = copy_target_find (&spec, NULL);
  g_setenv ("PATH", place->dir, TRUE);
  assert_null (copy_target_reopen (target, &identity, &error));
  g_setenv ("PATH", path, TRUE);
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_FAILED));
  assert_non_null (strstr (error->message, "qemu-nbd is not installed"));
  copy_target_free (target);
  copy_identity_clear (&identity);
}

static void
test_busy (void **state)
{
  Place *place = *state;
  g_autoptr (GError) error = NULL;
  g_autoptr (CopyTarget) target = find (place->path, SIZE, &error);
  CopyIdentity identity;

  assert_non_null (copy_target_create (target, &identity, &error));
  copy_identity_clear (&identity);
  assert_null (find (place->path, SIZE, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_BUSY));
}

static void
test_refuse_link (void **state)
{
  Place *place = *state;
  g_autoptr (GError) error = NULL;

  assert_int_equal (symlink ("elsewhere", place->path), 0);
  assert_null (find (place->path, SIZE, &error));
  assert_non_null (strstr (error->message, "symbolic link"));
}

static void
test_refuse_part_link (void **state)
{
  Place *place = *state;
  g_autoptr (GError) error = NULL;

  assert_int_equal (symlink ("elsewhere", place->part), 0);
  assert_null (find (place->path, SIZE, &error));
  assert_non_null (strstr (error->message, "symbolic link"));
}

static void
test_refuse_pipe (void **state)
{
  Place *place = *state;
  g_autoptr (GError) error = NULL;

  assert_int_equal (mkfifo (place->path, 0600), 0);
  assert_null (find (place->path, SIZE, &error));
  assert_non_null (strstr (error->message, "a pipe"));
}

static void
test_refuse_directory (void **state)
{
  Place *place = *state;
  g_autoptr (GError) error = NULL;

  assert_null (find (place->dir, SIZE, &error));
  assert_non_null (strstr (error->message, "a directory"));
}

/* A file that isn't as large as the export is no copy of it; it stays as it is. */
static void
test_in_place_size (void **state)
{
  Place *place = *state;
  g_autofree char *tool = g_find_program_in_path ("qemu-nbd");

  if (tool == NULL)
    skip ();
  for (guint i = 0; i < 3; i++)
    {
      const char *argv[] = { "qemu-img",
                             "create",
                             "-q",
                             "-f",
                             "qcow2",
                             place->path,
                             i == 0 ? "3M" : i == 1 ? "4M" : "6M",
                             NULL };
      CopyTargetSpec spec = {
        .text = place->path, .format = "qcow2", .size = LEN, .in_place = TRUE, .timeout_ms = 20000
      };
      g_autoptr (CopyTarget) target = NULL;
      g_autoptr (GError) error = NULL;
      CopyIdentity identity = { 0 };
      NbdTarget *writer;

      assert_true (g_spawn_sync (NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL,
                                 NULL, NULL, NULL));
      target = copy_target_find (&spec, NULL);
      writer = copy_target_create (target, &identity, &error);
      copy_identity_clear (&identity);
      if (i == 1)
        {
          assert_non_null (writer);
          continue;
        }
      assert_null (writer);
      assert_non_null (strstr (error->message, "it is no copy of it"));
      assert_true (getxattr (place->path, "user.vmferry.copy", NULL, 0) < 0);
    }
}

/* After the directory was found, somebody leads its path elsewhere. */
static void
test_moved_directory (void **state)
{
  Place *place = *state;
  g_autofree char *dir = g_build_filename (place->dir, "sub", NULL);
  g_autofree char *moved = g_build_filename (place->dir, "moved", NULL);
  g_autofree char *path = g_build_filename (dir, "disk", NULL);
  g_autofree char *part = g_build_filename (moved, "disk.vmferry-part", NULL);
  g_autofree char *trap = g_build_filename (place->dir, "disk.vmferry-journal", NULL);
  CopyTarget *target;
  CopyIdentity identity;

  assert_int_equal (g_mkdir (dir, 0700), 0);
  target = find (path, SIZE, NULL);
  assert_int_equal (g_rename (dir, moved), 0);
  assert_int_equal (symlink (place->dir, dir), 0);
  assert_true (g_file_set_contents (trap, "not ours", -1, NULL));
  assert_non_null (copy_target_create (target, &identity, NULL));
  copy_identity_clear (&identity);
  assert_true (g_file_test (part, G_FILE_TEST_EXISTS));
  assert_true (g_file_test (trap, G_FILE_TEST_EXISTS));
  copy_target_discard (target);
  copy_target_free (target);
  g_unlink (trap);
  g_unlink (dir);
  assert_int_equal (g_rmdir (moved), 0);
}

/* Two that begin at the same time: the one that comes second leaves all that is the first one's. */
static void
test_second (void **state)
{
  Place *place = *state;
  g_autofree char *journal = g_strconcat (place->path, ".vmferry-journal", NULL);
  g_autoptr (CopyTarget) first = find (place->path, SIZE, NULL);
  g_autoptr (CopyTarget) second = find (place->path, SIZE, NULL);
  g_autoptr (GError) error = NULL;
  CopyIdentity identity;

  assert_non_null (copy_target_create (first, &identity, NULL));
  copy_identity_clear (&identity);
  assert_true (g_file_set_contents (journal, "the first one's", -1, NULL));
  assert_null (copy_target_create (second, &identity, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_BUSY));
  assert_true (g_file_test (place->part, G_FILE_TEST_EXISTS));
  assert_true (g_file_test (journal, G_FILE_TEST_EXISTS));
  g_unlink (journal);
}

/* What somebody else called so is not ours to remove. */
static void
test_keep_foreign_part (void **state)
{
  Place *place = *state;
  g_autoptr (GError) error = NULL;
  g_autoptr (CopyTarget) target = NULL;
  CopyIdentity identity;

  assert_true (g_file_set_contents (place->part, "mine", 4, NULL));
  target = find (place->path, SIZE, &error);
  assert_non_null (target);
  assert_null (copy_target_create (target, &identity, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_EXISTS));
  assert_true (g_file_test (place->part, G_FILE_TEST_EXISTS));
}

static void
test_check (void **state)
{
  assert_true (copy_target_check ("disk", "raw", FALSE, NULL));
  assert_true (copy_target_check ("disk", "qcow2", FALSE, NULL));
  assert_true (copy_target_check ("null:", "raw", FALSE, NULL));
  assert_false (copy_target_check ("", "raw", FALSE, NULL));
  assert_false (copy_target_check ("disk/", "raw", FALSE, NULL));
  assert_false (copy_target_check ("disk", "nbd", FALSE, NULL));
  assert_false (copy_target_check ("null:", "qcow2", FALSE, NULL));
  assert_false (copy_target_check ("null:", "raw", TRUE, NULL));
}

static guint
count_cached_pages (const char *path, gsize len)
{
  gsize n = len / (gsize)sysconf (_SC_PAGESIZE);
  g_autofree guchar *cached = g_malloc (n);
  int fd = open (path, O_RDONLY);
  void *map = mmap (NULL, len, PROT_READ, MAP_SHARED, fd, 0);
  guint found = 0;

  assert_true (map != MAP_FAILED);
  assert_int_equal (mincore (map, len, cached), 0);
  for (gsize i = 0; i < n; i++)
    found += cached[i] & 1;
  munmap (map, len);
  close (fd);
  return found;
}

/* What is read back after this comes from the storage. */
static void
test_drop_cache (void **state)
{
  Place *place = *state;
  g_autofree char *tool = g_find_program_in_path ("qemu-nbd");
  g_autofree char *data = g_malloc (LEN);
  CopyTargetSpec spec
      = { .text = place->path, .format = "qcow2", .size = LEN, .timeout_ms = 20000 };
  g_autoptr (CopyTarget) target = NULL;
  struct statfs system;
  CopyIdentity identity;
  NbdTarget *writer;

  if (tool == NULL || statfs (place->dir, &system) < 0 || system.f_type == TMPFS_MAGIC)
    skip ();
  memset (data, 'x', LEN);
  target = copy_target_find (&spec, NULL);
  writer = copy_target_create (target, &identity, NULL);
  assert_non_null (writer);
  copy_identity_clear (&identity);
  assert_true (writer->klass->write (writer, data, LEN, 0, NULL));
  assert_true (writer->klass->flush (writer, NULL));
  assert_int_equal (count_cached_pages (place->part, LEN), 0);
}

/* Where others may write, somebody could answer in the place of qemu-nbd. */
static void
test_untrusted_runtime_dir (void **state)
{
  Place *place = *state;
  g_autofree char *tool = g_find_program_in_path ("qemu-nbd");
  g_autofree char *before = g_strdup (g_getenv ("XDG_RUNTIME_DIR"));
  g_autofree char *runtime = g_build_filename (place->dir, "run", NULL);
  CopyTargetSpec spec
      = { .text = place->path, .format = "qcow2", .size = LEN, .timeout_ms = 20000 };
  g_autoptr (CopyTarget) target = NULL;
  CopyIdentity identity;
  struct stat then, now;

  if (tool == NULL)
    skip ();
  assert_int_equal (g_mkdir (runtime, 0700), 0);
  assert_int_equal (g_chmod (runtime, 0777), 0);
  assert_int_equal (g_stat (runtime, &then), 0);
  g_setenv ("XDG_RUNTIME_DIR", runtime, TRUE);
  target = copy_target_find (&spec, NULL);
  assert_non_null (copy_target_create (target, &identity, NULL));
  copy_identity_clear (&identity);
  if (before != NULL)
    g_setenv ("XDG_RUNTIME_DIR", before, TRUE);
  else
    g_unsetenv ("XDG_RUNTIME_DIR");
  assert_int_equal (g_stat (runtime, &now), 0);
  assert_int_equal (now.st_mtim.tv_sec, then.st_mtim.tv_sec);
  assert_int_equal (now.st_mtim.tv_nsec, then.st_mtim.tv_nsec);
  assert_int_equal (g_rmdir (runtime), 0);
}

/* Whatever qemu-img makes of the size, the copy ends with the export. */
static void
test_formats (void **state)
{
  static const char *const formats[] = { "qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed" };
  Place *place = *state;
  g_autofree char *tool = g_find_program_in_path ("qemu-nbd");

  if (tool == NULL)
    skip ();
  for (guint i = 0; i < G_N_ELEMENTS (formats); i++)
    {
      CopyTargetSpec spec
          = { .text = place->path, .format = formats[i], .size = 2 << 20, .timeout_ms = 20000 };
      g_autoptr (CopyTarget) target = copy_target_find (&spec, NULL);
      CopyIdentity identity;
      NbdTarget *writer = copy_target_create (target, &identity, NULL);

      assert_non_null (writer);
      copy_identity_clear (&identity);
      assert_int_equal (writer->size, spec.size);
      assert_true (writer->klass->write (writer, "end", 3, spec.size - 3, NULL));
      assert_true (writer->klass->flush (writer, NULL));
      assert_true (copy_target_finish (target, NULL));
      assert_false (g_file_test (place->part, G_FILE_TEST_EXISTS));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown (name, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (test_new),
    TEST (test_empty),
    TEST (test_replace),
    TEST (test_reopen),
    TEST (test_reopen_another),
    TEST (test_reopen_without_tool),
    TEST (test_busy),
    TEST (test_refuse_link),
    TEST (test_refuse_part_link),
    TEST (test_refuse_pipe),
    TEST (test_refuse_directory),
    TEST (test_in_place_size),
    TEST (test_moved_directory),
    TEST (test_second),
    TEST (test_keep_foreign_part),
    TEST (test_drop_cache),
    TEST (test_untrusted_runtime_dir),
    TEST (test_formats),
    cmocka_unit_test (test_check),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
