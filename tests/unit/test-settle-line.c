/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "nbd/settle-line.h"

#define BLOCK 4096u

static void
assert_beyond (const SettleLine *line, guint64 next, const WorkRange *expected, guint n)
{
  g_autoptr (GArray) beyond = g_array_new (FALSE, FALSE, sizeof (WorkRange));

  settle_line_get_beyond (line, next, BLOCK, beyond);
  assert_int_equal (beyond->len, n);
  if (n > 0)
    assert_memory_equal (beyond->data, expected, n * sizeof (WorkRange));
}

static void
test_in_order (void **state)
{
  g_autoptr (SettleLine) line = settle_line_new ();
  SettlePiece *a, *b;

  assert_int_equal (settle_line_get_position (line, 10), 10);
  a = settle_line_begin (line, 10);
  b = settle_line_begin (line, 20);
  assert_int_equal (settle_line_get_position (line, 30), 10);
  settle_line_end (line, a);
  assert_int_equal (settle_line_get_position (line, 30), 20);
  settle_line_end (line, b);
  assert_int_equal (settle_line_get_position (line, 30), 30);
  settle_line_free (NULL);
}

static void
test_beyond (void **state)
{
  g_autoptr (SettleLine) line = settle_line_new ();
  SettlePiece *piece[5];

  for (guint i = 0; i < 5; i++)
    piece[i] = settle_line_begin (line, i * BLOCK);
  settle_line_end (line, piece[1]);
  settle_line_end (line, piece[2]);
  settle_line_end (line, piece[4]);
  assert_int_equal (settle_line_get_position (line, 9 * BLOCK), 0);
  assert_beyond (line, 9 * BLOCK, (WorkRange[]){ { BLOCK, 3 * BLOCK }, { 4 * BLOCK, 9 * BLOCK } },
                 2);
  settle_line_end (line, piece[0]);
  assert_int_equal (settle_line_get_position (line, 9 * BLOCK), 3 * BLOCK);
  assert_beyond (line, 9 * BLOCK, (WorkRange[]){ { 4 * BLOCK, 9 * BLOCK } }, 1);
  settle_line_end (line, piece[3]);
  assert_beyond (line, 9 * BLOCK, NULL, 0);
}

/* Zeroes may begin anywhere: what is beyond is told in whole blocks, but for the end. */
static void
test_beyond_is_aligned (void **state)
{
  g_autoptr (SettleLine) line = settle_line_new ();
  SettlePiece *zeroes;

  settle_line_begin (line, 0);
  zeroes = settle_line_begin (line, BLOCK + 512);
  settle_line_begin (line, 4 * BLOCK);
  settle_line_end (line, zeroes);
  settle_line_end (line, settle_line_begin (line, 5 * BLOCK));
  assert_beyond (line, 5 * BLOCK + 100,
                 (WorkRange[]){ { 2 * BLOCK, 4 * BLOCK }, { 5 * BLOCK, 5 * BLOCK + 100 } }, 2);
}

#define PIECES 1000
#define WINDOW 64

/* A window of pieces that end at random, as replies do: the position is that of the first one which
 * has not ended, always. */
static void
run_random (guint seed)
{
  g_autoptr (SettleLine) line = settle_line_new ();
  g_autoptr (GRand) rand = g_rand_new_with_seed (seed);
  SettlePiece *piece[PIECES] = { NULL };
  gboolean ended[PIECES] = { FALSE };
  guint begun = 0, first = 0;

  while (first < PIECES)
    {
      guint which;

      while (begun < PIECES && begun - first < WINDOW)
        {
          piece[begun] = settle_line_begin (line, begun * BLOCK);
          begun++;
        }
      which = first + (guint)g_rand_int_range (rand, 0, (gint)(begun - first));
      if (!ended[which])
        settle_line_end (line, piece[which]);
      ended[which] = TRUE;
      while (first < begun && ended[first])
        first++;
      assert_int_equal (settle_line_get_position (line, begun * BLOCK), first * BLOCK);
    }
}

static void
test_random (void **state)
{
  for (guint seed = 0; seed < 20; seed++)
    run_random (seed);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_in_order),
    cmocka_unit_test (test_beyond),
    cmocka_unit_test (test_beyond_is_aligned),
    cmocka_unit_test (test_random),
  };

  return cmocka_run_group_tests_name ("settle-line", tests, NULL, NULL);
}
