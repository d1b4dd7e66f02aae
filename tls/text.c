/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/text.h"

#include <string.h>

#define NAME_MAX_CHARS 200

static void
append_char (GString *out, gunichar c)
{
  if (c == '"' || c == '\\')
    g_string_append_printf (out, "\\%c", (char)c);
  else if (g_unichar_isprint (c))
    g_string_append_unichar (out, c);
  else if (c < 0x80)
    g_string_append_printf (out, "\\x%02x", c);
  else
    g_string_append_printf (out, "\\u%04x", c);
}

char *
text_escape (const void *text, gsize len, gsize max)
{
  GString *out = g_string_new (NULL);
  const char *at = text;
  const char *end = at + len;

  for (gsize n = 0; at < end; n++)
    {
      gunichar c = *at == '\0' ? 0 : g_utf8_get_char_validated (at, end - at);
      if (n == max)
        {
          g_string_append (out, "...");
          break;
        }
      if (c == (gunichar)-1 || c == (gunichar)-2)
        {
          g_string_append_printf (out, "\\x%02x", (guint8)*at++);
          continue;
        }
      append_char (out, c);
      at = g_utf8_next_char (at);
    }
  return g_string_free (out, FALSE);
}

char *
text_escape_name (const char *name)
{
  return text_escape (name, strlen (name), NAME_MAX_CHARS);
}
