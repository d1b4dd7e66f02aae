/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who is refused, in which words, and what the other side is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/pki.h"
#include "tests/unit/raw-peer.h"
#include "tls/tls-channel.h"

#define TLS12 "NORMAL:-VERS-ALL:+VERS-TLS1.2"
#define TLS13 "NORMAL:-VERS-ALL:+VERS-TLS1.3"

static PkiPair *ca, *other_ca;
static PkiDir *dir; /* of our side */
static Credentials *our_client, *our_server;

static int
set_up (void **state)
{
  g_autoptr (PkiPair) server = NULL;
  g_autoptr (PkiPair) client = NULL;

  ca = pki_new_ca ("our CA");
  other_ca = pki_new_ca ("other CA");
  server = pki_issue (ca, &(PkiRequest){ .cn = "hostA", .dns = { "hostA" }, .use = PKI_SERVER });
  client = pki_issue (ca, &(PkiRequest){ .cn = "hostA", .use = PKI_CLIENT });
  dir = pki_dir_new ();
  pki_fill_dir (dir, ca, server, client);
  our_client = credentials_load (dir, CREDENTIALS_CLIENT, NULL);
  our_server = credentials_load (dir, CREDENTIALS_SERVER, NULL);
  return our_client == NULL || our_server == NULL;
}

static int
tear_down (void **state)
{
  credentials_unref (our_client);
  credentials_unref (our_server);
  pki_dir_free (dir);
  pki_pair_free (ca);
  pki_pair_free (other_ca);
  return 0;
}

static Deadline
soon (void)
{
  return deadline_in (20 * 1000, NULL);
}

