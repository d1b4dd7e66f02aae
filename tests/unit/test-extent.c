/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "nbd/extent.h"

#define MIB (G_GUINT64_CONSTANT (1024) * 1024)
#define HOLE (NBD_STATE_HOLE | NBD_STATE_ZERO)

static GArray *
extents (guint n, ...)
{
  GArray *array = g_array_new (FALSE, FALSE, sizeof (NbdExtent));
  va_list args;

  va_start (args, n);
  for (guint i = 0; i < n; i++)
    {
      NbdExtent extent;

      extent.length = va_arg (args, guint32);
      extent.flags = va_arg (args, guint32);
      g_array_append_val (array, extent);
    }
  va_end (args);
  return array;
}

static void
assert_query (ExtentScan *scan, guint64 offset, guint64 length, guint16 flags)
{
  ExtentQuery query;

  assert_true (extent_scan_next_query (scan, &query));
  assert_int_equal (query.offset, offset);
  assert_int_equal (query.length, length);
  assert_int_equal (query.flags, flags);
}

static void
assert_no_query (ExtentScan *scan)
{
  ExtentQuery query;

  assert_false (extent_scan_next_query (scan, &query));
}

static void
assert_piece (ExtentScan *scan, guint64 offset, guint64 length, ExtentKind kind)
{
  ExtentPiece piece;

  assert_true (extent_scan_next_piece (scan, &piece));
  assert_int_equal (piece.offset, offset);
  assert_int_equal (piece.length, length);
  assert_int_equal (piece.kind, kind);
}

static void
assert_no_piece (ExtentScan *scan)
{
  ExtentPiece piece;

  assert_false (extent_scan_next_piece (scan, &piece));
}

static void
test_nothing_is_known (void **state)
{
  g_autoptr (ExtentScan) scan = extent_scan_new (0, 100 * MIB + 1, 512, FALSE, FALSE);

  assert_no_query (scan);
  assert_piece (scan, 0, 100 * MIB + 1, EXTENT_READ);
  assert_no_piece (scan);
  assert_true (extent_scan_is_done (scan));
}

static void
test_empty_export (void **state)
{
  g_autoptr (ExtentScan) scan = extent_scan_new (0, 0, 512, FALSE, TRUE);

  assert_no_query (scan);
  assert_true (extent_scan_is_done (scan));
}

static void
test_allocation (void **state)
{
  g_autoptr (ExtentScan) scan = extent_scan_new (0, 10 * MIB, 512, FALSE, TRUE);
  g_autoptr (GArray) known
      = extents (5, (guint32)MIB, 0u, (guint32)MIB, HOLE, (guint32)MIB, NBD_STATE_HOLE,
                 (guint32)MIB, NBD_STATE_ZERO, (guint32)(6 * MIB), 0u);

  assert_query (scan, 0, 10 * MIB, 0);
  assert_no_query (scan);
  assert_no_piece (scan);
  assert_false (extent_scan_is_done (scan));
  extent_scan_add_reply (scan, 0, NULL, known);
  assert_piece (scan, 0, MIB, EXTENT_READ);
  assert_piece (scan, MIB, MIB, EXTENT_ZERO);
  assert_piece (scan, 2 * MIB, MIB, EXTENT_READ); /* a hole that isn't zero */
  assert_piece (scan, 3 * MIB, MIB, EXTENT_ZERO);
  assert_piece (scan, 4 * MIB, 6 * MIB, EXTENT_READ);
  assert_no_piece (scan);
  assert_true (extent_scan_is_done (scan));
  assert_int_equal (extent_scan_get_read_bytes (scan), 8 * MIB);
  assert_int_equal (extent_scan_get_zero_bytes (scan), 2 * MIB);
}

/* The last extent may reach beyond the query; one that ends early is asked on from there. */
static void
test_long_and_short_answers (void **state)
{
  g_autoptr (ExtentScan) scan = extent_scan_new (0, 10 * MIB, 512, FALSE, TRUE);
  g_autoptr (GArray) some = extents (1, (guint32)MIB, 0u);
  g_autoptr (GArray) too_much = extents (1, 0xffffffffu, HOLE);

  assert_query (scan, 0, 10 * MIB, 0);
  extent_scan_add_reply (scan, 0, NULL, some);
  assert_query (scan, MIB, 9 * MIB, 0);
  assert_piece (scan, 0, MIB, EXTENT_READ);
  assert_no_piece (scan);
  extent_scan_add_reply (scan, MIB, NULL, too_much);
  assert_piece (scan, MIB, 9 * MIB, EXTENT_ZERO);
  assert_no_piece (scan);
  assert_true (extent_scan_is_done (scan));
}

static void
test_answers_in_any_order (void **state)
{
  g_autoptr (ExtentScan) scan = extent_scan_new (0, 128 * MIB, 512, FALSE, TRUE);
  g_autoptr (GArray) full = extents (1, EXTENT_MIN_SPAN, 0u);

  assert_query (scan, 0, 64 * MIB, 0);
  assert_query (scan, 64 * MIB, 64 * MIB, 0);
  assert_no_query (scan);
  extent_scan_add_reply (scan, 64 * MIB, NULL, full);
  assert_no_piece (scan);
  extent_scan_add_reply (scan, 0, NULL, full);
  assert_piece (scan, 0, 64 * MIB, EXTENT_READ);
  assert_piece (scan, 64 * MIB, 64 * MIB, EXTENT_READ);
  assert_no_piece (scan);
  assert_true (extent_scan_is_done (scan));
}

