/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* A peer's sentence as an error, a log or a terminal may show it: one line, valid UTF-8, control
 * characters and those that redirect the writing direction escaped (\n, \u001b), cut after about
 * `max` bytes ("...").  Unlike text_escape () it leaves quotes and backslashes alone, so that a
 * sentence which passes through several programs stays as it is.  NULL gives "".  Free with
 * g_free. */
char *printable (const char *text, gsize max);
