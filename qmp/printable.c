/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/printable.h"

static void
append_char (GString *out, gunichar c)
{
  if (c == '\n')
    g_string_append (out, "\\n");
  else if (c == '\r')
    g_string_append (out, "\\r");
  else if (c == '\t')
    g_string_append (out, "\\t");
  else if (g_unichar_isprint (c) || c == ' ')
    g_string_append_unichar (out, c);
  else
    g_string_append_printf (out, c > 0xFFFF ? "\\U%08x" : "\\u%04x", c);
}

char *
printable (const char *text, gsize max)
{
  GString *out = g_string_new (NULL);

  while (text != NULL && *text != '\0')
    {
      gunichar c = g_utf8_get_char_validated (text, -1);

      if (out->len >= max)
        {
          g_string_append (out, "...");
          break;
        }
      if (c == (gunichar)-1 || c == (gunichar)-2)
        {
          g_string_append_printf (out, "\\x%02x", (guchar)*text++);
          continue;
        }
      append_char (out, c);
      text = g_utf8_next_char (text);
    }
  return g_string_free (out, FALSE);
}
