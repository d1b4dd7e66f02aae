/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "daemon/journal.h"
#include "qmp/json-args.h"
#include "qmp/json-framer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/journal-lines.h"

/* The journal, opened as a crash may have left it.  Input: its lines (journal-lines.h). */

#define JOB "11111111-2222-3333-4444-555555555555"
#define FILE_NAME "jobs/" JOB ".journal"

static const char *dir;

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
  g_autofree char *path = NULL;
  g_autoptr (GString) text = journal_lines_make (data, size);
  g_autoptr (GPtrArray) records = NULL;
  g_autoptr (GError) error = NULL;
  g_autoptr (Journal) journal = NULL;
  guint n = count_lines (text);

  dir = journal_lines_get_dir (FILE_NAME);
  path = g_build_filename (dir, FILE_NAME, NULL);
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
