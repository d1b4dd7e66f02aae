/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "nbd/nbd-error.h"
#include "nbd/wire.h"

static void
test_request (void **state)
{
  static const guint8 expected[] = {
    0x25, 0x60, 0x95, 0x13, 0x00, 0x08, 0x00, 0x07, 1, 2, 3, 4, 5, 6,
    7,    8,    0,    0,    0x01, 0,    0,    0,    0, 0, 0, 0, 2, 0,
  };
  g_autoptr (GByteArray) out = g_byte_array_new ();
  WireRequest request = { .flags = NBD_CMD_FLAG_REQ_ONE,
                          .command = NBD_CMD_BLOCK_STATUS,
                          .cookie = 0x0102030405060708,
                          .offset = G_GUINT64_CONSTANT (1) << 40,
                          .length = 512 };

  wire_put_request (out, &request);
  assert_int_equal (out->len, sizeof expected);
  assert_memory_equal (out->data, expected, sizeof expected);
}

static void
test_options (void **state)
{
  static const guint8 expected[] = { 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0,   0,   0, 7, 0, 0,
                                     0,   12,  0,   0,   0,   4,   'd', 'a', 't', 'a', 0, 1, 0, 3 };
  static const guint8 contexts_expected[]
      = { 0, 0, 0, 1, 'x', 0, 0, 0, 2, 0, 0, 0, 3, 'a', ':', 'b', 0, 0, 0, 2, 'c', ':' };
  static const char *const contexts[] = { "a:b", "c:", NULL };
  g_autoptr (GByteArray) out = g_byte_array_new ();
  g_autoptr (GByteArray) data = g_byte_array_new ();

  wire_put_go_data (data, "data");
  wire_put_option (out, NBD_OPT_GO, data);
  assert_int_equal (out->len, sizeof expected);
  assert_memory_equal (out->data, expected, sizeof expected);
  g_byte_array_set_size (data, 0);
  wire_put_meta_context_data (data, "x", contexts);
  assert_int_equal (data->len, sizeof contexts_expected);
  assert_memory_equal (data->data, contexts_expected, sizeof contexts_expected);
}

static void
test_greetings (void **state)
{
  guint8 buf[18] = "NBDMAGICIHAVEOPT\0\3";
  guint16 flags = 0;

  assert_int_equal (wire_get_greeting (buf, &flags), WIRE_GREETING_NEWSTYLE);
  assert_int_equal (flags, 3);
  memcpy (buf + 8, "\0\0\x42\x02\x81\x86\x12\x53", 8);
  assert_int_equal (wire_get_greeting (buf, &flags), WIRE_GREETING_OLDSTYLE);
  memcpy (buf, "HTTP/1.1", 8);
  assert_int_equal (wire_get_greeting (buf, &flags), WIRE_GREETING_NOT_NBD);
}

static void
test_block_sizes (void **state)
{
  static const struct
  {
    guint32 sizes[3];
    gboolean good;
  } cases[] = {
    { { 1, 4096, 33554432 }, TRUE },    { { 512, 512, 0xffffffff }, TRUE },
    { { 65536, 65536, 65536 }, TRUE },  { { 0, 4096, 4096 }, FALSE },
    { { 3, 4096, 4096 }, FALSE },       { { 131072, 131072, 131072 }, FALSE },
    { { 4096, 512, 4096 }, FALSE },     { { 1, 4096, 4095 }, FALSE },
    { { 512, 4097, 33554432 }, FALSE },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      guint8 buf[14] = { 0, NBD_INFO_BLOCK_SIZE };
      guint32 min, preferred, max;

      for (guint k = 0; k < 3; k++)
        {
          guint32 value = GUINT32_TO_BE (cases[i].sizes[k]);

          memcpy (buf + 2 + 4 * k, &value, 4);
        }
      assert_int_equal (wire_get_info_block_size (buf, 14, &min, &preferred, &max), cases[i].good);
      assert_false (wire_get_info_block_size (buf, 13, &min, &preferred, &max));
    }
}

