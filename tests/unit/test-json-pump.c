/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qmp/json-args.h"
#include "qmp/json-pump.h"
#include "tests/unit/pki.h"
#include "tls/tls-channel.h"

#define PATIENCE_US (20 * G_USEC_PER_SEC)

static const JsonPumpLimits limits = { .max_line = 100000, .max_depth = 16, .max_queued = 1 << 20 };

/* One end: a pump, and what came of it. */
typedef struct
{
  JsonPump *pump;
  GMutex lock;
  GCond changed;
  GQueue messages;
  guint n_messages;
  guint n_closed;
  GError *error;
  /* What the handlers do besides. */
  gboolean free_on_message;
  gboolean free_on_closed;
  gboolean close_on_message;
  gboolean count_only;
  gint64 last_n[4];
  gboolean disorder;
} End;

static void
count_message (End *end, JsonObject *message)
{
  gint64 sender = 0, n = 0;

  json_get_int (message, "sender", &sender);
  json_get_int (message, "n", &n);
  if (n != end->last_n[sender] + 1)
    end->disorder = TRUE;
  end->last_n[sender] = n;
  json_object_unref (message);
}

static void
on_message (JsonObject *message, gpointer data)
{
  End *end = data;

  g_mutex_lock (&end->lock);
  end->n_messages++;
  if (end->count_only)
    count_message (end, message);
  else
    g_queue_push_tail (&end->messages, message);
  if (end->free_on_message)
    g_clear_pointer (&end->pump, json_pump_free);
  else if (end->close_on_message)
    json_pump_close (end->pump, 0);
  g_cond_broadcast (&end->changed);
  g_mutex_unlock (&end->lock);
}

static void
on_closed (const GError *error, gpointer data)
{
  End *end = data;

  g_mutex_lock (&end->lock);
  end->n_closed++;
  if (error != NULL)
    end->error = g_error_copy (error);
  if (end->free_on_closed)
    g_clear_pointer (&end->pump, json_pump_free);
  g_cond_broadcast (&end->changed);
  g_mutex_unlock (&end->lock);
}

static const JsonPumpHandlers handlers = { .message = on_message, .closed = on_closed };

static End *
end_new (Channel *channel)
{
  End *end = g_new0 (End, 1);

  g_mutex_init (&end->lock);
  g_cond_init (&end->changed);
  g_queue_init (&end->messages);
  /* The handlers may look for `pump` before json_pump_new () returns. */
  g_mutex_lock (&end->lock);
  end->pump = json_pump_new (channel, &limits, &handlers, end);
  g_mutex_unlock (&end->lock);
  return end;
}

