/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/extent.h"

/* No more queries are sent while so much is known and not done. */
#define MAX_KNOWN_PIECES 65536
#define MAX_SLOTS 64
#define MAX_QUERIES 4
/* Answers up to this many extents are short: the next range may be longer. */
#define SHORT_ANSWER 256
#define LONG_ANSWER 2048
/* QEMU's limit for one answer. */
#define SERVER_MAX_EXTENTS 131072

/* A range of the export, in one of three states: not asked for, asked, or known (pieces). Their
 * queue covers what is left of the export without a gap. */
typedef struct
{
  guint64 start;
  guint64 end;
  gboolean asked;
  GArray *pieces; /* ExtentPiece; NULL until known */
  guint next;     /* of them */
} Slot;

struct ExtentScan
{
  guint64 end;
  guint32 block;
  gboolean bitmap;
  gboolean allocation;
  GQueue slots;
  guint64 span;
  guint n_queries; /* asked and not answered */
  gsize n_known;   /* pieces in all slots */
  guint64 read_bytes;
  guint64 zero_bytes;
};

static Slot *
slot_new (guint64 start, guint64 end)
{
  Slot *slot = g_new0 (Slot, 1);

  slot->start = start;
  slot->end = end;
  return slot;
}

static void
slot_free (Slot *slot)
{
  g_clear_pointer (&slot->pieces, g_array_unref);
  g_free (slot);
}

static void scan_append (ExtentScan *scan, Slot *slot, guint64 start, guint64 end, ExtentKind kind);

ExtentScan *
extent_scan_new (guint64 start, guint64 end, guint32 block, gboolean bitmap, gboolean allocation)
{
  ExtentScan *scan = g_new0 (ExtentScan, 1);
  Slot *all;

  scan->end = end;
  scan->block = block;
  scan->bitmap = bitmap;
  scan->allocation = allocation;
  scan->span = EXTENT_MIN_SPAN;
  g_queue_init (&scan->slots);
  if (start == end)
    return scan;
  all = slot_new (start, end);
  g_queue_push_tail (&scan->slots, all);
  if (!bitmap && !allocation)
    {
      all->pieces = g_array_new (FALSE, FALSE, sizeof (ExtentPiece));
      scan_append (scan, all, start, end, EXTENT_READ);
    }
  return scan;
}

void
extent_scan_free (ExtentScan *scan)
{
  if (scan == NULL)
    return;
  g_queue_clear_full (&scan->slots, (GDestroyNotify)slot_free);
  g_free (scan);
}

guint64
extent_scan_get_read_bytes (const ExtentScan *scan)
{
  return scan->read_bytes;
}

guint64
extent_scan_get_zero_bytes (const ExtentScan *scan)
{
  return scan->zero_bytes;
}

void
extent_scan_set_span (ExtentScan *scan, guint64 span)
{
  scan->span = CLAMP (span, EXTENT_MIN_SPAN, EXTENT_MAX_SPAN);
}

guint64
extent_scan_get_span (const ExtentScan *scan)
{
  return scan->span;
}

guint64
extent_scan_get_position (const ExtentScan *scan)
{
  const Slot *slot = g_queue_peek_head ((GQueue *)&scan->slots);

  if (slot == NULL)
    return scan->end;
  if (slot->pieces == NULL)
    return slot->start;
  return slot->next < slot->pieces->len
             ? g_array_index (slot->pieces, ExtentPiece, slot->next).offset
             : slot->end;
}

gboolean
extent_scan_is_done (const ExtentScan *scan)
{
  return g_queue_is_empty ((GQueue *)&scan->slots);
}

/* Asking */

static GList *
scan_first_unknown (ExtentScan *scan)
{
  for (GList *at = scan->slots.head; at != NULL; at = at->next)
    {
      Slot *slot = at->data;

      if (slot->pieces == NULL && !slot->asked)
        return at;
    }
  return NULL;
}

