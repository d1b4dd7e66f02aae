/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/root-socket.h"

static guint16
port_of (int fd)
{
  struct sockaddr_in name;
  socklen_t len = sizeof name;

  assert_int_equal (getsockname (fd, (struct sockaddr *)&name, &len), 0);
  return ntohs (name.sin_port);
}

static void
test_loopback (void **state)
{
  struct sockaddr_in name = { .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK) };
  int listener = socket (AF_INET, SOCK_STREAM, 0);
  int client = socket (AF_INET, SOCK_STREAM, 0);
  guint16 port, local = 7;

  assert_int_equal (bind (listener, (struct sockaddr *)&name, sizeof name), 0);
  assert_int_equal (listen (listener, 1), 0);
  port = port_of (listener);
  assert_false (root_socket_find ("127.0.0.1", port, &local));
  assert_int_equal (local, 7);
  name.sin_port = htons (port);
  assert_int_equal (connect (client, (struct sockaddr *)&name, sizeof name), 0);
  if (geteuid () != 0)
    assert_false (root_socket_find ("127.0.0.1", port, &local));
  else
    {
      assert_true (root_socket_find ("127.0.0.1", port, &local));
      assert_int_equal (local, port_of (client));
      assert_false (root_socket_find ("127.0.0.2", port, &local));
    }
  assert_false (root_socket_find ("::1", port, &local));
  assert_false (root_socket_find ("nonsense", port, &local));
  close (client);
  close (listener);
}

int
main (void)
{
  const struct CMUnitTest tests[] = { cmocka_unit_test (test_loopback) };

  return cmocka_run_group_tests_name ("root-socket", tests, NULL, NULL);
}
