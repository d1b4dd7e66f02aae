/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/ram-gate.h"
#include "daemon/ram-relay.h"

#define PATIENCE_MS 20000
#define OUTSIDE "127.0.0.1"
#define BEHIND "127.0.0.2"
#define PORT_MIN 43100
#define PORT_MAX 43199

/* ------------------------------------------------------------ the relay, over socketpairs */

typedef struct
{
  RamRelay *relay;
  int source, destination; /* the QEMUs' ends */
} Pair;

static Pair
make_pair (void)
{
  int source[2], destination[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, source), 0);
  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, destination), 0);
  return (Pair){ ram_relay_new (source[1], destination[1]), source[0], destination[0] };
}

static void
pair_clear (Pair *pair)
{
  ram_relay_free (pair->relay);
  close (pair->source);
  if (pair->destination >= 0)
    close (pair->destination);
}

/* Byte `i` of the stream. */
static guint8
byte_at (gsize i)
{
  return i == 0 ? 0x16 : i == 1 ? 0x03 : i * 7 + i / 251;
}

static gsize
take (int fd, guint8 *buf, gsize at)
{
  gssize n;

  while ((n = recv (fd, buf + at, 65536, 0)) > 0)
    for (gssize i = 0; i < n; i++, at++)
      assert_int_equal (buf[at], byte_at (at));
  return at;
}

/* Sends bytes [from, to) of the stream, taking at the other end what comes; how much has come. */
static gsize
pump (Pair *pair, gsize from, gsize to, gsize came, guint8 *buf, gboolean open)
{
  g_autofree guint8 *data = g_malloc (to + 1);

  for (gsize i = from; i < to; i++)
    data[i] = byte_at (i);
  while (from < to)
    {
      gssize n = send (pair->source, data + from, MIN (to - from, 60000), MSG_NOSIGNAL);
      if (n > 0)
        from += n;
      else
        assert_int_equal (errno, EAGAIN);
      assert_int_equal (ram_relay_step (pair->relay, open, NULL), RAM_RELAY_GOES_ON);
      came = take (pair->destination, buf, came);
    }
  for (gsize before = came - 1; before != came;)
    {
      before = came;
      assert_int_equal (ram_relay_step (pair->relay, open, NULL), RAM_RELAY_GOES_ON);
      came = take (pair->destination, buf, came);
    }
  return came;
}

static void
test_handshake_passes (void **state)
{
  Pair pair = make_pair ();
  g_autofree guint8 *buf = g_malloc (1 << 20);

  assert_int_equal (pump (&pair, 0, 1000, 0, buf, FALSE), 1000);
  assert_int_equal (pump (&pair, 1000, RAM_RELAY_HANDSHAKE, 1000, buf, FALSE), RAM_RELAY_HANDSHAKE);
  assert_int_equal (send (pair.destination, "hello", 5, 0), 5);
  assert_int_equal (ram_relay_step (pair.relay, FALSE, NULL), RAM_RELAY_GOES_ON);
  assert_int_equal (recv (pair.source, buf, 100, 0), 5);
  assert_memory_equal (buf, "hello", 5);
  pair_clear (&pair);
}

/* Whatever the source sends, the newest 256 KiB don't arrive; then all of them do. */
static void
test_newest_is_kept_back (void **state)
{
  const gsize sizes[]
      = { RAM_RELAY_HANDSHAKE + 1, RAM_RELAY_KEEP, RAM_RELAY_KEEP + 100000, 5000000 };
  g_autofree guint8 *buf = g_malloc (6000000);

  for (gsize i = 0; i < G_N_ELEMENTS (sizes); i++)
    {
      Pair pair = make_pair ();
      gsize came = pump (&pair, 0, sizes[i], 0, buf, FALSE);

      assert_int_equal (came, MAX ((gssize)sizes[i] - RAM_RELAY_KEEP, RAM_RELAY_HANDSHAKE));
      assert_int_equal (pump (&pair, sizes[i], sizes[i], came, buf, TRUE), sizes[i]);
      shutdown (pair.source, SHUT_WR);
      assert_int_equal (ram_relay_step (pair.relay, TRUE, NULL), RAM_RELAY_GOES_ON);
      assert_int_equal (recv (pair.destination, buf, 1, 0), 0);
      shutdown (pair.destination, SHUT_WR);
      assert_int_equal (ram_relay_step (pair.relay, TRUE, NULL), RAM_RELAY_ENDED);
      pair_clear (&pair);
    }
}

