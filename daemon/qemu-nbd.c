/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/qemu-nbd.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "daemon/tool.h"

/* The connection ends at once when the server does; its exit follows within that. */
#define LAST_WORDS_MS 2000

struct QemuNbd
{
  Tool *tool;
  char *path;
};

/* A listening socket for root alone, from the first moment on: fchmod() before bind() decides. */
static int
listen_on (const char *path, GError **error)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd, code;

  if (g_strlcpy (address.sun_path, path, sizeof address.sun_path) >= sizeof address.sun_path)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_FILENAME_TOO_LONG,
                   "%s is too long for a socket: at most %" G_GSIZE_FORMAT " bytes", path,
                   sizeof address.sun_path - 1);
      return -1;
    }
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && fchmod (fd, 0600) == 0
      && bind (fd, (const struct sockaddr *)&address, sizeof address) == 0 && listen (fd, 1) == 0)
    return fd;
  code = errno;
  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (code), "cannot make the socket %s: %s",
               path, g_strerror (code));
  if (fd >= 0)
    close (fd);
  return -1;
}

static Tool *
spawn (int listener, int image, const char *format, GError **error)
{
  g_autofree char *options = g_strdup_printf (
      "driver=%s,discard=unmap,file.driver=file,file.discard=unmap,file.filename=/proc/self/fd/4",
      format);
  const char *const argv[] = { "qemu-nbd", "--discard=unmap", "--image-opts", options, NULL };
  const int fds[] = { listener, image };
  const ToolSpec spec = { .argv = argv, .fds = fds, .n_fds = 2, .socket_activation = TRUE };

  return tool_spawn (&spec, error);
}

/* The server's own words tell more than the end of the connection, where it has any. */
static void
explain (QemuNbd *server, GError **error)
{
  g_autoptr (GError) words = NULL;

  if (tool_wait (server->tool, deadline_in (LAST_WORDS_MS, NULL), &words)
      || g_error_matches (words, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
    return;
  g_clear_error (error);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", server->path, words->message);
}

static QemuNbd *
start_on (int listener, const char *socket_path, int fd, const char *path, const char *format,
          gboolean is_zero, gint64 timeout_ms, GCancellable *cancellable, NbdTarget **ret_target,
          GError **error)
{
  g_autoptr (QemuNbd) server = g_new0 (QemuNbd, 1);
  NbdTarget *target;

  server->path = g_strdup (path);
  server->tool = spawn (listener, fd, format, error);
  /* From here on the socket lives and dies with the server: connecting to a dead one fails at
   * once, instead of waiting. */
  close (listener);
  if (server->tool == NULL)
    return NULL;
  target = nbd_target_new_socket (socket_path, "", path, is_zero, timeout_ms, cancellable, error);
  if (target == NULL)
    {
      if (cancellable == NULL || !g_cancellable_is_cancelled (cancellable))
        explain (server, error);
      return NULL;
    }
  nbd_target_set_file (target, fd);
  *ret_target = target;
  return g_steal_pointer (&server);
}

QemuNbd *
qemu_nbd_start (int fd, const char *path, const char *format, const char *runtime_dir,
                gboolean is_zero, gint64 timeout_ms, GCancellable *cancellable,
                NbdTarget **ret_target, GError **error)
{
  g_autofree char *uuid = g_uuid_string_random ();
  g_autofree char *name = g_strdup_printf ("nbd-%.13s", uuid);
  g_autofree char *socket_path = g_build_filename (runtime_dir, name, NULL);
  int listener = listen_on (socket_path, error);
  QemuNbd *server;

  if (listener < 0)
    return NULL;
  server = start_on (listener, socket_path, fd, path, format, is_zero, timeout_ms, cancellable,
                     ret_target, error);
  g_unlink (socket_path);
  return server;
}

gboolean
qemu_nbd_finish (QemuNbd *server, gint64 timeout_ms, GError **error)
{
  if (tool_wait (server->tool, deadline_in (timeout_ms, NULL), error))
    return TRUE;
  g_prefix_error (error, "%s: ", server->path);
  tool_stop (server->tool, 0);
  return FALSE;
}

void
qemu_nbd_free (QemuNbd *server)
{
  if (server == NULL)
    return;
  tool_free (server->tool);
  g_free (server->path);
  g_free (server);
}
