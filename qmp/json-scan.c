/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/json-scan.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "qmp/json-framer.h"

/* Each value costs json-glib some 150 bytes, however short its text is. */
#define MAX_VALUES 500000
/* No number that a double or a gint64 can tell from its neighbours needs more. */
#define MAX_NUMBER_LEN 64

typedef struct
{
  const char *text;
  const char *p;
  const char *end;
  guint max_depth;
  guint n_values;
  GString *nest; /* '{' or '[' for each open level */
} Scan;

static gboolean
fail (const Scan *scan, const char *what, GError **error)
{
  g_set_error (error, JSON_FRAMER_ERROR, JSON_FRAMER_ERROR_SYNTAX,
               "not JSON at byte %" G_GSIZE_FORMAT ": %s", (gsize)(scan->p - scan->text), what);
  return FALSE;
}

static void
skip_space (Scan *scan)
{
  while (scan->p < scan->end && strchr (" \t\r\n", *scan->p) != NULL && *scan->p != '\0')
    scan->p++;
}

static gboolean
next_is (Scan *scan, char c)
{
  if (scan->p >= scan->end || *scan->p != c)
    return FALSE;
  scan->p++;
  return TRUE;
}

static gboolean
scan_hex4 (Scan *scan, guint *ret_code, GError **error)
{
  guint code = 0;

  for (int i = 0; i < 4; i++)
    {
      if (scan->p >= scan->end || !g_ascii_isxdigit (*scan->p))
        return fail (scan, "\\u needs four hexadecimal digits", error);
      code = code * 16 + (guint)g_ascii_xdigit_value (*scan->p++);
    }
  *ret_code = code;
  return TRUE;
}

static gboolean
scan_unicode_escape (Scan *scan, GError **error)
{
  guint code, low;

  if (!scan_hex4 (scan, &code, error))
    return FALSE;
  if (code == 0)
    return fail (scan, "\\u0000 is not accepted", error);
  if (code < 0xD800 || code > 0xDFFF)
    return TRUE;
  if (code > 0xDBFF || !next_is (scan, '\\') || !next_is (scan, 'u'))
    return fail (scan, "a lone surrogate", error);
  if (!scan_hex4 (scan, &low, error))
    return FALSE;
  if (low < 0xDC00 || low > 0xDFFF)
    return fail (scan, "a lone surrogate", error);
  return TRUE;
}

static gboolean
scan_string (Scan *scan, GError **error)
{
  scan->p++;
  while (scan->p < scan->end)
    {
      guchar c = (guchar)*scan->p++;

      if (c == '"')
        return TRUE;
      if (c < 0x20)
        return fail (scan, "a control character in a string", error);
      if (c != '\\')
        continue;
      if (next_is (scan, 'u'))
        {
          if (!scan_unicode_escape (scan, error))
            return FALSE;
        }
      else if (scan->p >= scan->end || *scan->p == '\0' || !strchr ("\"\\/bfnrt", *scan->p++))
        return fail (scan, "an unknown escape in a string", error);
    }
  return fail (scan, "a string without an end", error);
}

static gboolean
scan_digits (Scan *scan, GError **error)
{
  if (scan->p >= scan->end || !g_ascii_isdigit (*scan->p))
    return fail (scan, "a digit is expected", error);
  while (scan->p < scan->end && g_ascii_isdigit (*scan->p))
    scan->p++;
  return TRUE;
}

static gboolean
check_range (const Scan *scan, const char *start, gboolean is_integer, GError **error)
{
  char copy[MAX_NUMBER_LEN + 1];
  gsize len = (gsize)(scan->p - start);

  if (len > MAX_NUMBER_LEN)
    return fail (scan, "the number is too long", error);
  memcpy (copy, start, len);
  copy[len] = '\0';
  errno = 0;
  if (is_integer)
    g_ascii_strtoll (copy, NULL, 10);
  else if (isfinite (g_ascii_strtod (copy, NULL)))
    errno = 0; /* a denormal is fine */
  if (errno == ERANGE)
    return fail (scan, "the number is out of range", error);
  return TRUE;
}