gboolean
extent_scan_next_query (ExtentScan *scan, ExtentQuery *ret_query)
{
  GList *at = scan_first_unknown (scan);
  Slot *slot;

  if (at == NULL || scan->n_queries >= MAX_QUERIES)
    return FALSE;
  /* The first range is always asked for: nothing goes on without it. */
  if (at != scan->slots.head
      && (scan->n_known >= MAX_KNOWN_PIECES || scan->slots.length >= MAX_SLOTS))
    return FALSE;
  slot = at->data;
  if (slot->end - slot->start > scan->span)
    {
      g_queue_insert_after (&scan->slots, at, slot_new (slot->start + scan->span, slot->end));
      slot->end = slot->start + scan->span;
    }
  slot->asked = TRUE;
  scan->n_queries++;
  ret_query->offset = slot->start;
  ret_query->length = (guint32)(slot->end - slot->start);
  /* One extent of a long range costs the server nothing; with a bitmap that would be a round trip
   * for each dirty block. */
  ret_query->flags
      = !scan->bitmap && ret_query->length > EXTENT_MIN_SPAN ? NBD_CMD_FLAG_REQ_ONE : 0;
  return TRUE;
}

gsize
extent_query_reply_size (const ExtentScan *scan, const ExtentQuery *query)
{
  gsize contexts = (scan->bitmap ? 1 : 0) + (scan->allocation ? 1 : 0);
  gsize extents = MIN (query->length / 4096 + 1, SERVER_MAX_EXTENTS);

  if (query->flags & NBD_CMD_FLAG_REQ_ONE)
    extents = 1;
  return sizeof (NbdWireChunk) + contexts * (sizeof (NbdWireChunk) + 4 + extents * 8);
}

/* Answers */

static ExtentPiece *
slot_last_piece (Slot *slot)
{
  return slot->pieces->len > 0 ? &g_array_index (slot->pieces, ExtentPiece, slot->pieces->len - 1)
                               : NULL;
}

static void
scan_count (ExtentScan *scan, ExtentKind kind, guint64 more, guint64 less)
{
  guint64 *bytes = kind == EXTENT_READ ? &scan->read_bytes : &scan->zero_bytes;

  *bytes += more;
  *bytes -= less;
}

/* Takes back what the slot's pieces have at or beyond `pos`. */
static void
scan_cut (ExtentScan *scan, Slot *slot, guint64 pos)
{
  ExtentPiece *last;

  while ((last = slot_last_piece (slot)) != NULL && last->offset + last->length > pos)
    {
      guint64 keep = pos > last->offset ? pos - last->offset : 0;

      scan_count (scan, last->kind, 0, last->length - keep);
      last->length = keep;
      if (keep > 0)
        return;
      g_array_set_size (slot->pieces, slot->pieces->len - 1);
      scan->n_known--;
    }
}

/* Pieces never overlap: no byte is read, or counted, twice. */
static void
scan_append (ExtentScan *scan, Slot *slot, guint64 start, guint64 end, ExtentKind kind)
{
  ExtentPiece *last = slot_last_piece (slot);
  ExtentPiece piece;

  if (kind == EXTENT_READ)
    {
      /* Requests have to be aligned.  What is read beyond the extent is right, too, and so it is
       * where that was told as zero. */
      start -= start % scan->block;
      end = MIN (scan->end, (end + scan->block - 1) / scan->block * scan->block);
      if (last != NULL && last->kind == EXTENT_ZERO)
        scan_cut (scan, slot, start);
      last = slot_last_piece (slot);
    }
  if (last != NULL)
    start = MAX (start, last->offset + last->length);
  if (start >= end)
    return;
  scan_count (scan, kind, end - start, 0);
  if (last != NULL && last->kind == kind && last->offset + last->length == start)
    {
      last->length = end - last->offset;
      return;
    }
  piece = (ExtentPiece){ start, end - start, kind };
  g_array_append_val (slot->pieces, piece);
  scan->n_known++;
}

/* Walks along the extents of one context. */
typedef struct
{
  const GArray *extents; /* NULL: the context is not there */
  guint next;
  guint64 start;
  guint64 end; /* of the extent before `next` */
  guint32 flags;
} Cursor;

/* The extent that holds `pos`; FALSE beyond the last one. */
static gboolean
cursor_seek (Cursor *cursor, guint64 pos)
{
  while (pos >= cursor->end)
    {
      const NbdExtent *extent;

      if (cursor->extents == NULL || cursor->next >= cursor->extents->len)
        return FALSE;
      extent = &g_array_index (cursor->extents, NbdExtent, cursor->next++);
      cursor->end += extent->length;
      cursor->flags = extent->flags;
    }
  return TRUE;
}

