/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "daemon/journal.h"
#include "qmp/json-args.h"

#define JOB "8c0f4c1e-2f2d-4b3c-9a51-0d7d4be0f001"

static char *state_dir;
static char *path;

static int
setup (void **state)
{
  state_dir = g_dir_make_tmp ("vmferry-journal-XXXXXX", NULL);
  path = g_build_filename (state_dir, "jobs", JOB ".journal", NULL);
  return state_dir == NULL;
}

static int
teardown (void **state)
{
  g_autofree char *jobs = g_build_filename (state_dir, "jobs", NULL);

  g_unlink (path);
  g_rmdir (jobs);
  g_rmdir (state_dir);
  g_clear_pointer (&path, g_free);
  g_clear_pointer (&state_dir, g_free);
  return 0;
}

static gboolean
append (Journal *journal, const char *name, gint64 number, GError **error)
{
  g_autoptr (JsonObject) record = json_args ("record", "s", name, "number", "i", number, NULL);

  return journal_append (journal, record, error);
}

static Journal *
create_with (guint n)
{
  g_autoptr (GError) error = NULL;
  Journal *journal = journal_create (state_dir, JOB, &error);

  assert_non_null (journal);
  for (guint i = 0; i < n; i++)
    assert_true (append (journal, "step \"\n\xc3\xa9", (gint64)i, &error));
  return journal;
}

/* Opens it and checks that it holds the records 0 to n - 1. */
static Journal *
open_with (guint n)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) records = NULL;
  Journal *journal = journal_open (state_dir, JOB, &records, &error);

  if (journal == NULL)
    fail_msg ("%s", error->message);
  assert_int_equal (records->len, n);
  for (guint i = 0; i < n; i++)
    {
      const char *name;
      gint64 number;

      assert_true (json_get_string (records->pdata[i], "record", &name));
      assert_string_equal (name, "step \"\n\xc3\xa9");
      assert_true (json_get_int (records->pdata[i], "number", &number));
      assert_int_equal (number, i);
    }
  return journal;
}

static void
test_round_trip (void **state)
{
  g_autoptr (GError) error = NULL;
  g_auto (GStrv) jobs = NULL;
  struct stat st;

  journal_free (create_with (3));
  assert_int_equal (stat (path, &st), 0);
  assert_int_equal (st.st_mode & 07777, 0600);
  jobs = journal_list (state_dir, &error);
  assert_int_equal (g_strv_length (jobs), 1);
  assert_string_equal (jobs[0], JOB);
  journal_free (open_with (3));
}

static void
test_append_after_open (void **state)
{
  g_autoptr (Journal) journal = NULL;

  journal_free (create_with (2));
  journal = open_with (2);
  assert_true (append (journal, "step \"\n\xc3\xa9", 2, NULL));
  g_clear_pointer (&journal, journal_free);
  journal = open_with (3);
}

static void
test_exists (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Journal) journal = create_with (0);

  assert_non_null (journal);
  assert_null (journal_create (state_dir, JOB, &error));
  assert_int_equal (error->code, G_IO_ERROR_EXISTS);
}

static void
test_remove (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) records = NULL;
  g_autoptr (Journal) journal = create_with (1);
  g_auto (GStrv) jobs = NULL;

  assert_true (journal_remove (journal, NULL));
  assert_true (journal_remove (journal, NULL));
  assert_null (journal_open (state_dir, JOB, &records, &error));
  assert_int_equal (error->code, G_IO_ERROR_NOT_FOUND);
  jobs = journal_list (state_dir, NULL);
  assert_null (jobs[0]);
}

static void
test_names (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) records = NULL;
  g_auto (GStrv) jobs = journal_list (state_dir, NULL);

  assert_null (jobs[0]);
  assert_null (journal_create (state_dir, "../x", &error));
  assert_string_equal (error->message, "\"../x\" is not the UUID of a job");
  assert_null (journal_open (state_dir, "../x", &records, NULL));
  assert_null (records);
}

/* A crash may leave any beginning of the last record, and the next append starts a line of its
 * own. */
static void
test_torn_tail (void **state)
{
  g_autofree char *whole = NULL;
  gsize len, two;

  journal_free (create_with (3));
  assert_true (g_file_get_contents (path, &whole, &len, NULL));
  two = strchr (strchr (whole, '\n') + 1, '\n') + 1 - whole;
  for (gsize cut = two; cut < len; cut++)
    {
      g_autoptr (Journal) journal = NULL;

      assert_true (g_file_set_contents (path, whole, cut, NULL));
      journal = open_with (2);
      assert_true (append (journal, "step \"\n\xc3\xa9", 2, NULL));
      g_clear_pointer (&journal, journal_free);
      journal = open_with (3);
    }
}

