/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "nbd/digest.h"
#include "nbd/nbd-error.h"

#define MIB (1024u * 1024)

/* A target in memory, of blocks that are data or a hole. */
typedef struct
{
  NbdTarget target;
  guint8 *data;
  guint64 bytes_read;
} MemoryTarget;

static gboolean
memory_read (NbdTarget *target, void *buf, gsize len, guint64 offset, GError **error)
{
  MemoryTarget *memory = (MemoryTarget *)target;

  assert_true (offset + len <= target->size);
  memcpy (buf, memory->data + offset, len);
  memory->bytes_read += len;
  return TRUE;
}

/* By the byte, as nothing says that data begins at a block. */
static gboolean
memory_find_data (NbdTarget *target, guint64 offset, guint64 *ret_start, guint64 *ret_end,
                  GError **error)
{
  MemoryTarget *memory = (MemoryTarget *)target;
  guint64 start = offset, end;

  while (start < target->size && memory->data[start] == 0)
    start++;
  for (end = start; end < target->size && memory->data[end] != 0;)
    end++;
  *ret_start = start;
  *ret_end = end;
  return TRUE;
}

static const NbdTargetClass dense_class = { .read = memory_read };
static const NbdTargetClass sparse_class = { .read = memory_read, .find_data = memory_find_data };
static const NbdTargetClass blind_class = { .find_data = memory_find_data };

static void
fill (guint8 *data, guint64 size, guint32 seed)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (seed);

  for (guint64 pos = 0; pos < size; pos += NBD_DIGEST_BLOCK)
    {
      guint64 n = MIN (NBD_DIGEST_BLOCK, size - pos);

      if (g_rand_boolean (rand))
        memset (data + pos, g_rand_int_range (rand, 1, 256), n);
    }
}

static void
assert_same (const NbdDigest *a, const NbdDigest *b)
{
  assert_int_equal (nbd_digest_get_n_segments (a), nbd_digest_get_n_segments (b));
  for (guint i = 0; i < nbd_digest_get_n_segments (a); i++)
    assert_true (nbd_digest_get_segment (a, i) == nbd_digest_get_segment (b, i));
}

static void
test_digest_order_and_cuts_do_not_matter (void **state)
{
  const guint64 sizes[] = { 1, 511, 4096, 4097, MIB, MIB + 1, 3 * MIB + 77777 };

  for (guint s = 0; s < G_N_ELEMENTS (sizes); s++)
    {
      guint64 size = sizes[s];
      g_autofree guint8 *data = g_malloc0 (size);
      g_autoptr (NbdDigest) whole = nbd_digest_new (size);
      g_autoptr (NbdDigest) pieces = nbd_digest_new (size);
      guint64 end = size;

      fill (data, size, s);
      nbd_digest_add (whole, data, size, 0);
      for (guint blocks = 1; end > 0; blocks = blocks % 37 + 5)
        {
          guint64 n_blocks = (end + NBD_DIGEST_BLOCK - 1) / NBD_DIGEST_BLOCK;
          guint64 start = (n_blocks - MIN (n_blocks, blocks)) * NBD_DIGEST_BLOCK;

          nbd_digest_add (pieces, data + start, end - start, start);
          end = start;
        }
      assert_same (whole, pieces);
    }
}

static void
test_digest_zeroes_are_nothing (void **state)
{
  g_autofree guint8 *zeroes = g_malloc0 (2 * MIB);
  g_autoptr (NbdDigest) digest = nbd_digest_new (2 * MIB);

  nbd_digest_add (digest, zeroes, 2 * MIB, 0);
  assert_true (nbd_digest_get_segment (digest, 0) == 0);
  assert_true (nbd_digest_get_segment (digest, 1) == 0);
  zeroes[MIB + 5] = 1;
  nbd_digest_add (digest, zeroes + MIB, NBD_DIGEST_BLOCK, MIB);
  assert_true (nbd_digest_get_segment (digest, 0) == 0);
  assert_true (nbd_digest_get_segment (digest, 1) != 0);
}

/* The same data elsewhere is another digest. */
static void
test_digest_knows_places (void **state)
{
  guint8 block[NBD_DIGEST_BLOCK] = "data";
  g_autoptr (NbdDigest) here = nbd_digest_new (MIB);
  g_autoptr (NbdDigest) there = nbd_digest_new (MIB);

  nbd_digest_add (here, block, sizeof block, 0);
  nbd_digest_add (there, block, sizeof block, NBD_DIGEST_BLOCK);
  assert_true (nbd_digest_get_segment (here, 0) != nbd_digest_get_segment (there, 0));
}

