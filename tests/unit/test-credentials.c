/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/unit/pki.h"
#include "tls/credentials.h"

static PkiPair *ca, *other_ca;

static int
set_up (void **state)
{
  ca = pki_new_ca ("our CA");
  other_ca = pki_new_ca ("other CA");
  return 0;
}

static int
tear_down (void **state)
{
  pki_pair_free (ca);
  pki_pair_free (other_ca);
  return 0;
}

/* A directory with our CA and the one pair for `endpoint` issued as `request` says. */
static PkiDir *
make_dir (const PkiPair *issuer, const PkiRequest *request, CredentialsEndpoint endpoint)
{
  PkiDir *dir = pki_dir_new ();
  g_autoptr (PkiPair) pair = pki_issue (issuer, request);

  pki_fill_dir (dir, ca, endpoint == CREDENTIALS_SERVER ? pair : NULL,
                endpoint == CREDENTIALS_CLIENT ? pair : NULL);
  return dir;
}

/* `expected` is the whole message, with %D for the directory and %T for any date. */
static void
assert_message (const GError *error, const char *dir, const char *expected)
{
  g_autoptr (GString) shown = g_string_new (error->message);
  g_autoptr (GRegex) dates
      = g_regex_new ("\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d UTC", 0, 0, NULL);

  g_string_replace (shown, dir, "%D", 0);
  g_autofree char *text = g_regex_replace_literal (dates, shown->str, -1, 0, "%T", 0, NULL);
  assert_string_equal (text, expected);
}

static void
assert_fails (const char *dir, CredentialsEndpoint endpoint, const char *expected)
{
  g_autoptr (GError) error = NULL;

  assert_null (credentials_load (dir, endpoint, &error));
  assert_true (g_error_matches (error, TLS_ERROR, TLS_ERROR_CREDENTIALS));
  assert_message (error, dir, expected);
}

static void
assert_refused (const PkiPair *issuer, const PkiRequest *request, const char *expected)
{
  g_autoptr (PkiDir) dir = make_dir (issuer, request, CREDENTIALS_CLIENT);

  assert_fails (dir, CREDENTIALS_CLIENT, expected);
}

static void
chmod_file (const char *dir, const char *name, int mode)
{
  g_autofree char *path = g_build_filename (dir, name, NULL);

  assert_int_equal (g_chmod (path, mode), 0);
}

static void
remove_file (const char *dir, const char *name)
{
  g_autofree char *path = g_build_filename (dir, name, NULL);

  assert_int_equal (g_unlink (path), 0);
}

static void
write_text (const char *dir, const char *name, const char *text)
{
  g_autofree char *path = g_build_filename (dir, name, NULL);

  assert_true (
      g_file_set_contents_full (path, text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0600, NULL));
}

static void
test_good (void **state)
{
  g_autoptr (PkiDir) dir = pki_dir_new_for ("hostA");
  g_autoptr (GError) error = NULL;
  g_autoptr (Credentials) client = credentials_load (dir, CREDENTIALS_CLIENT, &error);
  g_autoptr (Credentials) server = credentials_load (dir, CREDENTIALS_SERVER, &error);

  assert_null (error);
  assert_string_equal (credentials_get_identity (client), "O=vmferry,CN=hostA");
  assert_string_equal (credentials_get_path (client), dir);
  assert_int_equal (credentials_get_endpoint (client), CREDENTIALS_CLIENT);
  assert_int_equal (credentials_get_endpoint (server), CREDENTIALS_SERVER);

  Credentials *second = credentials_ref (client);
  assert_ptr_equal (second, client);
  credentials_unref (second);
  credentials_unref (NULL);
}