static void
end_free (End *end)
{
  JsonObject *message;
  gint64 until = g_get_monotonic_time () + PATIENCE_US;

  json_pump_free (end->pump);
  g_mutex_lock (&end->lock);
  while (end->n_closed == 0)
    if (!g_cond_wait_until (&end->changed, &end->lock, until))
      g_error ("a pump that was freed never called closed");
  g_assert (end->n_closed == 1);
  g_mutex_unlock (&end->lock);
  while ((message = g_queue_pop_head (&end->messages)) != NULL)
    json_object_unref (message);
  g_clear_error (&end->error);
  g_cond_clear (&end->changed);
  g_mutex_clear (&end->lock);
  g_free (end);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (End, end_free)

static JsonObject *
end_take (End *end)
{
  gint64 until = g_get_monotonic_time () + PATIENCE_US;
  JsonObject *message;

  g_mutex_lock (&end->lock);
  while ((message = g_queue_pop_head (&end->messages)) == NULL)
    if (!g_cond_wait_until (&end->changed, &end->lock, until))
      g_error ("no message came");
  g_mutex_unlock (&end->lock);
  return message;
}

static void
end_wait_closed (End *end)
{
  gint64 until = g_get_monotonic_time () + PATIENCE_US;

  g_mutex_lock (&end->lock);
  while (end->n_closed == 0)
    if (!g_cond_wait_until (&end->changed, &end->lock, until))
      g_error ("the pump didn't close");
  g_mutex_unlock (&end->lock);
}

static void
end_wait_messages (End *end, guint n)
{
  gint64 until = g_get_monotonic_time () + PATIENCE_US;

  g_mutex_lock (&end->lock);
  while (end->n_messages < n)
    if (!g_cond_wait_until (&end->changed, &end->lock, until))
      g_error ("%u messages of %u came", end->n_messages, n);
  g_mutex_unlock (&end->lock);
}

static void
make_pair (int fds[2])
{
  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

static void
send_n (JsonPump *pump, gint64 n)
{
  g_autoptr (JsonObject) message = json_args ("n", "i", n, NULL);

  assert_true (json_pump_send (pump, message, -1, NULL));
}

static void
assert_takes (End *end, gint64 expected)
{
  g_autoptr (JsonObject) message = end_take (end);
  gint64 n = -1;

  assert_true (json_get_int (message, "n", &n));
  assert_int_equal (n, expected);
}

static void
write_text (int fd, const char *text)
{
  assert_int_equal (send (fd, text, strlen (text), MSG_NOSIGNAL), strlen (text));
}

/* All bytes until the end of the stream. */
static GString *
read_to_end (int fd)
{
  GString *text = g_string_new (NULL);
  char buf[4096];
  ssize_t n;

  while ((n = recv (fd, buf, sizeof buf, 0)) > 0)
    g_string_append_len (text, buf, n);
  return text;
}

static void
test_both_ways (void **state)
{
  int fds[2];
  g_autoptr (End) a = NULL, b = NULL;

  make_pair (fds);
  a = end_new (channel_new_fd (fds[0], "b"));
  b = end_new (channel_new_fd (fds[1], "a"));
  send_n (a->pump, 1);
  send_n (a->pump, 2);
  send_n (b->pump, 3);
  assert_takes (b, 1);
  assert_takes (b, 2);
  assert_takes (a, 3);
  json_pump_close (a->pump, 0);
  end_wait_closed (a);
  end_wait_closed (b);
  assert_null (a->error);
  assert_null (b->error);
}

#define BULK 3000
#define SENDERS 3

typedef struct
{
  JsonPump *pump;
  gint64 sender;
} Sender;

static gpointer
send_bulk (gpointer data)
{
  const Sender *sender = data;
  g_autofree char *padding = g_strnfill (sender->sender == 0 ? 3000 : 10, 'x');

  for (gint64 n = 1; n <= BULK; n++)
    {
      g_autoptr (JsonObject) message
          = json_args ("sender", "i", sender->sender, "n", "i", n, "padding", "s", padding, NULL);
      g_autoptr (GError) error = NULL;

      if (!json_pump_send (sender->pump, message, -1, &error))
        g_error ("%s", error->message);
    }
  return NULL;
}

/* Several threads send at both ends while both pumps receive. */
static void
exchange_bulk (End *a, End *b)
{
  GThread *threads[2 * SENDERS];
  Sender senders[2 * SENDERS];

  for (guint i = 0; i < 2 * SENDERS; i++)
    {
      senders[i] = (Sender){ i % 2 ? a->pump : b->pump, i / 2 };
      threads[i] = g_thread_new ("sender", send_bulk, &senders[i]);
    }
  for (guint i = 0; i < 2 * SENDERS; i++)
    g_thread_join (threads[i]);
  end_wait_messages (a, SENDERS * BULK);
  end_wait_messages (b, SENDERS * BULK);
  assert_false (a->disorder);
  assert_false (b->disorder);
}

static End *
end_new_bulk (Channel *channel)
{
  JsonPumpLimits large = limits;
  End *end = g_new0 (End, 1);

  large.max_queued = 64 << 20;
  g_mutex_init (&end->lock);
  g_cond_init (&end->changed);
  g_queue_init (&end->messages);
  end->count_only = TRUE;
  end->pump = json_pump_new (channel, &large, &handlers, end);
  return end;
}

static void
test_bulk (void **state)
{
  int fds[2];
  g_autoptr (End) a = NULL, b = NULL;

  make_pair (fds);
  a = end_new_bulk (channel_new_fd (fds[0], "b"));
  b = end_new_bulk (channel_new_fd (fds[1], "a"));
  exchange_bulk (a, b);
}

typedef struct
{
  int fd;
  Credentials *credentials;
} Accept;

static gpointer
accept_tls (gpointer data)
{
  Accept *job = data;
  g_autoptr (GError) error = NULL;
  Channel *channel = tls_channel_accept (channel_new_fd (job->fd, "client"), job->credentials,
                                         deadline_in (20000, NULL), &error);

  if (channel == NULL)
    g_error ("%s", error->message);
  return channel;
}

static void
make_tls_pair (Channel **ret_client, Channel **ret_server)
{
  g_autoptr (PkiDir) dir = pki_dir_new_for ("hostB");
  g_autoptr (Credentials) server = credentials_load (dir, CREDENTIALS_SERVER, NULL);
  g_autoptr (Credentials) client = credentials_load (dir, CREDENTIALS_CLIENT, NULL);
  g_autoptr (GError) error = NULL;
  int fds[2];
  Accept job;
  GThread *thread;

  make_pair (fds);
  job = (Accept){ fds[1], server };
  thread = g_thread_new ("accept", accept_tls, &job);
  *ret_client = tls_channel_connect (channel_new_fd (fds[0], "hostB"), client, "hostB",
                                     deadline_in (20000, NULL), &error);
  if (*ret_client == NULL)
    fail_msg ("%s", error->message);
  *ret_server = g_thread_join (thread);
}

static void
test_bulk_tls (void **state)
{
  Channel *client, *server;
  g_autoptr (End) a = NULL, b = NULL;

  make_tls_pair (&client, &server);
  a = end_new_bulk (client);
  b = end_new_bulk (server);
  exchange_bulk (a, b);
  /* An orderly end must be one to the other side, too: TLS tells it from a cut. */
  json_pump_close (a->pump, 0);
  end_wait_closed (b);
  if (b->error != NULL)
    fail_msg ("%s", b->error->message);
}

/* Receives to the end; returns the descriptor that came, and the bytes of the call it came with. */
static int
receive_fd (int sock, GString *text, gsize *ret_from, gsize *ret_to)
{
  int fd = -1;

  for (;;)
    {
      char buf[1000], control[CMSG_SPACE (sizeof (int))];
      struct iovec iov = { buf, sizeof buf };
      struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
      };
      ssize_t n = recvmsg (sock, &msg, MSG_CMSG_CLOEXEC);

      if (n <= 0)
        return fd;
      if (CMSG_FIRSTHDR (&msg) != NULL)
        {
          assert_int_equal (fd, -1);
          memcpy (&fd, CMSG_DATA (CMSG_FIRSTHDR (&msg)), sizeof fd);
          *ret_from = text->len;
          *ret_to = text->len + (gsize)n;
        }
      g_string_append_len (text, buf, n);
    }
}

static void
check_descriptor (gsize padding_before, gsize padding_of)
{
  g_autofree char *before = g_strnfill (padding_before, 'a'), *of = g_strnfill (padding_of, 'b');
  g_autoptr (JsonObject) first = json_args ("p", "s", before, NULL);
  g_autoptr (JsonObject) second = json_args ("q", "s", of, NULL);
  g_autoptr (JsonObject) third = json_args ("z", "b", TRUE, NULL);
  g_autoptr (GString) text = g_string_new (NULL);
  g_autoptr (End) end = NULL;
  int fds[2], null_fd = open ("/dev/null", O_RDONLY | O_CLOEXEC), small = 4096, got;
  gsize from = 0, to = 0, at;
  struct stat sent, came;

  make_pair (fds);
  setsockopt (fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  end = end_new (channel_new_fd (fds[0], "peer"));
  assert_true (json_pump_send (end->pump, first, -1, NULL));
  assert_true (json_pump_send (end->pump, second, null_fd, NULL));
  assert_true (json_pump_send (end->pump, third, -1, NULL));
  assert_int_equal (fstat (null_fd, &sent), 0);
  close (null_fd); /* the pump has its own */
  json_pump_close (end->pump, 20000);
  got = receive_fd (fds[1], text, &from, &to);
  assert_true (got >= 0);
  assert_int_equal (fstat (got, &came), 0);
  assert_int_equal (sent.st_ino, came.st_ino);
  at = (gsize)(strstr (text->str, "{\"q\"") - text->str);
  assert_in_range (at, from, to - 1);
  assert_true (g_str_has_suffix (text->str, "\n{\"z\":true}\n"));
  close (got);
  close (fds[1]);
}

/* It goes with the first byte of its message, also when the socket takes only a part of it. */
static void
test_descriptor (void **state)
{
  check_descriptor (1, 1);
  check_descriptor (50000, 1);
  check_descriptor (1, 50000);
  check_descriptor (50000, 50000);
}

static void
check_ends (const char *bytes, GQuark domain, int code, const char *message)
{
  g_autoptr (End) end = NULL;
  int fds[2];

  make_pair (fds);
  write_text (fds[1], bytes);
  end = end_new (channel_new_fd (fds[0], "hostB"));
  shutdown (fds[1], SHUT_WR);
  end_wait_closed (end);
  if (message == NULL)
    assert_null (end->error);
  else
    {
      assert_non_null (end->error);
      assert_string_equal (end->error->message, message);
      assert_true (g_error_matches (end->error, domain, code));
    }
  close (fds[1]);
}

static void
test_ends (void **state)
{
  g_autofree char *spaces = g_strnfill (100001, ' ');

  check_ends ("", 0, 0, NULL);
  check_ends ("{}\n", 0, 0, NULL);
  check_ends ("{}\n{", G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED,
              "hostB: the connection ended in the middle of a message");
  check_ends ("GET / HTTP/1.1\r\n", JSON_FRAMER_ERROR, JSON_FRAMER_ERROR_SYNTAX,
              "hostB: not JSON at byte 0: a value is expected");
  check_ends ("[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]\n", JSON_FRAMER_ERROR,
              JSON_FRAMER_ERROR_TOO_DEEP, "hostB: nested more than 16 levels deep");
  check_ends (spaces, JSON_FRAMER_ERROR, JSON_FRAMER_ERROR_TOO_LONG,
              "hostB: a line is longer than 100000 bytes");
}

static void
test_reader_that_sleeps (void **state)
{
  g_autoptr (End) end = NULL;
  g_autofree char *padding = g_strnfill (10000, 'x');
  g_autoptr (JsonObject) message = json_args ("p", "s", padding, NULL);
  g_autoptr (GError) error = NULL;
  int fds[2];

  make_pair (fds);
  end = end_new (channel_new_fd (fds[0], "hostB"));
  while (json_pump_send (end->pump, message, -1, &error))
    ;
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CLOSED));
  end_wait_closed (end);
  assert_non_null (end->error);
  assert_true (g_str_has_prefix (end->error->message, "hostB: doesn't read what it is sent: "));
  assert_false (json_pump_send (end->pump, message, -1, NULL));
  close (fds[1]);
}

