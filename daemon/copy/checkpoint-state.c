/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/copy/checkpoint-state.h"

#include <string.h>

#include "nbd/digest.h"
#include "qmp/json-args.h"

#define VERSION 1

void
checkpoint_header_clear (CheckpointHeader *header)
{
  copy_identity_clear (&header->identity);
  g_clear_pointer (&header->source, g_free);
  g_clear_pointer (&header->target_format, g_free);
  g_clear_pointer (&header->bitmap, g_free);
}

void
checkpoint_state_free (CheckpointState *state)
{
  if (state == NULL)
    return;
  checkpoint_header_clear (&state->header);
  g_clear_pointer (&state->left, g_array_unref);
  copy_samples_free (state->samples);
  g_free (state->digests);
  g_free (state);
}

/* Numbers of 64 bits, which JSON's signed ones don't hold, are written as 16 hex digits. */

static gboolean
parse_hex (const char *text, guint64 *ret_value)
{
  guint64 value = 0;

  for (guint i = 0; i < 16; i++)
    {
      int digit = g_ascii_xdigit_value (text[i]);

      if (digit < 0)
        return FALSE;
      value = value << 4 | (guint64)digit;
    }
  *ret_value = value;
  return TRUE;
}

static gboolean
get_hex (JsonObject *record, const char *name, guint64 *ret_value)
{
  const char *text;

  return json_get_string (record, name, &text) && strlen (text) == 16
         && parse_hex (text, ret_value);
}

static gboolean
get_size (JsonObject *record, const char *name, guint64 *ret_value)
{
  gint64 value;

  if (!json_get_int (record, name, &value) || value < 0)
    return FALSE;
  *ret_value = (guint64)value;
  return TRUE;
}

static gboolean
array_get_size (JsonArray *array, guint i, guint64 *ret_value)
{
  JsonNode *node = json_array_get_element (array, i);

  if (!JSON_NODE_HOLDS_VALUE (node) || json_node_get_value_type (node) != G_TYPE_INT64
      || json_node_get_int (node) < 0)
    return FALSE;
  *ret_value = (guint64)json_node_get_int (node);
  return TRUE;
}

static gboolean
get_text (JsonObject *record, const char *name, char **ret_text)
{
  const char *text;

  if (!json_get_string (record, name, &text))
    return FALSE;
  *ret_text = g_strdup (text);
  return TRUE;
}

static gboolean
decode_identity (JsonObject *record, CopyIdentity *identity)
{
  return get_text (record, "uuid", &identity->uuid) && g_uuid_string_is_valid (identity->uuid)
         && get_hex (record, "device", &identity->device)
         && get_hex (record, "inode", &identity->inode)
         && json_get_int (record, "birth", &identity->birth_ns)
         && get_size (record, "target-size", &identity->size)
         && json_get_bool (record, "xattr", &identity->has_xattr);
}

static gboolean
decode_header (JsonObject *record, CheckpointHeader *header)
{
  const char *name;
  gint64 version;

  if (!json_get_string (record, "record", &name) || !g_str_equal (name, "copy")
      || !json_get_int (record, "version", &version) || version != VERSION)
    return FALSE;
  get_text (record, "bitmap", &header->bitmap);
  return decode_identity (record, &header->identity) && get_text (record, "source", &header->source)
         && get_text (record, "target-format", &header->target_format)
         && get_size (record, "size", &header->size)
         && json_get_bool (record, "verify", &header->verify);
}

/* Whether a piece may begin or end there. */
static gboolean
is_edge (const CheckpointState *state, guint64 offset)
{
  return offset <= state->header.size
         && (offset % NBD_DIGEST_BLOCK == 0 || offset == state->header.size);
}

static gboolean
decode_left (JsonObject *record, CheckpointState *state)
{
  guint64 floor = 0;
  JsonArray *array;
  guint n;

  if (!json_get_array (record, "left", &array))
    return FALSE;
  n = json_array_get_length (array);
  if (n % 2 != 0 || n / 2 > CHECKPOINT_MAX_RANGES)
    return FALSE;
  g_array_set_size (state->left, 0);
  for (guint i = 0; i < n; i += 2)
    {
      WorkRange range;

      if (!array_get_size (array, i, &range.start) || !array_get_size (array, i + 1, &range.end)
          || !is_edge (state, range.start) || !is_edge (state, range.end) || range.start < floor
          || range.start >= range.end || (i > 0 && range.start == floor))
        return FALSE;
      floor = range.end;
      g_array_append_val (state->left, range);
    }
  return TRUE;
}

static gboolean
decode_samples (JsonObject *record, CheckpointState *state)
{
  JsonArray *array;
  guint n;

  if (!json_get_array (record, "samples", &array))
    return FALSE;
  n = json_array_get_length (array);
  if (n % 3 != 0 || n / 3 > COPY_SAMPLES_MAX)
    return FALSE;
  for (guint i = 0; i < n; i += 3)
    {
      const char *hash = json_array_get_string_or_null (array, i + 2);
      CopySample sample = { 0 };
      guint64 length;

      if (!array_get_size (array, i, &sample.offset) || !array_get_size (array, i + 1, &length)
          || hash == NULL || strlen (hash) != 16 || !parse_hex (hash, &sample.hash) || length == 0
          || length > COPY_SAMPLE_SIZE || !is_edge (state, sample.offset)
          || !is_edge (state, sample.offset + length))
        return FALSE;
      sample.length = (guint32)length;
      copy_samples_insert (state->samples, &sample);
    }
  return TRUE;
}