/* File systems that put off allocation may leave zeroes where the last record should be. */
static void
test_zeroed_tail (void **state)
{
  g_autofree char *whole = NULL;
  gsize len, two;
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) records = NULL;

  journal_free (create_with (3));
  assert_true (g_file_get_contents (path, &whole, &len, NULL));
  two = strchr (strchr (whole, '\n') + 1, '\n') + 1 - whole;
  whole[two + 20] ^= 1;
  assert_true (g_file_set_contents (path, whole, len, NULL));
  assert_null (journal_open (state_dir, JOB, &records, &error));
  assert_non_null (strstr (error->message, "record 3 is damaged"));
  memset (whole + two, 0, 8);
  assert_true (g_file_set_contents (path, whole, len, NULL));
  journal_free (open_with (2));
  memset (whole + two, 0, len - two);
  assert_true (g_file_set_contents (path, whole, len, NULL));
  journal_free (open_with (2));
}

static void
test_damage_in_the_middle (void **state)
{
  g_autofree char *whole = NULL;
  gsize len, one, two;

  journal_free (create_with (3));
  assert_true (g_file_get_contents (path, &whole, &len, NULL));
  one = strchr (whole, '\n') + 1 - whole;
  two = strchr (whole + one, '\n') + 1 - whole;
  for (gsize at = one; at < two; at++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (GPtrArray) records = NULL;

      whole[at] ^= 1;
      assert_true (g_file_set_contents (path, whole, len, NULL));
      whole[at] ^= 1;
      assert_null (journal_open (state_dir, JOB, &records, &error));
      assert_int_equal (error->code, G_IO_ERROR_INVALID_DATA);
      assert_non_null (strstr (error->message, "record 2 is damaged"));
    }
}

static void
test_deep_record (void **state)
{
  g_autoptr (GString) text = g_string_new ("{\"record\":");
  g_autofree char *sum = NULL;
  g_autofree char *line = NULL;

  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) records = NULL;

  for (guint i = 0; i < 100000; i++)
    g_string_append_c (text, '[');
  sum = g_compute_checksum_for_string (G_CHECKSUM_SHA256, text->str, -1);
  line = g_strdup_printf ("%.16s %s\n", sum, text->str);
  journal_free (create_with (0));
  assert_true (g_file_set_contents (path, line, -1, NULL));
  assert_null (journal_open (state_dir, JOB, &records, &error));
  assert_int_equal (error->code, G_IO_ERROR_INVALID_DATA);
}

/* A full disk: the record that doesn't fit leaves nothing behind, and once there is room again the
 * journal goes on. */
static void
test_full_disk (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Journal) journal = create_with (2);
  struct rlimit old, small;
  struct stat before, after;

  assert_int_equal (stat (path, &before), 0);
  signal (SIGXFSZ, SIG_IGN);
  getrlimit (RLIMIT_FSIZE, &old);
  small = old;
  small.rlim_cur = before.st_size + 10;
  assert_int_equal (setrlimit (RLIMIT_FSIZE, &small), 0);
  assert_false (append (journal, "step \"\n\xc3\xa9", 2, &error));
  assert_int_equal (setrlimit (RLIMIT_FSIZE, &old), 0);
  assert_non_null (strstr (error->message, "cannot write: File too large"));
  assert_int_equal (stat (path, &after), 0);
  assert_int_equal (after.st_size, before.st_size);
  assert_true (append (journal, "step \"\n\xc3\xa9", 2, NULL));
  g_clear_pointer (&journal, journal_free);
  journal = open_with (3);
}

/* What the file holds afterwards is the new records alone, and what is appended to them. */
static void
test_rewrite (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) records
      = g_ptr_array_new_with_free_func ((GDestroyNotify)json_object_unref);
  g_autoptr (Journal) journal = create_with (7);
  g_autofree char *left = g_strconcat (path, ".new", NULL);
  guint64 before = journal_get_size (journal);

  /* A crash came between the new file and its name. */
  assert_true (g_file_set_contents (left, "torn", -1, NULL));
  for (guint i = 0; i < 2; i++)
    g_ptr_array_add (
        records, json_args ("record", "s", "step \"\n\xc3\xa9", "number", "i", (gint64)i, NULL));
  assert_true (journal_rewrite (journal, records, &error));
  assert_true (journal_get_size (journal) < before);
  assert_false (g_file_test (left, G_FILE_TEST_EXISTS));
  assert_true (append (journal, "step \"\n\xc3\xa9", 2, NULL));
  g_clear_pointer (&journal, journal_free);
  journal = open_with (3);
}

