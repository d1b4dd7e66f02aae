/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/wire.h"

#include <string.h>

guint64
wire_get_u64 (const guint8 *buf)
{
  guint64 value;

  memcpy (&value, buf, sizeof value);
  return GUINT64_FROM_BE (value);
}

guint32
wire_get_u32 (const guint8 *buf)
{
  guint32 value;

  memcpy (&value, buf, sizeof value);
  return GUINT32_FROM_BE (value);
}

guint16
wire_get_u16 (const guint8 *buf)
{
  guint16 value;

  memcpy (&value, buf, sizeof value);
  return GUINT16_FROM_BE (value);
}

static void
wire_put_u32 (GByteArray *out, guint32 value)
{
  value = GUINT32_TO_BE (value);
  g_byte_array_append (out, (const guint8 *)&value, sizeof value);
}

static void
wire_put_u16 (GByteArray *out, guint16 value)
{
  value = GUINT16_TO_BE (value);
  g_byte_array_append (out, (const guint8 *)&value, sizeof value);
}

static void
wire_put_string (GByteArray *out, const char *text)
{
  gsize len = strlen (text);

  wire_put_u32 (out, (guint32)len);
  g_byte_array_append (out, (const guint8 *)text, (guint)len);
}

WireGreetingKind
wire_get_greeting (const guint8 *buf, guint16 *ret_flags)
{
  NbdWireGreeting greeting;

  memcpy (&greeting, buf, sizeof greeting);
  if (GUINT64_FROM_BE (greeting.init_magic) != NBD_INIT_MAGIC)
    return WIRE_GREETING_NOT_NBD;
  if (GUINT64_FROM_BE (greeting.option_magic) == NBD_OLDSTYLE_MAGIC)
    return WIRE_GREETING_OLDSTYLE;
  if (GUINT64_FROM_BE (greeting.option_magic) != NBD_OPTION_MAGIC)
    return WIRE_GREETING_NOT_NBD;
  *ret_flags = GUINT16_FROM_BE (greeting.flags);
  return WIRE_GREETING_NEWSTYLE;
}

void
wire_put_client_flags (GByteArray *out, guint32 flags)
{
  wire_put_u32 (out, flags);
}

void
wire_put_option (GByteArray *out, guint32 option, const GByteArray *data)
{
  guint32 length = data != NULL ? data->len : 0;
  NbdWireOption header = { .magic = GUINT64_TO_BE (NBD_OPTION_MAGIC),
                           .option = GUINT32_TO_BE (option),
                           .length = GUINT32_TO_BE (length) };

  g_byte_array_append (out, (const guint8 *)&header, sizeof header);
  if (length > 0)
    g_byte_array_append (out, data->data, length);
}

void
wire_put_go_data (GByteArray *out, const char *export_name)
{
  wire_put_string (out, export_name);
  wire_put_u16 (out, 1);
  wire_put_u16 (out, NBD_INFO_BLOCK_SIZE);
}

void
wire_put_meta_context_data (GByteArray *out, const char *export_name, const char *const *contexts)
{
  guint n = 0;

  while (contexts[n] != NULL)
    n++;
  wire_put_string (out, export_name);
  wire_put_u32 (out, n);
  for (guint i = 0; i < n; i++)
    wire_put_string (out, contexts[i]);
}

gboolean
wire_get_option_reply (const guint8 *buf, WireOptionReply *ret_reply)
{
  NbdWireOptionReply header;

  memcpy (&header, buf, sizeof header);
  if (GUINT64_FROM_BE (header.magic) != NBD_OPTION_REPLY_MAGIC)
    return FALSE;
  ret_reply->option = GUINT32_FROM_BE (header.option);
  ret_reply->type = GUINT32_FROM_BE (header.type);
  ret_reply->length = GUINT32_FROM_BE (header.length);
  return TRUE;
}

gboolean
wire_get_info_type (const guint8 *buf, gsize len, guint16 *ret_type)
{
  if (len < 2)
    return FALSE;
  *ret_type = wire_get_u16 (buf);
  return TRUE;
}

