/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Data over TLS, and how it ends.  Who is refused: test-tls-refusals.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/pki.h"
#include "tests/unit/raw-peer.h"
#include "tls/tls-channel.h"

#define TLS12 "NORMAL:-VERS-ALL:+VERS-TLS1.2"
#define TLS13 "NORMAL:-VERS-ALL:+VERS-TLS1.3"
#define BULK_BYTES (8 * 1024 * 1024 + 13)

static PkiDir *dir;
static Credentials *client, *server;

static int
set_up (void **state)
{
  dir = pki_dir_new_for ("hostA");
  client = credentials_load (dir, CREDENTIALS_CLIENT, NULL);
  server = credentials_load (dir, CREDENTIALS_SERVER, NULL);
  return client == NULL || server == NULL;
}

static int
tear_down (void **state)
{
  credentials_unref (client);
  credentials_unref (server);
  pki_dir_free (dir);
  return 0;
}

static Deadline
soon (void)
{
  return deadline_in (30 * 1000, NULL);
}

static void
assert_error (const GError *error, gint code, const char *message)
{
  assert_non_null (error);
  assert_string_equal (error->message, message);
  assert_true (g_error_matches (error, G_IO_ERROR, code));
}

/* ---- a lower channel that gives and takes little at a time ---- */

typedef struct
{
  Channel base;
  Channel *lower;
  guint calls;
} Trickle;

static ChannelStatus
trickle_read (Channel *channel, void *buf, gsize len, gsize *ret_n, GError **error)
{
  Trickle *trickle = (Trickle *)channel;

  if (trickle->calls++ % 3 == 0)
    return CHANNEL_AGAIN;
  return channel_read (trickle->lower, buf, MIN (len, 7), ret_n, error);
}

static ChannelStatus
trickle_write (Channel *channel, const void *buf, gsize len, gsize *ret_n, GError **error)
{
  Trickle *trickle = (Trickle *)channel;

  if (trickle->calls++ % 3 == 0)
    return CHANNEL_AGAIN;
  return channel_write (trickle->lower, buf, MIN (len, 11), ret_n, error);
}

static gsize
trickle_pending (Channel *channel)
{
  return 0;
}

/* It may be ready at any time. */
static short
trickle_poll_events (Channel *channel, short wanted)
{
  return wanted | POLLOUT;
}

static void
trickle_shutdown (Channel *channel)
{
  channel_shutdown (((Trickle *)channel)->lower);
}

static void
trickle_free (Channel *channel)
{
  channel_free (((Trickle *)channel)->lower);
  g_free (channel);
}

static Channel *
trickle_new (Channel *lower)
{
  static const ChannelClass klass = { trickle_read,        trickle_write,    trickle_pending,
                                      trickle_poll_events, trickle_shutdown, trickle_free };
  Trickle *trickle = g_new0 (Trickle, 1);

  trickle->base = (Channel){ &klass, lower->fd, g_strdup (lower->peer) };
  trickle->lower = lower;
  return &trickle->base;
}

/* ---- both sides ours ---- */

typedef struct
{
  Channel *lower;
  Channel *channel; /* the result */
  GError *error;
} Acceptor;

static gpointer
accept_one (gpointer data)
{
  Acceptor *acceptor = data;

  acceptor->channel = tls_channel_accept (acceptor->lower, server, soon (), &acceptor->error);
  return NULL;
}

