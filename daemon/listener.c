/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/door.h"
#include "daemon/sock-diag.h"

#define BACKLOG 16
/* Where QEMU does wait for a peer that is gone, it waits no longer than this. */
#define USER_TIMEOUT_MS 8000
#define KEEPALIVE_S 5

struct Listener
{
  int fd;
  guint16 port;
};

typedef union
{
  struct sockaddr any;
  struct sockaddr_in ipv4;
  struct sockaddr_in6 ipv6;
} Address;

static gboolean
fail_errno (const char *what, GError **error)
{
  int code = errno;

  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (code), "%s: %s", what, g_strerror (code));
  return FALSE;
}

/* Where the kernel has no IPv6, "::" means any IPv4 address. */
static gboolean
parse_address (const char *text, Address *ret_address, GError **error)
{
  g_autoptr (GSocketAddress) parsed = g_inet_socket_address_new_from_string (text, 0);
  Address address = { 0 };

  if (parsed == NULL || !g_socket_address_to_native (parsed, &address, sizeof address, NULL))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                   "\"%s\" is not an IP address to listen on", text);
      return FALSE;
    }
  if (address.any.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED (&address.ipv6.sin6_addr))
    {
      int fd = socket (AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

      if (fd < 0 && errno == EAFNOSUPPORT)
        address.ipv4 = (struct sockaddr_in){ .sin_family = AF_INET };
      else if (fd >= 0)
        close (fd);
    }
  *ret_address = address;
  return TRUE;
}

static gboolean
set_int (int fd, int level, int option, int value)
{
  return setsockopt (fd, level, option, &value, sizeof value) == 0;
}

/* SO_REUSEADDR as QEMU's own listeners have it: what a former job left in TIME_WAIT is no
 * hindrance. -1 with errno. */
static int
listen_on_port (const Address *address, guint16 port)
{
  Address bound = *address;
  gboolean ipv6 = bound.any.sa_family == AF_INET6;
  int fd = socket (bound.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int code;

  if (fd < 0)
    return -1;
  if (ipv6)
    bound.ipv6.sin6_port = htons (port);
  else
    bound.ipv4.sin_port = htons (port);
  if (set_int (fd, SOL_SOCKET, SO_REUSEADDR, 1)
      && (!ipv6 || set_int (fd, IPPROTO_IPV6, IPV6_V6ONLY, 0))
      && bind (fd, &bound.any, ipv6 ? sizeof bound.ipv6 : sizeof bound.ipv4) == 0
      && door_close (fd, NULL) && listen (fd, BACKLOG) == 0)
    return fd;
  code = errno;
  close (fd);
  errno = code;
  return -1;
}

/* Listens on a free port with the door closed.  Successive calls start at successive ports, because
 * one that was found free for QEMU is not bound before QEMU gets to it. */
static int
listen_in_range (const char *text, guint16 port_min, guint16 port_max, guint16 *ret_port,
                 GError **error)
{
  static guint next;
  guint count = port_max - port_min + 1u;
  guint start = (guint)g_atomic_int_add (&next, 1);
  g_autofree char *what = NULL;
  Address address;

  if (!parse_address (text, &address, error))
    return -1;
  for (guint i = 0; i < count; i++)
    {
      guint16 port = port_min + (start + i) % count;
      int fd = listen_on_port (&address, port);

      if (fd >= 0)
        {
          *ret_port = port;
          return fd;
        }
      if (errno == EADDRINUSE)
        continue;
      what = g_strdup_printf ("cannot listen on %s port %u", text, port);
      fail_errno (what, error);
      return -1;
    }
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_ADDRESS_IN_USE,
               "none of the ports %u-%u is free: widen ports= in vmferryd.conf", port_min,
               port_max);
  return -1;
}