/* Fills the slot's pieces and returns up to where it is known. */
static guint64
scan_combine (ExtentScan *scan, Slot *slot, const GArray *bitmap, const GArray *allocation)
{
  Cursor dirty = { .extents = bitmap, .end = slot->start };
  Cursor state = { .extents = allocation, .end = slot->start };
  guint64 pos = slot->start;

  while (pos < slot->end)
    {
      guint64 end = slot->end;
      ExtentKind kind = EXTENT_READ;

      if (scan->bitmap)
        {
          if (!cursor_seek (&dirty, pos))
            break;
          end = MIN (end, dirty.end);
          if (!(dirty.flags & NBD_STATE_DIRTY))
            {
              pos = end;
              continue;
            }
        }
      if (scan->allocation)
        {
          if (!cursor_seek (&state, pos))
            break;
          end = MIN (end, state.end);
          if (state.flags & NBD_STATE_ZERO)
            kind = EXTENT_ZERO;
        }
      scan_append (scan, slot, pos, end, kind);
      pos = end;
    }
  return pos;
}

/* The range of the next queries follows the length of the answers. */
static void
scan_adapt (ExtentScan *scan, guint64 asked, guint64 known, const GArray *bitmap,
            const GArray *allocation)
{
  guint n = MAX (bitmap != NULL ? bitmap->len : 0, allocation != NULL ? allocation->len : 0);
  guint few = scan->bitmap ? SHORT_ANSWER : 1;

  if (known == asked && n <= few && asked == scan->span)
    scan->span = MIN (scan->span * 4, EXTENT_MAX_SPAN);
  else if (known < asked && !scan->bitmap)
    scan->span = EXTENT_MIN_SPAN;
  else if (known < asked || n > LONG_ANSWER)
    scan->span = MAX (scan->span / 4 / NBD_MAX_MIN_BLOCK * NBD_MAX_MIN_BLOCK, EXTENT_MIN_SPAN);
}

static GList *
scan_find_asked (ExtentScan *scan, guint64 offset)
{
  for (GList *at = scan->slots.head; at != NULL; at = at->next)
    {
      Slot *slot = at->data;

      if (slot->asked && slot->pieces == NULL && slot->start == offset)
        return at;
    }
  return NULL;
}

void
extent_scan_add_reply (ExtentScan *scan, guint64 offset, const GArray *bitmap,
                       const GArray *allocation)
{
  GList *at = scan_find_asked (scan, offset);
  guint64 known, aligned;
  Slot *slot;

  g_return_if_fail (at != NULL);
  slot = at->data;
  scan->n_queries--;
  slot->pieces = g_array_new (FALSE, FALSE, sizeof (ExtentPiece));
  known = scan_combine (scan, slot, bitmap, allocation);
  scan_adapt (scan, slot->end - slot->start, known - slot->start, bitmap, allocation);
  if (known == slot->end)
    return;

  /* The next query has to be aligned: the rest of a block that is known in part is asked for again,
   * or, where nothing else is known, simply read. */
  aligned = known - known % scan->block;
  scan_cut (scan, slot, MAX (aligned, slot->start));
  if (aligned <= slot->start)
    {
      aligned = MIN (slot->start + scan->block, slot->end);
      scan_append (scan, slot, slot->start, aligned, EXTENT_READ);
    }
  if (aligned < slot->end)
    g_queue_insert_after (&scan->slots, at, slot_new (aligned, slot->end));
  slot->end = aligned;
}

/* Pieces */

gboolean
extent_scan_next_piece (ExtentScan *scan, ExtentPiece *ret_piece)
{
  Slot *slot;

  while ((slot = g_queue_peek_head (&scan->slots)) != NULL && slot->pieces != NULL)
    {
      if (slot->next < slot->pieces->len)
        {
          *ret_piece = g_array_index (slot->pieces, ExtentPiece, slot->next++);
          scan->n_known--;
          return TRUE;
        }
      slot_free (g_queue_pop_head (&scan->slots));
    }
  return FALSE;
}
