/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* Images of other formats than raw, made and judged by qemu-img(1).  It gets the open file, never a
 * path: nobody can swap what it works on, and nothing in a name can be read as an option or a
 * protocol.  These functions block, for minutes at worst.  `path` is for messages. */

/* Whether `format` is one that can be a target here: a format of a single file, not a protocol or a
 * filter.  "raw" is none of them. */
gboolean qemu_img_knows_format (const char *format);

/* Makes an empty image in `fd` (open for writing), whatever was in it before.  Its inode stays. */
gboolean qemu_img_create (int fd, const char *path, const char *format, guint64 size,
                          gboolean prealloc, GError **error);

/* Succeeds where the file is provably an empty image of that format and virtual size: nothing
 * allocated, no backing file, no data file, no encryption, no snapshot.  The error tells what it
 * has, and what to do. */
gboolean qemu_img_check_empty (int fd, const char *path, const char *format, guint64 size,
                               GError **error);
