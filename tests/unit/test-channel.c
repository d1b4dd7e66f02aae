/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <glib/gstdio.h>

#include "tls/channel.h"
#include "tls/text.h"

static Deadline
soon (void)
{
  return deadline_in (20 * 1000, NULL);
}

static void
assert_error (GError *error, gint code, const char *message)
{
  assert_non_null (error);
  assert_string_equal (error->message, message);
  assert_true (g_error_matches (error, G_IO_ERROR, code));
}

/* Two ends, the second as a bare descriptor. */
static Channel *
make_pair (int *ret_other)
{
  int pair[2];

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  *ret_other = pair[1];
  return channel_new_fd (pair[0], "hostB");
}

static void
test_read_and_write (void **state)
{
  int other;
  g_autoptr (Channel) channel = make_pair (&other);
  char buf[16] = "";
  gsize n = 99;

  assert_string_equal (channel_get_peer (channel), "hostB");
  assert_int_equal (channel_read (channel, buf, sizeof buf, &n, NULL), CHANNEL_AGAIN);
  assert_int_equal (n, 99); /* untouched */
  assert_int_equal (channel_poll_events (channel, POLLIN | POLLOUT), POLLIN | POLLOUT);
  assert_int_equal (channel_pending (channel), 0);
  assert_int_equal (write (other, "abc", 3), 3);
  assert_true (channel_wait (channel, POLLIN, soon (), NULL));
  assert_int_equal (channel_read (channel, buf, sizeof buf, &n, NULL), CHANNEL_OK);
  assert_int_equal (n, 3);
  assert_memory_equal (buf, "abc", 3);
  assert_int_equal (channel_write (channel, "de", 2, &n, NULL), CHANNEL_OK);
  assert_int_equal (n, 2);
  assert_int_equal (read (other, buf, sizeof buf), 2);

  channel_shutdown (channel);
  assert_int_equal (read (other, buf, sizeof buf), 0);
  close (other);
  assert_int_equal (channel_read (channel, buf, sizeof buf, &n, NULL), CHANNEL_EOF);
}

static gpointer
drain (gpointer data)
{
  int fd = GPOINTER_TO_INT (data);
  char buf[4096];
  gsize total = 0;

  for (ssize_t n; (n = read (fd, buf, sizeof buf)) > 0;)
    total += (gsize)n;
  close (fd);
  return GSIZE_TO_POINTER (total);
}

/* More than the socket's buffers hold, so that both ways of waiting are gone through. */
static void
test_write_all (void **state)
{
  int other;
  Channel *channel = make_pair (&other);
  gsize len = 8 * 1024 * 1024;
  g_autofree char *data = g_malloc0 (len);
  GThread *thread = g_thread_new ("drain", drain, GINT_TO_POINTER (other));

  assert_true (channel_write_all (channel, data, len, soon (), NULL));
  channel_free (channel);
  assert_int_equal (GPOINTER_TO_SIZE (g_thread_join (thread)), len);
}

static void
test_write_all_to_one_who_does_not_read (void **state)
{
  int other;
  g_autoptr (Channel) channel = make_pair (&other);
  gsize len = 8 * 1024 * 1024;
  g_autofree char *data = g_malloc0 (len);
  g_autoptr (GError) error = NULL;

  assert_false (channel_write_all (channel, data, len, deadline_in (20, NULL), &error));
  assert_error (error, G_IO_ERROR_TIMED_OUT, "hostB: timed out");
  close (other);
}

static void
test_read_all_short (void **state)
{
  int other;
  g_autoptr (Channel) channel = make_pair (&other);
  g_autoptr (GError) error = NULL;
  char buf[16];

  assert_int_equal (write (other, "abc", 3), 3);
  close (other);
  assert_false (channel_read_all (channel, buf, sizeof buf, soon (), &error));
  assert_error (error, G_IO_ERROR_CONNECTION_CLOSED,
                "hostB: it closed the connection after 3 of 16 bytes");
}

static void
test_read_all_ends (void **state)
{
  int other;
  g_autoptr (Channel) channel = make_pair (&other);
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) late = NULL;
  g_autoptr (GError) cancelled = NULL;
  char buf[16];

  assert_int_equal (write (other, "abc", 3), 3);
  assert_false (channel_read_all (channel, buf, sizeof buf, deadline_in (10, NULL), &late));
  assert_error (late, G_IO_ERROR_TIMED_OUT, "hostB: timed out");
  g_cancellable_cancel (cancellable);
  assert_false (
      channel_read_all (channel, buf, sizeof buf, deadline_in (-1, cancellable), &cancelled));
  assert_error (cancelled, G_IO_ERROR_CANCELLED, "hostB: cancelled");
  close (other);
}