static void
expect_broken (Pair *pair, gboolean open, const char *words)
{
  g_autoptr (GError) error = NULL;

  assert_int_equal (ram_relay_step (pair->relay, open, &error), RAM_RELAY_BROKEN);
  assert_non_null (error);
  if (!strstr (error->message, words))
    fail_msg ("\"%s\" has no \"%s\"", error->message, words);
}

static void
test_an_early_end_breaks_it (void **state)
{
  for (guint i = 0; i < 2; i++)
    {
      Pair pair = make_pair ();
      shutdown (i == 0 ? pair.source : pair.destination, SHUT_WR);
      expect_broken (&pair, FALSE,
                     i == 0 ? "the source ended the stream" : "the destination ended the stream");
      pair_clear (&pair);
    }
}

static void
test_clear_text_is_cut_off (void **state)
{
  Pair pair = make_pair ();
  char byte;

  assert_int_equal (send (pair.source, "\x16", 1, 0), 1);
  assert_int_equal (ram_relay_step (pair.relay, FALSE, NULL), RAM_RELAY_GOES_ON);
  assert_int_equal (send (pair.source, "EVM", 3, 0), 3);
  expect_broken (&pair, FALSE, "TLS");
  assert_int_equal (recv (pair.destination, &byte, 1, 0), -1);
  pair_clear (&pair);
  pair = make_pair ();
  assert_int_equal (send (pair.source, "QEVM", 4, 0), 4);
  expect_broken (&pair, TRUE, "TLS");
  pair_clear (&pair);
}

/* ------------------------------------------------------------ the gate, over loopback */

static int
to_socket (const char *address, guint16 port, gboolean listens)
{
  struct sockaddr_in name = { .sin_family = AF_INET, .sin_port = htons (port) };
  struct timeval patience = { .tv_sec = PATIENCE_MS / 1000 };
  int fd = socket (AF_INET, SOCK_STREAM, 0);
  int on = 1;

  inet_pton (AF_INET, address, &name.sin_addr);
  setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (listens)
    {
      assert_int_equal (bind (fd, (struct sockaddr *)&name, sizeof name), 0);
      assert_int_equal (listen (fd, 5), 0);
    }
  else
    assert_int_equal (connect (fd, (struct sockaddr *)&name, sizeof name), 0);
  return fd;
}

static guint16
port_of (int fd)
{
  struct sockaddr_in name;
  socklen_t len = sizeof name;

  assert_int_equal (getsockname (fd, (struct sockaddr *)&name, &len), 0);
  return ntohs (name.sin_port);
}

static RamGate *
make_gate (void)
{
  g_autoptr (GError) error = NULL;
  RamGate *gate = ram_gate_new (OUTSIDE, BEHIND, PORT_MIN, PORT_MAX, OUTSIDE, &error);

  assert_null (error);
  return gate;
}

static void
expect_end (int fd)
{
  char byte;
  gssize n = recv (fd, &byte, 1, 0);

  assert_true (n == 0 || (n < 0 && errno == ECONNRESET));
}

