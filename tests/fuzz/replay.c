/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>

#include "tests/fuzz/fuzz.h"

/* Without libFuzzer: runs a target once for each file that is named, or that lies in a directory
 * that is named.  A finding aborts, with the name of the input as the last line of the output. */

static guint n_inputs;

static gboolean
replay_file (const char *path)
{
  g_autofree char *text = NULL;
  g_autofree guint8 *exact = NULL;
  g_autoptr (GError) error = NULL;
  gsize len;

  if (!g_file_get_contents (path, &text, &len, &error))
    {
      fprintf (stderr, "%s\n", error->message);
      return FALSE;
    }
  printf ("# %s\n", path);
  fflush (stdout);
  /* Not a byte more than there is: a sanitizer sees what reads beyond it. */
  exact = g_memdup2 (text, len);
  LLVMFuzzerTestOneInput (exact, len);
  n_inputs++;
  return TRUE;
}

static gboolean
replay_dir (const char *path)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GDir) dir = g_dir_open (path, 0, &error);
  const char *name;

  if (dir == NULL)
    {
      fprintf (stderr, "%s\n", error->message);
      return FALSE;
    }
  while ((name = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *file = g_build_filename (path, name, NULL);

      if (!replay_file (file))
        return FALSE;
    }
  return TRUE;
}

int
main (int argc, char **argv)
{
  for (int i = 1; i < argc; i++)
    if (!(g_file_test (argv[i], G_FILE_TEST_IS_DIR) ? replay_dir : replay_file) (argv[i]))
      return 1;
  /* A corpus that has gone astray must not look like one that passes. */
  if (n_inputs == 0)
    {
      fprintf (stderr, "no input was replayed\n");
      return 1;
    }
  printf ("%u inputs\n", n_inputs);
  return 0;
}
