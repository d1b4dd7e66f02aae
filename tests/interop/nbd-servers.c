/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/interop/nbd-servers.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTENER 3

struct NbdServer
{
  GSubprocess *process;
  guint16 port;
};

static int
listen_unix (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  g_assert_no_errno (bind (fd, (struct sockaddr *)&address, sizeof address));
  return fd;
}

static int
listen_tcp (guint16 *ret_port)
{
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl (INADDR_LOOPBACK) } };
  socklen_t len = sizeof address;
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_assert_no_errno (bind (fd, (struct sockaddr *)&address, sizeof address));
  g_assert_no_errno (getsockname (fd, (struct sockaddr *)&address, &len));
  *ret_port = ntohs (address.sin_port);
  return fd;
}

NbdServer *
nbd_server_start (const char *path, const char *const *argv)
{
  NbdServer *server = g_new0 (NbdServer, 1);
  g_autoptr (GSubprocessLauncher) launcher
      = g_subprocess_launcher_new (G_SUBPROCESS_FLAGS_STDERR_SILENCE);
  g_autoptr (GStrvBuilder) builder = g_strv_builder_new ();
  g_auto (GStrv) command = NULL;
  g_autoptr (GError) error = NULL;
  int fd = path != NULL ? listen_unix (path) : listen_tcp (&server->port);

  g_assert_no_errno (listen (fd, 8));
  g_subprocess_launcher_take_fd (launcher, fd, LISTENER);
  g_strv_builder_add_many (builder, "sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"",
                           NULL);
  for (guint i = 0; argv[i] != NULL; i++)
    {
      g_autoptr (GString) arg = g_string_new (argv[i]);

      g_string_replace (arg, "@FD@", G_STRINGIFY (LISTENER), 0);
      g_strv_builder_add (builder, arg->str);
    }
  command = g_strv_builder_end (builder);
  server->process = g_subprocess_launcher_spawnv (launcher, (const char *const *)command, &error);
  g_assert_no_error (error);
  return server;
}

guint16
nbd_server_get_port (const NbdServer *server)
{
  return server->port;
}

void
nbd_server_stop (NbdServer *server)
{
  if (server == NULL)
    return;
  g_subprocess_send_signal (server->process, SIGTERM);
  g_assert_true (g_subprocess_wait (server->process, NULL, NULL));
  g_object_unref (server->process);
  g_free (server);
}

void
run_command (const char *format, ...)
{
  g_autofree char *command = NULL;
  g_autoptr (GError) error = NULL;
  va_list args;
  int status = 0;
  const char *argv[] = { "sh", "-ec", NULL, NULL };

  va_start (args, format);
  command = g_strdup_vprintf (format, args);
  va_end (args);
  argv[2] = command;
  g_spawn_sync (NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL, NULL,
                NULL, NULL, NULL, &status, &error);
  g_assert_no_error (error);
  g_spawn_check_wait_status (status, &error);
  g_assert_no_error (error);
}