static void
test_rsa_and_intermediate (void **state)
{
  g_autoptr (PkiPair) middle = pki_issue (ca, &(PkiRequest){ .cn = "middle", .is_ca = TRUE });
  const PkiRequest request = { .cn = "hostA", .rsa_bits = 2048 };
  g_autoptr (PkiDir) dir = make_dir (middle, &request, CREDENTIALS_SERVER);
  g_autoptr (GError) error = NULL;
  g_autoptr (Credentials) server = credentials_load (dir, CREDENTIALS_SERVER, &error);

  assert_null (error);
  assert_non_null (server);
}

static void
test_missing_files (void **state)
{
  g_autoptr (PkiDir) dir = pki_dir_new_for ("hostA");

  remove_file (dir, "client-key.pem");
  assert_fails (dir, CREDENTIALS_CLIENT,
                "cannot use %D/client-key.pem: it does not exist: put the key that belongs to the "
                "certificate there");
  remove_file (dir, "client-cert.pem");
  assert_fails (dir, CREDENTIALS_CLIENT,
                "cannot use %D/client-cert.pem: it does not exist: issue a certificate for this "
                "host with your CA");
  remove_file (dir, "ca-cert.pem");
  assert_fails (dir, CREDENTIALS_SERVER,
                "cannot use %D/ca-cert.pem: it does not exist: copy the certificate of your CA "
                "there");
}

static void
test_key_modes (void **state)
{
  g_autoptr (PkiDir) dir = pki_dir_new_for ("hostA");

  chmod_file (dir, "client-key.pem", 0644);
  assert_fails (dir, CREDENTIALS_CLIENT,
                "cannot use %D/client-key.pem: others may read it (mode 0644): chmod 0600 it");
  chmod_file (dir, "client-key.pem", 0602);
  assert_fails (dir, CREDENTIALS_CLIENT,
                "cannot use %D/client-key.pem: others may write or run it (mode 0602): chmod 0600 "
                "it");
  chmod_file (dir, "client-key.pem", 0640);
  g_autoptr (Credentials) group = credentials_load (dir, CREDENTIALS_CLIENT, NULL);
  assert_non_null (group);
}

static void
test_strange_files (void **state)
{
  g_autoptr (PkiDir) dir = pki_dir_new_for ("hostA");
  g_autofree char *fifo = g_build_filename (dir, "client-key.pem", NULL);
  g_autofree char *big = g_strnfill (1024 * 1024 + 1, 'x');

  remove_file (dir, "client-key.pem");
  assert_int_equal (mkfifo (fifo, 0600), 0);
  assert_fails (dir, CREDENTIALS_CLIENT, "cannot use %D/client-key.pem: it is not a file");
  write_text (dir, "client-cert.pem", "no certificate\n");
  assert_fails (dir, CREDENTIALS_CLIENT,
                "cannot use %D/client-cert.pem: there is no certificate in it (No certificate was "
                "found.)");
  write_text (dir, "client-cert.pem", big);
  assert_fails (
      dir, CREDENTIALS_CLIENT,
      "cannot use %D/client-cert.pem: it has 1048577 bytes, at most 1048576 are accepted");
  write_text (dir, "server-key.pem", "");
  assert_fails (dir, CREDENTIALS_SERVER, "cannot use %D/server-key.pem: it is empty");
  write_text (dir, "server-key.pem", "no key\n");
  assert_fails (dir, CREDENTIALS_SERVER,
                "cannot use %D/server-key.pem: there is no usable private key in it");
}

static void
test_pair_mismatch (void **state)
{
  g_autoptr (PkiDir) dir = pki_dir_new_for ("hostA");
  g_autoptr (PkiPair) stranger = pki_issue (ca, &(PkiRequest){ .cn = "hostA" });

  pki_write_key (stranger, dir, "server-key.pem");
  assert_fails (
      dir, CREDENTIALS_SERVER,
      "cannot use %D/server-key.pem: it is not the key of %D/server-cert.pem: put the two "
      "that belong together there");
}