/* 16 TiB of nothing: few queries, long ones for one extent only. */
static void
test_span_grows (void **state)
{
  guint64 size = MIB * 1024 * 1024 * 16;
  g_autoptr (ExtentScan) scan = extent_scan_new (0, size, 512, FALSE, TRUE);
  g_autoptr (GArray) full = extents (1, 0xffffffffu, HOLE);
  ExtentQuery query;
  ExtentPiece piece;
  guint64 seen = 0;
  guint n = 0;

  while (!extent_scan_is_done (scan))
    {
      while (extent_scan_next_piece (scan, &piece))
        seen += piece.length;
      if (!extent_scan_next_query (scan, &query))
        continue;
      n++;
      assert_true (query.length <= EXTENT_MAX_SPAN);
      if (query.length > EXTENT_MIN_SPAN)
        {
          assert_int_equal (query.flags, NBD_CMD_FLAG_REQ_ONE);
          assert_true (extent_query_reply_size (scan, &query) < 100);
        }
      extent_scan_add_reply (scan, query.offset, NULL, full);
    }
  assert_int_equal (seen, size);
  assert_true (n < 4200);
}

static void
test_span_shrinks (void **state)
{
  g_autoptr (ExtentScan) scan = extent_scan_new (0, 1024 * MIB, 512, FALSE, TRUE);
  g_autoptr (GArray) full = extents (1, EXTENT_MIN_SPAN, 0u);
  g_autoptr (GArray) one = extents (1, (guint32)MIB, 0u);
  ExtentPiece piece;

  assert_query (scan, 0, 64 * MIB, 0);
  extent_scan_add_reply (scan, 0, NULL, full);
  assert_query (scan, 64 * MIB, 256 * MIB, NBD_CMD_FLAG_REQ_ONE);
  extent_scan_add_reply (scan, 64 * MIB, NULL, one);
  assert_query (scan, 65 * MIB, 64 * MIB, 0);
  while (extent_scan_next_piece (scan, &piece))
    ;
}

static void
test_bitmap (void **state)
{
  g_autoptr (ExtentScan) scan = extent_scan_new (0, 10 * MIB, 512, TRUE, TRUE);
  g_autoptr (GArray) dirty = extents (4, (guint32)MIB, 0u, (guint32)(2 * MIB), NBD_STATE_DIRTY,
                                      (guint32)(3 * MIB), 0u, (guint32)(4 * MIB), NBD_STATE_DIRTY);
  g_autoptr (GArray) allocation
      = extents (3, (guint32)(2 * MIB), 0u, (guint32)(5 * MIB), HOLE, (guint32)MIB, 0u);

  assert_query (scan, 0, 10 * MIB, 0);
  extent_scan_add_reply (scan, 0, dirty, allocation);
  assert_piece (scan, MIB, MIB, EXTENT_READ);
  assert_piece (scan, 2 * MIB, MIB, EXTENT_ZERO);
  assert_piece (scan, 6 * MIB, MIB, EXTENT_ZERO);
  assert_piece (scan, 7 * MIB, MIB, EXTENT_READ);
  assert_no_piece (scan);
  /* The allocation of the rest was not told. */
  assert_query (scan, 8 * MIB, 2 * MIB, 0);
  g_array_index (dirty, NbdExtent, 0).flags = NBD_STATE_DIRTY;
  g_array_index (dirty, NbdExtent, 0).length = (guint32)(2 * MIB);
  extent_scan_add_reply (scan, 8 * MIB, dirty, allocation);
  assert_piece (scan, 8 * MIB, 2 * MIB, EXTENT_READ);
  assert_no_piece (scan);
  assert_true (extent_scan_is_done (scan));
}

/* Where nothing is dirty nobody needs to know what is allocated. */
static void
test_clean_range_needs_no_allocation (void **state)
{
  g_autoptr (ExtentScan) scan = extent_scan_new (0, 10 * MIB, 512, TRUE, TRUE);
  g_autoptr (GArray) dirty = extents (1, (guint32)(10 * MIB), 0u);
  g_autoptr (GArray) allocation = extents (1, 512u, 0u);

  assert_query (scan, 0, 10 * MIB, 0);
  extent_scan_add_reply (scan, 0, dirty, allocation);
  assert_no_query (scan);
  assert_no_piece (scan);
  assert_true (extent_scan_is_done (scan));
}