static void
test_replies (void **state)
{
  static const guint8 simple[16] = "\x67\x44\x66\x98\0\0\0\x05\0\0\0\0\0\0\1\2";
  static const guint8 chunk[20] = "\x66\x8e\x33\xef\0\1\x80\2\0\0\0\0\0\0\0\4\0\0\1";
  WireReply reply;

  assert_int_equal (wire_reply_header_size (simple), 16);
  wire_get_reply (simple, &reply);
  assert_false (reply.structured);
  assert_int_equal (reply.error, 5);
  assert_int_equal (reply.cookie, 0x102);
  assert_int_equal (wire_reply_header_size (chunk), 20);
  wire_get_reply (chunk, &reply);
  assert_true (reply.structured);
  assert_int_equal (reply.flags, NBD_REPLY_FLAG_DONE);
  assert_int_equal (reply.type, NBD_REPLY_TYPE_ERROR_OFFSET);
  assert_int_equal (reply.cookie, 4);
  assert_int_equal (reply.length, 256);
  assert_int_equal (wire_reply_header_size ((const guint8 *)"ABCD"), 0);
}

static void
test_error_chunks (void **state)
{
  static const guint8 payload[] = "\0\0\0\5\0\3abc\0\0\0\0\0\0\x10";
  WireErrorChunk chunk;

  assert_true (wire_get_error_chunk (NBD_REPLY_TYPE_ERROR_OFFSET, payload, 17, &chunk));
  assert_int_equal (chunk.error, 5);
  assert_memory_equal (chunk.text, "abc", 3);
  assert_int_equal (chunk.text_len, 3);
  assert_int_equal (chunk.offset, 0x1000);
  assert_true (wire_get_error_chunk (NBD_REPLY_TYPE_ERROR, payload, 9, &chunk));
  assert_false (chunk.has_offset);
  /* The text reaches beyond the payload; there is no error; there is nothing at all. */
  assert_false (wire_get_error_chunk (NBD_REPLY_TYPE_ERROR, payload, 8, &chunk));
  assert_false (wire_get_error_chunk (NBD_REPLY_TYPE_ERROR_OFFSET, payload, 16, &chunk));
  assert_false (
      wire_get_error_chunk (NBD_REPLY_TYPE_ERROR, (const guint8 *)"\0\0\0\0\0\0", 6, &chunk));
  assert_false (wire_get_error_chunk (NBD_REPLY_TYPE_ERROR, payload, 5, &chunk));
}

static void
test_contexts (void **state)
{
  static const guint8 buf[] = "\0\0\0\7a:b";
  const char *name;
  gsize len;
  guint32 id;

  assert_true (wire_get_meta_context (buf, 7, &id, &name, &len));
  assert_int_equal (id, 7);
  assert_int_equal (len, 3);
  assert_memory_equal (name, "a:b", 3);
  assert_false (wire_get_meta_context (buf, 4, &id, &name, &len));
}

static void
test_escape (void **state)
{
  g_autofree char *text = nbd_text_escape ("a\x1b[2J\n\"\\\xff", 9);
  g_autofree char *filler = g_strnfill (10000, 'x');
  g_autofree char *cut = nbd_text_escape (filler, 10000);

  assert_string_equal (text, "a\\x1b[2J\\x0a\\\"\\\\\\xff");
  assert_true (strlen (cut) < 220);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_request),   cmocka_unit_test (test_options),
    cmocka_unit_test (test_greetings), cmocka_unit_test (test_block_sizes),
    cmocka_unit_test (test_replies),   cmocka_unit_test (test_error_chunks),
    cmocka_unit_test (test_contexts),  cmocka_unit_test (test_escape),
  };

  return cmocka_run_group_tests_name ("wire", tests, NULL, NULL);
}
