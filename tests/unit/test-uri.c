/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "nbd/uri.h"

static NbdUri *
parse (const char *text)
{
  g_autoptr (GError) error = NULL;
  NbdUri *uri = nbd_uri_parse (text, &error);

  if (uri == NULL)
    fail_msg ("%s", error->message);
  assert_null (error);
  assert_true (nbd_uri_is_uri (text));
  return uri;
}

static void
assert_same (const char *actual, const char *expected)
{
  if (expected == NULL)
    assert_null (actual);
  else
    {
      assert_non_null (actual);
      assert_string_equal (actual, expected);
    }
}

static void
assert_refused (const char *text, const char *problem)
{
  g_autoptr (GError) error = NULL;

  assert_null (nbd_uri_parse (text, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT));
  if (strstr (error->message, problem) == NULL)
    fail_msg ("\"%s\" lacks \"%s\"", error->message, problem);
  assert_true (g_str_has_prefix (error->message, "the NBD URI \""));
  assert_true (g_utf8_validate (error->message, -1, NULL));
  for (const char *at = error->message; *at != '\0'; at++)
    assert_true ((guchar)*at >= 0x20);
}

static void
test_good (void **state)
{
  static const struct
  {
    const char *text;
    NbdUri uri;
  } cases[] = {
    { "nbd://a.test", { .host = (char *)"a.test", .port = 10809 } },
    { "nbd://a.test/", { .host = (char *)"a.test", .port = 10809 } },
    { "NBD://a.test:1/x", { .host = (char *)"a.test", .port = 1, .export_name = (char *)"x" } },
    { "nbd://a.test:/x", { .host = (char *)"a.test", .port = 10809, .export_name = (char *)"x" } },
    { "nbds://a.test:65535//x/y",
      { .tls = TRUE,
        .host = (char *)"a.test",
        .port = 65535,
        .export_name = (char *)"/x/y",
        .tls_name = (char *)"a.test" } },
    { "nbds://[2001:db8::1]:7/",
      { .tls = TRUE,
        .host = (char *)"2001:db8::1",
        .port = 7,
        .tls_name = (char *)"2001:db8::1" } },
    { "nbds://[fe80::1%25eth0]/",
      { .tls = TRUE,
        .host = (char *)"fe80::1%eth0",
        .port = 10809,
        .tls_name = (char *)"fe80::1" } },
    { "nbds://192.0.2.1?tls-hostname=b.test",
      { .tls = TRUE, .host = (char *)"192.0.2.1", .port = 10809, .tls_name = (char *)"b.test" } },
    { "nbds://alice@a.test/?tls-psk-file=/k%20eys.psk",
      { .tls = TRUE,
        .host = (char *)"a.test",
        .port = 10809,
        .user = (char *)"alice",
        .psk_file = (char *)"/k eys.psk" } },
    { "nbds+unix://alice@/?socket=/tmp/nbd.sock&tls-certificates=certs&tls-hostname=a.test",
      { .tls = TRUE,
        .socket = (char *)"/tmp/nbd.sock",
        .user = (char *)"alice",
        .tls_dir = (char *)"certs",
        .tls_name = (char *)"a.test" } },
    { "nbds+unix:///?tls-psk-file=p&socket=s&tls-verify-peer=true",
      { .tls = TRUE, .socket = (char *)"s", .psk_file = (char *)"p" } },
    { "nbd+unix:///a+b%2Fc%26d?socket=/x=y%26z&",
      { .socket = (char *)"/x=y&z", .export_name = (char *)"a+b/c&d" } },
    { "nbd+unix:///?socket=/x;y", { .socket = (char *)"/x;y" } },
    { "nbd://a.test/gr%C3%B6%C3%9Fe%0A",
      { .host = (char *)"a.test", .port = 10809, .export_name = (char *)"gr\303\266\303\237e\n" } },
    { "nbd://a.test/a/../b/.",
      { .host = (char *)"a.test", .port = 10809, .export_name = (char *)"a/../b/." } },
    { "nbd://a.test/%2e%2E",
      { .host = (char *)"a.test", .port = 10809, .export_name = (char *)".." } },
    { "nbd://a.test/gr\303\266\303\237e",
      { .host = (char *)"a.test", .port = 10809, .export_name = (char *)"gr\303\266\303\237e" } },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      const NbdUri *expected = &cases[i].uri;
      g_autoptr (NbdUri) uri = parse (cases[i].text);
      assert_string_equal (uri->text, cases[i].text);
      assert_int_equal (uri->tls, expected->tls);
      assert_same (uri->host, expected->host);
      assert_int_equal (uri->port, expected->port);
      assert_same (uri->socket, expected->socket);
      assert_same (uri->export_name, expected->export_name != NULL ? expected->export_name : "");
      assert_same (uri->user, expected->user);
      assert_same (uri->tls_dir, expected->tls_dir);
      assert_same (uri->psk_file, expected->psk_file);
      assert_same (uri->tls_name, expected->tls_name);
    }
}

