/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "daemon/peer-link.h"
#include "qmp/json-args.h"
#include "qmp/json-framer.h"
#include "tests/unit/pki.h"
#include "tls/tls-channel.h"

#define PATIENCE_MS 20000
#define DN_A "O=vmferry,CN=hostA"
#define DN_B "O=vmferry,CN=hostB"

/* What the agent at the other side is like. */
typedef struct
{
  const char *greeting; /* NULL: of this version */
  const char *hello;    /* the answer to hello without its id; NULL: as it should be */
  gboolean silent;      /* answers nothing after hello */
  gboolean closes;      /* hangs up at the first command after hello */
  const char *event;    /* sent before each answer */
} Script;

static PkiDir *tls_a, *tls_b;
static char *config_path;
static int listening = -1;
static guint16 port;

static Script script;
static GThread *agent;
static gint lost, events;
static GMutex lock;
static char *lost_message;

static Deadline
soon (void)
{
  return deadline_in (PATIENCE_MS, NULL);
}

static int
setup_group (void **state)
{
  g_autoptr (PkiPair) ca = pki_new_ca ("vmferry test CA");
  const PkiRequest request_a = { .cn = "hostA", .dns = { "hostA" } };
  const PkiRequest request_b = { .cn = "hostB", .dns = { "hostB" } };
  g_autoptr (PkiPair) pair_a = pki_issue (ca, &request_a);
  g_autoptr (PkiPair) pair_b = pki_issue (ca, &request_b);
  struct sockaddr_in address = { .sin_family = AF_INET };
  socklen_t len = sizeof address;

  tls_a = pki_dir_new ();
  tls_b = pki_dir_new ();
  pki_fill_dir (tls_a, ca, pair_a, pair_a);
  pki_fill_dir (tls_b, ca, pair_b, pair_b);
  config_path = g_build_filename (tls_a, "conf", NULL);
  address.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
  listening = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind (listening, (struct sockaddr *)&address, sizeof address) < 0
      || getsockname (listening, (struct sockaddr *)&address, &len) < 0
      || listen (listening, 4) < 0)
    return -1;
  port = ntohs (address.sin_port);
  return 0;
}

static int
teardown_group (void **state)
{
  close (listening);
  pki_dir_free (tls_a);
  pki_dir_free (tls_b);
  g_free (config_path);
  return 0;
}

static gboolean
send_text (Channel *channel, const char *text)
{
  return channel_write_all (channel, text, strlen (text), soon (), NULL)
         && channel_write_all (channel, "\n", 1, soon (), NULL);
}

static gboolean
send_answer (Channel *channel, JsonObject *command, const char *text)
{
  g_autofree char *line = g_strdup_printf ("{\"id\": %" G_GINT64_FORMAT ", %s}",
                                           json_object_get_int_member (command, "id"), text);

  return send_text (channel, line);
}

static JsonObject *
receive (Channel *channel, JsonFramer *framer)
{
  JsonObject *message;

  while (!(message = json_framer_pop (framer, NULL)))
    {
      char c;

      if (!channel_read_all (channel, &c, 1, DEADLINE_NEVER, NULL)
          || !json_framer_push (framer, (guint8 *)&c, 1, NULL))
        return NULL;
    }
  return message;
}

static gboolean
serve_one (Channel *channel, JsonObject *command)
{
  if (g_str_equal (json_object_get_string_member (command, "execute"), "hello"))
    return send_answer (channel, command,
                        script.hello ? script.hello
                                     : "\"return\": {\"protocol\": 1, \"client-dn\": \"" DN_B
                                       "\", \"server-dn\": \"" DN_B "\", \"address\": \"x\"}");
  if (script.closes)
    return FALSE;
  if (script.silent)
    return TRUE;
  if (script.event)
    send_text (channel, script.event);
  return send_answer (channel, command, "\"return\": {}");
}

static gpointer
agent_thread (gpointer data)
{
  g_autoptr (Credentials) credentials = credentials_load (tls_b, CREDENTIALS_SERVER, NULL);
  g_autoptr (JsonFramer) framer = json_framer_new (65536, 16);
  g_autoptr (Channel) channel = NULL;
  int fd = accept4 (listening, NULL, NULL, SOCK_CLOEXEC);
  gboolean serving;

  channel = tls_channel_accept (channel_new_fd (fd, "client"), credentials, soon (), NULL);
  if (!channel)
    return NULL;
  serving
      = send_text (channel, script.greeting ? script.greeting : "{\"vmferry\": {\"protocol\": 1}}");
  while (serving)
    {
      g_autoptr (JsonObject) command = receive (channel, framer);

      serving = command && serve_one (channel, command);
    }
  channel_shutdown (channel);
  return NULL;
}