gboolean
wire_get_info_export (const guint8 *buf, gsize len, guint64 *ret_size, guint16 *ret_flags)
{
  if (len != 12)
    return FALSE;
  *ret_size = wire_get_u64 (buf + 2);
  *ret_flags = wire_get_u16 (buf + 10);
  return TRUE;
}

static gboolean
is_power_of_two (guint32 value)
{
  return value != 0 && (value & (value - 1)) == 0;
}

gboolean
wire_get_info_block_size (const guint8 *buf, gsize len, guint32 *ret_min, guint32 *ret_preferred,
                          guint32 *ret_max)
{
  guint32 min, preferred, max;

  if (len != 14)
    return FALSE;
  min = wire_get_u32 (buf + 2);
  preferred = wire_get_u32 (buf + 6);
  max = wire_get_u32 (buf + 10);
  if (!is_power_of_two (min) || min > NBD_MAX_MIN_BLOCK)
    return FALSE;
  if (!is_power_of_two (preferred) || preferred < min || max < preferred)
    return FALSE;
  *ret_min = min;
  *ret_preferred = preferred;
  *ret_max = max;
  return TRUE;
}

gboolean
wire_get_meta_context (const guint8 *buf, gsize len, guint32 *ret_id, const char **ret_name,
                       gsize *ret_name_len)
{
  if (len < 5 || len > 4 + NBD_MAX_STRING)
    return FALSE;
  *ret_id = wire_get_u32 (buf);
  *ret_name = (const char *)buf + 4;
  *ret_name_len = len - 4;
  return TRUE;
}

void
wire_put_request (GByteArray *out, const WireRequest *request)
{
  NbdWireRequest wire = { .magic = GUINT32_TO_BE (NBD_REQUEST_MAGIC),
                          .flags = GUINT16_TO_BE (request->flags),
                          .type = GUINT16_TO_BE (request->command),
                          .cookie = GUINT64_TO_BE (request->cookie),
                          .offset = GUINT64_TO_BE (request->offset),
                          .length = GUINT32_TO_BE (request->length) };

  g_byte_array_append (out, (const guint8 *)&wire, sizeof wire);
}

gsize
wire_reply_header_size (const guint8 *buf)
{
  switch (wire_get_u32 (buf))
    {
    case NBD_SIMPLE_REPLY_MAGIC:
      return sizeof (NbdWireSimpleReply);
    case NBD_STRUCTURED_REPLY_MAGIC:
      return sizeof (NbdWireChunk);
    default:
      return 0;
    }
}

void
wire_get_reply (const guint8 *buf, WireReply *ret_reply)
{
  NbdWireSimpleReply simple;
  NbdWireChunk chunk;

  *ret_reply = (WireReply){ 0 };
  if (wire_get_u32 (buf) == NBD_SIMPLE_REPLY_MAGIC)
    {
      memcpy (&simple, buf, sizeof simple);
      ret_reply->error = GUINT32_FROM_BE (simple.error);
      ret_reply->cookie = GUINT64_FROM_BE (simple.cookie);
      return;
    }
  memcpy (&chunk, buf, sizeof chunk);
  ret_reply->structured = TRUE;
  ret_reply->flags = GUINT16_FROM_BE (chunk.flags);
  ret_reply->type = GUINT16_FROM_BE (chunk.type);
  ret_reply->cookie = GUINT64_FROM_BE (chunk.cookie);
  ret_reply->length = GUINT32_FROM_BE (chunk.length);
}

gboolean
wire_get_error_chunk (guint16 type, const guint8 *buf, gsize len, WireErrorChunk *ret_chunk)
{
  WireErrorChunk chunk = { 0 };
  gsize tail = type == NBD_REPLY_TYPE_ERROR_OFFSET ? 8 : 0;

  if (len < 6 + tail)
    return FALSE;
  chunk.error = wire_get_u32 (buf);
  chunk.text_len = wire_get_u16 (buf + 4);
  chunk.text = buf + 6;
  if (chunk.error == 0 || chunk.text_len > NBD_MAX_STRING || chunk.text_len > len - 6 - tail)
    return FALSE;
  if (tail != 0)
    {
      chunk.has_offset = TRUE;
      chunk.offset = wire_get_u64 (buf + 6 + chunk.text_len);
    }
  *ret_chunk = chunk;
  return TRUE;
}
