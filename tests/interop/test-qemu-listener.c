/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <glib/gstdio.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/listener.h"
#include "nbd/target.h"
#include "qmp/qmp-export.h"
#include "qmp/qmp-object.h"
#include "tests/interop/vm.h"

#define PORT_MIN 47140
#define PORT_MAX 47169
#define SEND_BUFFER (8 * 1024 * 1024)
#define DEADLINE_MS 60000

static char *dir;

static int
setup (void **state)
{
  dir = g_dir_make_tmp ("vmferry-listener-XXXXXX", NULL);
  return dir == NULL;
}

static int
teardown (void **state)
{
  int code = g_rmdir (dir);

  g_clear_pointer (&dir, g_free);
  return code;
}

/* A QEMU that serves an export on our listener, without TLS: only the socket is looked at here. */
static Vm *
start (Listener *listener)
{
  const char *const args[]
      = { "-S", "-blockdev", "driver=null-co,node-name=d0,size=1073741824,read-zeroes=on", NULL };
  Vm *vm = vm_start (dir, args);
  JsonObject *addr;

  if (vm == NULL)
    skip ();
  assert_true (qmp_getfd (vm->executor, "listener", listener_get_fd (listener), NULL, NULL));
  addr = json_args ("type", "s", "fd", "data", "o", json_args ("str", "s", "listener", NULL), NULL);
  vm_do (vm, "nbd-server-start", json_args ("addr", "o", addr, NULL));
  assert_true (qmp_export_add (vm->executor, "x", "d0", "x", NULL, NULL, NULL));
  return vm;
}

static Listener *
new_listener (const char *peer)
{
  g_autoptr (GError) error = NULL;
  gsize send_buffer;
  Listener *listener
      = listener_new ("127.0.0.1", PORT_MIN, PORT_MAX, peer, SEND_BUFFER, &send_buffer, &error);

  if (listener == NULL)
    fail_msg ("%s", error->message);
  return listener;
}

/* -1 where nothing answers, which on loopback is known at once. */
static int
connect_from (const char *from, guint16 port)
{
  g_autoptr (GSocketAddress) source = g_inet_socket_address_new_from_string (from, 0);
  struct sockaddr_in target = { .sin_family = AF_INET,
                                .sin_port = htons (port),
                                .sin_addr = { htonl (INADDR_LOOPBACK) } };
  struct sockaddr_in native;
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

  assert_true (g_socket_address_to_native (source, &native, sizeof native, NULL));
  assert_int_equal (bind (fd, (struct sockaddr *)&native, sizeof native), 0);
  if (connect (fd, (struct sockaddr *)&target, sizeof target) == 0
      || deadline_poll (deadline_in (1, NULL), fd, POLLOUT, NULL))
    return fd;
  close (fd);
  return -1;
}

static void
read_exactly (int fd, char *buf, gsize len)
{
  Deadline deadline = deadline_in (DEADLINE_MS, NULL);

  while (len > 0)
    {
      gssize n;

      assert_true (deadline_poll (deadline, fd, POLLIN, NULL));
      n = recv (fd, buf, len, 0);
      assert_true (n > 0);
      buf += n;
      len -= n;
    }
}

/* NBD_OPT_EXPORT_NAME of "x": enough to read. */
static void
negotiate (int fd)
{
  static const char hello[] = "\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\1x";
  char buf[18];

  read_exactly (fd, buf, 18);
  assert_int_equal (send (fd, hello, sizeof hello - 1, 0), sizeof hello - 1);
  read_exactly (fd, buf, 10);
}

/* Asks for `len` bytes at 0 and doesn't read the answer. */
static void
request (int fd, guint32 len)
{
  guint32 be = GUINT32_TO_BE (len);
  char buf[28] = "\x25\x60\x95\x13";

  memcpy (buf + 24, &be, 4);
  assert_int_equal (send (fd, buf, sizeof buf, 0), sizeof buf);
}

static ListenerStatus
query (Listener *listener)
{
  ListenerStatus status;

  assert_true (listener_query (listener, &status, NULL));
  return status;
}

static void
wait_for_connections (Listener *listener, guint n)
{
  Deadline deadline = deadline_in (DEADLINE_MS, NULL);

  while (query (listener).connections != n)
    assert_true (deadline_check (deadline, NULL));
}