static void
make_lower_pair (Channel **ret_a, Channel **ret_b)
{
  int pair[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  *ret_a = channel_new_fd (pair[0], "hostA:10810");
  *ret_b = channel_new_fd (pair[1], "hostB:45678");
}

static void
wrap_pair (Channel *a, Channel *b, Channel **ret_client, Channel **ret_server)
{
  Acceptor acceptor = { .lower = b };
  g_autoptr (GError) error = NULL;
  GThread *thread = g_thread_new ("accept", accept_one, &acceptor);

  *ret_client = tls_channel_connect (a, client, "hostA", soon (), &error);
  g_thread_join (thread);
  *ret_server = acceptor.channel;
  assert_null (error);
  assert_null (acceptor.error);
}

static void
make_pair (Channel **ret_client, Channel **ret_server)
{
  Channel *a, *b;

  make_lower_pair (&a, &b);
  wrap_pair (a, b, ret_client, ret_server);
}

static void
assert_passes (Channel *from, Channel *to, const char *text)
{
  char buf[64];
  gsize len = strlen (text);

  assert_true (channel_write_all (from, text, len, soon (), NULL));
  assert_true (channel_read_all (to, buf, len, soon (), NULL));
  assert_memory_equal (buf, text, len);
}

static void
test_names (void **state)
{
  g_autoptr (Channel) a = NULL;
  g_autoptr (Channel) b = NULL;

  make_pair (&a, &b);
  assert_string_equal (tls_channel_get_identity (a), "O=vmferry,CN=hostA");
  assert_string_equal (tls_channel_get_identity (b), "O=vmferry,CN=hostA");
  assert_string_equal (channel_get_peer (a), "hostA:10810");
  assert_string_equal (channel_get_peer (b), "hostB:45678");
  assert_passes (a, b, "question");
  assert_passes (b, a, "answer");
}

static void
test_end (void **state)
{
  g_autoptr (Channel) a = NULL;
  g_autoptr (Channel) b = NULL;
  char byte;
  gsize n = 0;

  make_pair (&a, &b);
  channel_shutdown (a);
  assert_true (channel_wait (b, POLLIN, soon (), NULL));
  assert_int_equal (channel_read (b, &byte, 1, &n, NULL), CHANNEL_EOF);
  assert_passes (b, a, "after the end of the other direction");
}

/* What was decrypted can't be seen by poll(2). */
static void
test_pending (void **state)
{
  g_autoptr (Channel) a = NULL;
  g_autoptr (Channel) b = NULL;
  char byte;
  gsize n = 0;

  make_pair (&a, &b);
  assert_int_equal (channel_pending (b), 0);
  assert_int_equal (channel_poll_events (b, POLLIN), POLLIN);
  assert_int_equal (channel_poll_events (b, POLLIN | POLLOUT), POLLIN | POLLOUT);
  /* three records, which arrive together */
  for (int i = 0; i < 3; i++)
    assert_true (channel_write_all (a, "xy", 2, soon (), NULL));
  for (int i = 0; i < 6; i++)
    {
      assert_true (channel_wait (b, POLLIN, deadline_in (5000, NULL), NULL));
      assert_int_equal (channel_read (b, &byte, 1, &n, NULL), CHANNEL_OK);
      if (i < 5)
        assert_true (channel_pending (b) > 0);
    }
  assert_int_equal (channel_pending (b), 0);
  assert_int_equal (channel_read (b, &byte, 1, &n, NULL), CHANNEL_AGAIN);
}

/* ---- much data ---- */

static void
fill (guint8 *data, gsize len)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (7);

  for (gsize i = 0; i < len; i++)
    data[i] = (guint8)g_rand_int (rand);
}

typedef struct
{
  Channel *channel;
  const guint8 *data;
  gsize len;
} Sender;

static gpointer
send_all (gpointer data)
{
  Sender *sender = data;

  return GINT_TO_POINTER (
      channel_write_all (sender->channel, sender->data, sender->len, soon (), NULL));
}

static void
check_bulk (Channel *from, Channel *to, gsize len)
{
  g_autofree guint8 *data = g_malloc (len);
  g_autofree guint8 *got = g_malloc0 (len);
  Sender sender = { from, data, len };
  g_autoptr (GError) error = NULL;

  fill (data, len);
  GThread *thread = g_thread_new ("send", send_all, &sender);
  gboolean ok = channel_read_all (to, got, len, soon (), &error);
  assert_true (GPOINTER_TO_INT (g_thread_join (thread)));
  assert_null (error);
  assert_true (ok);
  assert_memory_equal (data, got, len);
}

