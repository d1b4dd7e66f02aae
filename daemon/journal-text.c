/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/journal-text.h"

#include <string.h>

#include "qmp/json-framer.h"

#define CHECKSUM_LEN 16
#define PREFIX_LEN (CHECKSUM_LEN + 1)
#define MAX_DEPTH 32

static char *
get_checksum (const char *text, gsize len)
{
  char *sum = g_compute_checksum_for_data (G_CHECKSUM_SHA256, (const guchar *)text, len);

  sum[CHECKSUM_LEN] = '\0';
  return sum;
}

char *
journal_text_encode (JsonObject *record, gsize *ret_len)
{
  gsize len;
  g_autofree char *text = json_framer_encode (record, &len);
  g_autofree char *sum = get_checksum (text, len - 1);

  *ret_len = PREFIX_LEN + len;
  return g_strdup_printf ("%s %s", sum, text);
}

/* `line` is without its newline.  NULL where the checksum or the text isn't right. */
static JsonObject *
decode_line (const char *line, gsize len)
{
  g_autoptr (JsonFramer) framer = json_framer_new (JOURNAL_MAX_RECORD, MAX_DEPTH);
  g_autofree char *sum = NULL;

  if (len < PREFIX_LEN || line[CHECKSUM_LEN] != ' ')
    return NULL;
  sum = get_checksum (line + PREFIX_LEN, len - PREFIX_LEN);
  if (memcmp (sum, line, CHECKSUM_LEN) != 0
      || !json_framer_push (framer, line + PREFIX_LEN, len - PREFIX_LEN, NULL)
      || !json_framer_push (framer, "\n", 1, NULL))
    return NULL;
  return json_framer_pop (framer, NULL);
}

/* Whether a crash in the middle of an append leaves such an end of the file: part of a line, or a
 * line with zeroes where data was never written.  Any other bad line is damage to a record that
 * counted. */
static gboolean
is_torn (const char *line, const char *newline, const char *end)
{
  return newline == NULL || (newline + 1 == end && memchr (line, '\0', newline - line) != NULL);
}

GPtrArray *
journal_text_decode (const char *name, const char *text, gsize len, gsize *ret_end, GError **error)
{
  g_autoptr (GPtrArray) records
      = g_ptr_array_new_with_free_func ((GDestroyNotify)json_object_unref);
  const char *end = text + len;
  const char *line = text;

  while (line < end)
    {
      const char *newline = memchr (line, '\n', end - line);
      JsonObject *record = newline != NULL ? decode_line (line, newline - line) : NULL;

      if (record == NULL && is_torn (line, newline, end))
        break;
      if (record == NULL)
        {
          g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s: record %u is damaged", name,
                       records->len + 1);
          return NULL;
        }
      g_ptr_array_add (records, record);
      line = newline + 1;
    }
  *ret_end = line - text;
  return g_steal_pointer (&records);
}
