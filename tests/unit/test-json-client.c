/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qmp/json-args.h"
#include "qmp/json-client.h"

#define PATIENCE_MS 20000
#define GREETING "{\"toy\": {\"version\": 3}}\n"

static const JsonPumpLimits limits = { .max_line = 100000, .max_depth = 16, .max_queued = 1 << 20 };

/* The server's end of the connection, in the hands of the test, and what the client reported. */
typedef struct
{
  JsonClient *client;
  int fd;
  GMutex lock;
  GCond changed;
  GPtrArray *events;
  guint n_closed;
  char *closed_why;
  gboolean free_on_event;
} Toy;

static void
on_event (const char *event, JsonObject *data, gpointer user_data)
{
  Toy *toy = user_data;

  g_mutex_lock (&toy->lock);
  g_ptr_array_add (toy->events, g_strdup_printf ("%s%s", event, data != NULL ? "+data" : ""));
  if (toy->free_on_event)
    g_clear_pointer (&toy->client, json_client_free);
  g_cond_broadcast (&toy->changed);
  g_mutex_unlock (&toy->lock);
}

static void
on_closed (const GError *error, gpointer user_data)
{
  Toy *toy = user_data;

  g_mutex_lock (&toy->lock);
  toy->n_closed++;
  toy->closed_why = g_strdup (error != NULL ? error->message : "in order");
  g_cond_broadcast (&toy->changed);
  g_mutex_unlock (&toy->lock);
}

static void
say (Toy *toy, const char *text)
{
  assert_int_equal (send (toy->fd, text, strlen (text), MSG_NOSIGNAL), strlen (text));
}

static Toy *
toy_new (void)
{
  Toy *toy = g_new0 (Toy, 1);
  int fds[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  toy->fd = fds[1];
  g_mutex_init (&toy->lock);
  g_cond_init (&toy->changed);
  toy->events = g_ptr_array_new_with_free_func (g_free);
  say (toy, GREETING);
  toy->client = json_client_new (channel_new_fd (fds[0], "hostB"), &limits, "toy", on_event,
                                 on_closed, toy, deadline_in (PATIENCE_MS, NULL), NULL);
  assert_non_null (toy->client);
  return toy;
}

static void
toy_free (Toy *toy)
{
  json_client_free (toy->client);
  if (toy->fd >= 0)
    close (toy->fd);
  g_ptr_array_unref (toy->events);
  g_free (toy->closed_why);
  g_cond_clear (&toy->changed);
  g_mutex_clear (&toy->lock);
  g_free (toy);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Toy, toy_free)

static void
wait_events (Toy *toy, guint n_events, guint n_closed)
{
  gint64 until = g_get_monotonic_time () + PATIENCE_MS * 1000;

  g_mutex_lock (&toy->lock);
  while (toy->events->len < n_events || toy->n_closed < n_closed)
    if (!g_cond_wait_until (&toy->changed, &toy->lock, until))
      g_error ("%u events and %u closed came", toy->events->len, toy->n_closed);
  g_mutex_unlock (&toy->lock);
}

/* The next command's line; the descriptor that came with it goes to *ret_fd. */
static JsonObject *
hear (Toy *toy, int *ret_fd)
{
  g_autoptr (GString) line = g_string_new (NULL);
  g_autoptr (JsonNode) node = NULL;

  while (line->len == 0 || line->str[line->len - 1] != '\n')
    {
      char c, control[CMSG_SPACE (sizeof (int))];
      struct iovec iov = { &c, 1 };
      struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
      };

      assert_int_equal (recvmsg (toy->fd, &msg, MSG_CMSG_CLOEXEC), 1);
      if (CMSG_FIRSTHDR (&msg) != NULL && ret_fd != NULL)
        memcpy (ret_fd, CMSG_DATA (CMSG_FIRSTHDR (&msg)), sizeof (int));
      g_string_append_c (line, c);
    }
  node = json_from_string (line->str, NULL);
  return json_node_dup_object (node);
}

/* A call in a thread of its own. */
typedef struct
{
  Toy *toy;
  const char *command;
  gint64 timeout_ms;
  GCancellable *cancellable;
  int fd;
  GThread *thread;
  JsonNode *value;
  GError *error;
} Call;

static gpointer
call_thread (gpointer data)
{
  Call *call = data;

  json_client_call (call->toy->client, "execute", call->command,
                    json_args ("who", "s", call->command, NULL), call->fd,
                    deadline_in (call->timeout_ms, call->cancellable), &call->value, &call->error);
  return NULL;
}

