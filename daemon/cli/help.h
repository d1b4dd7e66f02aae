/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* The words of --help that GOption doesn't know. */

/* The whole text of `vmferry --help`; free with g_free. */
char *cli_help_get_program (void);
/* "GUEST HOST", and one or two sentences; NULL for what is no command (or NULL). */
const char *cli_help_get_words (const char *command);
const char *cli_help_get_summary (const char *command);
/* What comes below the options; NULL where there is nothing. */
const char *cli_help_get_description (const char *command);
/* Commands that vmferry will have, but hasn't yet. */
gboolean cli_help_is_later (const char *command);
