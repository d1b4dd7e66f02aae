/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/listener.h"

#define PORT_MIN 47110
#define PORT_MAX 47139
#define SEND_BUFFER (8 * 1024 * 1024)
#define DEADLINE_MS 10000

static Listener *
new_listener (const char *address, const char *peer)
{
  g_autoptr (GError) error = NULL;
  gsize send_buffer = 0;
  Listener *listener
      = listener_new (address, PORT_MIN, PORT_MAX, peer, SEND_BUFFER, &send_buffer, &error);

  if (listener == NULL)
    fail_msg ("%s", error->message);
  assert_in_range (listener_get_port (listener), PORT_MIN, PORT_MAX);
  if (geteuid () == 0)
    assert_int_equal (send_buffer, SEND_BUFFER);
  assert_in_range (send_buffer, 4096, SEND_BUFFER);
  return listener;
}

/* A connection attempt from one local address to another, which goes on in the background.  On
 * loopback it is over when connect () returns, unless a packet was dropped. */
static int
start_connect (const char *from, const char *to, guint16 port)
{
  g_autoptr (GSocketAddress) source = g_inet_socket_address_new_from_string (from, 0);
  g_autoptr (GSocketAddress) target = g_inet_socket_address_new_from_string (to, port);
  struct sockaddr_storage native = { 0 };
  int fd = socket (g_socket_address_get_family (target), SOCK_STREAM | SOCK_NONBLOCK, 0);

  assert_true (fd >= 0);
  assert_true (g_socket_address_to_native (source, &native, sizeof native, NULL));
  assert_int_equal (
      bind (fd, (struct sockaddr *)&native, g_socket_address_get_native_size (source)), 0);
  assert_true (g_socket_address_to_native (target, &native, sizeof native, NULL));
  if (connect (fd, (struct sockaddr *)&native, g_socket_address_get_native_size (target)) < 0)
    assert_int_equal (errno, EINPROGRESS);
  return fd;
}

static gboolean
is_connected (int fd, int timeout_ms)
{
  struct pollfd poller = { .fd = fd, .events = POLLOUT };
  int code = -1;
  socklen_t len = sizeof code;

  return poll (&poller, 1, timeout_ms) == 1
         && getsockopt (fd, SOL_SOCKET, SO_ERROR, &code, &len) == 0 && code == 0;
}

static int
accept_one (Listener *listener)
{
  struct pollfd poller = { .fd = listener_get_fd (listener), .events = POLLIN };

  assert_int_equal (poll (&poller, 1, DEADLINE_MS), 1);
  return accept (poller.fd, NULL, NULL);
}

/* Only the first of the two gets in. */
static void
check_door (const char *listen, const char *peer, const char *to, const char *good, const char *bad)
{
  g_autoptr (Listener) listener = new_listener (listen, peer);
  int stranger = start_connect (bad, to, listener_get_port (listener));
  int client = start_connect (good, to, listener_get_port (listener));
  int late;

  assert_true (is_connected (client, DEADLINE_MS));
  assert_false (is_connected (stranger, 0));
  assert_true (listener_close_door (listener, NULL));
  late = start_connect (good, to, listener_get_port (listener));
  assert_false (is_connected (late, 0));
  close (late);
  close (stranger);
  close (client);
}

static gboolean
has_ipv6 (void)
{
  struct sockaddr_in6 address = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
  int fd = socket (AF_INET6, SOCK_STREAM, 0);
  gboolean good = fd >= 0 && bind (fd, (struct sockaddr *)&address, sizeof address) == 0;

  if (fd >= 0)
    close (fd);
  return good;
}

static void
test_door (void **state)
{
  check_door ("0.0.0.0", "127.0.0.2", "127.0.0.1", "127.0.0.2", "127.0.0.3");
  check_door ("127.0.0.1", "::ffff:127.0.0.2", "127.0.0.1", "127.0.0.2", "127.0.1.2");
  check_door ("::", "127.0.0.2", "127.0.0.1", "127.0.0.2", "127.0.0.1");
}

static void
test_door_ipv6 (void **state)
{
  g_autoptr (Listener) listener = NULL;
  int stranger, client;

  if (!has_ipv6 ())
    skip ();
  listener = new_listener ("::", "::1");
  client = start_connect ("::1", "::1", listener_get_port (listener));
  stranger = start_connect ("127.0.0.1", "127.0.0.1", listener_get_port (listener));
  assert_true (is_connected (client, DEADLINE_MS));
  assert_false (is_connected (stranger, 0));
  close (stranger);
  close (client);
  g_clear_pointer (&listener, listener_free);
  /* Every word of the address counts. */
  listener = new_listener ("::", "::1:0:0:1");
  stranger = start_connect ("::1", "::1", listener_get_port (listener));
  client = start_connect ("127.0.0.1", "127.0.0.1", listener_get_port (listener));
  assert_false (is_connected (stranger, 0));
  assert_false (is_connected (client, 0));
  close (stranger);
  close (client);
}

static int
get_option (int fd, int level, int option)
{
  int value = -1;
  socklen_t len = sizeof value;

  assert_int_equal (getsockopt (fd, level, option, &value, &len), 0);
  return value;
}