static void
test_door (void **state)
{
  g_autoptr (Listener) listener = new_listener ("127.0.0.2");
  g_autoptr (Vm) vm = start (listener);
  guint16 port = listener_get_port (listener);
  char hello[18];
  int client;

  assert_int_equal (connect_from ("127.0.0.3", port), -1);
  client = connect_from ("127.0.0.2", port);
  read_exactly (client, hello, sizeof hello);
  assert_int_equal (query (listener).connections, 1);
  assert_true (listener_close_door (listener, NULL));
  assert_int_equal (connect_from ("127.0.0.2", port), -1);
  assert_int_equal (query (listener).connections, 1);
  close (client);
  wait_for_connections (listener, 0);
  assert_true (qmp_nbd_server_stop (vm->executor, NULL, NULL));
}

/* A client that asks and doesn't read: what it asked for fits the send buffer, so nothing waits for
 * it; then it is cut off, and QEMU is rid of it. */
static void
test_unread_replies (void **state)
{
  g_autoptr (Listener) listener = new_listener ("127.0.0.1");
  g_autoptr (Vm) vm = start (listener);
  Deadline deadline = deadline_in (DEADLINE_MS, NULL);
  int client = connect_from ("127.0.0.1", listener_get_port (listener));
  int small = 4096;

  if (geteuid () != 0)
    skip ();
  setsockopt (client, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  negotiate (client);
  request (client, 2 * 1024 * 1024);
  request (client, 2 * 1024 * 1024);
  while (query (listener).unsent_bytes < 1024 * 1024)
    assert_true (deadline_check (deadline, NULL));
  vm_do (vm, "cont", NULL);
  vm_do (vm, "stop", NULL);
  assert_true (listener_close_door (listener, NULL));
  assert_true (qmp_export_del_hard (vm->executor, "x", NULL, NULL));
  assert_true (listener_destroy_connections (listener, NULL));
  wait_for_connections (listener, 0);
  assert_true (qmp_nbd_server_stop (vm->executor, NULL, NULL));
  close (client);
}

/* More than the send buffer holds: QEMU stands at the next drain until the socket is destroyed. */
static void
test_stalled_drain (void **state)
{
  g_autoptr (Listener) listener = new_listener ("127.0.0.1");
  g_autoptr (Vm) vm = start (listener);
  g_autoptr (GError) error = NULL;
  Deadline deadline = deadline_in (DEADLINE_MS, NULL);
  int client = connect_from ("127.0.0.1", listener_get_port (listener));
  int small = 4096;

  if (geteuid () != 0)
    skip ();
  setsockopt (client, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  negotiate (client);
  for (guint i = 0; i < 8; i++)
    request (client, 8 * 1024 * 1024);
  while (query (listener).unsent_bytes < SEND_BUFFER / 2)
    assert_true (deadline_check (deadline, NULL));
  vm->executor->call_timeout_ms = 500;
  vm_do (vm, "cont", NULL);
  /* This is the freeze that the agent looks out for. */
  assert_false (qmp_call (vm->executor, "stop", NULL, -1, NULL, NULL, &error));
  assert_true (listener_destroy_connections (listener, NULL));
  vm->executor->call_timeout_ms = 10000;
  vm_do (vm, "query-status", NULL);
  vm_wait_status (vm, "paused");
  wait_for_connections (listener, 0);
  close (client);
}

/* An agent that was killed finds the socket in QEMU again, and its door still works. */
static void
test_recover (void **state)
{
  g_autoptr (Listener) listener = new_listener ("127.0.0.1");
  g_autoptr (Vm) vm = start (listener);
  guint16 port = listener_get_port (listener);
  g_autoptr (GError) error = NULL;
  int client;

  g_clear_pointer (&listener, listener_free);
  listener = listener_recover (tool_get_pid (vm->tool), port, &error);
  if (listener == NULL)
    fail_msg ("%s", error->message);
  client = connect_from ("127.0.0.1", port);
  assert_true (client >= 0);
  negotiate (client);
  assert_true (listener_close_door (listener, NULL));
  assert_int_equal (connect_from ("127.0.0.1", port), -1);
  close (client);
  wait_for_connections (listener, 0);
  assert_true (qmp_nbd_server_stop (vm->executor, NULL, NULL));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown (test_door, setup, teardown),
    cmocka_unit_test_setup_teardown (test_unread_replies, setup, teardown),
    cmocka_unit_test_setup_teardown (test_stalled_drain, setup, teardown),
    cmocka_unit_test_setup_teardown (test_recover, setup, teardown),
  };

  return cmocka_run_group_tests_name ("qemu-listener", tests, NULL, NULL);
}