static Call *
call_start_with (Toy *toy, const char *command, gint64 timeout_ms, GCancellable *cancellable,
                 int fd)
{
  Call *call = g_new0 (Call, 1);

  call->toy = toy;
  call->command = command;
  call->timeout_ms = timeout_ms;
  call->cancellable = cancellable;
  call->fd = fd;
  call->thread = g_thread_new (command, call_thread, call);
  return call;
}

static Call *
call_start (Toy *toy, const char *command)
{
  return call_start_with (toy, command, PATIENCE_MS, NULL, -1);
}

/* "*" in `expected` stands for a number, which a busy machine may change. */
static void
assert_line (const char *line, const char *expected)
{
  if (!g_pattern_match_simple (expected, line))
    fail_msg ("\"%s\" instead of \"%s\"", line, expected);
}

static void
call_finish (Call *call, const char *value, int code, const char *error)
{
  if (call->thread != NULL)
    g_thread_join (call->thread);
  if (value != NULL)
    {
      g_autofree char *text = NULL;

      if (call->value == NULL)
        fail_msg ("%s", call->error->message);
      text = json_to_string (call->value, FALSE);
      assert_string_equal (text, value);
      json_node_unref (call->value);
    }
  else
    {
      assert_null (call->value);
      assert_line (call->error->message, error);
      assert_int_equal (call->error->code, code);
    }
  g_clear_error (&call->error);
  g_free (call);
}

static gint64
id_of (JsonObject *command)
{
  gint64 id = -1;

  assert_true (json_get_int (command, "id", &id));
  return id;
}

static void
reply (Toy *toy, gint64 id, const char *rest)
{
  g_autofree char *line = g_strdup_printf ("{\"id\": %" G_GINT64_FORMAT ", %s}\r\n", id, rest);

  say (toy, line);
}

static void
test_call (void **state)
{
  g_autoptr (Toy) toy = toy_new ();
  Call *call = call_start (toy, "ask");
  g_autoptr (JsonObject) command = hear (toy, NULL);
  gint64 version = 0;

  assert_string_equal (json_dig_string (command, "execute", NULL), "ask");
  assert_string_equal (json_dig_string (command, "arguments", "who", NULL), "ask");
  reply (toy, id_of (command), "\"return\": {\"a\": [1, null]}");
  call_finish (call, "{\"a\":[1,null]}", 0, NULL);
  assert_true (json_get_int (json_client_get_greeting (toy->client), "version", &version));
  assert_int_equal (version, 3);
}

static void
test_out_of_order (void **state)
{
  g_autoptr (Toy) toy = toy_new ();
  Call *calls[5];
  JsonObject *commands[5];
  static const char *const names[] = { "c0", "c1", "c2", "c3", "c4" };

  for (guint i = 0; i < 5; i++)
    {
      calls[i] = call_start (toy, names[i]);
      commands[i] = hear (toy, NULL);
    }
  for (guint i = 5; i-- > 0;)
    {
      g_autofree char *rest = g_strdup_printf ("\"return\": %u", i);

      reply (toy, id_of (commands[i]), rest);
      json_object_unref (commands[i]);
    }
  for (guint i = 0; i < 5; i++)
    {
      char value[] = { (char)('0' + i), '\0' };

      call_finish (calls[i], value, 0, NULL);
    }
}

static void
test_error_reply (void **state)
{
  g_autoptr (Toy) toy = toy_new ();
  g_autofree char *long_text = g_strnfill (600, 'y'), *cut = g_strnfill (512, 'y');
  g_autofree char *rest = g_strdup_printf ("\"error\": {\"desc\": \"%s\"}", long_text);
  g_autofree char *expected = g_strdup_printf ("hostB: longwinded: %s...", cut);
  g_autoptr (JsonObject) command = NULL, second = NULL;
  Call *call = call_start (toy, "ask");

  command = hear (toy, NULL);
  reply (toy, id_of (command),
         "\"error\": {\"class\": \"GenericError\", \"desc\": \"No\\nway, \\u001b[1m\\\"x\\\"\"}");
  g_thread_join (call->thread);
  assert_string_equal (json_client_error_class (call->error), "GenericError");
  call->thread = NULL;
  call_finish (call, NULL, JSON_CLIENT_ERROR_REPLY, "hostB: ask: No\\nway, \\u001b[1m\"x\"");

  call = call_start (toy, "longwinded");
  second = hear (toy, NULL);
  reply (toy, id_of (second), rest);
  call_finish (call, NULL, JSON_CLIENT_ERROR_REPLY, expected);
}

