/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/value.h"

#include "daemon/cli/text.h"

#include <string.h>

#define MAX_TEXT 4095
#define MAX_FORMAT 32

G_DEFINE_QUARK (vmferry - cli - error, cli_error)

static gboolean fail_usage (GError **error, const char *format, ...) G_GNUC_PRINTF (2, 3);

static gboolean
fail_usage (GError **error, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *text = g_strdup_vprintf (format, args);
  va_end (args);
  g_autofree char *escaped = cli_text_escape (text);
  g_set_error_literal (error, CLI_ERROR, CLI_ERROR_USAGE, escaped);
  return FALSE;
}

/* 0: no such suffix. */
static guint64
suffix_factor (const char *suffix)
{
  if (strcmp (suffix, "") == 0)
    return 1;
  if (strcmp (suffix, "K") == 0)
    return 1024;
  if (strcmp (suffix, "M") == 0)
    return 1024 * 1024;
  if (strcmp (suffix, "G") == 0)
    return 1024 * 1024 * 1024;
  return 0;
}

gboolean
cli_value_parse_size (const char *option, const char *text, guint64 minimum, guint64 maximum,
                      guint64 *ret_bytes, GError **error)
{
  gsize digits = strspn (text, "0123456789");
  guint64 factor = suffix_factor (text + digits);
  g_autofree char *number = g_strndup (text, digits);
  guint64 value;
  if (factor == 0 || !g_ascii_string_to_unsigned (number, 10, 0, G_MAXUINT64, &value, NULL))
    return fail_usage (error, "%s %s: not a number of bytes (a suffix K, M or G is allowed)",
                       option, text);
  if (value > G_MAXUINT64 / factor || value * factor < minimum || value * factor > maximum)
    {
      g_autofree char *low = cli_text_format_bytes (minimum);
      g_autofree char *high = cli_text_format_bytes (maximum);
      return fail_usage (error, "%s %s: must be from %s to %s", option, text, low, high);
    }
  *ret_bytes = value * factor;
  return TRUE;
}

gboolean
cli_value_parse_number (const char *option, const char *text, const char *unit, gint64 minimum,
                        gint64 maximum, gint64 *ret_number, GError **error)
{
  if (g_ascii_string_to_signed (text, 10, minimum, maximum, ret_number, NULL))
    return TRUE;
  return fail_usage (error,
                     "%s %s: must be a number of %s from %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT,
                     option, text, unit, minimum, maximum);
}

gboolean
cli_value_check_text (const char *what, const char *text, GError **error)
{
  if (*text == '\0')
    return fail_usage (error, "%s is empty", what);
  if (strlen (text) > MAX_TEXT)
    return fail_usage (error, "%s is longer than %d bytes", what, MAX_TEXT);
  if (!g_utf8_validate (text, -1, NULL))
    return fail_usage (error, "%s is not UTF-8: %s", what, text);
  for (const char *p = text; *p != '\0'; p = g_utf8_next_char (p))
    if (g_unichar_iscntrl (g_utf8_get_char (p)))
      return fail_usage (error, "%s has a control character: %s", what, text);
  return TRUE;
}

/* Splits off everything up to the next single comma, with double ones undone. */
static char *
take_field (const char **text)
{
  GString *field = g_string_new (NULL);
  const char *p = *text;
  for (; *p != '\0'; p++)
    {
      if (*p == ',' && p[1] != ',')
        break;
      if (*p == ',')
        p++;
      g_string_append_c (field, *p);
    }
  *text = *p == ',' ? p + 1 : NULL;
  return g_string_free (field, FALSE);
}

static gboolean
set_format (CliDisk *disk, const char *value, const char *text, GError **error)
{
  gsize len = strlen (value);
  if (len == 0 || len > MAX_FORMAT
      || strspn (value, "abcdefghijklmnopqrstuvwxyz0123456789-") != len)
    return fail_usage (error, "--disk %s: '%s' is no image format", text, value);
  g_free (disk->format);
  disk->format = g_strdup (value);
  return TRUE;
}

static gboolean
set_prealloc (CliDisk *disk, const char *value, const char *text, GError **error)
{
  if (strcmp (value, "off") != 0 && strcmp (value, "falloc") != 0)
    return fail_usage (error, "--disk %s: prealloc is 'off' or 'falloc', not '%s'", text, value);
  g_free (disk->prealloc);
  disk->prealloc = g_strdup (value);
  return TRUE;
}

static gboolean
set_field (CliDisk *disk, const char *field, const char *text, GError **error)
{
  if (g_str_has_prefix (field, "format="))
    return set_format (disk, field + strlen ("format="), text, error);
  if (g_str_has_prefix (field, "prealloc="))
    return set_prealloc (disk, field + strlen ("prealloc="), text, error);
  return fail_usage (error,
                     "--disk %s: '%s' is neither format= nor prealloc= "
                     "(a comma in a path is written twice)",
                     text, field);
}

CliDisk *
cli_disk_parse (const char *text, GError **error)
{
  if (!cli_value_check_text ("--disk", text, error))
    return NULL;

  const char *rest = text;
  g_autofree char *first = take_field (&rest);
  char *equals = strchr (first, '=');
  if (equals == NULL || equals == first || equals[1] != '/')
    {
      fail_usage (error, "--disk %s: must be NAME=/PATH, with an absolute path", text);
      return NULL;
    }

  g_autoptr (CliDisk) disk = g_new0 (CliDisk, 1);
  disk->name = g_strndup (first, (gsize)(equals - first));
  disk->path = g_strdup (equals + 1);
  while (rest != NULL)
    {
      g_autofree char *field = take_field (&rest);
      if (!set_field (disk, field, text, error))
        return NULL;
    }
  return g_steal_pointer (&disk);
}

void
cli_disk_free (CliDisk *disk)
{
  if (disk == NULL)
    return;
  g_free (disk->name);
  g_free (disk->path);
  g_free (disk->format);
  g_free (disk->prealloc);
  g_free (disk);
}
