/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/qemu-tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glib/gstdio.h>
#include <gnutls/gnutls.h>

typedef struct
{
  char *root, *tls_dir;
} Fixture;

static int
set_up (void **state)
{
  Fixture *fixture = g_new0 (Fixture, 1);

  fixture->root = g_dir_make_tmp ("vmferry-qemu-tls-XXXXXX", NULL);
  fixture->tls_dir = g_build_filename (fixture->root, "pki", NULL);
  assert_int_equal (g_mkdir (fixture->tls_dir, 0700), 0);
  *state = fixture;
  return 0;
}

static int
tear_down (void **state)
{
  Fixture *fixture = *state;
  const char *argv[] = { "rm", "-rf", fixture->root, NULL };

  g_spawn_sync (NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
  g_free (fixture->root);
  g_free (fixture->tls_dir);
  g_free (fixture);
  return 0;
}

/* Twice, as an agent that starts again finds what it left. */
static void
test_links_lead_to_the_originals (void **state)
{
  Fixture *fixture = *state;
  g_autofree char *original = g_build_filename (fixture->tls_dir, "ca-cert.pem", NULL);

  assert_true (g_file_set_contents (original, "certificate", -1, NULL));
  for (guint i = 0; i < 2; i++)
    {
      g_autoptr (GError) error = NULL;
      g_autofree char *dir = qemu_tls_make_dir (fixture->tls_dir, fixture->root, &error);
      g_autofree char *link = NULL;
      g_autofree char *absent = NULL;
      g_autofree char *text = NULL;

      assert_null (error);
      link = g_build_filename (dir, "ca-cert.pem", NULL);
      absent = g_build_filename (dir, "ca-crl.pem", NULL);
      assert_true (g_file_get_contents (link, &text, NULL, NULL));
      assert_string_equal (text, "certificate");
      assert_false (g_file_test (absent, G_FILE_TEST_EXISTS));
    }
}

static void
test_parameters_are_those_of_the_standard (void **state)
{
  Fixture *fixture = *state;
  g_autofree char *dir = qemu_tls_make_dir (fixture->tls_dir, fixture->root, NULL);
  g_autofree char *path = g_build_filename (dir, "dh-params.pem", NULL);
  g_autofree char *text = NULL;
  gnutls_dh_params_t params;
  gnutls_datum_t pem, prime, generator;
  unsigned bits;
  gsize len;

  assert_true (g_file_get_contents (path, &text, &len, NULL));
  pem = (gnutls_datum_t){ (unsigned char *)text, len };
  gnutls_dh_params_init (&params);
  assert_int_equal (gnutls_dh_params_import_pkcs3 (params, &pem, GNUTLS_X509_FMT_PEM), 0);
  assert_int_equal (gnutls_dh_params_export_raw (params, &prime, &generator, &bits), 0);
  assert_int_equal (prime.size, gnutls_ffdhe_2048_group_prime.size);
  assert_memory_equal (prime.data, gnutls_ffdhe_2048_group_prime.data, prime.size);
  gnutls_free (prime.data);
  gnutls_free (generator.data);
  gnutls_dh_params_deinit (params);
}

static void
test_parameters_of_the_administrator_are_kept (void **state)
{
  Fixture *fixture = *state;
  g_autofree char *theirs = g_build_filename (fixture->tls_dir, "dh-params.pem", NULL);
  g_autofree char *dir = NULL;

  assert_true (g_file_set_contents (theirs, "theirs", -1, NULL));
  dir = qemu_tls_make_dir (fixture->tls_dir, fixture->root, NULL);
  assert_string_equal (dir, fixture->tls_dir);
}

static void
test_a_directory_that_cannot_be_made_is_named (void **state)
{
  g_autoptr (GError) error = NULL;
  Fixture *fixture = *state;

  assert_null (qemu_tls_make_dir (fixture->tls_dir, "/nowhere", &error));
  assert_string_equal (error->message, "cannot make /nowhere/qemu-tls: No such file or directory");
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown (test_links_lead_to_the_originals, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_parameters_are_those_of_the_standard, set_up, tear_down),
    cmocka_unit_test_setup_teardown (test_parameters_of_the_administrator_are_kept, set_up,
                                     tear_down),
    cmocka_unit_test_setup_teardown (test_a_directory_that_cannot_be_made_is_named, set_up,
                                     tear_down),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
