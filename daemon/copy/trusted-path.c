/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/copy/trusted-path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/fail.h"

#define MAX_LINKS 40

typedef struct
{
  const char *path; /* for errors */
  GPtrArray *left;  /* components, the next one last */
  int at;
  guint n_links;
} Walk;

static void
walk_clear (Walk *walk)
{
  g_clear_pointer (&walk->left, g_ptr_array_unref);
  if (walk->at >= 0)
    close (walk->at);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Walk, walk_clear)

/* Takes `fd` over. */
static gboolean
walk_move (Walk *walk, int fd, GError **error)
{
  if (fd < 0)
    return fail_errno (walk->path, "cannot open it", error);
  if (walk->at >= 0)
    close (walk->at);
  walk->at = fd;
  return TRUE;
}

static gboolean
walk_add (Walk *walk, const char *path, GError **error)
{
  g_auto (GStrv) parts = g_strsplit (path, "/", -1);

  for (guint i = g_strv_length (parts); i > 0; i--)
    if (*parts[i - 1] != '\0')
      g_ptr_array_add (walk->left, g_strdup (parts[i - 1]));
  if (*path != '/' && walk->at >= 0)
    return TRUE;
  return walk_move (walk, open (*path == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC), error);
}

static gboolean
walk_follow (Walk *walk, int link, const struct stat *info, GError **error)
{
  char text[PATH_MAX];
  ssize_t n;

  if (info->st_uid != 0 && info->st_uid != geteuid ())
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
                   "%s: a symbolic link on the way belongs to user %u, who could lead it anywhere: "
                   "give the path without it",
                   walk->path, info->st_uid);
      return FALSE;
    }
  n = readlinkat (link, "", text, sizeof text - 1);
  if (n <= 0 || ++walk->n_links > MAX_LINKS)
    {
      errno = n > 0 ? ELOOP : n == 0 ? ENOENT : errno;
      return fail_errno (walk->path, "cannot follow a symbolic link", error);
    }
  text[n] = '\0';
  return walk_add (walk, text, error);
}

static gboolean
walk_step (Walk *walk, GError **error)
{
  g_autofree char *name = g_ptr_array_steal_index (walk->left, walk->left->len - 1);
  int fd = openat (walk->at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  struct stat info;
  gboolean good;

  if (fd < 0 || fstat (fd, &info) < 0)
    {
      good = fail_errno (walk->path, "cannot open it", error);
      if (fd >= 0)
        close (fd);
      return good;
    }
  if (!S_ISLNK (info.st_mode))
    return walk_move (walk, fd, error);
  good = walk_follow (walk, fd, &info, error);
  close (fd);
  return good;
}

static int
walk_run (const char *path, const char *start, GError **error)
{
  g_auto (Walk) walk = { .path = path, .left = g_ptr_array_new_with_free_func (g_free), .at = -1 };

  if (!walk_add (&walk, start, error))
    return -1;
  while (walk.left->len > 0)
    if (!walk_step (&walk, error))
      return -1;
  return g_steal_fd (&walk.at);
}

int
trusted_path_open (const char *path, GError **error)
{
  return walk_run (path, path, error);
}

int
trusted_path_open_parent (const char *path, char **ret_name, GError **error)
{
  const char *slash = strrchr (path, '/');
  const char *name = slash != NULL ? slash + 1 : path;
  g_autofree char *dir = slash != NULL ? g_strndup (path, (gsize)(slash - path) + 1) : NULL;
  int fd;

  if (*name == '\0' || g_str_equal (name, ".") || g_str_equal (name, ".."))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_IS_DIRECTORY, "%s names a directory, not a file",
                   path);
      return -1;
    }
  fd = walk_run (path, dir != NULL ? dir : ".", error);
  if (fd >= 0)
    *ret_name = g_strdup (name);
  return fd;
}
