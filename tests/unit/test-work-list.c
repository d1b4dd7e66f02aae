/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "nbd/work-list.h"

static void
assert_left (WorkList *list, const WorkRange *expected, guint n)
{
  g_autoptr (GArray) left = work_list_get_left (list);

  assert_int_equal (left->len, n);
  if (n > 0)
    assert_memory_equal (left->data, expected, n * sizeof (WorkRange));
}

static void
test_stripes (void **state)
{
  const WorkRange all[] = { { 10, 100 }, { 150, 400 } };
  const WorkRange expected[] = { { 10, 100 }, { 150, 200 }, { 200, 300 }, { 300, 400 } };
  g_autoptr (WorkList) list = work_list_new (all, 2, 100);
  WorkRange got;

  for (guint i = 0; i < G_N_ELEMENTS (expected); i++)
    {
      assert_true (work_list_has_free (list));
      assert_true (work_list_take (list, &got));
      assert_memory_equal (&got, &expected[i], sizeof got);
      assert_left (list, all, 2);
    }
  assert_false (work_list_has_free (list));
  assert_false (work_list_take (list, &got));
}

static void
test_settle (void **state)
{
  const WorkRange all = { 0, 300 };
  g_autoptr (WorkList) list = work_list_new (&all, 1, 100);
  WorkRange got;

  assert_true (work_list_take (list, &got));
  assert_true (work_list_take (list, &got));
  work_list_settle (list, 200, 150);
  assert_left (list, (WorkRange[]){ { 0, 100 }, { 150, 300 } }, 2);
  /* It only grows. */
  work_list_settle (list, 200, 120);
  assert_left (list, (WorkRange[]){ { 0, 100 }, { 150, 300 } }, 2);
  work_list_settle (list, 100, 100);
  assert_left (list, (WorkRange[]){ { 150, 300 } }, 1);
  work_list_settle (list, 200, 200);
  assert_true (work_list_take (list, &got));
  assert_int_equal (got.start, 200);
  work_list_settle (list, 300, 300);
  assert_left (list, NULL, 0);
}

static void
test_give_back (void **state)
{
  const WorkRange all = { 0, 300 };
  const WorkRange done[] = { { 20, 30 }, { 40, 50 }, { 90, 100 } };
  g_autoptr (WorkList) list = work_list_new (&all, 1, 100);
  WorkRange got;

  assert_true (work_list_take (list, &got));
  work_list_settle (list, 100, 10);
  work_list_give_back (list, 100, done, 3);
  assert_left (list, (WorkRange[]){ { 10, 20 }, { 30, 40 }, { 50, 90 }, { 100, 300 } }, 4);
  assert_true (work_list_take (list, &got));
  assert_int_equal (got.start, 10);
  assert_int_equal (got.end, 20);
  /* Nothing of it is left: a late word about it changes nothing. */
  work_list_settle (list, 20, 20);
  work_list_give_back (list, 20, NULL, 0);
  assert_left (list, (WorkRange[]){ { 30, 40 }, { 50, 90 }, { 100, 300 } }, 3);
}

static void
test_nothing (void **state)
{
  g_autoptr (WorkList) list = work_list_new (NULL, 0, 1);
  WorkRange got;

  assert_false (work_list_take (list, &got));
  assert_left (list, NULL, 0);
  work_list_free (NULL);
}

#define UNITS 4000

/* Against a bit for each unit: what is told as left is exactly what nobody has settled, and each
 * unit is with one worker at a time. */
typedef struct
{
  WorkList *list;
  GRand *rand;
  GArray *held; /* WorkRange: position, end */
  guint8 left[UNITS];
  guint8 owned[UNITS];
} Model;

