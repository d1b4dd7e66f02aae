/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/json-framer.h"

#include <string.h>

#include "qmp/json-scan.h"

G_DEFINE_QUARK (json - framer - error - quark, json_framer_error)

struct JsonFramer
{
  gsize max_line;
  guint max_depth;
  GByteArray *buffer;
  gsize start;    /* of the first line that was not popped */
  gsize line_len; /* of the last line, which has no newline yet */
  GError *error;  /* once set, the stream stays bad */
};

JsonFramer *
json_framer_new (gsize max_line, guint max_depth)
{
  JsonFramer *framer = g_new0 (JsonFramer, 1);

  framer->max_line = max_line;
  framer->max_depth = max_depth;
  framer->buffer = g_byte_array_new ();
  return framer;
}

void
json_framer_free (JsonFramer *framer)
{
  if (framer == NULL)
    return;
  g_byte_array_unref (framer->buffer);
  g_clear_error (&framer->error);
  g_free (framer);
}

static gboolean
report (const JsonFramer *framer, GError **error)
{
  if (error != NULL)
    *error = g_error_copy (framer->error);
  return FALSE;
}

/* FALSE once one of the lines that `buf` continues or holds is too long. */
static gboolean
measure_lines (JsonFramer *framer, const char *buf, gsize len)
{
  const char *end = buf + len;

  while (buf < end)
    {
      const char *newline = memchr (buf, '\n', (gsize)(end - buf));

      framer->line_len += (gsize)((newline != NULL ? newline : end) - buf);
      if (framer->line_len > framer->max_line)
        return FALSE;
      if (newline == NULL)
        return TRUE;
      framer->line_len = 0;
      buf = newline + 1;
    }
  return TRUE;
}

gboolean
json_framer_push (JsonFramer *framer, const void *buf, gsize len, GError **error)
{
  if (framer->error != NULL)
    return report (framer, error);
  if (!measure_lines (framer, buf, len))
    {
      g_set_error (&framer->error, JSON_FRAMER_ERROR, JSON_FRAMER_ERROR_TOO_LONG,
                   "a line is longer than %" G_GSIZE_FORMAT " bytes", framer->max_line);
      return report (framer, error);
    }
  if (framer->start > 0)
    {
      g_byte_array_remove_range (framer->buffer, 0, (guint)framer->start);
      framer->start = 0;
    }
  g_byte_array_append (framer->buffer, buf, (guint)len);
  return TRUE;
}

static gboolean
is_blank (const char *line, gsize len)
{
  for (gsize i = 0; i < len; i++)
    if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
      return FALSE;
  return TRUE;
}

static JsonObject *
parse_object (const char *line, gsize len, guint max_depth, GError **error)
{
  g_autoptr (JsonParser) parser = NULL;
  g_autoptr (GError) local = NULL;
  JsonNode *root;

  if (!json_scan (line, len, max_depth, error))
    return NULL;
  parser = json_parser_new ();
  if (!json_parser_load_from_data (parser, line, (gssize)len, &local))
    {
      g_set_error (error, JSON_FRAMER_ERROR, JSON_FRAMER_ERROR_SYNTAX, "not JSON: %s",
                   local->message);
      return NULL;
    }
  root = json_parser_get_root (parser);
  if (root == NULL || !JSON_NODE_HOLDS_OBJECT (root))
    {
      g_set_error (error, JSON_FRAMER_ERROR, JSON_FRAMER_ERROR_SYNTAX, "not a JSON object");
      return NULL;
    }
  return json_node_dup_object (root);
}

JsonObject *
json_framer_pop (JsonFramer *framer, GError **error)
{
  while (framer->error == NULL)
    {
      gsize left = framer->buffer->len - framer->start;
      const char *line, *newline;
      JsonObject *object;

      /* A buffer that nothing came into yet has no data to point into. */
      if (left == 0)
        return NULL;
      line = (const char *)framer->buffer->data + framer->start;
      newline = memchr (line, '\n', left);
      if (newline == NULL)
        return NULL;
      framer->start += (gsize)(newline - line) + 1;
      if (is_blank (line, (gsize)(newline - line)))
        continue;
      object = parse_object (line, (gsize)(newline - line), framer->max_depth, &framer->error);
      if (object != NULL)
        return object;
    }
  report (framer, error);
  return NULL;
}

gboolean
json_framer_is_empty (const JsonFramer *framer)
{
  return framer->buffer->len == framer->start;
}

/* json-glib 1.6 writes 2e38 as 2e+38.0, which is no JSON: takes the ".0" away. */
static void
mend_exponents (char *text)
{
  gboolean in_string = FALSE, in_exponent = FALSE;
  char *to = text;

  for (const char *at = text; *at != '\0'; at++)
    {
      if (*at == '"')
        in_string = !in_string;
      else if (in_string && *at == '\\')
        *to++ = *at++;
      else if (!in_string && *at == 'e' && (at[1] == '+' || at[1] == '-'))
        in_exponent = TRUE;
      else if (*at == ',' || *at == ']' || *at == '}')
        in_exponent = FALSE;
      else if (in_exponent && g_str_has_prefix (at, ".0"))
        {
          at++;
          continue;
        }
      *to++ = *at;
    }
  *to = '\0';
}

char *
json_framer_encode (JsonObject *object, gsize *ret_len)
{
  g_autoptr (JsonNode) node = json_node_init_object (json_node_alloc (), object);
  g_autofree char *text = json_to_string (node, FALSE);
  char *line;

  mend_exponents (text);
  line = g_strconcat (text, "\n", NULL);
  *ret_len = strlen (line);
  return line;
}

gboolean
json_framer_scan (const char *text, gsize len, guint max_depth, GError **error)
{
  return json_scan (text, len, max_depth, error);
}
