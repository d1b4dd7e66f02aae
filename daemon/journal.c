/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/fail.h"
#include "daemon/journal-text.h"

/* Of the file that takes the place of a journal. */
#define NEW_SUFFIX ".new"

struct Journal
{
  GMutex lock;
  char *path;      /* for messages; its last component is the name in `dir` */
  int dir;         /* O_PATH */
  int fd;          /* -1: not open yet */
  off_t end;       /* of the last whole record */
  gboolean broken; /* what is on the disk is not known any more */
};

gboolean
journal_sync_parent (const char *path, GError **error)
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

/* Nothing is open yet but the directory: every name is looked up in that one from now on. */
static Journal *
journal_new (int dir, const char *path, GError **error)
{
  g_autofree char *parent = g_path_get_dirname (path);
  g_autoptr (Journal) journal = g_new0 (Journal, 1);

  g_mutex_init (&journal->lock);
  journal->path = g_strdup (path);
  journal->fd = -1;
  journal->dir = dir >= 0 ? fcntl (dir, F_DUPFD_CLOEXEC, 0)
                          : open (parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (journal->dir >= 0)
    return g_steal_pointer (&journal);
  fail_errno (path, "cannot open the directory of the journal", error);
  return NULL;
}

static const char *
get_name (const Journal *journal)
{
  const char *slash = strrchr (journal->path, '/');

  return slash != NULL ? slash + 1 : journal->path;
}

static gboolean
sync_dir (Journal *journal, GError **error)
{
  int fd = openat (journal->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  gboolean good = fd >= 0 && fsync (fd) == 0;

  if (!good)
    fail_errno (journal->path, "cannot make the journal's name durable", error);
  if (fd >= 0)
    close (fd);
  return good;
}

void
journal_free (Journal *journal)
{
  if (journal == NULL)
    return;
  if (journal->fd >= 0)
    close (journal->fd);
  if (journal->dir >= 0)
    close (journal->dir);
  g_mutex_clear (&journal->lock);
  g_free (journal->path);
  g_free (journal);
}

static gboolean
create_file (Journal *journal, const char *name, GError **error)
{
  journal->fd = openat (journal->dir, name,
                        O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  return journal->fd >= 0 || fail_errno (journal->path, "cannot create the journal", error);
}

Journal *
journal_create_at (int dir, const char *path, GError **error)
{
  g_autoptr (Journal) journal = journal_new (dir, path, error);

  if (journal == NULL || !create_file (journal, get_name (journal), error))
    return NULL;
  if (!sync_dir (journal, error))
    {
      unlinkat (journal->dir, get_name (journal), 0);
      return NULL;
    }
  return g_steal_pointer (&journal);
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
      if (text->len + n > JOURNAL_MAX_FILE)
        {
          g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                       "%s is larger than %d MiB: it is no journal of ours", path,
                       JOURNAL_MAX_FILE / 1024 / 1024);
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

/* Where others may write to the directory, they could have put a file of theirs there, or a second
 * name of one that is not to be touched. */
static gboolean
check_ours (int fd, const char *path, GError **error)
{
  struct stat info;

  if (fstat (fd, &info) < 0)
    return fail_errno (path, "cannot look at the journal", error);
  if (S_ISREG (info.st_mode) && info.st_nlink <= 1
      && (info.st_uid == geteuid () || info.st_uid == 0))
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
               "%s: this is no journal of ours: a regular file of this user with one name is "
               "expected",
               path);
  return FALSE;
}

Journal *
journal_open_at (int dir, const char *path, GPtrArray **ret_records, GError **error)
{
  g_autoptr (Journal) journal = journal_new (dir, path, error);
  g_autoptr (GPtrArray) records = NULL;
  g_autoptr (GString) text = g_string_new (NULL);
  gsize end;

  if (journal == NULL)
    return NULL;
  journal->fd = openat (journal->dir, get_name (journal),
                        O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (journal->fd < 0)
    {
      fail_errno (path, "cannot open the journal", error);
      return NULL;
    }
  if (!check_ours (journal->fd, path, error) || !read_all (journal->fd, path, text, error))
    return NULL;
  records = journal_text_decode (path, text->str, text->len, &end, error);
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

/* What journal_open_at () would not read must not be written. */
static gboolean
check_limits (const char *path, guint64 end, gsize len, GError **error)
{
  if (len <= JOURNAL_MAX_RECORD && end + len <= JOURNAL_MAX_FILE)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_MESSAGE_TOO_LARGE,
               "%s: a record of %" G_GSIZE_FORMAT " bytes at %" G_GUINT64_FORMAT
               " is over the limit of %d for it, or %d for the journal",
               path, len, end, JOURNAL_MAX_RECORD, JOURNAL_MAX_FILE);
  return FALSE;
}

gboolean
journal_append (Journal *journal, JsonObject *record, GError **error)
{
  gsize len;
  g_autofree char *line = journal_text_encode (record, &len);
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&journal->lock);

  return check_limits (journal->path, (guint64)journal->end, len, error)
         && append_line (journal, line, len, error);
}

static gboolean
write_records (Journal *journal, const GPtrArray *records, GError **error)
{
  for (guint i = 0; i < records->len; i++)
    {
      gsize len;
      g_autofree char *line = journal_text_encode (g_ptr_array_index (records, i), &len);

      if (!check_limits (journal->path, (guint64)journal->end, len, error))
        return FALSE;
      if (!write_line (journal->fd, line, len))
        return fail_errno (journal->path, "cannot write", error);
      journal->end += len;
    }
  if (fsync (journal->fd) < 0)
    return fail_errno (journal->path, "cannot make the journal durable", error);
  return TRUE;
}

/* A new file of that name with `records` in it, durable, but for its name. */
static Journal *
make_new (Journal *old, const char *name, const GPtrArray *records, GError **error)
{
  g_autoptr (Journal) journal = NULL;

  if (unlinkat (old->dir, name, 0) < 0 && errno != ENOENT)
    {
      fail_errno (old->path, "cannot remove what a crash left beside it", error);
      return NULL;
    }
  journal = journal_new (old->dir, old->path, error);
  if (journal == NULL || !create_file (journal, name, error))
    return NULL;
  if (!write_records (journal, records, error))
    {
      unlinkat (old->dir, name, 0);
      return NULL;
    }
  return g_steal_pointer (&journal);
}

gboolean
journal_rewrite (Journal *journal, const GPtrArray *records, GError **error)
{
  g_autofree char *name = g_strconcat (get_name (journal), NEW_SUFFIX, NULL);
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&journal->lock);
  g_autoptr (Journal) made = make_new (journal, name, records, error);
  int old = journal->fd;

  if (made == NULL)
    return FALSE;
  if (renameat (journal->dir, name, journal->dir, get_name (journal)) < 0)
    {
      fail_errno (journal->path, "cannot put the new journal in its place", error);
      unlinkat (journal->dir, name, 0);
      return FALSE;
    }
  journal->fd = made->fd;
  journal->end = made->end;
  journal->broken = FALSE;
  made->fd = old;
  return sync_dir (journal, error);
}

guint64
journal_get_size (Journal *journal)
{
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&journal->lock);

  return (guint64)journal->end;
}

gboolean
journal_remove (Journal *journal, GError **error)
{
  g_autofree char *made = g_strconcat (get_name (journal), NEW_SUFFIX, NULL);
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&journal->lock);

  unlinkat (journal->dir, made, 0);
  if (unlinkat (journal->dir, get_name (journal), 0) < 0 && errno != ENOENT)
    return fail_errno (journal->path, "cannot remove the journal", error);
  return sync_dir (journal, error);
}