static void
model_check (Model *model)
{
  g_autoptr (GArray) left = work_list_get_left (model->list);
  g_autofree guint8 *seen = g_malloc0 (UNITS);
  guint64 end = 0;

  for (guint i = 0; i < left->len; i++)
    {
      WorkRange *range = &g_array_index (left, WorkRange, i);

      assert_true (range->start < range->end && range->end <= UNITS);
      assert_true (i == 0 || range->start > end);
      end = range->end;
      memset (seen + range->start, 1, range->end - range->start);
    }
  assert_memory_equal (seen, model->left, UNITS);
}

static void
model_take (Model *model)
{
  WorkRange got;

  if (!work_list_take (model->list, &got))
    return;
  for (guint64 i = got.start; i < got.end; i++)
    {
      assert_true (model->left[i]);
      assert_false (model->owned[i]);
      model->owned[i] = 1;
    }
  g_array_append_val (model->held, got);
}

static void
model_settle (Model *model, guint which)
{
  WorkRange *held = &g_array_index (model->held, WorkRange, which);
  guint64 position
      = held->start + (guint)g_rand_int_range (model->rand, 0, (gint)(held->end - held->start + 1));

  work_list_settle (model->list, held->end, position);
  memset (model->left + held->start, 0, position - held->start);
  memset (model->owned + held->start, 0, position - held->start);
  held->start = position;
  if (position == held->end)
    g_array_remove_index (model->held, which);
}

static void
model_give_back (Model *model, guint which)
{
  WorkRange held = g_array_index (model->held, WorkRange, which);
  g_autoptr (GArray) done = g_array_new (FALSE, FALSE, sizeof (WorkRange));
  guint64 pos = held.start;

  while (pos < held.end)
    {
      WorkRange range;

      range.start = pos + (guint)g_rand_int_range (model->rand, 1, 10);
      range.end = range.start + (guint)g_rand_int_range (model->rand, 1, 10);
      pos = range.end + 1;
      if (range.end > held.end)
        break;
      g_array_append_val (done, range);
      memset (model->left + range.start, 0, range.end - range.start);
    }
  work_list_give_back (model->list, held.end, (WorkRange *)done->data, done->len);
  memset (model->owned + held.start, 0, held.end - held.start);
  g_array_remove_index (model->held, which);
}

static void
model_step (Model *model)
{
  guint what = (guint)g_rand_int_range (model->rand, 0, 10);
  guint which;

  if (model->held->len == 0 || (what < 3 && model->held->len < 8))
    {
      model_take (model);
      return;
    }
  which = (guint)g_rand_int_range (model->rand, 0, (gint)model->held->len);
  if (what < 8)
    model_settle (model, which);
  else
    model_give_back (model, which);
}

static void
run_random (guint seed)
{
  g_autofree Model *model = g_new0 (Model, 1);
  g_autoptr (GArray) ranges = g_array_new (FALSE, FALSE, sizeof (WorkRange));
  guint64 pos = 0;

  model->rand = g_rand_new_with_seed (seed);
  model->held = g_array_new (FALSE, FALSE, sizeof (WorkRange));
  while (pos < UNITS - 600)
    {
      WorkRange range;

      range.start = pos + (guint)g_rand_int_range (model->rand, 1, 100);
      range.end = range.start + (guint)g_rand_int_range (model->rand, 1, 500);
      g_array_append_val (ranges, range);
      memset (model->left + range.start, 1, range.end - range.start);
      pos = range.end;
    }
  model->list = work_list_new ((WorkRange *)ranges->data, ranges->len,
                               (guint)g_rand_int_range (model->rand, 1, 300));
  model_check (model);
  for (guint i = 0; i < 400; i++)
    {
      model_step (model);
      model_check (model);
    }
  work_list_free (model->list);
  g_array_unref (model->held);
  g_rand_free (model->rand);
}

static void
test_random (void **state)
{
  for (guint seed = 0; seed < 50; seed++)
    run_random (seed);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_stripes),   cmocka_unit_test (test_settle),
    cmocka_unit_test (test_give_back), cmocka_unit_test (test_nothing),
    cmocka_unit_test (test_random),
  };

  return cmocka_run_group_tests_name ("work-list", tests, NULL, NULL);
}
