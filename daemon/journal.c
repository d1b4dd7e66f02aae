/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/journal.h"
#include "daemon/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "qmp/json-framer.h"

/* One line of the file: CHECKSUM, a space, one JSON object, a newline.  The checksum is the
 * beginning of the SHA-256 of the object's text. */
#define CHECKSUM_LEN 16
#define PREFIX_LEN (CHECKSUM_LEN + 1)
#define MAX_RECORD (1024 * 1024)
#define MAX_DEPTH 32
#define MAX_FILE (64 * 1024 * 1024)
#define SUFFIX ".journal"

struct Journal
{
  GMutex lock;
  char *path;
  int fd;
  off_t end;       /* of the last whole record */
  gboolean broken; /* what is on the disk is not known any more */
};

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

static gboolean
sync_parent (const char *path, GError **error)
{
  g_autofree char *dir = g_path_get_dirname (path);
  int fd = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  gboolean good = fd >= 0 && fsync (fd) == 0;

  if (!good)
    fail_errno (dir, "cannot make the directory durable", error);
  if (fd >= 0)
    close (fd);
  return good;
}

static Journal *
journal_new (const char *path, int fd)
{
  Journal *journal = g_new0 (Journal, 1);

  g_mutex_init (&journal->lock);
  journal->path = g_strdup (path);
  journal->fd = fd;
  return journal;
}

void
journal_free (Journal *journal)
{
  if (journal == NULL)
    return;
  close (journal->fd);
  g_mutex_clear (&journal->lock);
  g_free (journal->path);
  g_free (journal);
}

Journal *
journal_create (const char *state_dir, const char *job, GError **error)
{
  g_autofree char *path = NULL;
  g_autofree char *dir = g_build_filename (state_dir, "jobs", NULL);
  g_autoptr (Journal) journal = NULL;
  int fd;

  if (!check_job (job, error))
    return NULL;
  path = get_path (state_dir, job);
  if (g_mkdir_with_parents (dir, 0700) < 0)
    {
      fail_errno (dir, "cannot create the directory", error);
      return NULL;
    }
  fd = open (path, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    {
      fail_errno (path, "cannot create the journal", error);
      return NULL;
    }
  journal = journal_new (path, fd);
  if (!sync_parent (dir, error) || !sync_parent (path, error))
    {
      g_unlink (path);
      return NULL;
    }
  return g_steal_pointer (&journal);
}

static char *
get_checksum (const char *text, gsize len)
{
  char *sum = g_compute_checksum_for_data (G_CHECKSUM_SHA256, (const guchar *)text, len);

  sum[CHECKSUM_LEN] = '\0';
  return sum;
}

/* `line` is without its newline.  NULL where the checksum or the text isn't right. */
static JsonObject *
decode_line (const char *line, gsize len)
{
  g_autoptr (JsonFramer) framer = json_framer_new (MAX_RECORD, MAX_DEPTH);
  g_autofree char *sum = NULL;

  if (len < PREFIX_LEN || line[CHECKSUM_LEN] != ' ')
    return NULL;
  sum = get_checksum (line + PREFIX_LEN, len - PREFIX_LEN);
  if (memcmp (sum, line, CHECKSUM_LEN) != 0
      || !json_framer_push (framer, line + PREFIX_LEN, len - PREFIX_LEN, NULL)
      || !json_framer_push (framer, "\n", 1, NULL))
    return NULL;
  return json_framer_pop (framer, NULL);
}

/* Whether a crash in the middle of an append leaves such an end of the file: part of a line, or a
 * line with zeroes where data was never written.  Any other bad line is damage to a record that
 * counted. */
static gboolean
is_torn (const char *line, const char *newline, const char *end)
{
  return newline == NULL || (newline + 1 == end && memchr (line, '\0', newline - line) != NULL);
}

static GPtrArray *
decode_file (const char *path, const char *text, gsize len, gsize *ret_end, GError **error)
{
  g_autoptr (GPtrArray) records
      = g_ptr_array_new_with_free_func ((GDestroyNotify)json_object_unref);
  const char *end = text + len;
  const char *line = text;

  while (line < end)
    {
      const char *newline = memchr (line, '\n', end - line);
      JsonObject *record = newline != NULL ? decode_line (line, newline - line) : NULL;

      if (record == NULL && is_torn (line, newline, end))
        break;
      if (record == NULL)
        {
          g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                       "%s: record %u is damaged: restore the file, or move it away and end the "
                       "job by hand",
                       path, records->len + 1);
          return NULL;
        }
      g_ptr_array_add (records, record);
      line = newline + 1;
    }
  *ret_end = line - text;
  return g_steal_pointer (&records);
}