/* No SIGPIPE either. */
static void
test_write_to_closed (void **state)
{
  int other;
  g_autoptr (Channel) channel = make_pair (&other);
  g_autoptr (GError) error = NULL;
  gsize n;

  close (other);
  assert_int_equal (channel_write (channel, "x", 1, &n, &error), CHANNEL_FAILED);
  assert_error (error, G_IO_ERROR_BROKEN_PIPE, "hostB: cannot send: Broken pipe");
}

/* ---- connecting ---- */

/* A listener on a free port of the loopback address. */
static int
listen_tcp (int family, guint16 *ret_port)
{
  struct sockaddr_storage any = { .ss_family = (sa_family_t)family };
  socklen_t len = sizeof any;
  int fd = socket (family, SOCK_STREAM | SOCK_CLOEXEC, 0);

  if (family == AF_INET)
    ((struct sockaddr_in *)&any)->sin_addr.s_addr = htonl (INADDR_LOOPBACK);
  else
    ((struct sockaddr_in6 *)&any)->sin6_addr = in6addr_loopback;
  if (fd < 0 || bind (fd, (struct sockaddr *)&any, len) != 0)
    {
      close (fd);
      return -1;
    }
  assert_int_equal (listen (fd, 5), 0);
  assert_int_equal (getsockname (fd, (struct sockaddr *)&any, &len), 0);
  *ret_port = ntohs (family == AF_INET ? ((struct sockaddr_in *)&any)->sin_port
                                       : ((struct sockaddr_in6 *)&any)->sin6_port);
  return fd;
}

static int
get_option (Channel *channel, int level, int name)
{
  int value = -1;
  socklen_t len = sizeof value;

  assert_int_equal (getsockopt (channel_get_fd (channel), level, name, &value, &len), 0);
  return value;
}

static void
test_connect_tcp (void **state)
{
  guint16 port = 0;
  int listener = listen_tcp (AF_INET, &port);
  g_autoptr (GError) error = NULL;
  g_autoptr (Channel) channel = channel_connect_tcp ("127.0.0.1", port, soon (), &error);
  g_autofree char *peer = g_strdup_printf ("127.0.0.1:%u", port);

  assert_null (error);
  assert_string_equal (channel_get_peer (channel), peer);
  assert_int_equal (get_option (channel, IPPROTO_TCP, TCP_NODELAY), 1);
  assert_int_equal (get_option (channel, SOL_SOCKET, SO_KEEPALIVE), 1);
  close (listener);
}

/* "localhost" is two addresses on many hosts, and only one of them listens here. */
static void
test_connect_by_name (void **state)
{
  guint16 port = 0;
  int listener = listen_tcp (AF_INET, &port);
  g_autoptr (GError) error = NULL;
  g_autoptr (Channel) channel = channel_connect_tcp ("localhost", port, soon (), &error);

  assert_null (error);
  assert_non_null (channel);
  close (listener);
}

static void
test_connect_v6 (void **state)
{
  guint16 port = 0;
  int listener = listen_tcp (AF_INET6, &port);
  g_autoptr (GError) error = NULL;

  if (listener < 0)
    skip (); /* a host without IPv6 */
  g_autoptr (Channel) channel = channel_connect_tcp ("::1", port, soon (), &error);
  g_autofree char *peer = g_strdup_printf ("[::1]:%u", port);
  assert_null (error);
  assert_string_equal (channel_get_peer (channel), peer);
  close (listener);
}

static void
test_connect_refused (void **state)
{
  guint16 port = 0;
  int listener = listen_tcp (AF_INET, &port);
  g_autoptr (GError) by_address = NULL;
  g_autoptr (GError) by_name = NULL;

  close (listener);
  assert_null (channel_connect_tcp ("127.0.0.1", port, soon (), &by_address));
  g_autofree char *expected
      = g_strdup_printf ("cannot connect to 127.0.0.1:%u: Connection refused", port);
  assert_error (by_address, G_IO_ERROR_CONNECTION_REFUSED, expected);

  assert_null (channel_connect_tcp ("localhost", port, soon (), &by_name));
  g_autofree char *start = g_strdup_printf ("cannot connect to localhost:%u: ", port);
  assert_true (g_str_has_prefix (by_name->message, start));
  assert_non_null (strstr (by_name->message, "Connection refused (127.0.0.1)"));
}

