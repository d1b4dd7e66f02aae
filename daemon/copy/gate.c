/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/copy/gate.h"

/* Where there is no room, to ask again; a checkpoint is a matter of milliseconds. */
#define RETRY_US 2000

struct CopyGate
{
  GMutex lock;
  GCond changed;
  guint64 window;
  guint64 due;
  gboolean ended;

  guint64 asked;     /* all that was let through */
  guint64 base;      /* of it, when the last durable checkpoint began */
  guint64 next_base; /* the same of the one that is being made */
  guint64 ahead;     /* stored then, out of order, and not covered by it */
  GArray *stored;    /* WorkRange, as they came, since that one began */
  GArray *older;     /* the same before it, as far as no durable one covers them */
};

CopyGate *
copy_gate_new (guint64 window, guint64 due)
{
  CopyGate *gate = g_new0 (CopyGate, 1);

  g_mutex_init (&gate->lock);
  g_cond_init (&gate->changed);
  gate->window = window;
  gate->due = due;
  gate->stored = g_array_new (FALSE, FALSE, sizeof (WorkRange));
  gate->older = g_array_new (FALSE, FALSE, sizeof (WorkRange));
  return gate;
}

void
copy_gate_free (CopyGate *gate)
{
  if (gate == NULL)
    return;
  g_array_unref (gate->stored);
  g_array_unref (gate->older);
  g_cond_clear (&gate->changed);
  g_mutex_clear (&gate->lock);
  g_free (gate);
}

static guint64
gate_get_room (const CopyGate *gate)
{
  guint64 beyond = gate->asked - gate->base + gate->ahead;

  return beyond < gate->window ? gate->window - beyond : 0;
}

static gboolean
gate_is_due (const CopyGate *gate)
{
  return gate->asked - gate->base >= gate->due || gate_get_room (gate) < gate->window / 4;
}

gint64
copy_gate_admit (CopyGate *gate, guint64 bytes)
{
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&gate->lock);
  gboolean was_due = gate_is_due (gate);

  /* A single request may be larger than what there is. */
  if (gate_get_room (gate) < MIN (bytes, gate->window))
    return RETRY_US;
  gate->asked += bytes;
  if (!was_due && gate_is_due (gate))
    g_cond_signal (&gate->changed);
  return 0;
}

void
copy_gate_stored (CopyGate *gate, gsize len, guint64 offset)
{
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&gate->lock);
  GArray *stored = gate->stored;
  WorkRange range = { offset, offset + len };
  WorkRange *last = stored->len > 0 ? &g_array_index (stored, WorkRange, stored->len - 1) : NULL;

  if (last != NULL && last->end == range.start)
    last->end = range.end;
  else
    g_array_append_val (stored, range);
}

void
copy_gate_wait (CopyGate *gate, gint64 until)
{
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&gate->lock);

  while (!gate->ended && !gate_is_due (gate))
    if (!g_cond_wait_until (&gate->changed, &gate->lock, until))
      return;
}

void
copy_gate_end (CopyGate *gate)
{
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&gate->lock);

  gate->ended = TRUE;
  g_cond_signal (&gate->changed);
}

gboolean
copy_gate_has_ended (CopyGate *gate)
{
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&gate->lock);

  return gate->ended;
}

void
copy_gate_begin_checkpoint (CopyGate *gate)
{
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&gate->lock);

  gate->next_base = gate->asked;
  g_array_append_vals (gate->older, gate->stored->data, gate->stored->len);
  g_array_set_size (gate->stored, 0);
}

static int
compare_ranges (gconstpointer a, gconstpointer b)
{
  const WorkRange *left = a, *right = b;

  return (left->start > right->start) - (left->start < right->start);
}

/* What of `ranges` lies in `left`; sorts them. */
static GArray *
find_uncovered (GArray *ranges, const GArray *left, guint64 *ret_bytes)
{
  GArray *found = g_array_new (FALSE, FALSE, sizeof (WorkRange));
  guint64 bytes = 0;
  guint next = 0;

  g_array_sort (ranges, compare_ranges);
  for (guint i = 0; i < ranges->len; i++)
    {
      const WorkRange *range = &g_array_index (ranges, WorkRange, i);

      while (next < left->len && g_array_index (left, WorkRange, next).end <= range->start)
        next++;
      for (guint j = next; j < left->len; j++)
        {
          const WorkRange *gap = &g_array_index (left, WorkRange, j);
          WorkRange both = { MAX (range->start, gap->start), MIN (range->end, gap->end) };

          if (both.start >= both.end)
            break;
          bytes += both.end - both.start;
          g_array_append_val (found, both);
        }
    }
  *ret_bytes = bytes;
  return found;
}

void
copy_gate_end_checkpoint (CopyGate *gate, const GArray *left)
{
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&gate->lock);
  GArray *older = find_uncovered (gate->older, left, &gate->ahead);

  g_array_unref (gate->older);
  gate->older = older;
  gate->base = gate->next_base;
}