static void
test_alignment (void **state)
{
  g_autoptr (ExtentScan) scan = extent_scan_new (0, MIB + 100, 4096, FALSE, TRUE);
  g_autoptr (GArray) odd = extents (3, 5000u, HOLE, 100u, 0u, 3000u, HOLE);
  g_autoptr (GArray) tiny = extents (1, 7u, HOLE);
  g_autoptr (GArray) rest = extents (1, (guint32)MIB, 0u);

  assert_query (scan, 0, MIB + 100, 0);
  extent_scan_add_reply (scan, 0, NULL, odd);
  assert_piece (scan, 0, 4096, EXTENT_ZERO);
  assert_no_piece (scan);
  assert_int_equal (extent_scan_get_position (scan), 4096);
  /* 8100 is no place to ask from, 4096 is; then less than a block is told. */
  assert_query (scan, 4096, MIB + 100 - 4096, 0);
  extent_scan_add_reply (scan, 4096, NULL, tiny);
  assert_piece (scan, 4096, 4096, EXTENT_READ);
  assert_query (scan, 8192, MIB + 100 - 8192, 0);
  extent_scan_add_reply (scan, 8192, NULL, rest);
  assert_piece (scan, 8192, MIB + 100 - 8192, EXTENT_READ);
  assert_no_piece (scan);
  assert_true (extent_scan_is_done (scan));
}

/* A block is read once, whatever is told about its parts, and never zeroed beside that. */
static void
test_pieces_never_overlap (void **state)
{
  g_autoptr (ExtentScan) scan = extent_scan_new (0, 5 * 4096, 4096, FALSE, TRUE);
  g_autoptr (GArray) odd = extents (7, 100u, 0u, 100u, HOLE, 100u, 0u, 5000u, HOLE, 5000u, HOLE,
                                    100u, 0u, 10080u, HOLE);

  assert_query (scan, 0, 5 * 4096, 0);
  extent_scan_add_reply (scan, 0, NULL, odd);
  assert_piece (scan, 0, 4096, EXTENT_READ);
  assert_piece (scan, 4096, 4096, EXTENT_ZERO);
  assert_piece (scan, 8192, 4096, EXTENT_READ);
  assert_int_equal (extent_scan_get_position (scan), 3 * 4096);
  assert_piece (scan, 3 * 4096, 2 * 4096, EXTENT_ZERO);
  assert_no_piece (scan);
  assert_true (extent_scan_is_done (scan));
  assert_int_equal (extent_scan_get_read_bytes (scan), 2 * 4096);
  assert_int_equal (extent_scan_get_zero_bytes (scan), 3 * 4096);
}

/* A part of an export: nothing is asked or done outside of it. */
static void
test_part (void **state)
{
  g_autoptr (ExtentScan) scan = extent_scan_new (4 * MIB, 6 * MIB, 4096, FALSE, TRUE);
  g_autoptr (GArray) one = extents (1, (guint32)MIB + 100, 0u);
  g_autoptr (GArray) rest = extents (1, (guint32)(64 * MIB), HOLE);

  extent_scan_set_span (scan, 1024 * MIB);
  assert_int_equal (extent_scan_get_span (scan), 1024 * MIB);
  assert_int_equal (extent_scan_get_position (scan), 4 * MIB);
  assert_query (scan, 4 * MIB, 2 * MIB, 0);
  extent_scan_add_reply (scan, 4 * MIB, NULL, one);
  assert_piece (scan, 4 * MIB, MIB, EXTENT_READ);
  assert_query (scan, 5 * MIB, MIB, 0);
  extent_scan_add_reply (scan, 5 * MIB, NULL, rest);
  assert_piece (scan, 5 * MIB, MIB, EXTENT_ZERO);
  assert_no_piece (scan);
  assert_true (extent_scan_is_done (scan));
  assert_int_equal (extent_scan_get_position (scan), 6 * MIB);
}

/* Millions of extents: queries stop until pieces are taken. */
static void
test_memory_is_bounded (void **state)
{
  g_autoptr (ExtentScan) scan = extent_scan_new (0, MIB * MIB, 512, FALSE, TRUE);
  g_autoptr (GArray) fragmented = g_array_new (FALSE, FALSE, sizeof (NbdExtent));
  ExtentQuery query;
  guint n = 0;

  for (guint i = 0; i < NBD_CLIENT_MAX_EXTENTS; i++)
    {
      NbdExtent extent = { 2048, i % 2 ? HOLE : 0 };

      g_array_append_val (fragmented, extent);
    }
  while (extent_scan_next_query (scan, &query))
    {
      extent_scan_add_reply (scan, query.offset, NULL, fragmented);
      n++;
    }
  assert_true (n > 0 && n <= 4);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_nothing_is_known),
    cmocka_unit_test (test_empty_export),
    cmocka_unit_test (test_allocation),
    cmocka_unit_test (test_long_and_short_answers),
    cmocka_unit_test (test_answers_in_any_order),
    cmocka_unit_test (test_span_grows),
    cmocka_unit_test (test_span_shrinks),
    cmocka_unit_test (test_bitmap),
    cmocka_unit_test (test_clean_range_needs_no_allocation),
    cmocka_unit_test (test_alignment),
    cmocka_unit_test (test_pieces_never_overlap),
    cmocka_unit_test (test_part),
    cmocka_unit_test (test_memory_is_bounded),
  };

  return cmocka_run_group_tests_name ("extent", tests, NULL, NULL);
}
