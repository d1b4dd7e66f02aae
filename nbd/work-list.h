/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* The ranges of a disk that are not copied yet, and which of them somebody is at.  Whatever is not
 * in it is with the target: that is all that a journal has to remember.  Small, because each
 * range is worked on from its start to its end.  Thread-safe. */
typedef struct WorkList WorkList;

typedef struct
{
  guint64 start;
  guint64 end; /* bytes; the first one that is not in it */
} WorkRange;

/* `ranges` are WorkRange, sorted, apart from each other, none empty.  They are handed out cut at
 * multiples of `stripe` bytes. */
WorkList *work_list_new (const WorkRange *ranges, guint n_ranges, guint64 stripe);
void work_list_free (WorkList *list);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (WorkList, work_list_free)

/* Hands out the next range; FALSE when none is free (others may still be at work).  It is called
 * by its `end` from then on. */
gboolean work_list_take (WorkList *list, WorkRange *ret_range);
/* Everything in the range that ends at `end` and lies below `position` is with the target;
 * `position` only grows, and at `end` the range is done. */
void work_list_settle (WorkList *list, guint64 end, guint64 position);
/* What is left of that range may be taken by somebody else; `done` (sorted, apart from each other)
 * are parts of it beyond its position that are with the target, too. */
void work_list_give_back (WorkList *list, guint64 end, const WorkRange *done, guint n_done);
/* Whether work_list_take () would hand out something now. */
gboolean work_list_has_free (WorkList *list);

/* All that is not settled: WorkRange, sorted; free with g_array_unref. */
GArray *work_list_get_left (WorkList *list);