/* What an accepted socket inherits. */
static gboolean
set_options (int fd, gsize send_buffer, gsize *ret_send_buffer, GError **error)
{
  /* The kernel doubles what it is given, for its own bookkeeping: half of what it says is data. */
  int wanted = (int)MIN (send_buffer, (gsize)G_MAXINT / 2);
  int got = 0;
  socklen_t len = sizeof got;

  if (!set_int (fd, IPPROTO_TCP, TCP_NODELAY, 1)
      || !set_int (fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
      || !set_int (fd, SOL_SOCKET, SO_KEEPALIVE, 1)
      || !set_int (fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_S)
      || !set_int (fd, IPPROTO_TCP, TCP_KEEPINTVL, 1) || !set_int (fd, IPPROTO_TCP, TCP_KEEPCNT, 3))
    return fail_errno ("cannot set the options of the listening socket", error);
  if (!set_int (fd, SOL_SOCKET, SO_SNDBUFFORCE, wanted)
      && !(errno == EPERM && set_int (fd, SOL_SOCKET, SO_SNDBUF, wanted)))
    return fail_errno ("cannot set the send buffer of the listening socket", error);
  if (getsockopt (fd, SOL_SOCKET, SO_SNDBUF, &got, &len) < 0)
    return fail_errno ("cannot ask for the send buffer of the listening socket", error);
  *ret_send_buffer = got / 2;
  return TRUE;
}

Listener *
listener_new (const char *address, guint16 port_min, guint16 port_max, const char *peer_address,
              gsize send_buffer, gsize *ret_send_buffer, GError **error)
{
  g_autoptr (Listener) listener = NULL;
  gsize got;
  guint16 port;
  int fd = listen_in_range (address, port_min, port_max, &port, error);

  if (fd < 0)
    return NULL;
  listener = g_new0 (Listener, 1);
  listener->fd = fd;
  listener->port = port;
  if (!set_options (fd, send_buffer, &got, error) || !door_open_for (fd, peer_address, error))
    return NULL;
  *ret_send_buffer = got;
  return g_steal_pointer (&listener);
}

static gboolean
listens_on (int fd, guint16 port)
{
  Address address = { 0 };
  socklen_t len = sizeof address;
  int listening = 0;
  socklen_t listening_len = sizeof listening;

  if (getsockopt (fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &listening_len) < 0 || !listening
      || getsockname (fd, &address.any, &len) < 0)
    return FALSE;
  if (address.any.sa_family == AF_INET)
    return address.ipv4.sin_port == htons (port);
  return address.any.sa_family == AF_INET6 && address.ipv6.sin6_port == htons (port);
}

/* A duplicate of the first of the process's sockets that listens on `port`, or -1. */
static int
find_socket (GDir *fds, const char *path, int pidfd, guint16 port)
{
  const char *name;

  while ((name = g_dir_read_name (fds)) != NULL)
    {
      g_autofree char *file = g_build_filename (path, name, NULL);
      g_autofree char *link = g_file_read_link (file, NULL);
      int fd;

      if (link == NULL || !g_str_has_prefix (link, "socket:"))
        continue;
      fd = (int)syscall (SYS_pidfd_getfd, pidfd, atoi (name), 0);
      if (fd >= 0 && listens_on (fd, port))
        return fd;
      if (fd >= 0)
        close (fd);
    }
  return -1;
}

Listener *
listener_recover (pid_t pid, guint16 port, GError **error)
{
  g_autofree char *path = g_strdup_printf ("/proc/%d/fd", pid);
  int pidfd = (int)syscall (SYS_pidfd_open, pid, 0);
  g_autoptr (GDir) fds = pidfd >= 0 ? g_dir_open (path, 0, NULL) : NULL;
  Listener *listener;
  int fd = fds != NULL ? find_socket (fds, path, pidfd, port) : -1;

  if (pidfd >= 0)
    close (pidfd);
  if (fd < 0)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                   "process %d has no socket that listens on port %u", pid, port);
      return NULL;
    }
  listener = g_new0 (Listener, 1);
  listener->fd = fd;
  listener->port = port;
  return listener;
}

void
listener_free (Listener *listener)
{
  if (listener == NULL)
    return;
  close (listener->fd);
  g_free (listener);
}

int
listener_get_fd (const Listener *listener)
{
  return listener->fd;
}

guint16
listener_get_port (const Listener *listener)
{
  return listener->port;
}

gboolean
listener_close_door (Listener *listener, GError **error)
{
  return door_close (listener->fd, error);
}

gboolean
listener_query (Listener *listener, ListenerStatus *ret_status, GError **error)
{
  SockDiagSum sum;

  if (!sock_diag_query (listener->port, &sum, error))
    return FALSE;
  ret_status->connections = sum.connections;
  ret_status->unsent_bytes = sum.unsent_bytes;
  return TRUE;
}

gboolean
listener_destroy_connections (Listener *listener, GError **error)
{
  return sock_diag_destroy (listener->port, error);
}

gboolean
listener_find_port (const char *address, guint16 port_min, guint16 port_max, guint16 *ret_port,
                    GError **error)
{
  int fd = listen_in_range (address, port_min, port_max, ret_port, error);

  if (fd < 0)
    return FALSE;
  close (fd);
  return TRUE;
}
