/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/pki.h"
#include "tls/names.h"

static void
test_match_dns (void **state)
{
  static const struct
  {
    const char *pattern, *host;
    gboolean match;
  } cases[] = {
    { "hostb", "hostb", TRUE },
    { "hostb", "HostB", TRUE },
    { "hostb.example.org.", "hostb.example.org", TRUE },
    { "hostb.example.org", "hostb.example.org.", TRUE },
    { "hostb", "hostc", FALSE },
    { "hostb", "hostb.example.org", FALSE },
    { "example.org", "hostb.example.org", FALSE },
    { "*.example.org", "hostb.example.org", TRUE },
    { "*.example.org", "HOSTB.Example.ORG.", TRUE },
    { "*.example.org", "a.b.example.org", FALSE },
    { "*.example.org", "example.org", FALSE },
    { "*.example.org", ".example.org", FALSE },
    { "*.org", "example.org", FALSE },
    { "*.org.", "example.org", FALSE },
    { "*.", "example", FALSE },
    { "*", "hostb", FALSE },
    { "h*.example.org", "hostb.example.org", FALSE },
    { "*b.example.org", "hostb.example.org", FALSE },
    { "hostb.*.org", "hostb.example.org", FALSE },
    { "*.*.org", "hostb.example.org", FALSE },
    { "*.example.org", "*.example.org", FALSE },
    { "", "", FALSE },
    { ".", ".", FALSE },
    { "", "hostb", FALSE },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++)
    if (names_match_dns (cases[i].pattern, cases[i].host) != cases[i].match)
      fail_msg ("%s against %s", cases[i].pattern, cases[i].host);
}

static void
with_cert (const PkiRequest *request, void (*check) (gnutls_x509_crt_t cert))
{
  g_autoptr (PkiPair) pair = pki_issue (NULL, request);

  check (pki_pair_get_cert (pair));
}

static void
check_many (gnutls_x509_crt_t cert)
{
  g_autofree char *text = names_describe (cert);

  assert_true (names_match (cert, "hosta"));
  assert_true (names_match (cert, "hostb.example.org"));
  assert_true (names_match (cert, "192.0.2.7"));
  assert_true (names_match (cert, "2001:db8:0::7"));
  assert_true (names_match (cert, "fe80::1%eth0"));
  assert_true (names_match (cert, "xn--caf-dma.example.org"));
  assert_true (names_match (cert, "caf\xc3\xa9.example.org"));
  assert_false (names_match (cert, "192.0.2.8"));
  assert_false (names_match (cert, "::ffff:192.0.2.7"));
  assert_false (names_match (cert, "hostc"));
  assert_false (names_match (cert, ""));
  assert_string_equal (text, "\"hostA\", \"*.example.org\", \"192.0.2.7\", \"2001:db8::7\", "
                             "\"fe80::1\"");
}

static void
check_none (gnutls_x509_crt_t cert)
{
  assert_false (names_match (cert, "hostA"));
  assert_null (names_describe (cert));
}

/* An address that is written as a DNS name is not an address. */
static void
check_dressed_up (gnutls_x509_crt_t cert)
{
  assert_false (names_match (cert, "192.0.2.7"));
}

static void
check_zero (gnutls_x509_crt_t cert)
{
  g_autofree char *text = names_describe (cert);

  assert_false (names_match (cert, "hostA"));
  assert_false (names_match (cert, "hostA.evil"));
  assert_string_equal (text, "\"hostA\\x00.evil\"");
}

static void
check_long_list (gnutls_x509_crt_t cert)
{
  g_autofree char *text = names_describe (cert);

  assert_true (names_match (cert, "h8"));
  assert_string_equal (text, "\"h1\", \"h2\", \"h3\", \"h4\", \"h5\", \"h6\" and 2 more");
}

static void
test_match (void **state)
{
  with_cert (&(PkiRequest){ .cn = "hostC",
                            .dns = { "hostA", "*.example.org" },
                            .ips = { "192.0.2.7", "2001:db8::7", "fe80::1" } },
             check_many);
  with_cert (&(PkiRequest){ .cn = "hostA" }, check_none);
  with_cert (&(PkiRequest){ .cn = "hostA", .dns = { "192.0.2.7" } }, check_dressed_up);
  with_cert (&(PkiRequest){ .cn = "hostA", .raw_dns = "hostA\0.evil", .raw_dns_len = 11 },
             check_zero);
  with_cert (&(PkiRequest){ .cn = "x", .dns = { "h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8" } },
             check_long_list);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_match_dns),
    cmocka_unit_test (test_match),
  };

  return cmocka_run_group_tests_name ("names", tests, NULL, NULL);
}
