/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/executor.h"

/* A dirty bitmap of a block node.  Strings are borrowed. */
typedef struct
{
  const char *node;
  const char *name;
  guint32 granularity; /* bytes, a power of two; used where a bitmap is added */
} QmpBitmapRef;

/* transaction of block-dirty-bitmap-add: all of them or none, recording from the same moment. */
gboolean qmp_bitmaps_add (QmpExecutor *executor, const QmpBitmapRef *bitmaps, gsize n_bitmaps,
                          GCancellable *cancellable, GError **error);
/* transaction of block-dirty-bitmap-add and -disable: add[i] begins to record before disable[i]
 * ends, so that every write is in one of them.  All or none. */
gboolean qmp_bitmaps_rotate (QmpExecutor *executor, const QmpBitmapRef *add,
                             const QmpBitmapRef *disable, gsize n, GCancellable *cancellable,
                             GError **error);
/* transaction of block-dirty-bitmap-disable: all or none. */
gboolean qmp_bitmaps_disable (QmpExecutor *executor, const QmpBitmapRef *bitmaps, gsize n_bitmaps,
                              GCancellable *cancellable, GError **error);
/* block-dirty-bitmap-remove; an absent bitmap or node is fine. */
gboolean qmp_bitmap_remove (QmpExecutor *executor, const char *node, const char *name,
                            GCancellable *cancellable, GError **error);
