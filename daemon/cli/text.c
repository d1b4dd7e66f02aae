/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/text.h"

#include "qmp/printable.h"

#define MAX_ESCAPED 8192

char *
cli_text_format_bytes (guint64 bytes)
{
  static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
  if (bytes < 1024)
    return g_strdup_printf ("%u B", (guint)bytes);

  double value = (double)bytes / 1024;
  guint unit = 0;
  /* 999.5 would print as 1000: four digits. */
  while (value >= 999.5 && unit + 1 < G_N_ELEMENTS (units))
    {
      value /= 1024;
      unit++;
    }
  int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return g_strdup_printf ("%.*f %s", decimals, value, units[unit]);
}

char *
cli_text_format_rate (double bytes_per_s)
{
  guint64 bytes = bytes_per_s > 0 && bytes_per_s < 1e18 ? (guint64)bytes_per_s : 0;
  g_autofree char *text = cli_text_format_bytes (bytes);
  return g_strdup_printf ("%s/s", text);
}

char *
cli_text_format_duration (double seconds)
{
  if (!(seconds >= 0 && seconds < 1e9))
    return g_strdup ("?");
  if (seconds < 59.95)
    return g_strdup_printf ("%.1f s", seconds);
  guint whole = (guint)(seconds + 0.5);
  if (whole < 3600)
    return g_strdup_printf ("%u:%02u", whole / 60, whole % 60);
  return g_strdup_printf ("%u:%02u:%02u", whole / 3600, whole / 60 % 60, whole % 60);
}

char *
cli_text_escape (const char *text)
{
  return printable (text, MAX_ESCAPED);
}

char *
cli_text_escape_json (const char *json)
{
  GString *out = g_string_new (NULL);
  for (const char *p = json; *p != '\0'; p = g_utf8_next_char (p))
    {
      gunichar c = g_utf8_get_char (p);
      if (g_unichar_isprint (c))
        g_string_append_unichar (out, c);
      else if (c < 0x10000)
        g_string_append_printf (out, "\\u%04x", c);
      else
        g_string_append_printf (out, "\\u%04x\\u%04x", 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
    }
  return g_string_free (out, FALSE);
}

static guint
char_width (gunichar c)
{
  return g_unichar_iszerowidth (c) ? 0 : g_unichar_iswide (c) ? 2 : 1;
}

guint
cli_text_width (const char *text)
{
  guint width = 0;
  for (const char *p = text; *p != '\0'; p = g_utf8_next_char (p))
    width += char_width (g_utf8_get_char (p));
  return width;
}

char *
cli_text_cut (const char *text, guint columns)
{
  guint width = 0;
  const char *p = text;
  for (; *p != '\0'; p = g_utf8_next_char (p))
    {
      width += char_width (g_utf8_get_char (p));
      if (width > columns)
        break;
    }
  return g_strndup (text, (gsize)(p - text));
}

char *
cli_text_pad (const char *text, guint columns)
{
  guint width = cli_text_width (text);
  return g_strdup_printf ("%s%*s", text, width < columns ? (int)(columns - width) : 0, "");
}
