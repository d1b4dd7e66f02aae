/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/terminal.h"

#include "daemon/cli/text.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DEFAULT_COLUMNS 80
#define DEFAULT_ROWS 24

struct CliTerminal
{
  FILE *stream;
  gboolean live;
  char **block; /* NULL: none is drawn */
};

CliTerminal *
cli_terminal_new (FILE *stream, gboolean live)
{
  CliTerminal *terminal = g_new0 (CliTerminal, 1);
  terminal->stream = stream;
  terminal->live = live;
  return terminal;
}

void
cli_terminal_free (CliTerminal *terminal)
{
  if (terminal == NULL)
    return;
  g_strfreev (terminal->block);
  g_free (terminal);
}

gboolean
cli_terminal_is_capable (FILE *stream)
{
  const char *type = g_getenv ("TERM");
  return isatty (fileno (stream)) && type != NULL && *type != '\0' && strcmp (type, "dumb") != 0;
}

gboolean
cli_terminal_is_live (const CliTerminal *terminal)
{
  return terminal->live;
}

void
cli_terminal_get_size (const CliTerminal *terminal, guint *ret_columns, guint *ret_rows)
{
  struct winsize size = { 0 };
  if (ioctl (fileno (terminal->stream), TIOCGWINSZ, &size) < 0)
    size = (struct winsize){ 0 };
  guint columns = size.ws_col > 0 ? size.ws_col : DEFAULT_COLUMNS;
  guint rows = size.ws_row > 0 ? size.ws_row : DEFAULT_ROWS;
  /* The last column makes some terminals wrap, and the cursor's own row is not the block's. */
  *ret_columns = MAX (columns, 2) - 1;
  *ret_rows = MAX (rows, 2) - 1;
}

guint
cli_terminal_count_rows (char **lines, guint columns)
{
  guint rows = 0;
  for (char **line = lines; line != NULL && *line != NULL; line++)
    {
      guint width = cli_text_width (*line);
      rows += width > columns ? (width + columns - 1) / columns : 1;
    }
  return rows;
}

static void
append_erase (GString *frame, CliTerminal *terminal)
{
  guint columns, max_rows;
  cli_terminal_get_size (terminal, &columns, &max_rows);
  guint rows = MIN (cli_terminal_count_rows (terminal->block, columns + 1), max_rows);
  g_string_append_c (frame, '\r');
  if (rows > 0)
    g_string_append_printf (frame, "\033[%uA", rows);
}

static void
append_block (GString *frame, char **lines)
{
  /* Each line is erased only behind its text: what stays the same is never dark. */
  for (char **line = lines; line != NULL && *line != NULL; line++)
    g_string_append_printf (frame, "%s\033[K\n", *line);
  g_string_append (frame, "\033[J");
}

static void
write_frame (CliTerminal *terminal, const GString *frame)
{
  fwrite (frame->str, 1, frame->len, terminal->stream);
  fflush (terminal->stream);
}

void
cli_terminal_print (CliTerminal *terminal, const char *text)
{
  g_autoptr (GString) frame = g_string_new (NULL);
  if (terminal->block != NULL)
    {
      append_erase (frame, terminal);
      g_string_append (frame, "\033[J");
    }
  g_string_append_printf (frame, "vmferry: %s\n", text);
  if (terminal->block != NULL)
    append_block (frame, terminal->block);
  write_frame (terminal, frame);
}

void
cli_terminal_show (CliTerminal *terminal, char **lines)
{
  if (!terminal->live || (lines == NULL && terminal->block == NULL))
    {
      g_strfreev (lines);
      return;
    }
  g_autoptr (GString) frame = g_string_new (NULL);
  if (terminal->block != NULL)
    append_erase (frame, terminal);
  append_block (frame, lines);
  write_frame (terminal, frame);
  g_strfreev (terminal->block);
  terminal->block = lines;
}
