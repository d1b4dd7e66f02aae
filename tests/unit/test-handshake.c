/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "nbd/handshake.h"
#include "nbd/nbd-error.h"
#include "nbd/protocol.h"
#include "tests/unit/fake-nbd.h"
#include "tests/unit/pki.h"

#define SIZE 65536

static guint8 data[SIZE];
static guint8 blocks[SIZE / FAKE_BLOCK];

static const char *const contexts[] = { "qemu:dirty-bitmap:bm0", "base:allocation", NULL };

static Deadline
soon (void)
{
  return deadline_in (20 * 1000, NULL);
}

static FakeNbdSpec
honest (void)
{
  return (
      FakeNbdSpec){ .size = SIZE, .data = data, .state = blocks, .dirty = blocks, .bitmap = "bm0" };
}

static Channel *
shake_hands (FakeNbd **ret_fake, const FakeNbdSpec *spec, const NbdHandshake *handshake,
             NbdExport *ret_export, GError **error)
{
  Channel *channel;

  *ret_fake = fake_nbd_new (spec, &channel);
  return nbd_handshake_run (channel, handshake, soon (), ret_export, error);
}

static void
test_agrees (void **state)
{
  FakeNbdSpec spec = honest ();
  NbdHandshake handshake = { .export_name = "data", .contexts = contexts };
  g_autoptr (FakeNbd) fake = NULL;
  g_autoptr (Channel) channel = NULL;
  NbdExport export;

  spec.min_block = 512;
  channel = shake_hands (&fake, &spec, &handshake, &export, NULL);
  assert_non_null (channel);
  assert_int_equal (export.size, SIZE);
  assert_int_equal (export.min_block, 512);
  assert_int_equal (export.max_payload, NBD_DEFAULT_MAX_PAYLOAD);
  assert_true (export.structured);
  assert_int_equal (export.n_contexts, 2);
  assert_true (export.has_context[0] && export.has_context[1]);
  assert_int_equal (export.context_id[0], 9);
  assert_int_equal (export.context_id[1], 7);
}

static void
test_server_without_anything (void **state)
{
  FakeNbdSpec spec = honest ();
  NbdHandshake handshake = { .export_name = "", .contexts = contexts };
  g_autoptr (FakeNbd) fake = NULL;
  g_autoptr (Channel) channel = NULL;
  NbdExport export;

  spec.simple = TRUE;
  spec.fault = FAKE_NO_GO;
  channel = shake_hands (&fake, &spec, &handshake, &export, NULL);
  assert_non_null (channel);
  assert_int_equal (export.size, SIZE);
  assert_false (export.structured);
  assert_int_equal (export.n_contexts, 0);
  assert_int_equal (export.min_block, 1);
}

static void
test_bitmap_is_not_there (void **state)
{
  FakeNbdSpec spec = honest ();
  NbdHandshake handshake = { .export_name = "data", .contexts = contexts };
  g_autoptr (FakeNbd) fake = NULL;
  g_autoptr (Channel) channel = NULL;
  NbdExport export;

  spec.bitmap = NULL;
  channel = shake_hands (&fake, &spec, &handshake, &export, NULL);
  assert_non_null (channel);
  assert_false (export.has_context[0]);
  assert_true (export.has_context[1]);
}

typedef struct
{
  FakeFault fault;
  int code; /* NBD_ERROR */
  const char *message;
} Case;