static void
test_dates (void **state)
{
  assert_refused (ca, &(PkiRequest){ .cn = "hostA", .ends_in_s = -60 },
                  "cannot use %D/client-cert.pem: the certificate (O=vmferry,CN=hostA) expired on "
                  "%T: issue a new one");
  assert_refused (
      ca, &(PkiRequest){ .cn = "hostA", .starts_in_s = 3600 },
      "cannot use %D/client-cert.pem: the certificate (O=vmferry,CN=hostA) is not valid "
      "before %T: check the clocks of both hosts");
}

static void
test_issuers (void **state)
{
  g_autoptr (PkiPair) namesake = pki_new_ca ("our CA");

  assert_refused (other_ca, &(PkiRequest){ .cn = "hostA" },
                  "cannot use %D/client-cert.pem: the certificate (O=vmferry,CN=hostA) was issued "
                  "by a CA (O=vmferry,CN=other CA) that is not the one in %D/ca-cert.pem: both "
                  "hosts need certificates of the same CA");
  assert_refused (namesake, &(PkiRequest){ .cn = "hostA" },
                  "cannot use %D/client-cert.pem: the certificate (O=vmferry,CN=hostA) was issued "
                  "by a CA (O=vmferry,CN=our CA) that is not the one in %D/ca-cert.pem: both "
                  "hosts need certificates of the same CA");
  assert_refused (NULL, &(PkiRequest){ .cn = "hostA" },
                  "cannot use %D/client-cert.pem: the certificate (O=vmferry,CN=hostA) is "
                  "self-signed, not issued by the CA in %D/ca-cert.pem: issue one with that CA");
}

static void
test_use_and_strength (void **state)
{
  assert_refused (ca, &(PkiRequest){ .cn = "hostA", .use = PKI_SERVER },
                  "cannot use %D/client-cert.pem: the certificate (O=vmferry,CN=hostA) may not be "
                  "used by a TLS client (its extended key usage lacks clientAuth): issue one that "
                  "may");
  assert_refused (ca, &(PkiRequest){ .cn = "hostA", .rsa_bits = 1024 },
                  "cannot use %D/client-cert.pem: the certificate (O=vmferry,CN=hostA) has a weak "
                  "key (RSA, 1024 bits): issue one with RSA of 2048 bits or more, or ECDSA");
  assert_refused (ca, &(PkiRequest){ .dns = { "hostA" } },
                  "cannot use %D/client-cert.pem: its distinguished name is empty: issue one with "
                  "a name");
}

static void
test_intermediates (void **state)
{
  g_autoptr (PkiPair) old
      = pki_issue (ca, &(PkiRequest){ .cn = "old", .is_ca = TRUE, .ends_in_s = -60 });
  g_autoptr (PkiPair) no_ca = pki_issue (ca, &(PkiRequest){ .cn = "host" });

  assert_refused (old, &(PkiRequest){ .cn = "hostA" },
                  "cannot use %D/client-cert.pem: the certificate (O=vmferry,CN=hostA) comes with "
                  "an intermediate one (O=vmferry,CN=old) that expired on %T: issue a new one");
  /* whoever has a host's certificate must not be able to issue others with it */
  g_autoptr (PkiDir) dir = make_dir (no_ca, &(PkiRequest){ .cn = "hostA" }, CREDENTIALS_CLIENT);
  g_autoptr (GError) error = NULL;
  assert_null (credentials_load (dir, CREDENTIALS_CLIENT, &error));
  assert_true (g_error_matches (error, TLS_ERROR, TLS_ERROR_CREDENTIALS));
}