static void
on_event (const char *event, JsonObject *data, gpointer user_data)
{
  assert_string_equal (event, "COPY_PROGRESS");
  assert_int_equal (json_object_get_int_member (data, "x"), 1);
  g_atomic_int_inc (&events);
}

static void
on_lost (const GError *error, gpointer user_data)
{
  g_mutex_lock (&lock);
  g_free (lost_message);
  lost_message = g_strdup (error->message);
  g_mutex_unlock (&lock);
  g_atomic_int_inc (&lost);
}

static Config *
load_config (const char *peers)
{
  g_autofree char *text = g_strdup_printf ("[agent]\n%s", peers);
  g_autoptr (GError) error = NULL;
  Config *config;

  assert_true (g_file_set_contents (config_path, text, -1, NULL));
  config = config_load (config_path, &error);
  if (!config)
    fail_msg ("%s", error->message);
  return config;
}

/* Our own copies live on with the link. */
static PeerLink *
open_link (const char *peers, const char *host, GError **error)
{
  static const PeerLinkHandlers handlers = { .event = on_event, .lost = on_lost };
  g_autoptr (Config) config = load_config (peers);
  g_autoptr (Credentials) credentials = credentials_load (tls_a, CREDENTIALS_CLIENT, NULL);
  const PeerLinkSetup setup
      = { .config = config, .credentials = credentials, .server_dn = DN_A };

  lost = events = 0;
  return peer_link_open (&setup, host, &handlers, NULL, soon (), error);
}

static char *
usual_peers (void)
{
  return g_strdup_printf ("[peer hostB]\ndn=" DN_B "\naddress=127.0.0.1:%u\n", port);
}

static void
start_agent (Script with)
{
  script = with;
  agent = g_thread_new ("agent", agent_thread, NULL);
}

static void
join_agent (void)
{
  g_thread_join (agent);
}

static PeerLink *
open_usual (Script with)
{
  g_autofree char *peers = usual_peers ();
  g_autoptr (GError) error = NULL;
  PeerLink *link;

  start_agent (with);
  link = open_link (peers, "hostB", &error);
  if (!link)
    fail_msg ("%s", error->message);
  return link;
}

static void
expect_refused (Script with, const char *peers, const char *expected)
{
  g_autofree char *usual = usual_peers ();
  g_autoptr (GError) error = NULL;

  start_agent (with);
  assert_null (open_link (peers ? peers : usual, "hostB", &error));
  join_agent ();
  if (!g_pattern_match_simple (expected, error->message))
    fail_msg ("%s instead of %s", error->message, expected);
  assert_int_equal (lost, 0);
}

static void
wait_for (gint *counter)
{
  gint64 until = g_get_monotonic_time () + PATIENCE_MS * 1000;

  while (g_atomic_int_get (counter) == 0 && g_get_monotonic_time () < until)
    g_usleep (1000);
  assert_int_equal (g_atomic_int_get (counter), 1);
}

static void
test_open (void **state)
{
  g_autoptr (PeerLink) link
      = open_usual ((Script){ .event = "{\"event\": \"COPY_PROGRESS\", \"data\": {\"x\": 1}}" });
  g_autoptr (JsonNode) answer = NULL;

  assert_string_equal (peer_link_get_name (link), "hostB");
  assert_string_equal (peer_link_get_local_address (link), "127.0.0.1");
  assert_string_equal (peer_link_get_remote_address (link), "127.0.0.1");
  assert_string_equal (peer_link_get_client_dn (link), DN_B);
  assert_true (
      peer_link_call (link, "copy", json_args ("job", "s", "x", NULL), soon (), &answer, NULL));
  assert_true (g_atomic_int_get (&events) >= 1);
  g_clear_pointer (&link, peer_link_free);
  join_agent ();
  assert_int_equal (lost, 0);
  peer_link_free (NULL);
}

static void
test_version (void **state)
{
  expect_refused ((Script){ .greeting = "{\"vmferry\": {\"protocol\": 0}}" }, NULL,
                  "hostB: its agent speaks version 0 of the control protocol, this one 1: upgrade "
                  "the agent there");
  expect_refused ((Script){ .greeting = "{\"vmferry\": {}}" }, NULL,
                  "hostB: its agent speaks version 0 *");
  expect_refused ((Script){ .greeting = "{\"QMP\": {}}" }, NULL,
                  "127.0.0.1:*: expected the greeting \"vmferry\", got {\"QMP\":{}}");
  expect_refused ((Script){ .hello = "\"error\": {\"class\": \"Version\", \"desc\": \"the agent of "
                                     "b speaks version 7\"}" },
                  NULL, "127.0.0.1:*: hello: the agent of b speaks version 7");
}