static gboolean
read_all (int fd, const char *path, GString *text, GError **error)
{
  char buf[65536];

  for (;;)
    {
      gssize n = read (fd, buf, sizeof buf);

      if (n < 0 && errno == EINTR)
        continue;
      if (n < 0)
        return fail_errno (path, "cannot read", error);
      if (n == 0)
        return TRUE;
      if (text->len + n > MAX_FILE)
        {
          g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                       "%s is larger than %d MiB: it is no journal of this agent", path,
                       MAX_FILE / 1024 / 1024);
          return FALSE;
        }
      g_string_append_len (text, buf, n);
    }
}

/* Cuts off what an append left half done, so that the next one starts on a line of its own. */
static gboolean
cut_at_end (Journal *journal, GError **error)
{
  if (ftruncate (journal->fd, journal->end) < 0 || fsync (journal->fd) < 0)
    return fail_errno (journal->path, "cannot cut off a torn record", error);
  return TRUE;
}

Journal *
journal_open (const char *state_dir, const char *job, GPtrArray **ret_records, GError **error)
{
  g_autofree char *path = NULL;
  g_autoptr (Journal) journal = NULL;
  g_autoptr (GPtrArray) records = NULL;
  g_autoptr (GString) text = g_string_new (NULL);
  gsize end;
  int fd;

  if (!check_job (job, error))
    return NULL;
  path = get_path (state_dir, job);
  fd = open (path, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0)
    {
      fail_errno (path, "cannot open the journal", error);
      return NULL;
    }
  journal = journal_new (path, fd);
  if (!read_all (fd, path, text, error))
    return NULL;
  records = decode_file (path, text->str, text->len, &end, error);
  if (records == NULL)
    return NULL;
  journal->end = end;
  if (end < text->len && !cut_at_end (journal, error))
    return NULL;
  *ret_records = g_steal_pointer (&records);
  return g_steal_pointer (&journal);
}

static gboolean
write_line (int fd, const char *line, gsize len)
{
  while (len > 0)
    {
      gssize n = write (fd, line, len);

      if (n < 0 && errno == EINTR)
        continue;
      if (n < 0)
        return FALSE;
      line += n;
      len -= n;
    }
  return TRUE;
}

static gboolean
append_line (Journal *journal, const char *line, gsize len, GError **error)
{
  if (journal->broken)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED,
                   "%s: not written, because a write before it failed", journal->path);
      return FALSE;
    }
  if (!write_line (journal->fd, line, len))
    {
      fail_errno (journal->path, "cannot write", error);
      journal->broken = !cut_at_end (journal, NULL);
      return FALSE;
    }
  if (fsync (journal->fd) < 0)
    {
      fail_errno (journal->path, "cannot make a record durable", error);
      /* Linux forgets the error with this call: a later fsync would succeed and mean nothing. */
      journal->broken = TRUE;
      cut_at_end (journal, NULL);
      return FALSE;
    }
  journal->end += len;
  return TRUE;
}

gboolean
journal_append (Journal *journal, JsonObject *record, GError **error)
{
  gsize len;
  g_autofree char *text = json_framer_encode (record, &len);
  g_autofree char *sum = get_checksum (text, len - 1);
  g_autofree char *line = g_strdup_printf ("%s %s", sum, text);
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&journal->lock);

  if (len > MAX_RECORD)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_MESSAGE_TOO_LARGE,
                   "%s: a record of %" G_GSIZE_FORMAT " bytes is over the limit of %d",
                   journal->path, len, MAX_RECORD);
      return FALSE;
    }
  return append_line (journal, line, PREFIX_LEN + len, error);
}

gboolean
journal_remove (Journal *journal, GError **error)
{
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&journal->lock);

  if (g_unlink (journal->path) < 0 && errno != ENOENT)
    return fail_errno (journal->path, "cannot remove the journal", error);
  return sync_parent (journal->path, error);
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
