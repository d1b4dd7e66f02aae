/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* Has the kernel write out what goes to a file while more of it comes, and drops it from the page
 * cache: so little is left for a flush, which may be a guest's downtime, and a large copy doesn't
 * drive everything else out of memory.  Thread-safe. */
typedef struct WriteBehind WriteBehind;

/* `fd` is borrowed; `name` is for errors, copied. */
WriteBehind *write_behind_new (int fd, const char *name);
void write_behind_free (WriteBehind *behind);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (WriteBehind, write_behind_free)

/* After a write.  Blocks while there is too much to be written out.  FALSE (G_IO_ERROR): some data
 * is lost, and no write_behind_flush () succeeds any more. */
gboolean write_behind_add (WriteBehind *behind, guint64 offset, guint64 len, GError **error);
/* All that was added is on stable storage when this returns TRUE. */
gboolean write_behind_flush (WriteBehind *behind, GError **error);
