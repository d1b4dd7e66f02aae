/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/journal.h"
#include "qmp/json-args.h"
#include "qmp/json-framer.h"
#include "tests/fuzz/fuzz.h"

/* The journal, opened as a crash may have left it.  Input: lines.  One that begins with '+' gets
 * its checksum (which no fuzzer finds by itself), any other one stands in the file as it is. */

#define JOB "11111111-2222-3333-4444-555555555555"

static char *dir;

static void
remove_dir (void)
{
  g_autofree char *jobs = g_build_filename (dir, "jobs", NULL);
  g_autofree char *path = g_build_filename (jobs, JOB ".journal", NULL);

  g_unlink (path);
  g_rmdir (jobs);
  g_rmdir (dir);
}

static char *
get_path (void)
{
  g_autofree char *jobs = NULL;

  if (dir == NULL)
    {
      /* In memory where that is possible: each run syncs. */
      dir = g_strdup (g_file_test ("/dev/shm", G_FILE_TEST_IS_DIR) ? "/dev/shm/fuzz-journal-XXXXXX"
                                                                   : "/tmp/fuzz-journal-XXXXXX");
      FUZZ_REQUIRE (g_mkdtemp (dir) != NULL);
      atexit (remove_dir);
    }
  jobs = g_build_filename (dir, "jobs", NULL);
  FUZZ_REQUIRE (g_mkdir_with_parents (jobs, 0700) == 0);
  return g_build_filename (jobs, JOB ".journal", NULL);
}

static GString *
make_text (const guint8 *data, gsize size)
{
  GString *text = g_string_new (NULL);

  while (size > 0)
    {
      const guint8 *newline = memchr (data, '\n', size);
      gsize len = newline != NULL ? (gsize)(newline - data) : size;
      gboolean sealed = len > 0 && data[0] == '+';

      if (sealed)
        {
          g_autofree char *sum = g_compute_checksum_for_data (G_CHECKSUM_SHA256, data + 1, len - 1);

          g_string_append_len (text, sum, 16);
          g_string_append_c (text, ' ');
        }
      g_string_append_len (text, (const char *)data + (sealed ? 1 : 0), len - (sealed ? 1 : 0));
      if (newline != NULL)
        g_string_append_c (text, '\n');
      len += newline != NULL ? 1 : 0;
      data += len;
      size -= len;
    }
  return text;
}

static char *
encode (JsonObject *object)
{
  gsize len;

  return json_framer_encode (object, &len);
}

/* Opens it again: what was read stays, and nothing else is there. */
static void
check_again (GPtrArray *records)
{
  g_autoptr (GPtrArray) again = NULL;
  g_autoptr (Journal) journal = journal_open (dir, JOB, &again, NULL);

  FUZZ_REQUIRE (journal != NULL && again->len == records->len);
  for (guint i = 0; i < records->len; i++)
    {
      g_autofree char *a = encode (g_ptr_array_index (records, i));
      g_autofree char *b = encode (g_ptr_array_index (again, i));

      FUZZ_REQUIRE (strcmp (a, b) == 0);
    }
}

static void
check_journal (Journal *journal, GPtrArray *records)
{
  JsonObject *record = json_args ("record", "s", "more", NULL);

  check_again (records);
  FUZZ_REQUIRE (journal_append (journal, record, NULL));
  g_ptr_array_add (records, record);
  check_again (records);
}

/* Whole lines that are right are never dropped without a word. */
static guint
count_lines (const GString *text)
{
  guint n = 0;

  for (gsize i = 0; i < text->len; i++)
    n += text->str[i] == '\n' ? 1 : 0;
  return n;
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  g_autofree char *path = get_path ();
  g_autoptr (GString) text = make_text (data, size);
  g_autoptr (GPtrArray) records = NULL;
  g_autoptr (GError) error = NULL;
  g_autoptr (Journal) journal = NULL;
  guint n = count_lines (text);

  FUZZ_REQUIRE (g_file_set_contents_full (path, text->str, (gssize)text->len,
                                          G_FILE_SET_CONTENTS_NONE, 0600, NULL));
  journal = journal_open (dir, JOB, &records, &error);
  if (journal == NULL)
    {
      FUZZ_REQUIRE (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA));
      return 0;
    }
  /* Only the last line may be torn. */
  FUZZ_REQUIRE (records->len == n || records->len + 1 == n);
  check_journal (journal, records);
  return 0;
}