/* `unit` as often as makes `n` bytes. */
static char *
make_long (const char *unit, gsize n_units)
{
  GString *text = g_string_new ("nbd://a.test/");

  for (gsize i = 0; i < n_units; i++)
    g_string_append (text, unit);
  return g_string_free (text, FALSE);
}

static void
test_long_names (void **state)
{
  static const struct
  {
    const char *unit;
    gsize bytes;
  } cases[]
      = { { "x", 1 }, { "%78", 1 }, { "\303\266", 2 }, { "%C3%B6", 2 }, { "%f0%9f%98%80", 4 } };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autofree char *longest = make_long (cases[i].unit, 4096 / cases[i].bytes);
      g_autofree char *longer = make_long (cases[i].unit, 4096 / cases[i].bytes + 1);
      g_autoptr (NbdUri) uri = parse (longest);
      assert_int_equal (strlen (uri->export_name), 4096);
      assert_refused (longer, "bytes, at most 4096 are allowed");
    }
  g_autofree char *odd = make_long ("x", 4097);
  assert_refused (odd, "the name of the export has 4097 bytes, at most 4096 are allowed");
}

static void
test_refused (void **state)
{
  static const struct
  {
    const char *text, *problem;
  } cases[] = {
    { "", "it doesn't begin with nbd://" },
    { "/tmp/disk.raw", "it doesn't begin with nbd://" },
    { "nbd:a.test:10809", "it doesn't begin with nbd://" },
    { "nbds", "it doesn't begin with nbd://" },
    { "nbdx://a.test", "it doesn't begin with nbd://" },
    { "http://a.test", "it doesn't begin with nbd://" },
    { " nbd://a.test", "it doesn't begin with nbd://" },
    { "nbd+vsock://2", "vsock is not supported" },
    { "nbds+vsock:///", "vsock is not supported" },
    { "nbd+ssh://a.test/?socket=s", "ssh is not supported" },
    { "nbds+ssh://a.test/", "ssh is not supported" },
    { "nbd://", "it names no host" },
    { "nbd:///x", "it names no host" },
    { "nbd://a.test:0/", "0 is not a port" },
    { "nbd://a.test:65536/", "65536" },
    { "nbd://a.test:-1/", "-1" },
    { "nbd://a.test:http/", "http" },
    { "nbd://2001:db8::1/", "the NBD URI" },
    { "nbd://[2001:db8::1/", "IPv6" },
    { "nbd://[a.test]/", "IPv6" },
    { "nbd://[::1%25a\x1b]/", "the NBD URI" },
    { "nbd://a.test/%", "%" },
    { "nbd://a.test/%4", "%" },
    { "nbd://a.test/%zz", "%" },
    { "nbd://a.test/a%00b", "the name of the export has a zero byte (%00)" },
    { "nbd://a.test/%ff", "the name of the export is not UTF-8" },
    { "nbd://a.test/%c3", "the name of the export is not UTF-8" },
    { "nbd://a.test/%ed%a0%80", "the name of the export is not UTF-8" },
    { "nbd://a.test/\xff", "the NBD URI \"nbd://a.test/\\xff\"" },
    { "nbd://a.test/x#y", "it has a fragment" },
    { "nbd://a.test/x?socket=/s", "socket=PATH needs nbd+unix" },
    { "nbd+unix:///x", "socket=PATH is missing" },
    { "nbd+unix:///?socket=", "socket has no value" },
    { "nbd+unix:///?socket", "socket has no value" },
    { "nbd+unix:///?socket=a&socket=a", "socket is given twice" },
    { "nbd+unix:///?socket=%00abstract", "socket has a zero byte" },
    { "nbd+unix:///?socket=%1b[2J", "socket has a control character" },
    { "nbd+unix:///?socket=%ff", "socket is not UTF-8" },
    { "nbd+unix://a.test/?socket=a", "a UNIX socket has no host" },
    { "nbd+unix://:10809/?socket=a", "a UNIX socket has no host" },
    { "nbd://alice@a.test/", "a user name means nothing without TLS" },
    { "nbds://@a.test/", "the user name before \"@\" is empty" },
    { "nbds://alice:secret@a.test/", "a password has no place in it" },
    { "nbds://al%00ice@a.test/", "the user name has a zero byte" },
    { "nbd://a.test/?tls-certificates=/d", "tls-certificates means nothing without TLS" },
    { "nbd://a.test/?tls-psk-file=/d", "tls-psk-file means nothing without TLS" },
    { "nbd://a.test/?tls-hostname=a", "tls-hostname means nothing without TLS" },
    { "nbds://a.test/?tls-hostname=", "tls-hostname has no value" },
    { "nbds://a.test/?tls-hostname=a&tls-hostname=b", "tls-hostname is given twice" },
    { "nbds://a.test/?tls-certificates=a&tls-certificates=b", "tls-certificates is given twice" },
    { "nbds://a.test/?tls-psk-file=a&tls-psk-file=b", "tls-psk-file is given twice" },
    { "nbds://a.test/?tls-certificates=a&tls-psk-file=b", "exclude each other" },
    { "nbds://a.test/?tls-verify-peer=false", "tls-verify-peer can't be switched off" },
    { "nbds://a.test/?tls-verify-peer=0", "tls-verify-peer can't be switched off" },
    { "nbds://a.test/?tls-type=anon", "the parameter \"tls-type\" is not supported" },
    { "nbds://a.test/?TLS-HOSTNAME=a", "the parameter \"TLS-HOSTNAME\" is not supported" },
    { "nbds://a.test/?x%1b=1", "the parameter \"x\\x1b\" is not supported" },
    { "nbds://a.test/?=1", "the parameter \"\" is not supported" },
    { "nbds+unix:///?socket=a", "can't be checked without a name: add tls-hostname=NAME" },
    { "nbds+unix:///?socket=a&tls-certificates=d", "can't be checked without a name" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++)
    assert_refused (cases[i].text, cases[i].problem);
}

static void
test_text_is_escaped (void **state)
{
  g_autoptr (NbdUri) uri = parse ("nbd://a.test/\"");

  assert_string_equal (uri->text, "nbd://a.test/\\\"");
  assert_refused ("nbd://a.test/\x1b[2J%", "nbd://a.test/\\x1b[2J%");
}

static void
test_is_uri (void **state)
{
  static const char *const no[]
      = { "", "n", "nbd", "nbd:", "nbd:/", "nbd:x:1", "nbds:", "/nbd://", "null:", "x+nbd://" };
  static const char *const yes[] = { "nbd://", "NBDS://x", "nbd+unix://", "nbds+vsock://" };

  for (gsize i = 0; i < G_N_ELEMENTS (no); i++)
    assert_false (nbd_uri_is_uri (no[i]));
  for (gsize i = 0; i < G_N_ELEMENTS (yes); i++)
    assert_true (nbd_uri_is_uri (yes[i]));
  nbd_uri_free (NULL);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_good),    cmocka_unit_test (test_long_names),
    cmocka_unit_test (test_refused), cmocka_unit_test (test_text_is_escaped),
    cmocka_unit_test (test_is_uri),
  };

  return cmocka_run_group_tests_name ("uri", tests, NULL, NULL);
}