static void
test_connect_unknown_host (void **state)
{
  g_autoptr (GError) error = NULL;

  /* RFC 6761: never a host; a label with a space is not even asked for */
  assert_null (channel_connect_tcp ("no such host.invalid", 10810, soon (), &error));
  assert_error (error, G_IO_ERROR_HOST_NOT_FOUND,
                "cannot connect to no such host.invalid:10810: the name is unknown: check it, or "
                "give the address of the host");
}

static void
test_connect_too_late (void **state)
{
  g_autoptr (GError) tcp = NULL;
  g_autoptr (GError) local = NULL;

  assert_null (channel_connect_tcp ("127.0.0.1", 1, deadline_in (0, NULL), &tcp));
  assert_error (tcp, G_IO_ERROR_TIMED_OUT, "cannot connect to 127.0.0.1:1: timed out");
  g_autofree char *path = g_strnfill (200, 'x');
  assert_null (channel_connect_unix (path, soon (), &local));
  assert_true (g_str_has_suffix (local->message,
                                 ": the path is too long for a socket (200 bytes, at most 107)"));
}

/* ---- UNIX sockets ---- */

static int
listen_unix (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  assert_int_equal (bind (fd, (struct sockaddr *)&address, sizeof address), 0);
  assert_int_equal (listen (fd, 0), 0);
  return fd;
}

static void
test_connect_unix (void **state)
{
  g_autofree char *dir = g_dir_make_tmp ("vmferry-channel-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "x.sock", NULL);
  g_autoptr (GError) absent = NULL;
  g_autoptr (GError) dead = NULL;

  assert_null (channel_connect_unix (path, soon (), &absent));
  g_autofree char *expected
      = g_strdup_printf ("cannot connect to %s: No such file or directory", path);
  assert_error (absent, G_IO_ERROR_NOT_FOUND, expected);

  int listener = listen_unix (path);
  g_autoptr (Channel) channel = channel_connect_unix (path, soon (), NULL);
  assert_non_null (channel);
  assert_string_equal (channel_get_peer (channel), path);
  close (listener);

  assert_null (channel_connect_unix (path, soon (), &dead));
  assert_true (g_error_matches (dead, G_IO_ERROR, G_IO_ERROR_CONNECTION_REFUSED));
  g_unlink (path);
  g_rmdir (dir);
}

/* A program that serves one client leaves the next ones in its queue, and then outside. */
static void
test_connect_unix_queue_full (void **state)
{
  g_autofree char *dir = g_dir_make_tmp ("vmferry-channel-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "x.sock", NULL);
  int listener = listen_unix (path);
  g_autoptr (Channel) first = channel_connect_unix (path, soon (), NULL);
  g_autoptr (GError) error = NULL;

  assert_non_null (first);
  assert_null (channel_connect_unix (path, deadline_in (60, NULL), &error));
  g_autofree char *expected = g_strdup_printf (
      "cannot connect to %s: its queue is full (another client may hold it): timed out", path);
  assert_error (error, G_IO_ERROR_TIMED_OUT, expected);
  close (listener);
  g_unlink (path);
  g_rmdir (dir);
}

static void
test_text_escape (void **state)
{
  static const struct
  {
    const char *text;
    gsize len;
    const char *expected;
  } cases[] = {
    { "plain", 5, "plain" },
    { "caf\xc3\xa9", 5, "caf\xc3\xa9" },
    { "a\0b\n\x1b[31m", 9, "a\\x00b\\x0a\\x1b[31m" },
    { "\xff\xc3", 2, "\\xff\\xc3" },
    { "say \"hi\\\"", 9, "say \\\"hi\\\\\\\"" },
    { "\xe2\x80\xae", 3, "\\u202e" }, /* turns the writing direction round */
    { "0123456789abcdefghij-", 21, "0123456789abcdefghij..." },
    { "", 0, "" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autofree char *text = text_escape (cases[i].text, cases[i].len, 20);
      assert_string_equal (text, cases[i].expected);
    }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_read_and_write),
    cmocka_unit_test (test_write_all),
    cmocka_unit_test (test_write_all_to_one_who_does_not_read),
    cmocka_unit_test (test_read_all_short),
    cmocka_unit_test (test_read_all_ends),
    cmocka_unit_test (test_write_to_closed),
    cmocka_unit_test (test_connect_tcp),
    cmocka_unit_test (test_connect_by_name),
    cmocka_unit_test (test_connect_v6),
    cmocka_unit_test (test_connect_refused),
    cmocka_unit_test (test_connect_unknown_host),
    cmocka_unit_test (test_connect_too_late),
    cmocka_unit_test (test_connect_unix),
    cmocka_unit_test (test_connect_unix_queue_full),
    cmocka_unit_test (test_text_escape),
  };

  return cmocka_run_group_tests_name ("channel", tests, NULL, NULL);
}
