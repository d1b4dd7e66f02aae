/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* What must be known of a target to bring it back to what it was before its job: by the job itself,
 * or after a restart from the journal. */
typedef struct
{
  const char *path;   /* for messages, and where it is found after a restart */
  const char *format; /* as in ImageSpec */
  guint64 size;       /* virtual size, bytes */
  gboolean created;   /* by us */
  gboolean was_empty; /* it was there before, and proven empty */
  guint64 device;     /* which file it is, as stat tells */
  guint64 inode;
} ImageTrace;

/* What was created is removed; what was empty is emptied again (raw: its data becomes a hole; other
 * formats are made anew in place), unless another program writes to it; anything else stays.  Only
 * that very file is touched, whatever has its name now, and one that is gone is fine.  `name` is in
 * the directory `parent`.  Blocks, while qemu-img runs. */
gboolean image_trace_undo_at (const ImageTrace *trace, int parent, const char *name,
                              GError **error);
/* The same, at trace->path. */
gboolean image_trace_undo (const ImageTrace *trace, GError **error);