static void
test_faults (void **state)
{
  static const Case cases[] = {
    { FAKE_NOT_NBD, NBD_ERROR_PROTOCOL,
      "fake:10809: this is not an NBD server: it sent \"NBDMAGIDIHAVEOPT\\x00\\x03\" where "
      "\"NBDMAGICIHAVEOPT\" belongs" },
    { FAKE_OLDSTYLE, NBD_ERROR_REFUSED,
      "fake:10809: the server speaks an old version of NBD; one with the fixed newstyle handshake "
      "is needed" },
    { FAKE_BAD_OPTION_MAGIC, NBD_ERROR_PROTOCOL,
      "fake:10809: the server sent garbage (magic number 0x0003e889045565aa) for the reply to "
      "NBD_OPT_STRUCTURED_REPLY" },
    { FAKE_WRONG_OPTION, NBD_ERROR_PROTOCOL,
      "fake:10809: the server answered option 9 where 8 (NBD_OPT_STRUCTURED_REPLY) was asked" },
    { FAKE_HUGE_OPTION_REPLY, NBD_ERROR_PROTOCOL,
      "fake:10809: the server's reply to NBD_OPT_STRUCTURED_REPLY is 268435456 bytes long, which "
      "may have 0" },
    { FAKE_ENDLESS_INFO, NBD_ERROR_PROTOCOL,
      "fake:10809: the server sends replies to an option without end" },
    { FAKE_NO_EXPORT, NBD_ERROR_REFUSED,
      "fake:10809: the server refused export \"data\" (NBD_REP_ERR_UNKNOWN: no such "
      "\\\"export\\\")" },
    { FAKE_HUGE_SIZE, NBD_ERROR_PROTOCOL,
      "fake:10809: the server described an impossible export (size 18446744073709547520, flags "
      "0x45): at most 2^63-1 bytes and flag 0x1 belong there" },
    { FAKE_BAD_BLOCK_SIZE, NBD_ERROR_PROTOCOL,
      "fake:10809: the server sent block sizes that the protocol does not allow" },
    { FAKE_FOREIGN_CONTEXT, NBD_ERROR_PROTOCOL,
      "fake:10809: the server selected a metadata context that was not asked for" },
  };
  NbdHandshake handshake = { .export_name = "data", .contexts = contexts };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      FakeNbdSpec spec = honest ();
      g_autoptr (FakeNbd) fake = NULL;
      g_autoptr (GError) error = NULL;
      NbdExport export;

      spec.fault = cases[i].fault;
      assert_null (shake_hands (&fake, &spec, &handshake, &export, &error));
      assert_string_equal (error->message, cases[i].message);
      assert_true (g_error_matches (error, NBD_ERROR, cases[i].code));
    }
}

static void
test_silent_server (void **state)
{
  FakeNbdSpec spec = honest ();
  NbdHandshake handshake = { .export_name = "data" };
  g_autoptr (FakeNbd) fake = NULL;
  g_autoptr (GError) error = NULL;
  NbdExport export;
  Channel *channel;

  spec.fault = FAKE_SILENT_OPTION;
  fake = fake_nbd_new (&spec, &channel);
  assert_null (nbd_handshake_run (channel, &handshake, deadline_in (100, NULL), &export, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT));
}

static void
test_long_name (void **state)
{
  FakeNbdSpec spec = honest ();
  g_autofree char *name = g_strnfill (NBD_MAX_STRING + 1, 'x');
  NbdHandshake handshake = { .export_name = name };
  g_autoptr (FakeNbd) fake = NULL;
  g_autoptr (GError) error = NULL;
  NbdExport export;

  assert_null (shake_hands (&fake, &spec, &handshake, &export, &error));
  assert_true (g_error_matches (error, NBD_ERROR, NBD_ERROR_REFUSED));
}

/* TLS */

typedef struct
{
  PkiDir *dir;
  Credentials *server;
  Credentials *client;
} Identity;

static Identity identity;

static int
make_identity (void **state)
{
  identity.dir = pki_dir_new_for ("src.test");
  identity.server = credentials_load (identity.dir, CREDENTIALS_SERVER, NULL);
  identity.client = credentials_load (identity.dir, CREDENTIALS_CLIENT, NULL);
  return identity.server != NULL && identity.client != NULL ? 0 : -1;
}

static int
drop_identity (void **state)
{
  credentials_unref (identity.server);
  credentials_unref (identity.client);
  pki_dir_free (identity.dir);
  return 0;
}