static void
test_digest_segments (void **state)
{
  const guint64 tib = G_GUINT64_CONSTANT (1) << 40;
  g_autoptr (NbdDigest) none = nbd_digest_new (0);
  g_autoptr (NbdDigest) odd = nbd_digest_new (MIB + 1);
  g_autoptr (NbdDigest) large = nbd_digest_new (16 * tib);

  assert_int_equal (nbd_digest_get_n_segments (none), 0);
  assert_int_equal (nbd_digest_get_n_segments (odd), 2);
  assert_int_equal (nbd_digest_segment_size_for (0), MIB);
  assert_int_equal (nbd_digest_segment_size_for (tib), MIB);
  assert_int_equal (nbd_digest_segment_size_for (tib + 1), 2 * MIB);
  assert_int_equal (nbd_digest_get_segment_size (large), 16 * MIB);
  assert_true (nbd_digest_get_n_segments (large) <= NBD_DIGEST_MAX_SEGMENTS);
  assert_true (G_MAXINT64 / nbd_digest_segment_size_for (G_MAXINT64) < NBD_DIGEST_MAX_SEGMENTS);
}

static void
verify_one (const NbdTargetClass *klass, guint8 *data, guint64 size)
{
  MemoryTarget memory = { .target = { .klass = klass, .name = (char *)"disk", .size = size } };
  g_autoptr (NbdDigest) digest = nbd_digest_new (size);
  g_autoptr (GError) error = NULL;
  _Atomic guint64 progress = 0;
  guint64 places[] = { 0, size / 2, size - 1 };

  memory.data = data;
  nbd_digest_add (digest, data, size, 0);
  assert_true (nbd_digest_verify (digest, &memory.target, &progress, NULL, &error));
  assert_int_equal (progress, size);
  for (guint i = 0; i < G_N_ELEMENTS (places); i++)
    {
      data[places[i]] ^= 0x10;
      assert_false (nbd_digest_verify (digest, &memory.target, NULL, NULL, &error));
      assert_true (g_error_matches (error, NBD_ERROR, NBD_ERROR_IO));
      assert_true (g_str_has_prefix (error->message, "disk: the "));
      assert_non_null (strstr (error->message, "don't read back as they were written: digest "));
      g_clear_error (&error);
      data[places[i]] ^= 0x10;
    }
}

static void
test_digest_verify_finds_a_flipped_bit (void **state)
{
  const guint64 sizes[] = { 1, 4095, MIB, 2 * MIB + 4096 * 3 + 1 };

  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++)
    {
      g_autofree guint8 *data = g_malloc0 (sizes[i]);

      fill (data, sizes[i], 100 + i);
      verify_one (&dense_class, data, sizes[i]);
      verify_one (&sparse_class, data, sizes[i]);
    }
}

/* Data that got lost as a whole, and data where nothing was written. */
static void
test_digest_verify_knows_holes (void **state)
{
  MemoryTarget memory = { .target = { .klass = &sparse_class, .name = (char *)"disk" } };
  g_autofree guint8 *data = g_malloc0 (3 * MIB);
  g_autoptr (NbdDigest) digest = nbd_digest_new (3 * MIB);
  g_autoptr (GError) error = NULL;

  memory.data = data;
  memory.target.size = 3 * MIB;
  memset (data + MIB, 7, 8192);
  nbd_digest_add (digest, data + MIB, MIB, MIB);
  assert_true (nbd_digest_verify (digest, &memory.target, NULL, NULL, &error));
  assert_int_equal (memory.bytes_read, 8192);
  memset (data + MIB, 0, 8192);
  assert_false (nbd_digest_verify (digest, &memory.target, NULL, NULL, &error));
  assert_non_null (strstr (error->message, "offset 1048576 "));
  assert_non_null (strstr (error->message, "digest 0000000000000000"));
}

static void
test_digest_verify_gives_up (void **state)
{
  MemoryTarget memory = { .target = { .klass = &blind_class, .name = (char *)"null" } };
  g_autoptr (NbdDigest) digest = nbd_digest_new (MIB);
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;

  assert_false (nbd_digest_verify (digest, &memory.target, NULL, NULL, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED));
  g_clear_error (&error);
  memory.target.klass = &sparse_class;
  g_cancellable_cancel (cancellable);
  assert_false (nbd_digest_verify (digest, &memory.target, NULL, cancellable, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_digest_order_and_cuts_do_not_matter),
    cmocka_unit_test (test_digest_zeroes_are_nothing),
    cmocka_unit_test (test_digest_knows_places),
    cmocka_unit_test (test_digest_segments),
    cmocka_unit_test (test_digest_verify_finds_a_flipped_bit),
    cmocka_unit_test (test_digest_verify_knows_holes),
    cmocka_unit_test (test_digest_verify_gives_up),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
