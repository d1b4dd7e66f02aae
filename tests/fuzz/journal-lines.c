/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/journal-lines.h"

#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

GString *
journal_lines_make (const guint8 *data, gsize size)
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

static char *dir, *path;

/* The file, the folders that it is in, the directory. */
static void
remove_dir (void)
{
  g_unlink (path);
  while (!g_str_equal (path, dir))
    {
      char *parent = g_path_get_dirname (path);

      g_rmdir (parent);
      g_free (path);
      path = parent;
    }
}

const char *
journal_lines_get_dir (const char *file)
{
  g_autofree char *parent = NULL;

  if (dir == NULL)
    {
      gboolean memory = g_file_test ("/dev/shm", G_FILE_TEST_IS_DIR);

      dir = g_strdup_printf ("%s/fuzz-journal-XXXXXX", memory ? "/dev/shm" : g_get_tmp_dir ());
      FUZZ_REQUIRE (g_mkdtemp (dir) != NULL);
      path = g_build_filename (dir, file, NULL);
      parent = g_path_get_dirname (path);
      FUZZ_REQUIRE (g_mkdir_with_parents (parent, 0700) == 0);
      atexit (remove_dir);
    }
  return dir;
}