static void
test_error_class (void **state)
{
  g_autoptr (GError) other = g_error_new_literal (G_IO_ERROR, 0, "x");
  g_autoptr (GError) plain = g_error_new_literal (JSON_CLIENT_ERROR, 0, "x");

  assert_string_equal (json_client_error_class (NULL), "");
  assert_string_equal (json_client_error_class (other), "");
  assert_string_equal (json_client_error_class (plain), "");
}

/* A late answer is dropped; the connection stays good. */
static void
test_timeout (void **state)
{
  g_autoptr (Toy) toy = toy_new ();
  Call *call = call_start_with (toy, "slow", 60, NULL, -1);
  g_autoptr (JsonObject) first = hear (toy, NULL), second = NULL;

  call_finish (call, NULL, JSON_CLIENT_ERROR_TIMEOUT, "hostB: slow: no answer within * ms");
  reply (toy, id_of (first), "\"return\": \"late\"");
  reply (toy, 4711, "\"return\": \"never asked\"");
  call = call_start (toy, "quick");
  second = hear (toy, NULL);
  reply (toy, id_of (second), "\"return\": \"in time\"");
  call_finish (call, "\"in time\"", 0, NULL);
}

static void
test_cancel (void **state)
{
  g_autoptr (Toy) toy = toy_new ();
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  Call *call = call_start_with (toy, "ask", -1, cancellable, -1);

  json_object_unref (hear (toy, NULL));
  g_cancellable_cancel (cancellable);
  call_finish (call, NULL, G_IO_ERROR_CANCELLED, "hostB: ask: cancelled");
  call = call_start_with (toy, "again", -1, cancellable, -1);
  call_finish (call, NULL, G_IO_ERROR_CANCELLED, "hostB: again: cancelled");
}

static void
test_lost (void **state)
{
  g_autoptr (Toy) toy = toy_new ();
  Call *calls[3];

  for (guint i = 0; i < 3; i++)
    {
      calls[i] = call_start (toy, "ask");
      json_object_unref (hear (toy, NULL));
    }
  close (toy->fd);
  toy->fd = -1;
  for (guint i = 0; i < 3; i++)
    call_finish (calls[i], NULL, JSON_CLIENT_ERROR_LOST,
                 "hostB: ask: the connection was lost: the other side closed it");
  wait_events (toy, 0, 1);
  assert_string_equal (toy->closed_why, "in order");
  call_finish (call_start (toy, "later"), NULL, JSON_CLIENT_ERROR_LOST,
               "hostB: later: the connection was lost: the other side closed it");
  assert_int_equal (toy->n_closed, 1);
}

static void
check_violation (const char *line, const char *expected)
{
  g_autoptr (Toy) toy = toy_new ();
  g_autofree char *error = g_strconcat ("hostB: ask: the connection was lost: ", expected, NULL);
  Call *call = call_start (toy, "ask");

  json_object_unref (hear (toy, NULL));
  say (toy, line);
  call_finish (call, NULL, JSON_CLIENT_ERROR_LOST, error);
}

static void
test_violations (void **state)
{
  check_violation ("nonsense\n", "not JSON at byte 0: a value is expected");
  check_violation ("{}\n", "expected a reply or an event, got {}");
  check_violation ("{\"return\": 1}\n", "expected a reply or an event, got {\"return\":1}");
  check_violation ("{\"return\": 1, \"id\": \"1\"}\n",
                   "expected a reply or an event, got {\"return\":1,\"id\":\"1\"}");
  check_violation ("{\"id\": 1, \"error\": \"x\"}\n",
                   "expected a reply or an event, got {\"id\":1,\"error\":\"x\"}");
  check_violation ("{\"event\": 5}\n", "expected a reply or an event, got {\"event\":5}");
}

static void
test_events (void **state)
{
  g_autoptr (Toy) toy = toy_new ();
  Call *call = call_start (toy, "ask");
  g_autoptr (JsonObject) command = hear (toy, NULL);

  say (toy, "{\"event\": \"STOP\", \"timestamp\": {}}\n{\"event\": \"JOB\", \"data\": {}}\n");
  reply (toy, id_of (command), "\"return\": {}");
  call_finish (call, "{}", 0, NULL);
  say (toy, "{\"event\": \"RESUME\", \"data\": 7}\n");
  wait_events (toy, 3, 0);
  assert_string_equal (g_ptr_array_index (toy->events, 0), "STOP");
  assert_string_equal (g_ptr_array_index (toy->events, 1), "JOB+data");
  assert_string_equal (g_ptr_array_index (toy->events, 2), "RESUME");
}