static void
test_inherited_options (void **state)
{
  g_autoptr (Listener) listener = new_listener ("127.0.0.1", "127.0.0.1");
  int client = start_connect ("127.0.0.1", "127.0.0.1", listener_get_port (listener));
  int fd = accept_one (listener);

  assert_int_equal (get_option (fd, IPPROTO_TCP, TCP_NODELAY), 1);
  assert_int_equal (get_option (fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 8000);
  assert_int_equal (get_option (fd, SOL_SOCKET, SO_KEEPALIVE), 1);
  if (geteuid () == 0)
    assert_int_equal (get_option (fd, SOL_SOCKET, SO_SNDBUF), 2 * SEND_BUFFER);
  close (fd);
  close (client);
}

static void
test_query (void **state)
{
  g_autoptr (Listener) listener = new_listener ("::", "127.0.0.1");
  ListenerStatus status = { 9, 9 };
  char buf[65536] = { 0 };
  int first, second, fd;

  assert_true (listener_query (listener, &status, NULL));
  assert_int_equal (status.connections, 0);
  assert_int_equal (status.unsent_bytes, 0);
  first = start_connect ("127.0.0.1", "127.0.0.1", listener_get_port (listener));
  fd = accept_one (listener);
  second = start_connect ("127.0.0.1", "127.0.0.1", listener_get_port (listener));
  assert_true (is_connected (second, DEADLINE_MS));
  while (send (fd, buf, sizeof buf, MSG_DONTWAIT) > 0)
    ;
  assert_true (listener_query (listener, &status, NULL));
  assert_int_equal (status.connections, 2);
  assert_true (status.unsent_bytes > 0);
  close (fd);
  close (accept_one (listener));
  /* Closed at our end: what lingers in the kernel is no concern of QEMU's. */
  assert_true (listener_query (listener, &status, NULL));
  assert_int_equal (status.connections, 0);
  close (first);
  close (second);
}

static void
test_destroy (void **state)
{
  g_autoptr (Listener) listener = new_listener ("127.0.0.1", "127.0.0.1");
  g_autoptr (Listener) other = new_listener ("127.0.0.1", "127.0.0.1");
  g_autoptr (GError) error = NULL;
  ListenerStatus status;
  int client, neighbour, fd;
  char byte;

  if (geteuid () != 0)
    skip ();
  client = start_connect ("127.0.0.1", "127.0.0.1", listener_get_port (listener));
  neighbour = start_connect ("127.0.0.1", "127.0.0.1", listener_get_port (other));
  fd = accept_one (listener);
  if (!listener_destroy_connections (listener, &error))
    {
      if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED))
        skip ();
      fail_msg ("%s", error->message);
    }
  assert_int_equal (recv (fd, &byte, 1, 0), -1);
  assert_int_equal (errno, ECONNABORTED);
  assert_true (listener_query (listener, &status, NULL));
  assert_int_equal (status.connections, 0);
  assert_true (listener_query (other, &status, NULL));
  assert_int_equal (status.connections, 1);
  assert_true (listener_destroy_connections (listener, NULL));
  close (fd);
  close (client);
  close (neighbour);
}

static void
test_range_full (void **state)
{
  g_autoptr (Listener) listener = new_listener ("127.0.0.1", "127.0.0.1");
  g_autoptr (GError) error = NULL;
  guint16 port = listener_get_port (listener);
  g_autofree char *expected = g_strdup_printf (
      "none of the ports %u-%u is free: widen ports= in vmferryd.conf", port, port);
  guint16 found = 7;

  assert_false (listener_find_port ("127.0.0.1", port, port, &found, &error));
  assert_int_equal (error->code, G_IO_ERROR_ADDRESS_IN_USE);
  assert_string_equal (error->message, expected);
  assert_int_equal (found, 7);
}

static void
test_find_port (void **state)
{
  guint16 first, second;

  assert_true (listener_find_port ("::", PORT_MIN, PORT_MAX, &first, NULL));
  assert_true (listener_find_port ("::", PORT_MIN, PORT_MAX, &second, NULL));
  assert_in_range (first, PORT_MIN, PORT_MAX);
  assert_int_not_equal (first, second);
}

static void
test_bad_address (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GError) peer_error = NULL;
  gsize send_buffer;

  assert_null (listener_new ("host", PORT_MIN, PORT_MAX, "::1", 4096, &send_buffer, &error));
  assert_string_equal (error->message, "\"host\" is not an IP address to listen on");
  assert_null (listener_new ("::", PORT_MIN, PORT_MAX, "host", 4096, &send_buffer, &peer_error));
  assert_string_equal (peer_error->message, "\"host\" is not an IP address");
}

/* Another process holds the socket, as QEMU does; the agent's own duplicate is gone. */
static void
test_recover (void **state)
{
  g_autoptr (Listener) listener = new_listener ("127.0.0.1", "127.0.0.2");
  g_autoptr (Listener) recovered = NULL;
  g_autoptr (GError) error = NULL;
  guint16 port = listener_get_port (listener);
  pid_t pid = fork ();
  int client;

  if (pid == 0)
    {
      pause ();
      _exit (0);
    }
  g_clear_pointer (&listener, listener_free);
  recovered = listener_recover (pid, port, &error);
  if (recovered == NULL)
    print_message ("%s\n", error->message);
  assert_non_null (recovered);
  assert_true (listener_close_door (recovered, NULL));
  client = start_connect ("127.0.0.2", "127.0.0.1", port);
  assert_false (is_connected (client, 0));
  assert_null (listener_recover (pid, port + 1, &error));
  assert_int_equal (error->code, G_IO_ERROR_NOT_FOUND);
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
  close (client);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_door),
    cmocka_unit_test (test_door_ipv6),
    cmocka_unit_test (test_inherited_options),
    cmocka_unit_test (test_query),
    cmocka_unit_test (test_destroy),
    cmocka_unit_test (test_range_full),
    cmocka_unit_test (test_find_port),
    cmocka_unit_test (test_bad_address),
    cmocka_unit_test (test_recover),
  };

  return cmocka_run_group_tests_name ("listener", tests, NULL, NULL);
}
