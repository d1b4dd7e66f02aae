/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/fence.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qmp/qmp-machine.h"
#include "qmp/qmp-object.h"

/* QEMU locks byte 100 + n while it uses permission n, and 200 + n while it shares it with nobody
 * (BLK_PERM_WRITE is 1). */
#define BYTE_WRITE 101
#define BYTE_NO_OTHER_WRITE 201
#define BYTE_FIRST 100
#define BYTE_LAST 299
#define DELETED " (deleted)"

static gboolean
is_same_file (const char *a, const char *b)
{
  struct stat first, second;

  return stat (a, &first) == 0 && stat (b, &second) == 0 && first.st_dev == second.st_dev
         && first.st_ino == second.st_ino;
}

static gboolean
links_to (const char *file, const char *image)
{
  g_autofree char *link = g_file_read_link (file, NULL);

  if (link == NULL || link[0] != '/')
    return FALSE;
  if (g_str_equal (link, image))
    return TRUE;
  /* A file that was removed meanwhile is still the guest's disk. */
  if (g_str_has_suffix (link, DELETED) && strlen (link) - strlen (DELETED) == strlen (image)
      && g_str_has_prefix (link, image))
    return TRUE;
  return is_same_file (file, image);
}

/* The numbers of the descriptors that process `pid` has open on `image`. */
static GArray *
find_fds (pid_t pid, const char *image)
{
  g_autofree char *path = g_strdup_printf ("/proc/%d/fd", pid);
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  GArray *fds = g_array_new (FALSE, FALSE, sizeof (int));
  const char *name;

  while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *file = g_build_filename (path, name, NULL);
      int fd = atoi (name);

      if (links_to (file, image))
        g_array_append_val (fds, fd);
    }
  return fds;
}

/* A line of /proc/PID/fdinfo/N, proc(5):
 * "lock:\t1: OFDLCK  ADVISORY  READ -1 08:01:1234 100 101", the last two the range. */
static gboolean
is_image_lock (const char *line)
{
  gint64 first, last;

  return g_str_has_prefix (line, "lock:")
         && (strstr (line, "OFDLCK") != NULL || strstr (line, "POSIX") != NULL)
         && sscanf (strrchr (line, ':'), ":%*s %" G_GINT64_FORMAT " %" G_GINT64_FORMAT, &first,
                    &last)
                == 2
         && first <= BYTE_LAST && last >= BYTE_FIRST;
}

static gboolean
fd_has_image_lock (pid_t pid, int fd)
{
  g_autofree char *path = g_strdup_printf ("/proc/%d/fdinfo/%d", pid, fd);
  g_autofree char *text = NULL;
  g_auto (GStrv) lines = NULL;

  if (!g_file_get_contents (path, &text, NULL, NULL))
    return FALSE;
  lines = g_strsplit (text, "\n", -1);
  for (guint i = 0; lines[i] != NULL; i++)
    if (is_image_lock (lines[i]))
      return TRUE;
  return FALSE;
}

gboolean
fence_image_is_locked (pid_t pid, const char *image)
{
  g_autoptr (GArray) fds = find_fds (pid, image);

  for (guint i = 0; i < fds->len; i++)
    if (fd_has_image_lock (pid, g_array_index (fds, int, i)))
      return TRUE;
  return FALSE;
}

static gboolean
check_postmigrate (QmpExecutor *executor, GError **error)
{
  g_autofree char *status = NULL;

  if (!qmp_query_status (executor, NULL, &status, NULL, error))
    return FALSE;
  if (g_str_equal (status, "postmigrate"))
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED,
               "%s: not fenced: its state is %s, not postmigrate", executor->name, status);
  return FALSE;
}

static gboolean
lock_byte (int fd, off_t byte)
{
  struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

  return fcntl (fd, F_OFD_SETLK, &lock) == 0;
}

/* An open file of our own on what that descriptor of the process leads to, locked; -1 with
 * errno. */
static int
open_locked (pid_t pid, int number)
{
  g_autofree char *path = g_strdup_printf ("/proc/%d/fd/%d", pid, number);
  int fd = open (path, O_RDONLY | O_CLOEXEC);
  int code;

  if (fd < 0 || (lock_byte (fd, BYTE_WRITE) && lock_byte (fd, BYTE_NO_OTHER_WRITE)))
    return fd;
  code = errno;
  close (fd);
  errno = code;
  return -1;
}

static int
lock_one (pid_t pid, const char *const *images, GError **error)
{
  const char *image = "no image";
  int code = ENOENT;

  for (guint i = 0; images[i] != NULL; i++)
    {
      g_autoptr (GArray) fds = find_fds (pid, images[i]);

      image = images[i];
      for (guint k = 0; k < fds->len; k++)
        {
          int fd = open_locked (pid, g_array_index (fds, int, k));

          if (fd >= 0)
            return fd;
          code = errno;
        }
    }
  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (code),
               "not fenced: none of the images that process %d has open can be locked: %s: %s", pid,
               image, g_strerror (code));
  return -1;
}

/* After a failure QEMU may still have got it. */
static gboolean
park (QmpExecutor *executor, const char *fd_name, int fd, GError **error)
{
  if (qmp_getfd (executor, fd_name, fd, NULL, error))
    return TRUE;
  qmp_closefd (executor, fd_name, NULL, NULL);
  return FALSE;
}

gboolean
fence_raise (QmpExecutor *executor, pid_t pid, const char *const *images, const char *fd_name,
             GError **error)
{
  gboolean good;
  int fd;

  if (!check_postmigrate (executor, error))
    return FALSE;
  fd = lock_one (pid, images, error);
  if (fd < 0)
    return FALSE;
  /* Between the first look and the lock somebody may have sent `cont`. */
  good = check_postmigrate (executor, error) && park (executor, fd_name, fd, error);
  close (fd);
  return good;
}

gboolean
fence_lift (QmpExecutor *executor, const char *fd_name, GError **error)
{
  return qmp_closefd (executor, fd_name, NULL, error);
}
