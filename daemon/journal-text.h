/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <json-glib/json-glib.h>

/* What a journal's file holds: lines of CHECKSUM, a space, one JSON object, a newline.  The
 * checksum is the beginning of the SHA-256 of the object's text.  Pure. */
#define JOURNAL_MAX_RECORD (1024 * 1024)
#define JOURNAL_MAX_FILE (64 * 1024 * 1024)

/* The line of one record, `ret_len` bytes; free with g_free. */
char *journal_text_encode (JsonObject *record, gsize *ret_len);

/* All records (JsonObject, unref'ed with the array), and where the last whole one ends: what is
 * behind it is a torn one.  Any other damage is G_IO_ERROR_INVALID_DATA, and begins with `name`. */
GPtrArray *journal_text_decode (const char *name, const char *text, gsize len, gsize *ret_end,
                                GError **error);
