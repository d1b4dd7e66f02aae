/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/fail.h"

#include <errno.h>

gboolean
fail_errno (const char *path, const char *what, GError **error)
{
  int code = errno;

  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (code), "%s: %s: %s", path, what,
               g_strerror (code));
  return FALSE;
}
