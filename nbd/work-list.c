/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/work-list.h"

struct WorkList
{
  GMutex lock;
  guint64 stripe;
  GArray *free;   /* WorkRange, sorted, apart from each other */
  GArray *active; /* WorkRange: what is not settled of those that somebody is at */
};

WorkList *
work_list_new (const WorkRange *ranges, guint n_ranges, guint64 stripe)
{
  WorkList *list = g_new0 (WorkList, 1);

  g_assert (stripe > 0);
  g_mutex_init (&list->lock);
  list->stripe = stripe;
  list->free = g_array_new (FALSE, FALSE, sizeof (WorkRange));
  list->active = g_array_new (FALSE, FALSE, sizeof (WorkRange));
  if (n_ranges > 0)
    g_array_append_vals (list->free, ranges, n_ranges);
  return list;
}

void
work_list_free (WorkList *list)
{
  if (list == NULL)
    return;
  g_array_unref (list->free);
  g_array_unref (list->active);
  g_mutex_clear (&list->lock);
  g_free (list);
}

static WorkRange *
range_at (GArray *ranges, guint i)
{
  return &g_array_index (ranges, WorkRange, i);
}

static gboolean
list_take (WorkList *list, WorkRange *ret_range)
{
  WorkRange *first;
  WorkRange taken;

  if (list->free->len == 0)
    return FALSE;
  first = range_at (list->free, 0);
  /* Cut where the disk is cut, not from where this range happens to start. */
  taken = *first;
  if (taken.end - taken.start > list->stripe - taken.start % list->stripe)
    taken.end = taken.start - taken.start % list->stripe + list->stripe;
  first->start = taken.end;
  if (first->start == first->end)
    g_array_remove_index (list->free, 0);
  g_array_append_val (list->active, taken);
  *ret_range = taken;
  return TRUE;
}

gboolean
work_list_take (WorkList *list, WorkRange *ret_range)
{
  gboolean taken;

  g_mutex_lock (&list->lock);
  taken = list_take (list, ret_range);
  g_mutex_unlock (&list->lock);
  return taken;
}

gboolean
work_list_has_free (WorkList *list)
{
  gboolean any;

  g_mutex_lock (&list->lock);
  any = list->free->len > 0;
  g_mutex_unlock (&list->lock);
  return any;
}

/* The index in `active`; its length where there is none. */
static guint
list_find_active (WorkList *list, guint64 end)
{
  guint i = 0;

  while (i < list->active->len && range_at (list->active, i)->end != end)
    i++;
  return i;
}

void
work_list_settle (WorkList *list, guint64 end, guint64 position)
{
  guint i;

  g_mutex_lock (&list->lock);
  i = list_find_active (list, end);
  if (i < list->active->len)
    {
      WorkRange *range = range_at (list->active, i);

      range->start = CLAMP (position, range->start, end);
      if (range->start == end)
        g_array_remove_index_fast (list->active, i);
    }
  g_mutex_unlock (&list->lock);
}

/* Keeps `free` sorted, and neighbours together. */
static void
list_add_free (WorkList *list, WorkRange range)
{
  guint i = 0;

  while (i < list->free->len && range_at (list->free, i)->start < range.start)
    i++;
  g_array_insert_val (list->free, i, range);
  if (i + 1 < list->free->len && range_at (list->free, i + 1)->start == range.end)
    {
      range_at (list->free, i)->end = range_at (list->free, i + 1)->end;
      g_array_remove_index (list->free, i + 1);
    }
  if (i > 0 && range_at (list->free, i - 1)->end == range_at (list->free, i)->start)
    {
      range_at (list->free, i - 1)->end = range_at (list->free, i)->end;
      g_array_remove_index (list->free, i);
    }
}

/* `done` are sorted; what is left lies around them. */
static void
list_add_around (WorkList *list, WorkRange range, const WorkRange *done, guint n_done)
{
  for (guint i = 0; i < n_done && range.start < range.end; i++)
    {
      if (done[i].start > range.start)
        list_add_free (list, (WorkRange){ range.start, MIN (done[i].start, range.end) });
      range.start = MAX (range.start, done[i].end);
    }
  if (range.start < range.end)
    list_add_free (list, range);
}

void
work_list_give_back (WorkList *list, guint64 end, const WorkRange *done, guint n_done)
{
  guint i;

  g_mutex_lock (&list->lock);
  i = list_find_active (list, end);
  if (i < list->active->len)
    {
      WorkRange range = *range_at (list->active, i);

      g_array_remove_index_fast (list->active, i);
      list_add_around (list, range, done, n_done);
    }
  g_mutex_unlock (&list->lock);
}

static gint
range_compare (gconstpointer a, gconstpointer b)
{
  const WorkRange *left = a, *right = b;

  return left->start < right->start ? -1 : left->start > right->start;
}

/* In place. */
static void
ranges_merge (GArray *ranges)
{
  guint n = 0;

  for (guint i = 0; i < ranges->len; i++)
    if (n > 0 && range_at (ranges, n - 1)->end == range_at (ranges, i)->start)
      range_at (ranges, n - 1)->end = range_at (ranges, i)->end;
    else
      *range_at (ranges, n++) = *range_at (ranges, i);
  g_array_set_size (ranges, n);
}

GArray *
work_list_get_left (WorkList *list)
{
  GArray *left = g_array_new (FALSE, FALSE, sizeof (WorkRange));

  g_mutex_lock (&list->lock);
  if (list->free->len > 0)
    g_array_append_vals (left, list->free->data, list->free->len);
  if (list->active->len > 0)
    g_array_append_vals (left, list->active->data, list->active->len);
  g_mutex_unlock (&list->lock);
  g_array_sort (left, range_compare);
  ranges_merge (left);
  return left;
}