static void
test_only_the_named_connection (void **state)
{
  g_autoptr (RamGate) gate = make_gate ();
  g_autoptr (GError) error = NULL;
  guint16 port = ram_gate_get_port (gate);
  int qemu = to_socket (BEHIND, port, TRUE);
  int stranger = to_socket (OUTSIDE, port, FALSE);
  int stream = to_socket (OUTSIDE, port, FALSE);
  int inner;
  char buf[16];

  assert_false (ram_gate_is_holding (gate));
  assert_false (ram_gate_open (gate, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CLOSED));
  assert_int_equal (send (stranger, "\x16\x03no", 4, 0), 4);
  assert_int_equal (send (stream, "\x16\x03yes", 5, 0), 5);
  ram_gate_admit (gate, port_of (stream));
  inner = accept (qemu, NULL, NULL);
  assert_int_equal (recv (inner, buf, 5, MSG_WAITALL), 5);
  assert_memory_equal (buf, "\x16\x03yes", 5);
  assert_true (ram_gate_is_holding (gate));
  expect_end (stranger);
  assert_int_equal (send (inner, "ok", 2, 0), 2);
  assert_int_equal (recv (stream, buf, 2, MSG_WAITALL), 2);
  ram_gate_close (gate);
  expect_end (inner);
  expect_end (stream);
  close (qemu);
  close (stranger);
  close (stream);
  close (inner);
}

static void
test_open_lets_the_end_through (void **state)
{
  g_autoptr (RamGate) gate = make_gate ();
  guint16 port = ram_gate_get_port (gate);
  int qemu = to_socket (BEHIND, port, TRUE);
  int stream = to_socket (OUTSIDE, port, FALSE);
  const gsize size = RAM_RELAY_HANDSHAKE + 1000;
  g_autofree guint8 *buf = g_malloc (size);
  int inner;

  for (gsize i = 0; i < size; i++)
    buf[i] = byte_at (i);
  ram_gate_admit (gate, port_of (stream));
  inner = accept (qemu, NULL, NULL);
  assert_int_equal (send (stream, buf, size, 0), size);
  assert_int_equal (recv (inner, buf, 1, MSG_PEEK), 1);
  ram_gate_set_patience (gate, PATIENCE_MS);
  assert_true (ram_gate_open (gate, NULL));
  assert_true (ram_gate_open (gate, NULL));
  shutdown (stream, SHUT_WR);
  memset (buf, 0, size);
  assert_int_equal (recv (inner, buf, size, MSG_WAITALL), size);
  for (gsize i = 0; i < size; i++)
    assert_int_equal (buf[i], byte_at (i));
  expect_end (inner);
  close (inner);
  expect_end (stream);
  close (qemu);
  close (stream);
}

static void
test_patience_ends (void **state)
{
  g_autoptr (RamGate) gate = make_gate ();
  g_autoptr (GError) error = NULL;
  guint16 port = ram_gate_get_port (gate);
  int qemu = to_socket (BEHIND, port, TRUE);
  int stream = to_socket (OUTSIDE, port, FALSE);
  int inner;

  ram_gate_admit (gate, port_of (stream));
  inner = accept (qemu, NULL, NULL);
  ram_gate_set_patience (gate, 1);
  expect_end (stream);
  expect_end (inner);
  assert_false (ram_gate_open (gate, &error));
  assert_non_null (strstr (error->message, "nobody let go in time"));
  close (qemu);
  close (stream);
  close (inner);
}

static void
test_no_qemu_behind (void **state)
{
  g_autoptr (RamGate) gate = make_gate ();
  g_autoptr (GError) error = NULL;
  int stream = to_socket (OUTSIDE, ram_gate_get_port (gate), FALSE);

  ram_gate_admit (gate, port_of (stream));
  expect_end (stream);
  assert_false (ram_gate_open (gate, &error));
  assert_non_null (strstr (error->message, "the QEMU behind the gate"));
  close (stream);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_handshake_passes),
    cmocka_unit_test (test_newest_is_kept_back),
    cmocka_unit_test (test_an_early_end_breaks_it),
    cmocka_unit_test (test_clear_text_is_cut_off),
    cmocka_unit_test (test_only_the_named_connection),
    cmocka_unit_test (test_open_lets_the_end_through),
    cmocka_unit_test (test_patience_ends),
    cmocka_unit_test (test_no_qemu_behind),
  };

  return cmocka_run_group_tests_name ("ram-gate", tests, NULL, NULL);
}