/* A full disk: the old records stay, and the journal goes on. */
static void
test_rewrite_on_a_full_disk (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) records
      = g_ptr_array_new_with_free_func ((GDestroyNotify)json_object_unref);
  g_autoptr (Journal) journal = create_with (2);
  g_autofree char *left = g_strconcat (path, ".new", NULL);
  struct rlimit old, small;

  g_ptr_array_add (records, json_args ("record", "s", "a record that is too long", NULL));
  signal (SIGXFSZ, SIG_IGN);
  getrlimit (RLIMIT_FSIZE, &old);
  small = old;
  small.rlim_cur = 10;
  assert_int_equal (setrlimit (RLIMIT_FSIZE, &small), 0);
  assert_false (journal_rewrite (journal, records, &error));
  assert_int_equal (setrlimit (RLIMIT_FSIZE, &old), 0);
  assert_false (g_file_test (left, G_FILE_TEST_EXISTS));
  assert_true (append (journal, "step \"\n\xc3\xa9", 2, NULL));
  g_clear_pointer (&journal, journal_free);
  journal = open_with (3);
}

/* Links, and what isn't a file, are somebody else's doing. */
static void
test_not_ours (void **state)
{
  g_autofree char *other = g_strconcat (path, "-other", NULL);
  g_autoptr (GPtrArray) records = NULL;

  journal_free (create_with (1));
  assert_int_equal (g_rename (path, other), 0);
  assert_int_equal (symlink (other, path), 0);
  assert_null (journal_open_at (-1, path, &records, NULL));
  assert_null (journal_create_at (-1, path, NULL));
  assert_int_equal (unlink (path), 0);
  assert_int_equal (link (other, path), 0);
  assert_null (journal_open_at (-1, path, &records, NULL));
  assert_int_equal (unlink (path), 0);
  assert_int_equal (mkfifo (path, 0600), 0);
  assert_null (journal_open_at (-1, path, &records, NULL));
  assert_int_equal (unlink (other), 0);
}

/* Somebody leads the path elsewhere after it was found to be safe. */
static void
test_moved_directory (void **state)
{
  g_autofree char *jobs = g_path_get_dirname (path);
  g_autofree char *moved = g_strconcat (state_dir, "/moved", NULL);
  g_autofree char *file = g_strconcat (moved, "/" JOB ".journal", NULL);
  g_autoptr (Journal) journal = create_with (0);
  g_autoptr (GPtrArray) none = g_ptr_array_new ();
  int dir = open (jobs, O_PATH | O_DIRECTORY);

  assert_true (journal_remove (journal, NULL));
  g_clear_pointer (&journal, journal_free);
  assert_int_equal (g_rename (jobs, moved), 0);
  assert_int_equal (symlink (state_dir, jobs), 0);
  journal = journal_create_at (dir, path, NULL);
  close (dir);
  assert_non_null (journal);
  assert_true (g_file_test (file, G_FILE_TEST_EXISTS));
  assert_true (journal_rewrite (journal, none, NULL));
  assert_true (g_file_test (file, G_FILE_TEST_EXISTS));
  assert_true (journal_remove (journal, NULL));
  assert_false (g_file_test (file, G_FILE_TEST_EXISTS));
  assert_int_equal (unlink (jobs), 0);
  assert_int_equal (g_rename (moved, jobs), 0);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown (test_round_trip, setup, teardown),
    cmocka_unit_test_setup_teardown (test_append_after_open, setup, teardown),
    cmocka_unit_test_setup_teardown (test_exists, setup, teardown),
    cmocka_unit_test_setup_teardown (test_remove, setup, teardown),
    cmocka_unit_test_setup_teardown (test_names, setup, teardown),
    cmocka_unit_test_setup_teardown (test_torn_tail, setup, teardown),
    cmocka_unit_test_setup_teardown (test_zeroed_tail, setup, teardown),
    cmocka_unit_test_setup_teardown (test_damage_in_the_middle, setup, teardown),
    cmocka_unit_test_setup_teardown (test_deep_record, setup, teardown),
    cmocka_unit_test_setup_teardown (test_full_disk, setup, teardown),
    cmocka_unit_test_setup_teardown (test_rewrite, setup, teardown),
    cmocka_unit_test_setup_teardown (test_rewrite_on_a_full_disk, setup, teardown),
    cmocka_unit_test_setup_teardown (test_not_ours, setup, teardown),
    cmocka_unit_test_setup_teardown (test_moved_directory, setup, teardown),
  };

  return cmocka_run_group_tests_name ("journal", tests, NULL, NULL);
}
