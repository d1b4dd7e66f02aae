/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/settle-line.h"

/* Reaches up to the next one: what lies between two pieces is nobody's work. */
struct SettlePiece
{
  GList link;
  guint64 offset;
  gboolean ended;
};

struct SettleLine
{
  GQueue pieces; /* the first one is under way, and no two that have ended are neighbours */
};

SettleLine *
settle_line_new (void)
{
  SettleLine *line = g_new0 (SettleLine, 1);

  g_queue_init (&line->pieces);
  return line;
}

static void
line_remove (SettleLine *line, GList *link)
{
  g_queue_unlink (&line->pieces, link);
  g_free (link->data);
}

void
settle_line_free (SettleLine *line)
{
  if (line == NULL)
    return;
  while (line->pieces.head != NULL)
    line_remove (line, line->pieces.head);
  g_free (line);
}

static gboolean
has_ended (const GList *link)
{
  return link != NULL && ((const SettlePiece *)link->data)->ended;
}

SettlePiece *
settle_line_begin (SettleLine *line, guint64 offset)
{
  SettlePiece *piece = g_new0 (SettlePiece, 1);

  piece->link.data = piece;
  piece->offset = offset;
  g_queue_push_tail_link (&line->pieces, &piece->link);
  return piece;
}

void
settle_line_end (SettleLine *line, SettlePiece *piece)
{
  piece->ended = TRUE;
  if (has_ended (piece->link.next))
    line_remove (line, piece->link.next);
  if (piece->link.prev == NULL || has_ended (piece->link.prev))
    line_remove (line, &piece->link);
}

static guint64
link_offset (const GList *link, guint64 next)
{
  return link != NULL ? ((const SettlePiece *)link->data)->offset : next;
}

guint64
settle_line_get_position (const SettleLine *line, guint64 next)
{
  return link_offset (line->pieces.head, next);
}

void
settle_line_get_beyond (const SettleLine *line, guint64 next, guint32 block, GArray *ranges)
{
  for (const GList *link = line->pieces.head; link != NULL; link = link->next)
    {
      WorkRange range = { link_offset (link, next), link_offset (link->next, next) };

      range.start += (block - range.start % block) % block;
      /* The end of the export need not be a whole block, and is one for us. */
      if (link->next != NULL)
        range.end -= range.end % block;
      if (has_ended (link) && range.start < range.end)
        g_array_append_val (ranges, range);
    }
}