static void
test_bulk (void **state)
{
  g_autoptr (Channel) a = NULL;
  g_autoptr (Channel) b = NULL;

  make_pair (&a, &b);
  check_bulk (a, b, BULK_BYTES);
  check_bulk (b, a, BULK_BYTES);
}

static void
test_over_a_trickle (void **state)
{
  g_autoptr (Channel) a = NULL;
  g_autoptr (Channel) b = NULL;
  Channel *lower_a, *lower_b;

  make_lower_pair (&lower_a, &lower_b);
  wrap_pair (trickle_new (lower_a), trickle_new (lower_b), &a, &b);
  check_bulk (a, b, 100 * 1000);
  check_bulk (b, a, 100 * 1000);
}

static void
test_tls_over_tls (void **state)
{
  g_autoptr (Channel) a = NULL;
  g_autoptr (Channel) b = NULL;
  Channel *outer_a, *outer_b;

  make_pair (&outer_a, &outer_b);
  wrap_pair (outer_a, outer_b, &a, &b);
  check_bulk (a, b, BULK_BYTES / 8);
}

/* Writes until nothing more goes, then reads at the other end, then writes on: each byte arrives
 * once. */
static void
test_write_again (void **state)
{
  g_autoptr (Channel) a = NULL;
  g_autoptr (Channel) b = NULL;
  g_autofree guint8 *data = g_malloc (BULK_BYTES);
  g_autofree guint8 *got = g_malloc (BULK_BYTES);
  gsize sent = 0, received = 0, n = 0;
  guint stalls = 0;

  make_pair (&a, &b);
  fill (data, BULK_BYTES);
  while (sent < BULK_BYTES)
    {
      ChannelStatus status
          = channel_write (a, data + sent, MIN (BULK_BYTES - sent, 50000), &n, NULL);
      if (status == CHANNEL_OK)
        {
          sent += n;
          continue;
        }
      assert_int_equal (status, CHANNEL_AGAIN);
      stalls++;
      while (channel_read (b, got + received, BULK_BYTES - received, &n, NULL) == CHANNEL_OK)
        received += n;
    }
  assert_true (stalls > 1);
  assert_true (channel_read_all (b, got + received, BULK_BYTES - received, soon (), NULL));
  assert_memory_equal (data, got, BULK_BYTES);
}

/* ---- other programs ---- */

