/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* The strict scanner behind json_framer_scan (): one JSON value (RFC 8259) and nothing else, in
 * valid UTF-8, nested at most `max_depth` deep.  Beyond the grammar it refuses what json-glib
 * would misread or C strings can't hold: "\u0000", lone surrogates, integers outside gint64,
 * numbers that overflow a double.  Pure, without recursion.  Errors: JSON_FRAMER_ERROR. */
gboolean json_scan (const char *text, gsize len, guint max_depth, GError **error);
