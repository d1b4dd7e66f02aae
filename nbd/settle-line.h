/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/work-list.h"

/* How far a pass has come: pieces are begun in order, by their offsets, and end in any order.
 * Memory follows the number of pieces that are under way, not of those that have ended. */
typedef struct SettleLine SettleLine;
typedef struct SettlePiece SettlePiece;

SettleLine *settle_line_new (void);
void settle_line_free (SettleLine *line);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (SettleLine, settle_line_free)

/* Behind every piece before it. */
SettlePiece *settle_line_begin (SettleLine *line, guint64 offset);
/* It is with the target; `piece` is gone. */
void settle_line_end (SettleLine *line, SettlePiece *piece);

/* Everything below it has ended.  `next`: where the next piece may begin. */
guint64 settle_line_get_position (const SettleLine *line, guint64 next);
/* What has ended beyond that position, cut to whole blocks: appends WorkRange, sorted. */
void settle_line_get_beyond (const SettleLine *line, guint64 next, guint32 block, GArray *ranges);