static gboolean
decode_digests (JsonObject *record, CheckpointState *state)
{
  const char *values;
  guint64 first;
  gsize n;

  if (state->digests == NULL || !get_size (record, "first", &first)
      || !json_get_string (record, "values", &values))
    return FALSE;
  n = strlen (values) / 16;
  if (strlen (values) % 16 != 0 || first > state->n_digests || n > state->n_digests - first)
    return FALSE;
  for (gsize i = 0; i < n; i++)
    if (!parse_hex (values + 16 * i, &state->digests[first + i]))
      return FALSE;
  return TRUE;
}

static gboolean
decode_record (JsonObject *record, CheckpointState *state)
{
  const char *name;

  if (!json_get_string (record, "record", &name))
    return FALSE;
  if (g_str_equal (name, "checkpoint"))
    return decode_left (record, state) && decode_samples (record, state);
  return g_str_equal (name, "digests") && decode_digests (record, state);
}

static CheckpointState *
state_new (void)
{
  CheckpointState *state = g_new0 (CheckpointState, 1);

  state->samples = copy_samples_new ();
  state->left = g_array_new (FALSE, FALSE, sizeof (WorkRange));
  return state;
}

/* What the header alone says: nothing is copied yet. */
static void
state_begin (CheckpointState *state)
{
  guint64 size = state->header.size, segment = nbd_digest_segment_size_for (size);
  WorkRange all = { 0, size };

  if (size > 0)
    g_array_append_val (state->left, all);
  if (!state->header.verify)
    return;
  state->n_digests = (guint)(size / segment + (size % segment != 0 ? 1 : 0));
  state->digests = g_new0 (guint64, state->n_digests);
}

CheckpointState *
checkpoint_state_decode (const char *name, const GPtrArray *records, GError **error)
{
  g_autoptr (CheckpointState) state = state_new ();
  gboolean good = records->len > 0 && decode_header (records->pdata[0], &state->header);
  guint i;

  if (good)
    state_begin (state);
  for (i = 1; good && i < records->len; i++)
    good = decode_record (records->pdata[i], state);
  if (good)
    return g_steal_pointer (&state);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
               "%s: record %u makes no sense to this version: it is damaged, or of another one",
               name, i);
  return NULL;
}

JsonObject *
checkpoint_encode_header (const CheckpointHeader *header)
{
  const CopyIdentity *identity = &header->identity;
  g_autofree char *device = g_strdup_printf ("%016" G_GINT64_MODIFIER "x", identity->device);
  g_autofree char *inode = g_strdup_printf ("%016" G_GINT64_MODIFIER "x", identity->inode);

  return json_args ("record", "s", "copy", "version", "i", (gint64)VERSION, "uuid", "s",
                    identity->uuid, "device", "s", device, "inode", "s", inode, "birth", "i",
                    identity->birth_ns, "target-size", "i", (gint64)identity->size, "xattr", "b",
                    identity->has_xattr, "source", "s", header->source, "target-format", "s",
                    header->target_format, "bitmap", "s", header->bitmap, "size", "i",
                    (gint64)header->size, "verify", "b", header->verify, NULL);
}

static JsonArray *
encode_ranges (const GArray *left)
{
  guint group = left->len / (CHECKPOINT_MAX_RANGES + 1) + 1;
  JsonArray *array = json_array_new ();

  for (guint i = 0; i < left->len; i += group)
    {
      guint last = MIN (i + group, left->len) - 1;

      json_array_add_int_element (array, (gint64)g_array_index (left, WorkRange, i).start);
      json_array_add_int_element (array, (gint64)g_array_index (left, WorkRange, last).end);
    }
  return array;
}

static JsonArray *
encode_samples (const GArray *samples)
{
  JsonArray *array = json_array_new ();

  for (guint i = 0; i < samples->len; i++)
    {
      const CopySample *sample = &g_array_index (samples, CopySample, i);
      g_autofree char *hash = g_strdup_printf ("%016" G_GINT64_MODIFIER "x", sample->hash);

      json_array_add_int_element (array, (gint64)sample->offset);
      json_array_add_int_element (array, (gint64)sample->length);
      json_array_add_string_element (array, hash);
    }
  return array;
}

JsonObject *
checkpoint_encode_left (const GArray *left, const GArray *samples)
{
  return json_args ("record", "s", "checkpoint", "left", "a", encode_ranges (left), "samples", "a",
                    encode_samples (samples), NULL);
}

JsonObject *
checkpoint_encode_digests (guint first, const guint64 *values, guint n)
{
  g_autoptr (GString) text = g_string_sized_new (16 * (gsize)n + 1);

  for (guint i = 0; i < n; i++)
    g_string_append_printf (text, "%016" G_GINT64_MODIFIER "x", values[i]);
  return json_args ("record", "s", "digests", "first", "i", (gint64)first, "values", "s", text->str,
                    NULL);
}