static void
test_free_in_event (void **state)
{
  g_autoptr (Toy) toy = toy_new ();

  g_mutex_lock (&toy->lock);
  toy->free_on_event = TRUE;
  g_mutex_unlock (&toy->lock);
  say (toy, "{\"event\": \"STOP\"}\n{\"event\": \"RESUME\"}\n");
  wait_events (toy, 1, 0);
  /* The end of the stream: the pump's thread is through with the client. */
  while (recv (toy->fd, (char[64]){ 0 }, 64, 0) > 0)
    ;
  assert_int_equal (toy->events->len, 1);
  assert_int_equal (toy->n_closed, 0);
}

/* The second descriptor waits until the first command is answered, though that one has timed out.
 */
static void
test_descriptors_take_turns (void **state)
{
  g_autoptr (Toy) toy = toy_new ();
  int fd = -1;
  Call *first = call_start_with (toy, "getfd1", 50, NULL, 0), *second, *third;
  g_autoptr (JsonObject) one = hear (toy, &fd), three = NULL, two = NULL;

  assert_true (fd > 2);
  close (fd);
  call_finish (first, NULL, JSON_CLIENT_ERROR_TIMEOUT, "hostB: getfd1: no answer within * ms");
  second = call_start_with (toy, "getfd2", PATIENCE_MS, NULL, 0);
  third = call_start (toy, "plain");
  three = hear (toy, &fd);
  assert_string_equal (json_dig_string (three, "execute", NULL), "plain");
  reply (toy, id_of (one), "\"return\": {}");
  two = hear (toy, &fd);
  assert_string_equal (json_dig_string (two, "execute", NULL), "getfd2");
  close (fd);
  reply (toy, id_of (two), "\"return\": 2");
  reply (toy, id_of (three), "\"return\": 3");
  call_finish (second, "2", 0, NULL);
  call_finish (third, "3", 0, NULL);
}

static void
check_greeting (const char *bytes, gboolean end, gint64 timeout_ms, int code, const char *expected)
{
  g_autoptr (GError) error = NULL;
  int fds[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  assert_int_equal (send (fds[1], bytes, strlen (bytes), 0), strlen (bytes));
  if (end)
    shutdown (fds[1], SHUT_WR);
  assert_null (json_client_new (channel_new_fd (fds[0], "hostB"), &limits, "toy", NULL, NULL, NULL,
                                deadline_in (timeout_ms, NULL), &error));
  assert_line (error->message, expected);
  assert_true (g_error_matches (error, JSON_CLIENT_ERROR, code));
  close (fds[1]);
}

static void
test_greetings (void **state)
{
  check_greeting ("", FALSE, 40, JSON_CLIENT_ERROR_BUSY, "hostB: no greeting within * ms");
  check_greeting ("{\"toy\"", FALSE, 40, JSON_CLIENT_ERROR_BUSY, "hostB: no greeting within * ms");
  check_greeting ("", TRUE, PATIENCE_MS, JSON_CLIENT_ERROR_GREETING,
                  "hostB: closed the connection instead of greeting with \"toy\"");
  check_greeting ("SSH-2.0\n", FALSE, PATIENCE_MS, JSON_CLIENT_ERROR_GREETING,
                  "hostB: expected the greeting \"toy\": not JSON at byte 0: a value is expected");
  check_greeting ("{\"QMP\": {}}\n", FALSE, PATIENCE_MS, JSON_CLIENT_ERROR_GREETING,
                  "hostB: expected the greeting \"toy\", got {\"QMP\":{}}");
  check_greeting ("{\"toy\": 1}\n", FALSE, PATIENCE_MS, JSON_CLIENT_ERROR_GREETING,
                  "hostB: expected the greeting \"toy\", got {\"toy\":1}");
}

static void
test_greeting_cancelled (void **state)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  int fds[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  g_cancellable_cancel (cancellable);
  assert_null (json_client_new (channel_new_fd (fds[0], "hostB"), &limits, "toy", NULL, NULL, NULL,
                                deadline_in (-1, cancellable), &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED));
  close (fds[1]);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_call),
    cmocka_unit_test (test_out_of_order),
    cmocka_unit_test (test_error_reply),
    cmocka_unit_test (test_error_class),
    cmocka_unit_test (test_timeout),
    cmocka_unit_test (test_cancel),
    cmocka_unit_test (test_lost),
    cmocka_unit_test (test_violations),
    cmocka_unit_test (test_events),
    cmocka_unit_test (test_free_in_event),
    cmocka_unit_test (test_descriptors_take_turns),
    cmocka_unit_test (test_greetings),
    cmocka_unit_test (test_greeting_cancelled),
  };

  return cmocka_run_group_tests_name ("json-client", tests, NULL, NULL);
}
