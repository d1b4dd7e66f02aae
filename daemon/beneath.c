/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

void
beneath_clear (Beneath *place)
{
  if (place->name != NULL && place->parent >= 0)
    close (place->parent);
  g_clear_pointer (&place->name, g_free);
}

/* What `path` is called beneath `dir`, NULL where it isn't beneath it. */
static const char *
strip_dir (const char *dir, const char *path)
{
  gsize len = strlen (dir);

  while (len > 0 && dir[len - 1] == '/')
    len--;
  if (strncmp (path, dir, len) != 0 || path[len] != '/' || path[len + 1] == '\0')
    return NULL;
  return path + len + 1;
}

/* The directory part of `rest`, opened beneath `dir`, which is the administrator's and may be
 * reached through links. */
static int
open_parent (const char *dir, const char *rest)
{
  struct open_how how
      = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
          .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
  g_autofree char *sub = g_path_get_dirname (rest);
  int root = open (dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
  int fd, code;

  if (root < 0)
    return -1;
  fd = (int)syscall (SYS_openat2, root, sub, &how, sizeof how);
  code = errno;
  close (root);
  errno = code;
  return fd;
}

static gboolean
fail_denied (const char *const *dirs, const char *path, const char *key, const char *peer,
             GError **error)
{
  g_autofree char *list = g_strjoinv ("; ", (char **)dirs);

  g_set_error (error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
               "%s is not beneath one of the %s of [peer %s]: %s", path, key, peer,
               *list != '\0' ? list : "there are none");
  return FALSE;
}

static gboolean
fail_parent (const char *path, const char *dir, GError **error)
{
  int code = errno;

  if (code == ELOOP || code == EXDEV)
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
                 "%s: a symbolic link below %s is on its way, and none is followed there", path,
                 dir);
  else
    g_set_error (error, G_IO_ERROR, g_io_error_from_errno (code),
                 "%s: cannot open its directory: %s", path, g_strerror (code));
  return FALSE;
}

/* Nothing that a later use of the path could read in another way. */
static gboolean
is_plain (const char *path)
{
  g_autofree char *canonical = g_canonicalize_filename (path, "/");

  return g_path_is_absolute (path) && g_str_equal (canonical, path);
}

gboolean
beneath_find (const char *const *dirs, const char *path, const char *key, const char *peer,
              Beneath *ret_place, GError **error)
{
  if (!is_plain (path))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                   "\"%s\": expected an absolute path without \"..\", \".\" or \"//\"", path);
      return FALSE;
    }
  for (guint i = 0; dirs[i] != NULL; i++)
    {
      const char *rest = strip_dir (dirs[i], path);
      int parent;

      if (g_str_equal (dirs[i], path))
        {
          *ret_place = (Beneath){ .parent = -1, .name = g_strdup (path) };
          return TRUE;
        }
      if (rest == NULL)
        continue;
      parent = open_parent (dirs[i], rest);
      if (parent < 0)
        return fail_parent (path, dirs[i], error);
      *ret_place = (Beneath){ .parent = parent, .name = g_path_get_basename (rest) };
      return TRUE;
    }
  return fail_denied (dirs, path, key, peer, error);
}

int
beneath_open_path (const Beneath *place)
{
  if (place->parent < 0)
    return open (place->name, O_PATH | O_CLOEXEC);
  return openat (place->parent, place->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}
