/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>
#include <stdio.h>

/* Standard error, where messages go, and on a terminal a block of lines beneath them that is
 * redrawn in place.  The cursor rests at the start of the line under the block, always visible, so
 * whatever ends the program leaves the terminal fit for use.  Each change is one write: nothing
 * flickers. */
typedef struct CliTerminal CliTerminal;

/* Borrows `stream`.  `live`: blocks are drawn; otherwise only messages are printed. */
CliTerminal *cli_terminal_new (FILE *stream, gboolean live);
/* The block stays where it is. */
void cli_terminal_free (CliTerminal *terminal);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CliTerminal, cli_terminal_free)

/* Whether `stream` is a terminal that can move its cursor. */
gboolean cli_terminal_is_capable (FILE *stream);

gboolean cli_terminal_is_live (const CliTerminal *terminal);
/* What a block may take: lines of at most `columns`, at most `rows` of them. Asked anew at each
 * call. */
void cli_terminal_get_size (const CliTerminal *terminal, guint *ret_columns, guint *ret_rows);

/* "vmferry: TEXT", above the block. */
void cli_terminal_print (CliTerminal *terminal, const char *text);
/* Replaces the block; takes over `lines`.  NULL: removes it. */
void cli_terminal_show (CliTerminal *terminal, char **lines);

/* Pure: how far up the block begins, now that the terminal is `columns` wide: terminals wrap the
 * lines that became too long. */
guint cli_terminal_count_rows (char **lines, guint columns);
