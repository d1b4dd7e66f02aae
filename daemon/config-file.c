/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/config-file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_MAX_BYTES (1024 * 1024)

static gboolean
fail_errno (const char *path, GError **error)
{
  int code = errno;

  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (code), "%s: %s", path, g_strerror (code));
  return FALSE;
}

/* Reads what was checked: one descriptor for both. */
gboolean
config_file_read (const char *path, char **ret_text, GError **error)
{
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  g_autofree char *text = g_malloc (CONFIG_MAX_BYTES + 1);
  const char *why = NULL;
  struct stat st;
  gssize n;

  if (fd < 0)
    return fail_errno (path, error);
  if (fstat (fd, &st) < 0 || (n = read (fd, text, CONFIG_MAX_BYTES + 1)) < 0)
    {
      fail_errno (path, error);
      close (fd);
      return FALSE;
    }
  close (fd);
  if (!S_ISREG (st.st_mode))
    why = "is not a regular file";
  else if (st.st_mode & S_IWOTH)
    why = "may be written by others: chmod o-w";
  else if (n > CONFIG_MAX_BYTES)
    why = "is larger than 1 MiB";
  else if (!g_utf8_validate_len (text, n, NULL))
    why = "is not UTF-8";
  if (why != NULL)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s %s", path, why);
      return FALSE;
    }
  text[n] = '\0';
  *ret_text = g_steal_pointer (&text);
  return TRUE;
}