/* Our end of a new connection to a raw peer. */
static Channel *
connect_raw (const RawPeerPlan *plan, RawPeer **ret_peer)
{
  int pair[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  *ret_peer = raw_peer_start (pair[1], plan);
  return channel_new_fd (pair[0], "hostB");
}

/* `expected` has %D for our directory and %T for any date. */
static void
assert_error (const GError *error, TlsError code, const char *expected)
{
  g_autoptr (GRegex) dates
      = g_regex_new ("\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d UTC", 0, 0, NULL);

  assert_non_null (error);
  g_autoptr (GString) shown = g_string_new (error->message);
  g_string_replace (shown, dir, "%D", 0);
  g_autofree char *text = g_regex_replace_literal (dates, shown->str, -1, 0, "%T", 0, NULL);
  assert_string_equal (text, expected);
  assert_true (g_error_matches (error, TLS_ERROR, code));
}

/* ---- what we refuse ---- */

typedef struct
{
  const PkiPair **issuer; /* NULL: self-signed */
  PkiRequest request;
  const char *name;
  TlsError code;
  int alert;
  const char *message;
} Case;

static const PkiPair **const ours = (const PkiPair **)&ca;
static const PkiPair **const others = (const PkiPair **)&other_ca;

/* A peer that shows what `c` says, with a version of TLS. */
static void
check_case (const Case *c, gboolean is_server, const char *priority)
{
  g_autoptr (PkiPair) pair = pki_issue (c->issuer != NULL ? *c->issuer : NULL, &c->request);
  g_autoptr (PkiDir) peer_dir = pki_dir_new ();
  g_autoptr (GError) error = NULL;
  RawPeer *peer;

  pki_fill_dir (peer_dir, ca, is_server ? pair : NULL, is_server ? NULL : pair);
  const RawPeerPlan plan
      = { .is_server = is_server, .dir = peer_dir, .priority = priority, .then = RAW_PEER_ECHO };
  Channel *lower = connect_raw (&plan, &peer);
  Channel *channel = is_server ? tls_channel_connect (lower, our_client, c->name, soon (), &error)
                               : tls_channel_accept (lower, our_server, soon (), &error);
  assert_null (channel);
  assert_error (error, c->code, c->message);
  assert_int_equal (raw_peer_join (peer), c->alert);
}

static void
check_cases (const Case *cases, gsize n, gboolean is_server)
{
  for (gsize i = 0; i < n; i++)
    {
      check_case (&cases[i], is_server, TLS12);
      check_case (&cases[i], is_server, TLS13);
    }
}

static void
test_servers (void **state)
{
  const Case cases[] = {
    { others,
      { .cn = "hostB", .dns = { "hostB" } },
      "hostB",
      TLS_ERROR_UNTRUSTED,
      GNUTLS_A_UNKNOWN_CA,
      "hostB: its certificate (O=vmferry,CN=hostB) was issued by a CA (O=vmferry,CN=other CA) that "
      "is not the one in %D/ca-cert.pem: both hosts need certificates of the same CA" },
    { NULL,
      { .cn = "hostB", .dns = { "hostB" } },
      "hostB",
      TLS_ERROR_UNTRUSTED,
      GNUTLS_A_UNKNOWN_CA,
      "hostB: its certificate (O=vmferry,CN=hostB) is self-signed, not issued by the CA in "
      "%D/ca-cert.pem: issue one with that CA" },
    { ours,
      { .cn = "hostB", .dns = { "hostB" }, .ends_in_s = -60 },
      "hostB",
      TLS_ERROR_UNTRUSTED,
      GNUTLS_A_CERTIFICATE_EXPIRED,
      "hostB: its certificate (O=vmferry,CN=hostB) expired on %T: issue a new one" },
    { ours,
      { .cn = "hostB", .dns = { "hostB" }, .starts_in_s = 3600 },
      "hostB",
      TLS_ERROR_UNTRUSTED,
      GNUTLS_A_CERTIFICATE_EXPIRED,
      "hostB: its certificate (O=vmferry,CN=hostB) is not valid before %T: check the clocks of "
      "both "
      "hosts" },
    { ours,
      { .cn = "hostB", .dns = { "hostB" }, .use = PKI_CLIENT },
      "hostB",
      TLS_ERROR_UNTRUSTED,
      GNUTLS_A_UNSUPPORTED_CERTIFICATE,
      "hostB: its certificate (O=vmferry,CN=hostB) may not be used by a TLS server (its extended "
      "key usage lacks serverAuth): issue one that may" },
    { ours,
      { .cn = "hostB", .dns = { "hostB" }, .rsa_bits = 1024 },
      "hostB",
      TLS_ERROR_UNTRUSTED,
      GNUTLS_A_BAD_CERTIFICATE,
      "hostB: its certificate (O=vmferry,CN=hostB) has a weak key (RSA, 1024 bits): issue one with "
      "RSA of 2048 bits or more, or ECDSA" },
    { ours,
      { .cn = "hostC", .dns = { "hostC" } },
      "hostB",
      TLS_ERROR_NAME,
      GNUTLS_A_BAD_CERTIFICATE,
      "hostB: its certificate (O=vmferry,CN=hostC) is for \"hostC\", not for \"hostB\": connect by "
      "a name that it has, or issue one with subjectAltName hostB" },
    { ours,
      { .cn = "hostB" },
      "hostB",
      TLS_ERROR_NAME,
      GNUTLS_A_BAD_CERTIFICATE,
      "hostB: its certificate (O=vmferry,CN=hostB) has no subjectAltName, and a common name "
      "doesn't "
      "count: issue one with subjectAltName hostB" },
    { ours,
      { .cn = "hostB", .dns = { "hostB" }, .ips = { "192.0.2.7" } },
      "192.0.2.8",
      TLS_ERROR_NAME,
      GNUTLS_A_BAD_CERTIFICATE,
      "hostB: its certificate (O=vmferry,CN=hostB) is for \"hostB\", \"192.0.2.7\", not for "
      "\"192.0.2.8\": connect by a name that it has, or issue one with subjectAltName 192.0.2.8" },
    { ours,
      { .cn = "a\x1b[2J", .raw_dns = "x\x1b[2J\n\"", .raw_dns_len = 7 },
      "hostB",
      TLS_ERROR_NAME,
      GNUTLS_A_BAD_CERTIFICATE,
      "hostB: its certificate (O=vmferry,CN=a\\x1b[2J) is for \"x\\x1b[2J\\x0a\\\"\", not for "
      "\"hostB\": connect by a name that it has, or issue one with subjectAltName hostB" },
  };

  check_cases (cases, G_N_ELEMENTS (cases), TRUE);
}

static void
test_clients (void **state)
{
  const Case cases[] = {
    { others,
      { .cn = "hostB" },
      NULL,
      TLS_ERROR_UNTRUSTED,
      GNUTLS_A_UNKNOWN_CA,
      "hostB: its certificate (O=vmferry,CN=hostB) was issued by a CA (O=vmferry,CN=other CA) that "
      "is not the one in %D/ca-cert.pem: both hosts need certificates of the same CA" },
    { ours,
      { .cn = "hostB", .ends_in_s = -60 },
      NULL,
      TLS_ERROR_UNTRUSTED,
      GNUTLS_A_CERTIFICATE_EXPIRED,
      "hostB: its certificate (O=vmferry,CN=hostB) expired on %T: issue a new one" },
    { ours,
      { .cn = "hostB", .use = PKI_SERVER },
      NULL,
      TLS_ERROR_UNTRUSTED,
      GNUTLS_A_UNSUPPORTED_CERTIFICATE,
      "hostB: its certificate (O=vmferry,CN=hostB) may not be used by a TLS client (its extended "
      "key usage lacks clientAuth): issue one that may" },
    { ours,
      { .cn = "hostB", .rsa_bits = 1024 },
      NULL,
      TLS_ERROR_UNTRUSTED,
      GNUTLS_A_BAD_CERTIFICATE,
      "hostB: its certificate (O=vmferry,CN=hostB) has a weak key (RSA, 1024 bits): issue one with "
      "RSA of 2048 bits or more, or ECDSA" },
    { ours,
      { .dns = { "hostB" } },
      NULL,
      TLS_ERROR_UNTRUSTED,
      GNUTLS_A_BAD_CERTIFICATE,
      "hostB: its certificate has an empty distinguished name: issue one with a name" },
  };

  check_cases (cases, G_N_ELEMENTS (cases), FALSE);
}

/* The list of another directory than that of the other tests. */
static void
test_revoked (void **state)
{
  g_autoptr (PkiPair) revoked = pki_issue (ca, &(PkiRequest){ .cn = "hostB", .dns = { "hostB" } });
  g_autoptr (PkiPair) mine = pki_issue (ca, &(PkiRequest){ .cn = "hostA" });
  g_autoptr (PkiDir) my_dir = pki_dir_new ();
  g_autoptr (PkiDir) peer_dir = pki_dir_new ();
  g_autoptr (GError) error = NULL;
  RawPeer *peer;

  pki_fill_dir (my_dir, ca, NULL, mine);
  pki_write_crl (ca, revoked, 3600, my_dir, "ca-crl.pem");
  pki_fill_dir (peer_dir, ca, revoked, NULL);
  g_autoptr (Credentials) credentials = credentials_load (my_dir, CREDENTIALS_CLIENT, &error);
  assert_non_null (credentials);
  Channel *lower = connect_raw (&(RawPeerPlan){ .is_server = TRUE, .dir = peer_dir }, &peer);
  assert_null (tls_channel_connect (lower, credentials, "hostB", soon (), &error));
  g_autofree char *expected = g_strdup_printf ("hostB: its certificate (O=vmferry,CN=hostB) was "
                                               "revoked, as %s/ca-crl.pem says: issue a new one",
                                               my_dir);
  assert_error (error, TLS_ERROR_UNTRUSTED, expected);
  assert_int_equal (raw_peer_join (peer), GNUTLS_A_CERTIFICATE_REVOKED);
}

static void
check_accept (const RawPeerPlan *plan, TlsError code, const char *expected)
{
  g_autoptr (GError) error = NULL;
  RawPeer *peer;
  Channel *lower = connect_raw (plan, &peer);

  assert_null (tls_channel_accept (lower, our_server, soon (), &error));
  assert_error (error, code, expected);
  raw_peer_join (peer);
}

static void
test_no_certificate (void **state)
{
  const char *expected
      = "hostB: it showed no certificate: it needs one of the CA in %D/ca-cert.pem";

  check_accept (&(RawPeerPlan){ .priority = TLS12 }, TLS_ERROR_UNTRUSTED, expected);
  check_accept (&(RawPeerPlan){ .priority = TLS13 }, TLS_ERROR_UNTRUSTED, expected);
}

static void
test_old_versions (void **state)
{
  check_accept (&(RawPeerPlan){ .dir = dir, .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.1" },
                TLS_ERROR_HANDSHAKE, "hostB: it has no TLS version in common with us (1.2 or 1.3)");
  check_accept (
      &(RawPeerPlan){ .dir = dir,
                      .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-CBC" },
      TLS_ERROR_HANDSHAKE, "hostB: it has no cipher in common with us");

  g_autoptr (GError) error = NULL;
  RawPeer *peer;
  Channel *lower = connect_raw (
      &(RawPeerPlan){ .is_server = TRUE, .dir = dir, .priority = "NORMAL:-VERS-ALL:+VERS-TLS1.1" },
      &peer);
  assert_null (tls_channel_connect (lower, our_client, "hostA", soon (), &error));
  assert_error (error, TLS_ERROR_HANDSHAKE,
                "hostB: it ended TLS: it has no TLS version or cipher in common with us, or no "
                "certificate (TLS-PSK?)");
  raw_peer_join (peer);
}

/* ---- what is no TLS at all ---- */

static void
check_bytes (const char *bytes, gsize len, GQuark domain, int code, const char *expected)
{
  g_autoptr (GError) error = NULL;
  int pair[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  assert_int_equal (write (pair[1], bytes, len), len);
  shutdown (pair[1], SHUT_WR);
  assert_null (tls_channel_connect (channel_new_fd (pair[0], "hostB"), our_client, "hostB", soon (),
                                    &error));
  assert_string_equal (error->message, expected);
  assert_true (g_error_matches (error, domain, code));
  close (pair[1]);
}

static void
test_plain_text (void **state)
{
  check_bytes ("{\"QMP\": {\"version\": 1}}\r\n", 25, TLS_ERROR, TLS_ERROR_HANDSHAKE,
               "hostB: no TLS there: it sent \"{\\\"QMP\\\": {\\\"version\\\": 1}}\\x0d\\x0a\" in "
               "clear: check the port, and that TLS is on");
  check_bytes (
      "NBDMAGIC", 8, TLS_ERROR, TLS_ERROR_HANDSHAKE,
      "hostB: no TLS there: it sent \"NBDMAGIC\" in clear: check the port, and that TLS is "
      "on");
  check_bytes ("SSH", 3, TLS_ERROR, TLS_ERROR_HANDSHAKE,
               "hostB: no TLS there: it sent \"SSH\" in clear: check the port, and that TLS is on");
  check_bytes ("", 0, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED,
               "hostB: it closed the connection in the TLS handshake: it may have no certificate "
               "(TLS-PSK?), or no TLS version or cipher in common with us, or it ended: its log "
               "tells");
}

static void
test_silence (void **state)
{
  g_autoptr (GError) error = NULL;
  int pair[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  assert_null (tls_channel_connect (channel_new_fd (pair[0], "hostB"), our_client, "hostB",
                                    deadline_in (30, NULL), &error));
  assert_string_equal (error->message, "hostB: timed out in the TLS handshake");
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT));
  close (pair[1]);
}

/* GnuTLS, as a server, closes without an alert where it knows no such key. */
static void
test_key_refused (void **state)
{
  g_autoptr (PkiDir) key_dir = pki_dir_new ();
  g_autofree char *file = g_build_filename (key_dir, "keys.psk", NULL);
  g_autoptr (GError) error = NULL;
  int pair[2];
  RawPeer *peer;

  assert_true (g_file_set_contents_full (file, "alice:00112233445566778899aabbccddeeff\n", -1,
                                         G_FILE_SET_CONTENTS_NONE, 0600, NULL));
  g_autoptr (Credentials) credentials = credentials_load_psk (file, "alice", &error);
  assert_non_null (credentials);
  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  shutdown (pair[1], SHUT_WR);
  assert_null (
      tls_channel_connect (channel_new_fd (pair[0], "hostB"), credentials, NULL, soon (), &error));
  g_autofree char *expected = g_strdup_printf (
      "hostB: it closed the connection in the TLS handshake: it may have another "
      "key of user \"alice\" than %s, or no TLS-PSK, or it ended: its log tells",
      file);
  assert_string_equal (error->message, expected);
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED));
  close (pair[1]);

  g_clear_error (&error);
  Channel *lower = connect_raw (&(RawPeerPlan){ .is_server = TRUE, .dir = dir }, &peer);
  assert_null (tls_channel_connect (lower, credentials, NULL, soon (), &error));
  assert_error (error, TLS_ERROR_HANDSHAKE,
                "hostB: it chose certificates, where we have a pre-shared key: give it the key, "
                "too, or use tls-certificates");
  raw_peer_join (peer);
}

/* ---- who refuses us ---- */

/* Both sides are ours: a client of `client_dir` whose first read must tell why the server of
 * `server_dir` refuses it. */
typedef struct
{
  int fd;
  Credentials *credentials;
  gboolean then_refuse;
} Acceptor;

static gpointer
accept_once (gpointer data)
{
  Acceptor *acceptor = data;
  g_autoptr (Channel) channel = tls_channel_accept (channel_new_fd (acceptor->fd, "hostC"),
                                                    acceptor->credentials, soon (), NULL);

  if (channel != NULL && acceptor->then_refuse)
    tls_channel_refuse (channel);
  return NULL;
}

static void
assert_refused_by (Acceptor *acceptor, Credentials *client, gboolean write_first,
                   const char *expected)
{
  g_autoptr (GError) error = NULL;
  char byte;
  int pair[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  acceptor->fd = pair[1];
  GThread *thread = g_thread_new ("accept", accept_once, acceptor);
  g_autoptr (Channel) channel
      = tls_channel_connect (channel_new_fd (pair[0], "hostB"), client, "hostA", soon (), &error);
  assert_non_null (channel);
  if (write_first)
    while (channel_write_all (channel, "x", 1, soon (), &error))
      continue;
  else
    assert_false (channel_read_all (channel, &byte, 1, soon (), &error));
  assert_error (error, TLS_ERROR_REFUSED, expected);
  g_thread_join (thread);
}

static void
test_refused_by_ca (void **state)
{
  g_autoptr (PkiPair) server
      = pki_issue (other_ca, &(PkiRequest){ .cn = "hostA", .dns = { "hostA" } });
  g_autoptr (PkiPair) client = pki_issue (ca, &(PkiRequest){ .cn = "hostD" });
  g_autoptr (PkiDir) server_dir = pki_dir_new ();
  g_autoptr (PkiDir) client_dir = pki_dir_new ();
  const char *expected = "hostB: it refused our certificate (O=vmferry,CN=hostD): it doesn't know "
                         "the CA that issued it: both hosts need the same ca-cert.pem";

  pki_fill_dir (server_dir, other_ca, server, NULL);
  pki_fill_dir (client_dir, ca, NULL, client);
  pki_write_bundle (ca, other_ca, client_dir, "ca-cert.pem");
  g_autoptr (Credentials) accepting = credentials_load (server_dir, CREDENTIALS_SERVER, NULL);
  g_autoptr (Credentials) connecting = credentials_load (client_dir, CREDENTIALS_CLIENT, NULL);
  Acceptor acceptor = { .credentials = accepting };
  assert_refused_by (&acceptor, connecting, FALSE, expected);
  assert_refused_by (&acceptor, connecting, TRUE, expected);
}

static void
test_refused_by_list (void **state)
{
  Acceptor acceptor = { .credentials = our_server, .then_refuse = TRUE };
  const char *expected
      = "hostB: it refused our certificate (O=vmferry,CN=hostA): this identity has "
        "no access there: allow it in its configuration";

  assert_refused_by (&acceptor, our_client, FALSE, expected);
  assert_refused_by (&acceptor, our_client, TRUE, expected);
}

/* QEMU judges after the handshake, and then just closes. */
static void
test_refused_without_a_word (void **state)
{
  const char *versions[] = { TLS12, TLS13 };

  for (gsize i = 0; i < G_N_ELEMENTS (versions); i++)
    {
      g_autoptr (GError) error = NULL;
      char byte;
      RawPeer *peer;
      Channel *lower = connect_raw (
          &(RawPeerPlan){ .is_server = TRUE, .dir = dir, .priority = versions[i] }, &peer);
      g_autoptr (Channel) channel
          = tls_channel_connect (lower, our_client, "hostA", soon (), &error);
      assert_null (error);
      assert_false (channel_read_all (channel, &byte, 1, soon (), &error));
      assert_error (error, TLS_ERROR_HUNG_UP,
                    "hostB: it closed the connection right after the TLS handshake, which is how "
                    "it refuses a certificate: ours (O=vmferry,CN=hostA) is not allowed there, or "
                    "revoked, or of a CA that it doesn't know, or it ended: its log tells");
      raw_peer_join (peer);
    }
}

/* A client that refuses the server's certificate says so to the server. */
static void
test_refused_by_client (void **state)
{
  g_autoptr (PkiPair) client = pki_issue (other_ca, &(PkiRequest){ .cn = "hostD" });
  g_autoptr (PkiDir) client_dir = pki_dir_new ();
  g_autoptr (GError) error = NULL;
  RawPeer *peer;

  pki_fill_dir (client_dir, other_ca, NULL, client);
  const RawPeerPlan plan = { .dir = client_dir, .priority = TLS13, .trust_dir = client_dir };
  Channel *lower = connect_raw (&plan, &peer);
  assert_null (tls_channel_accept (lower, our_server, soon (), &error));
  assert_error (error, TLS_ERROR_REFUSED,
                "hostB: it refused our certificate (O=vmferry,CN=hostA): it finds it bad or for "
                "another name: the message over there tells more");
  raw_peer_join (peer);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_servers),           cmocka_unit_test (test_clients),
    cmocka_unit_test (test_revoked),           cmocka_unit_test (test_no_certificate),
    cmocka_unit_test (test_old_versions),      cmocka_unit_test (test_plain_text),
    cmocka_unit_test (test_silence),           cmocka_unit_test (test_refused_by_ca),
    cmocka_unit_test (test_refused_by_list),   cmocka_unit_test (test_refused_without_a_word),
    cmocka_unit_test (test_refused_by_client), cmocka_unit_test (test_key_refused),
  };

  return cmocka_run_group_tests_name ("tls-refusals", tests, set_up, tear_down);
}
