/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* Finds blocks of zeroes in data.  Blocks are counted from the start of the buffer; a last one that
 * is shorter counts as a block. */
#define ZERO_SCAN_BLOCK 4096
/* A run of zeroes from which on a hole is worth more than a write: file systems and qcow2 keep
 * accounts of each hole. */
#define ZERO_SCAN_LONG 65536

/* TRUE for no bytes. */
gboolean zero_scan_is_zero (const guint8 *buf, gsize len);
/* How many bytes of zero blocks the buffer begins with. */
gsize zero_scan_zero_run (const guint8 *buf, gsize len);
/* How many bytes come before the first run of at least `min_run` bytes of zero blocks. */
gsize zero_scan_data_run (const guint8 *buf, gsize len, gsize min_run);
