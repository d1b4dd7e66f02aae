/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* What others wrote (names in certificates, bytes of a peer), fit for an error, a log and a
 * terminal: one line of UTF-8 without control, formatting or invalid characters ("\x1b", \u202e"),
 * quotes and backslashes escaped, so that it can stand between quotes; cut after about `max`
 * characters ("...").  Never NULL; free with g_free. */
char *text_escape (const void *text, gsize len, gsize max);

/* The same for a string, as long as names in messages may be. */
char *text_escape_name (const char *name);