static void
test_hello_refused (void **state)
{
  expect_refused ((Script){ .hello
                            = "\"error\": {\"class\": \"Denied\", \"desc\": \"\\u001b[31m no "
                              "[peer]\"}" },
                  NULL, "127.0.0.1:*: hello: \\u001b[31m no [peer]");
  expect_refused ((Script){ .hello = "\"return\": []" }, NULL,
                  "hostB: its agent's answer to hello is malformed");
  expect_refused ((Script){ .hello = "\"return\": {\"client-dn\": 1, \"server-dn\": \"x\"}" }, NULL,
                  "hostB: its agent's answer to hello is malformed");
  expect_refused (
      (Script){ .hello = "\"return\": {\"client-dn\": \"CN=x\\n\", \"server-dn\": \"" DN_B "\"}" },
      NULL,
      "hostB: the certificates of its QEMU (CN=x\\n; " DN_B
      ") are not all listed in dn= of [peer hostB]");
}

static void
test_not_listed (void **state)
{
  g_autofree char *other = g_strdup_printf ("[peer hostB]\ndn=CN=q\naddress=127.0.0.1:%u\n", port);
  g_autofree char *renamed
      = g_strdup_printf ("[peer hostC]\ndn=" DN_B "\naddress=127.0.0.1:%u\n", port);
  g_autoptr (GError) error = NULL;

  expect_refused ((Script){ 0 }, other,
                  "hostB: its certificate " DN_B
                  " is not listed: add it to dn= of [peer hostB] in vmferryd.conf");
  /* The certificate must have the name that was typed. */
  start_agent ((Script){ 0 });
  assert_null (open_link (renamed, "hostC", &error));
  join_agent ();
  assert_non_null (strstr (error->message, "hostC"));
}

static void
test_nobody_there (void **state)
{
  g_autoptr (GError) error = NULL;

  assert_null (open_link ("[peer hostB]\ndn=" DN_B "\naddress=127.0.0.1:1\n", "hostB", &error));
  assert_string_equal (error->message, "hostB: no agent answers: cannot connect to 127.0.0.1:1: "
                                       "Connection refused");
}

/* A peer that answers no ping is lost, once, and every call ends. */
static void
test_ping_loss (void **state)
{
  PeerLink *link = open_usual ((Script){ .silent = TRUE });
  g_autoptr (GError) error = NULL;

  peer_link_set_timeout (link, 100);
  assert_false (peer_link_call (link, "copy", NULL, soon (), NULL, &error));
  assert_true (g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_LOST)
               || g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_TIMEOUT));
  wait_for (&lost);
  join_agent ();
  peer_link_free (link);
  assert_int_equal (g_atomic_int_get (&lost), 1);
}

static void
test_closed (void **state)
{
  PeerLink *link = open_usual ((Script){ .closes = TRUE });

  wait_for (&lost);
  g_mutex_lock (&lock);
  assert_non_null (strstr (lost_message, "hostB"));
  g_clear_pointer (&lost_message, g_free);
  g_mutex_unlock (&lock);
  join_agent ();
  peer_link_free (link);
  assert_int_equal (g_atomic_int_get (&lost), 1);
}

/* Nobody waits for the ping that is under way, and nothing is called lost. */
static void
test_free_while_pinging (void **state)
{
  for (guint i = 0; i < 5; i++)
    {
      PeerLink *link = open_usual ((Script){ .silent = TRUE });
      gint64 before = g_get_monotonic_time ();

      g_usleep (i * 2000);
      peer_link_free (link);
      assert_true (g_get_monotonic_time () - before < PATIENCE_MS * 1000);
      join_agent ();
      assert_int_equal (g_atomic_int_get (&lost), 0);
    }
}

static void
test_socket_address (void **state)
{
  int fds[2];
  g_autoptr (GError) error = NULL;

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM, 0, fds), 0);
  assert_null (peer_link_socket_address (fds[0], TRUE, &error));
  assert_string_equal (error->message, "the connection has no address any more");
  g_clear_error (&error);
  close (fds[0]);
  close (fds[1]);
  assert_null (peer_link_socket_address (listening, TRUE, &error));
  assert_non_null (error);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_open),           cmocka_unit_test (test_version),
    cmocka_unit_test (test_hello_refused),  cmocka_unit_test (test_not_listed),
    cmocka_unit_test (test_nobody_there),   cmocka_unit_test (test_ping_loss),
    cmocka_unit_test (test_closed),         cmocka_unit_test (test_free_while_pinging),
    cmocka_unit_test (test_socket_address),
  };

  return cmocka_run_group_tests_name ("peer-link", tests, setup_group, teardown_group);
}
