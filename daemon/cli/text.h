/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* Numbers and foreign texts, made fit for a terminal.  Pure; free what is returned with g_free. */

/* "512 B", "1.27 GiB": powers of 1024, three digits. */
char *cli_text_format_bytes (guint64 bytes);
char *cli_text_format_rate (double bytes_per_s);
/* "3.2 s" below a minute, then "4:05" and "1:02:03". */
char *cli_text_format_duration (double seconds);

/* What came from an agent or its peer, or was typed, may hold anything: whatever doesn't print is
 * escaped (qmp/printable.h), and what is longer than 8 KiB is cut.  NULL gives "". */
char *cli_text_escape (const char *text);
/* The same for a line of JSON, which stays the same JSON. */
char *cli_text_escape_json (const char *json);

/* Columns that an escaped text takes on a terminal. */
guint cli_text_width (const char *text);
/* Cut to `columns`, or filled up with spaces to that width. */
char *cli_text_cut (const char *text, guint columns);
char *cli_text_pad (const char *text, guint columns);