static Channel *
shake_hands_tls (FakeNbd **ret_fake, FakeFault fault, const char *name, GError **error)
{
  static FakeNbdSpec spec;
  NbdHandshake handshake = {
    .export_name = "data", .contexts = contexts, .credentials = identity.client, .tls_name = name
  };
  NbdExport export;

  spec = honest ();
  spec.credentials = identity.server;
  spec.fault = fault;
  return shake_hands (ret_fake, &spec, &handshake, &export, error);
}

static void
test_tls (void **state)
{
  g_autoptr (FakeNbd) fake = NULL;
  Channel *channel = shake_hands_tls (&fake, FAKE_HONEST, "src.test", NULL);

  assert_non_null (channel);
  channel_free (channel);
  fake_nbd_join (fake);
  assert_int_equal (fake_nbd_get_clear_options (fake), 1);
}

static void
test_tls_wrong_name (void **state)
{
  g_autoptr (FakeNbd) fake = NULL;
  g_autoptr (GError) error = NULL;

  assert_null (shake_hands_tls (&fake, FAKE_HONEST, "other.test", &error));
  assert_true (g_error_matches (error, TLS_ERROR, TLS_ERROR_NAME));
  fake_nbd_join (fake);
  assert_int_equal (fake_nbd_get_clear_options (fake), 1);
}

static void
test_tls_refused_by_server (void **state)
{
  g_autoptr (FakeNbd) fake = NULL;
  g_autoptr (GError) error = NULL;

  assert_null (shake_hands_tls (&fake, FAKE_NO_TLS, "src.test", &error));
  assert_string_equal (error->message,
                       "fake:10809: the server offers no TLS (NBD_REP_ERR_POLICY: no "
                       "\\x1b[31mTLS\\x0a); nothing was sent in clear: turn TLS on over there");
  assert_true (g_error_matches (error, NBD_ERROR, NBD_ERROR_NO_TLS));
  fake_nbd_join (fake);
  assert_int_equal (fake_nbd_get_clear_options (fake), 1);
}

static void
test_tls_old_server (void **state)
{
  g_autoptr (FakeNbd) fake = NULL;
  g_autoptr (GError) error = NULL;

  assert_null (shake_hands_tls (&fake, FAKE_OLDSTYLE, "src.test", &error));
  assert_true (g_error_matches (error, NBD_ERROR, NBD_ERROR_NO_TLS));
  fake_nbd_join (fake);
  assert_int_equal (fake_nbd_get_clear_options (fake), 0);
}

/* Bytes behind the STARTTLS reply must not be taken for the first reply inside TLS. */
static void
test_tls_injection (void **state)
{
  g_autoptr (FakeNbd) fake = NULL;
  g_autoptr (GError) error = NULL;

  assert_null (shake_hands_tls (&fake, FAKE_INJECT, "src.test", &error));
  assert_true (g_error_matches (error, TLS_ERROR, TLS_ERROR_HANDSHAKE));
}

static void
test_tls_certificate_refused (void **state)
{
  g_autoptr (FakeNbd) fake = NULL;
  g_autoptr (GError) error = NULL;

  assert_null (shake_hands_tls (&fake, FAKE_HANG_UP_IN_TLS, "src.test", &error));
  assert_non_null (strstr (error->message, "fake:10809"));
  assert_true (g_error_matches (error, TLS_ERROR, TLS_ERROR_HUNG_UP));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_agrees),
    cmocka_unit_test (test_server_without_anything),
    cmocka_unit_test (test_bitmap_is_not_there),
    cmocka_unit_test (test_faults),
    cmocka_unit_test (test_silent_server),
    cmocka_unit_test (test_long_name),
    cmocka_unit_test (test_tls),
    cmocka_unit_test (test_tls_wrong_name),
    cmocka_unit_test (test_tls_refused_by_server),
    cmocka_unit_test (test_tls_old_server),
    cmocka_unit_test (test_tls_injection),
    cmocka_unit_test (test_tls_certificate_refused),
  };

  return cmocka_run_group_tests_name ("handshake", tests, make_identity, drop_identity);
}