static Channel *
connect_raw (const char *priority, RawPeerThen then, RawPeer **ret_peer)
{
  const RawPeerPlan plan = { .is_server = TRUE, .dir = dir, .priority = priority, .then = then };
  g_autoptr (GError) error = NULL;
  int pair[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  *ret_peer = raw_peer_start (pair[1], &plan);
  Channel *channel
      = tls_channel_connect (channel_new_fd (pair[0], "hostB"), client, "hostA", soon (), &error);
  assert_null (error);
  return channel;
}

static void
test_versions (void **state)
{
  const char *priorities[] = { TLS12, TLS13, TLS13 ":-CIPHER-ALL:+CHACHA20-POLY1305",
                               TLS12 ":-CIPHER-ALL:+AES-256-GCM" };

  for (gsize i = 0; i < G_N_ELEMENTS (priorities); i++)
    {
      RawPeer *peer;
      g_autoptr (Channel) channel = connect_raw (priorities[i], RAW_PEER_ECHO, &peer);
      assert_passes (channel, channel, "there and back");
      channel_shutdown (channel);
      assert_int_equal (raw_peer_join (peer), -1);
    }
}

static void
test_addresses (void **state)
{
  const char *names[] = { "127.0.0.1", "::1", "HOSTA" };

  for (gsize i = 0; i < G_N_ELEMENTS (names); i++)
    {
      Acceptor acceptor = { 0 };
      g_autoptr (GError) error = NULL;
      Channel *lower;

      make_lower_pair (&lower, &acceptor.lower);
      GThread *thread = g_thread_new ("accept", accept_one, &acceptor);
      g_autoptr (Channel) channel = tls_channel_connect (lower, client, names[i], soon (), &error);
      g_thread_join (thread);
      assert_null (error);
      assert_non_null (channel);
      channel_free (acceptor.channel);
    }
}

static void
test_key_updates (void **state)
{
  RawPeer *peer;
  g_autoptr (Channel) channel = connect_raw (TLS13, RAW_PEER_KEY_UPDATES, &peer);

  for (int i = 0; i < 5; i++)
    assert_passes (channel, channel, "with a new key each time");
  channel_shutdown (channel);
  raw_peer_join (peer);
}

/* Reads "hello", and then gives what the next read says. */
static ChannelStatus
read_past_hello (Channel *channel, GError **error)
{
  char buf[8];
  gsize n = 0;
  ChannelStatus status;

  assert_true (channel_read_all (channel, buf, 5, soon (), NULL));
  while ((status = channel_read (channel, buf, sizeof buf, &n, error)) == CHANNEL_AGAIN)
    assert_true (channel_wait (channel, POLLIN, soon (), NULL));
  return status;
}

static void
check_end (const char *priority, RawPeerThen then, ChannelStatus expected, gint code,
           const char *message)
{
  RawPeer *peer;
  g_autoptr (GError) error = NULL;
  Channel *channel = connect_raw (priority, then, &peer);

  assert_int_equal (read_past_hello (channel, &error), expected);
  if (message != NULL)
    assert_error (error, code, message);
  channel_free (channel);
  raw_peer_join (peer);
}

static void
test_ends (void **state)
{
  const char *cut
      = "hostB: the connection ended without the end of TLS: it was cut, or the program "
        "there died";

  check_end (TLS12, RAW_PEER_BYE, CHANNEL_EOF, 0, NULL);
  check_end (TLS13, RAW_PEER_BYE, CHANNEL_EOF, 0, NULL);
  check_end (TLS12, RAW_PEER_CUT, CHANNEL_FAILED, G_IO_ERROR_CONNECTION_CLOSED, cut);
  check_end (TLS13, RAW_PEER_CUT, CHANNEL_FAILED, G_IO_ERROR_CONNECTION_CLOSED, cut);
  check_end (TLS12, RAW_PEER_RENEGOTIATE, CHANNEL_FAILED, G_IO_ERROR_INVALID_DATA,
             "hostB: it asks for a TLS renegotiation, which is refused");
  check_end (TLS13, RAW_PEER_GARBAGE, CHANNEL_FAILED, G_IO_ERROR_INVALID_DATA,
             "hostB: TLS failed: Decryption has failed.");
  check_end (TLS12, RAW_PEER_GARBAGE, CHANNEL_FAILED, G_IO_ERROR_INVALID_DATA,
             "hostB: TLS failed: Decryption has failed.");
}

/* A reload drops the old credentials while their connections go on. */
static void
test_credentials_outlive (void **state)
{
  g_autoptr (Credentials) first = credentials_load (dir, CREDENTIALS_CLIENT, NULL);
  Acceptor acceptor = { 0 };
  Channel *lower;

  make_lower_pair (&lower, &acceptor.lower);
  GThread *thread = g_thread_new ("accept", accept_one, &acceptor);
  g_autoptr (Channel) a = tls_channel_connect (lower, first, "hostA", soon (), NULL);
  g_thread_join (thread);
  g_autoptr (Channel) b = acceptor.channel;
  g_clear_pointer (&first, credentials_unref);
  assert_passes (a, b, "still there");
  channel_shutdown (b);
  channel_free (NULL);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_names),          cmocka_unit_test (test_end),
    cmocka_unit_test (test_pending),        cmocka_unit_test (test_bulk),
    cmocka_unit_test (test_over_a_trickle), cmocka_unit_test (test_tls_over_tls),
    cmocka_unit_test (test_write_again),    cmocka_unit_test (test_versions),
    cmocka_unit_test (test_addresses),      cmocka_unit_test (test_key_updates),
    cmocka_unit_test (test_ends),           cmocka_unit_test (test_credentials_outlive),
  };

  return cmocka_run_group_tests_name ("tls-channel", tests, set_up, tear_down);
}