static gboolean
scan_number (Scan *scan, GError **error)
{
  const char *start = scan->p;
  gboolean is_integer = TRUE;

  next_is (scan, '-');
  if (!next_is (scan, '0') && !scan_digits (scan, error))
    return FALSE;
  if (next_is (scan, '.'))
    {
      is_integer = FALSE;
      if (!scan_digits (scan, error))
        return FALSE;
    }
  if (next_is (scan, 'e') || next_is (scan, 'E'))
    {
      is_integer = FALSE;
      if (!next_is (scan, '-'))
        next_is (scan, '+');
      if (!scan_digits (scan, error))
        return FALSE;
    }
  return check_range (scan, start, is_integer, error);
}

static gboolean
scan_literal (Scan *scan, GError **error)
{
  static const char *const literals[] = { "true", "false", "null" };

  for (guint i = 0; i < G_N_ELEMENTS (literals); i++)
    {
      gsize len = strlen (literals[i]);

      if ((gsize)(scan->end - scan->p) >= len && memcmp (scan->p, literals[i], len) == 0)
        {
          scan->p += len;
          return TRUE;
        }
    }
  return fail (scan, "a value is expected", error);
}

static gboolean
scan_key (Scan *scan, GError **error)
{
  skip_space (scan);
  if (scan->p >= scan->end || *scan->p != '"')
    return fail (scan, "the name of a member is expected", error);
  if (!scan_string (scan, error))
    return FALSE;
  skip_space (scan);
  if (!next_is (scan, ':'))
    return fail (scan, "':' is expected", error);
  return TRUE;
}

static gboolean
open_level (Scan *scan, GError **error)
{
  if (scan->nest->len >= scan->max_depth)
    {
      g_set_error (error, JSON_FRAMER_ERROR, JSON_FRAMER_ERROR_TOO_DEEP,
                   "nested more than %u levels deep", scan->max_depth);
      return FALSE;
    }
  g_string_append_c (scan->nest, *scan->p++);
  return TRUE;
}

/* One value up to its end, or up to where its first element begins (*ret_opened). */
static gboolean
scan_value (Scan *scan, gboolean *ret_opened, GError **error)
{
  char c;

  skip_space (scan);
  if (++scan->n_values > MAX_VALUES)
    return fail (scan, "too many values", error);
  *ret_opened = FALSE;
  c = scan->p < scan->end ? *scan->p : '\0';
  if (c == '"')
    return scan_string (scan, error);
  if (c == '-' || g_ascii_isdigit (c))
    return scan_number (scan, error);
  if (c != '{' && c != '[')
    return scan_literal (scan, error);

  if (!open_level (scan, error))
    return FALSE;
  skip_space (scan);
  if (next_is (scan, c == '{' ? '}' : ']'))
    {
      g_string_truncate (scan->nest, scan->nest->len - 1);
      return TRUE;
    }
  *ret_opened = TRUE;
  return c == '[' || scan_key (scan, error);
}

/* What follows a whole value: the end of levels, then a comma, or the end of all (*ret_done). */
static gboolean
scan_after_value (Scan *scan, gboolean *ret_done, GError **error)
{
  for (;;)
    {
      char level;

      skip_space (scan);
      *ret_done = scan->nest->len == 0;
      if (*ret_done)
        return scan->p == scan->end || fail (scan, "something follows the value", error);
      level = scan->nest->str[scan->nest->len - 1];
      if (next_is (scan, ','))
        return level == '[' || scan_key (scan, error);
      if (!next_is (scan, level == '{' ? '}' : ']'))
        return fail (scan, "',' or the end of a list is expected", error);
      g_string_truncate (scan->nest, scan->nest->len - 1);
    }
}

gboolean
json_scan (const char *text, gsize len, guint max_depth, GError **error)
{
  g_autoptr (GString) nest = g_string_new (NULL);
  Scan scan = { .text = text, .p = text, .max_depth = max_depth, .nest = nest };
  const char *bad;
  gboolean done = FALSE;

  /* No text at all may be NULL. */
  scan.end = len > 0 ? text + len : text;
  if (!g_utf8_validate_len (text, len, &bad))
    {
      scan.p = bad;
      return fail (&scan, "not UTF-8", error);
    }
  while (!done)
    {
      gboolean opened;

      if (!scan_value (&scan, &opened, error))
        return FALSE;
      if (!opened && !scan_after_value (&scan, &done, error))
        return FALSE;
    }
  return TRUE;
}
