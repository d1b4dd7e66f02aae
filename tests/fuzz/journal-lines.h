/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* A journal's text as a fuzzer can make it: of the input's lines, one that begins with '+' gets the
 * checksum (which no fuzzer finds by itself), any other one stands there as it is. */
GString *journal_lines_make (const guint8 *data, gsize size);

/* A directory of this process, in memory where that is possible (journals sync with each record);
 * removed at the end with `file` in it, a name that may have folders. */
const char *journal_lines_get_dir (const char *file);
