/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/journal.h"

#include <string.h>

#include "daemon/fail.h"

#define SUFFIX ".journal"

static char *
get_path (const char *state_dir, const char *job)
{
  g_autofree char *name = g_strconcat (job, SUFFIX, NULL);

  return g_build_filename (state_dir, "jobs", name, NULL);
}

/* The name of a job becomes the name of a file. */
static gboolean
check_job (const char *job, GError **error)
{
  g_autofree char *shown = NULL;

  if (g_uuid_string_is_valid (job))
    return TRUE;
  shown = g_strescape (job, NULL);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "\"%s\" is not the UUID of a job",
               shown);
  return FALSE;
}

Journal *
journal_create (const char *state_dir, const char *job, GError **error)
{
  g_autofree char *path = NULL;
  g_autofree char *dir = g_build_filename (state_dir, "jobs", NULL);

  if (!check_job (job, error))
    return NULL;
  if (g_mkdir_with_parents (dir, 0700) < 0)
    {
      fail_errno (dir, "cannot create the directory", error);
      return NULL;
    }
  if (!journal_sync_parent (dir, error))
    return NULL;
  path = get_path (state_dir, job);
  return journal_create_at (-1, path, error);
}

Journal *
journal_open (const char *state_dir, const char *job, GPtrArray **ret_records, GError **error)
{
  g_autofree char *path = NULL;
  g_autoptr (GError) local = NULL;
  Journal *journal;

  if (!check_job (job, error))
    return NULL;
  path = get_path (state_dir, job);
  journal = journal_open_at (-1, path, ret_records, &local);
  if (journal != NULL)
    return journal;
  if (g_error_matches (local, G_IO_ERROR, G_IO_ERROR_INVALID_DATA))
    g_set_error (error, local->domain, local->code,
                 "%s: restore the file, or move it away and end the job by hand", local->message);
  else
    g_propagate_error (error, g_steal_pointer (&local));
  return NULL;
}

char **
journal_list (const char *state_dir, GError **error)
{
  g_autofree char *path = g_build_filename (state_dir, "jobs", NULL);
  g_autoptr (GPtrArray) jobs = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GError) local = NULL;
  g_autoptr (GDir) dir = g_dir_open (path, 0, &local);
  const char *name;

  if (dir == NULL && !g_error_matches (local, G_FILE_ERROR, G_FILE_ERROR_NOENT))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s", local->message);
      return NULL;
    }
  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *job = g_strdup (name);

      if (!g_str_has_suffix (name, SUFFIX))
        continue;
      job[strlen (job) - strlen (SUFFIX)] = '\0';
      if (g_uuid_string_is_valid (job))
        g_ptr_array_add (jobs, g_steal_pointer (&job));
    }
  g_ptr_array_add (jobs, NULL);
  return (char **)g_ptr_array_free (g_steal_pointer (&jobs), FALSE);
}
