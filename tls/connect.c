/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/channel.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tls/resolve.h"

/* A peer that vanished is noticed after KEEPALIVE_IDLE_S + COUNT * INTERVAL seconds of silence. */
#define KEEPALIVE_IDLE_S 10
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_COUNT 3

/* How often a UNIX socket whose queue is full is tried again: poll(2) can't wait for it. */
#define QUEUE_RETRY_MS 20

static gboolean
fail_errno (int code, GError **error)
{
  g_set_error_literal (error, G_IO_ERROR, g_io_error_from_errno (code), g_strerror (code));
  return FALSE;
}

static void
set_option (int fd, int level, int name, int value)
{
  setsockopt (fd, level, name, &value, sizeof value);
}

/* The receive buffer is left to the kernel: its own tuning goes beyond what SO_RCVBUF may set. */
static void
set_tcp_options (int fd)
{
  set_option (fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option (fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option (fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
  set_option (fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
  set_option (fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT);
}

static gboolean
finish_connect (int fd, Deadline deadline, GError **error)
{
  int code = 0;
  socklen_t len = sizeof code;

  if (!deadline_poll (deadline, fd, POLLOUT, error))
    return FALSE;
  if (getsockopt (fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0)
    code = errno;
  return code == 0 || fail_errno (code, error);
}

static gboolean
wait_for_queue (Deadline deadline, GError **error)
{
  /* it ends by time, which is what is wanted here, or by a cancellation, which the check reports */
  deadline_poll (deadline_sooner (deadline, QUEUE_RETRY_MS), -1, 0, NULL);
  if (deadline_check (deadline, error))
    return TRUE;
  if (error != NULL && g_error_matches (*error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
    g_prefix_error (error, "its queue is full (another client may hold it): ");
  return FALSE;
}

static gboolean
connect_socket (int fd, const struct sockaddr *address, socklen_t len, Deadline deadline,
                GError **error)
{
  while (connect (fd, address, len) < 0)
    {
      int code = errno;
      if (code == EINPROGRESS || code == EINTR)
        return finish_connect (fd, deadline, error);
      if (code != EAGAIN || address->sa_family != AF_UNIX)
        return fail_errno (code, error);
      if (!wait_for_queue (deadline, error))
        return FALSE;
    }
  return TRUE;
}

/* Returns a connected, non-blocking socket, or -1. */
static int
connect_native (const struct sockaddr *address, socklen_t len, Deadline deadline, GError **error)
{
  int fd = socket (address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

  if (fd < 0)
    {
      fail_errno (errno, error);
      return -1;
    }
  if (address->sa_family != AF_UNIX)
    set_tcp_options (fd);
  if (connect_socket (fd, address, len, deadline, error))
    return fd;
  close (fd);
  return -1;
}

static int
connect_address (GSocketAddress *address, Deadline deadline, GError **error)
{
  struct sockaddr_storage native;

  if (!g_socket_address_to_native (address, &native, sizeof native, error))
    return -1;
  return connect_native ((struct sockaddr *)&native,
                         (socklen_t)g_socket_address_get_native_size (address), deadline, error);
}

/* An address that swallows packets may not use up the time of those after it. */
static Deadline
deadline_share (Deadline deadline, guint n_left)
{
  int left_ms = deadline_left_ms (deadline);

  return left_ms < 0 ? deadline : deadline_sooner (deadline, left_ms / (int)n_left);
}

static void
note_failure (GString *failures, GSocketAddress *address, const char *host, const GError *error)
{
  GInetAddress *inet = g_inet_socket_address_get_address (G_INET_SOCKET_ADDRESS (address));
  g_autofree char *text = g_inet_address_to_string (inet);

  g_string_append_printf (failures, "%s%s", failures->len > 0 ? ", " : "", error->message);
  if (!g_str_has_prefix (host, text))
    g_string_append_printf (failures, " (%s)", text);
}

/* Returns the first address that answers; the error tells of all of them, its code is the last. */
static int
connect_any (GPtrArray *addresses, const char *host, Deadline deadline, GError **error)
{
  g_autoptr (GString) failures = g_string_new (NULL);

  for (guint i = 0; i < addresses->len; i++)
    {
      GSocketAddress *address = g_ptr_array_index (addresses, i);
      g_autoptr (GError) local = NULL;
      int fd = connect_address (address, deadline_share (deadline, addresses->len - i), &local);
      if (fd >= 0)
        return fd;
      note_failure (failures, address, host, local);
      gboolean cancelled = g_error_matches (local, G_IO_ERROR, G_IO_ERROR_CANCELLED);
      if (i + 1 == addresses->len || cancelled)
        {
          g_set_error_literal (error, local->domain, local->code, failures->str);
          break;
        }
    }
  return -1;
}

Channel *
channel_connect_tcp (const char *host, guint16 port, Deadline deadline, GError **error)
{
  gboolean bare_v6 = strchr (host, ':') != NULL;
  g_autofree char *peer = g_strdup_printf (bare_v6 ? "[%s]:%u" : "%s:%u", host, port);
  g_autoptr (GPtrArray) addresses = resolve_host (host, port, deadline, error);
  int fd = addresses != NULL ? connect_any (addresses, host, deadline, error) : -1;

  if (fd < 0)
    {
      g_prefix_error (error, "cannot connect to %s: ", peer);
      return NULL;
    }
  return channel_new_fd (fd, peer);
}

Channel *
channel_connect_unix (const char *path, Deadline deadline, GError **error)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  gsize len = strlen (path);
  int fd = -1;

  if (len >= sizeof address.sun_path)
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_FILENAME_TOO_LONG,
                 "the path is too long for a socket (%zu bytes, at most %zu)", len,
                 sizeof address.sun_path - 1);
  else
    {
      memcpy (address.sun_path, path, len);
      fd = connect_native ((struct sockaddr *)&address, sizeof address, deadline, error);
    }
  if (fd < 0)
    {
      g_prefix_error (error, "cannot connect to %s: ", path);
      return NULL;
    }
  return channel_new_fd (fd, path);
}
