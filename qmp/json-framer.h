/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <json-glib/json-glib.h>

/* Turns a byte stream into JSON objects, one a line, as QMP and the agents' protocol have them.
 * Pure: no I/O.  Everything is judged before json-glib sees a byte of it, because json-glib 1.6
 * recurses without a limit and accepts what is not JSON. */
typedef struct JsonFramer JsonFramer;

#define JSON_FRAMER_ERROR (json_framer_error_quark ())
GQuark json_framer_error_quark (void);

typedef enum
{
  JSON_FRAMER_ERROR_TOO_LONG, /* a line longer than max_line bytes */
  JSON_FRAMER_ERROR_TOO_DEEP, /* nested deeper than max_depth */
  JSON_FRAMER_ERROR_SYNTAX    /* not one strict JSON object (RFC 8259, UTF-8) */
} JsonFramerError;

JsonFramer *json_framer_new (gsize max_line, guint max_depth);
void json_framer_free (JsonFramer *framer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (JsonFramer, json_framer_free)

/* Appends received bytes.  FALSE once a line is over max_line. */
gboolean json_framer_push (JsonFramer *framer, const void *buf, gsize len, GError **error);
/* The next whole object, NULL without error when more bytes are needed, NULL with error when the
 * stream is no good (it stays so).  Blank lines are skipped.  Free with json_object_unref. */
JsonObject *json_framer_pop (JsonFramer *framer, GError **error);

/* Whether no byte is left over: an end of the stream here is an orderly one. */
gboolean json_framer_is_empty (const JsonFramer *framer);

/* One line with its newline, ready to be written.  Free with g_free. */
char *json_framer_encode (JsonObject *object, gsize *ret_len);

/* Checks one strict JSON value without parsing it into memory (qmp/json-scan.h). */
gboolean json_framer_scan (const char *text, gsize len, guint max_depth, GError **error);