static void
test_ca_file (void **state)
{
  g_autoptr (PkiDir) dir = pki_dir_new_for ("hostA");
  g_autoptr (PkiPair) leaf = pki_issue (NULL, &(PkiRequest){ .cn = "hostA" });
  g_autoptr (PkiPair) old
      = pki_issue (NULL, &(PkiRequest){ .cn = "old CA", .is_ca = TRUE, .ends_in_s = -60 });
  g_autoptr (PkiPair) pair = pki_issue (old, &(PkiRequest){ .cn = "hostA" });

  pki_write_cert (leaf, dir, "ca-cert.pem");
  assert_fails (dir, CREDENTIALS_SERVER,
                "cannot use %D/ca-cert.pem: O=vmferry,CN=hostA is not a CA (it lacks "
                "basicConstraints CA): put the certificate of the CA there");
  pki_fill_dir (dir, old, pair, NULL);
  assert_fails (dir, CREDENTIALS_SERVER,
                "cannot use %D/server-cert.pem: the certificate (O=vmferry,CN=hostA) was issued by "
                "a CA that has expired: issue a new CA (%D/ca-cert.pem)");
}

static void
test_revocation (void **state)
{
  g_autoptr (PkiDir) dir = pki_dir_new ();
  g_autoptr (PkiPair) pair = pki_issue (ca, &(PkiRequest){ .cn = "hostA" });
  g_autoptr (PkiPair) stranger = pki_issue (ca, &(PkiRequest){ .cn = "hostB" });

  pki_fill_dir (dir, ca, pair, NULL);
  pki_write_crl (ca, stranger, 3600, dir, "ca-crl.pem");
  g_autoptr (Credentials) good = credentials_load (dir, CREDENTIALS_SERVER, NULL);
  assert_non_null (good);

  pki_write_crl (ca, pair, 3600, dir, "ca-crl.pem");
  assert_fails (dir, CREDENTIALS_SERVER,
                "cannot use %D/server-cert.pem: the certificate (O=vmferry,CN=hostA) was revoked, "
                "as %D/ca-crl.pem says: issue a new one");
  pki_write_crl (ca, stranger, -60, dir, "ca-crl.pem");
  assert_fails (dir, CREDENTIALS_SERVER,
                "cannot use %D/ca-crl.pem: this revocation list is out of date: fetch a new one");
  write_text (dir, "ca-crl.pem", "nothing");
  assert_fails (dir, CREDENTIALS_SERVER,
                "cannot use %D/ca-crl.pem: there is no revocation list in it");
}

static void
test_encrypted_key (void **state)
{
  g_autoptr (PkiDir) dir = pki_dir_new_for ("hostA");
  g_autoptr (PkiPair) pair = pki_issue (ca, &(PkiRequest){ .cn = "hostA" });

  pki_fill_dir (dir, ca, pair, NULL);
  pki_write_encrypted_key (pair, dir, "server-key.pem");
  assert_fails (dir, CREDENTIALS_SERVER,
                "cannot use %D/server-key.pem: it is encrypted: store it without a password, "
                "readable by root only");
}

static void
test_names_are_escaped (void **state)
{
  assert_refused (other_ca, &(PkiRequest){ .cn = "a\x1b[2J\nb", .ends_in_s = -60 },
                  "cannot use %D/client-cert.pem: the certificate (O=vmferry,CN=a\\x1b[2J\\x0ab) "
                  "was issued by a CA (O=vmferry,CN=other CA) that is not the one in "
                  "%D/ca-cert.pem: both hosts need certificates of the same CA");
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_good),
    cmocka_unit_test (test_rsa_and_intermediate),
    cmocka_unit_test (test_missing_files),
    cmocka_unit_test (test_key_modes),
    cmocka_unit_test (test_strange_files),
    cmocka_unit_test (test_pair_mismatch),
    cmocka_unit_test (test_dates),
    cmocka_unit_test (test_issuers),
    cmocka_unit_test (test_use_and_strength),
    cmocka_unit_test (test_intermediates),
    cmocka_unit_test (test_ca_file),
    cmocka_unit_test (test_revocation),
    cmocka_unit_test (test_encrypted_key),
    cmocka_unit_test (test_names_are_escaped),
  };

  return cmocka_run_group_tests_name ("credentials", tests, set_up, tear_down);
}