static gpointer
read_thread (gpointer data)
{
  return read_to_end (GPOINTER_TO_INT (data));
}

static void
test_linger_sends_all (void **state)
{
  g_autoptr (End) end = NULL;
  g_autoptr (GString) text = NULL;
  GThread *reader;
  int fds[2], small = 4096;

  make_pair (fds);
  setsockopt (fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  end = end_new (channel_new_fd (fds[0], "hostB"));
  for (gint64 n = 0; n < 5000; n++)
    send_n (end->pump, n);
  json_pump_close (end->pump, 20000);
  reader = g_thread_new ("reader", read_thread, GINT_TO_POINTER (fds[1]));
  text = g_thread_join (reader);
  assert_true (g_str_has_suffix (text->str, "\n{\"n\":4999}\n"));
  close (fds[1]);
  end_wait_closed (end);
  assert_null (end->error);
}

/* A peer that goes on sending doesn't turn the end into a reset that eats our last words. */
static void
test_linger_drains (void **state)
{
  g_autoptr (End) end = NULL;
  g_autoptr (GString) text = NULL;
  int fds[2];

  make_pair (fds);
  end = end_new (channel_new_fd (fds[0], "hostB"));
  send_n (end->pump, 7);
  json_pump_close (end->pump, 20000);
  write_text (fds[1], "{\"n\":1}\n{\"n\":2}\nnonsense");
  text = read_to_end (fds[1]);
  assert_string_equal (text->str, "{\"n\":7}\n");
  close (fds[1]);
  end_wait_closed (end);
  assert_null (end->error);
}

static void
test_linger_ends (void **state)
{
  g_autoptr (End) end = NULL;
  int fds[2];

  make_pair (fds);
  end = end_new (channel_new_fd (fds[0], "hostB"));
  for (gint64 n = 0; n < 40000; n++)
    send_n (end->pump, n);
  json_pump_close (end->pump, 30);
  end_wait_closed (end);
  assert_null (end->error);
  close (fds[1]);
}

static void
test_free_in_handler (void **state)
{
  g_autoptr (End) a = NULL, b = NULL;
  int fds[2];

  make_pair (fds);
  a = end_new (channel_new_fd (fds[0], "peer"));
  g_mutex_lock (&a->lock);
  a->free_on_message = TRUE;
  g_mutex_unlock (&a->lock);
  write_text (fds[1], "{\"n\":1}\n{\"n\":2}\n");
  assert_takes (a, 1);
  end_wait_closed (a);
  assert_int_equal (a->n_messages, 1);
  close (fds[1]);

  make_pair (fds);
  b = end_new (channel_new_fd (fds[0], "peer"));
  g_mutex_lock (&b->lock);
  b->free_on_closed = TRUE;
  g_mutex_unlock (&b->lock);
  close (fds[1]);
  end_wait_closed (b);
}

static void
test_close_in_handler (void **state)
{
  g_autoptr (End) end = NULL;
  int fds[2];

  make_pair (fds);
  end = end_new (channel_new_fd (fds[0], "peer"));
  g_mutex_lock (&end->lock);
  end->close_on_message = TRUE;
  g_mutex_unlock (&end->lock);
  write_text (fds[1], "{\"n\":1}\n{\"n\":2}\n");
  end_wait_closed (end);
  assert_int_equal (end->n_messages, 1);
  close (fds[1]);
}

static gpointer
flood (gpointer data)
{
  int fd = GPOINTER_TO_INT (data);

  while (send (fd, "{\"n\":1}\n", 8, MSG_NOSIGNAL) > 0)
    ;
  return NULL;
}

static void
test_free_under_flood (void **state)
{
  End *end;
  GThread *thread;
  int fds[2];

  make_pair (fds);
  end = end_new (channel_new_fd (fds[0], "peer"));
  thread = g_thread_new ("flood", flood, GINT_TO_POINTER (fds[1]));
  end_wait_messages (end, 100);
  end_free (end);
  g_thread_join (thread);
  close (fds[1]);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_both_ways),
    cmocka_unit_test (test_bulk),
    cmocka_unit_test (test_bulk_tls),
    cmocka_unit_test (test_descriptor),
    cmocka_unit_test (test_ends),
    cmocka_unit_test (test_reader_that_sleeps),
    cmocka_unit_test (test_linger_sends_all),
    cmocka_unit_test (test_linger_drains),
    cmocka_unit_test (test_linger_ends),
    cmocka_unit_test (test_free_in_handler),
    cmocka_unit_test (test_close_in_handler),
    cmocka_unit_test (test_free_under_flood),
  };

  return cmocka_run_group_tests_name ("json-pump", tests, NULL, NULL);
}
