/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/honest-nbd.h"

#include <string.h>

#include "nbd/protocol.h"
#include "tests/fuzz/fuzz.h"

#define BITMAP_NAME "qemu:dirty-bitmap:b"
#define ALLOCATION_NAME "base:allocation"
#define BITMAP_ID 7
#define ALLOCATION_ID 9
/* No client of ours sends more. */
#define MAX_MESSAGE (64 * 1024)

typedef enum
{
  STATE_NEW,
  STATE_FLAGS,
  STATE_OPTION,
  STATE_REQUEST,
  STATE_OVER
} HonestState;

struct HonestNbd
{
  const HonestSpec *spec;
  const HonestHandlers *handlers;
  gpointer user_data;
  HonestState state;
  GByteArray *in;
  NbdExport export;
  guint n_invalid;
};

/* Making frames */

void
honest_put_u16 (GByteArray *out, guint16 value)
{
  value = GUINT16_TO_BE (value);
  g_byte_array_append (out, (const guint8 *)&value, sizeof value);
}

void
honest_put_u32 (GByteArray *out, guint32 value)
{
  value = GUINT32_TO_BE (value);
  g_byte_array_append (out, (const guint8 *)&value, sizeof value);
}

void
honest_put_u64 (GByteArray *out, guint64 value)
{
  value = GUINT64_TO_BE (value);
  g_byte_array_append (out, (const guint8 *)&value, sizeof value);
}

void
honest_put_chunk (GByteArray *out, guint16 flags, guint16 type, guint64 cookie, guint32 length)
{
  honest_put_u32 (out, NBD_STRUCTURED_REPLY_MAGIC);
  honest_put_u16 (out, flags);
  honest_put_u16 (out, type);
  honest_put_u64 (out, cookie);
  honest_put_u32 (out, length);
}

void
honest_put_error (GByteArray *out, guint64 cookie, guint32 error, const char *text)
{
  guint32 len = (guint32)strlen (text);

  honest_put_chunk (out, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, cookie, 6 + len);
  honest_put_u32 (out, error);
  honest_put_u16 (out, (guint16)len);
  g_byte_array_append (out, (const guint8 *)text, len);
}

static void
put_simple (GByteArray *out, guint32 error, guint64 cookie)
{
  honest_put_u32 (out, NBD_SIMPLE_REPLY_MAGIC);
  honest_put_u32 (out, error);
  honest_put_u64 (out, cookie);
}

static void
emit (HonestNbd *server, HonestKind kind, GByteArray *bytes)
{
  HonestFrame frame = { kind, bytes };

  server->handlers->emit (server->user_data, &frame);
}

/* The handshake */

static void
greet (HonestNbd *server)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();

  honest_put_u64 (out, NBD_INIT_MAGIC);
  honest_put_u64 (out, NBD_OPTION_MAGIC);
  honest_put_u16 (out, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  emit (server, HONEST_HANDSHAKE, out);
}

static void
reply_option (HonestNbd *server, guint32 option, guint32 type, const GByteArray *data)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();

  honest_put_u64 (out, NBD_OPTION_REPLY_MAGIC);
  honest_put_u32 (out, option);
  honest_put_u32 (out, type);
  honest_put_u32 (out, data != NULL ? data->len : 0);
  if (data != NULL)
    g_byte_array_append (out, data->data, data->len);
  emit (server, HONEST_HANDSHAKE, out);
}

static void
select_context (HonestNbd *server, guint index, guint32 id, const char *name)
{
  g_autoptr (GByteArray) data = g_byte_array_new ();

  honest_put_u32 (data, id);
  g_byte_array_append (data, (const guint8 *)name, (guint)strlen (name));
  reply_option (server, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, data);
  server->export.has_context[index] = TRUE;
  server->export.context_id[index] = id;
  server->export.n_contexts++;
}

static gboolean
was_asked (const guint8 *data, guint32 len, const char *name)
{
  return memmem (data, len, name, strlen (name)) != NULL;
}

static void
set_contexts (HonestNbd *server, const guint8 *data, guint32 len)
{
  if (server->spec->dirty != NULL && was_asked (data, len, BITMAP_NAME))
    select_context (server, 0, BITMAP_ID, BITMAP_NAME);
  if (server->spec->state != NULL && was_asked (data, len, ALLOCATION_NAME))
    select_context (server, 1, ALLOCATION_ID, ALLOCATION_NAME);
  reply_option (server, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NULL);
}

static void
go (HonestNbd *server)
{
  const HonestSpec *spec = server->spec;
  g_autoptr (GByteArray) sizes = g_byte_array_new ();
  g_autoptr (GByteArray) info = g_byte_array_new ();

  if (spec->min_block != 0)
    {
      honest_put_u16 (sizes, NBD_INFO_BLOCK_SIZE);
      honest_put_u32 (sizes, spec->min_block);
      honest_put_u32 (sizes, MAX (spec->min_block, HONEST_BLOCK));
      honest_put_u32 (sizes, spec->max_block);
      reply_option (server, NBD_OPT_GO, NBD_REP_INFO, sizes);
    }
  honest_put_u16 (info, NBD_INFO_EXPORT);
  honest_put_u64 (info, spec->size);
  honest_put_u16 (info, server->export.flags);
  reply_option (server, NBD_OPT_GO, NBD_REP_INFO, info);
  reply_option (server, NBD_OPT_GO, NBD_REP_ACK, NULL);
}

static void
export_name (HonestNbd *server)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();

  honest_put_u64 (out, server->spec->size);
  honest_put_u16 (out, server->export.flags);
  emit (server, HONEST_HANDSHAKE, out);
}

static void
answer_option (HonestNbd *server, guint32 option, const guint8 *data, guint32 len)
{
  if (option == NBD_OPT_STRUCTURED_REPLY && server->spec->structured)
    {
      server->export.structured = TRUE;
      reply_option (server, option, NBD_REP_ACK, NULL);
    }
  else if (option == NBD_OPT_SET_META_CONTEXT && server->export.structured)
    set_contexts (server, data, len);
  else if ((option == NBD_OPT_GO && server->spec->go) || option == NBD_OPT_EXPORT_NAME)
    {
      server->state = STATE_REQUEST;
      (option == NBD_OPT_GO ? go : export_name) (server);
    }
  else
    reply_option (server, option, NBD_REP_ERR_UNSUP, NULL);
}

/* The transmission */

static gboolean
is_zero (const guint8 *data, gsize len)
{
  return len == 0 || (data[0] == 0 && memcmp (data, data + 1, len - 1) == 0);
}

static void
emit_chunk (HonestNbd *server, const WireRequest *request, guint64 start, guint64 end,
            gboolean last)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();
  const guint8 *data = server->spec->data + start;
  guint32 length = (guint32)(end - start);
  guint16 flags = last ? NBD_REPLY_FLAG_DONE : 0;

  if (server->spec->holes && is_zero (data, length))
    {
      honest_put_chunk (out, flags, NBD_REPLY_TYPE_OFFSET_HOLE, request->cookie, 12);
      honest_put_u64 (out, start);
      honest_put_u32 (out, length);
    }
  else
    {
      honest_put_chunk (out, flags, NBD_REPLY_TYPE_OFFSET_DATA, request->cookie, length + 8);
      honest_put_u64 (out, start);
      g_byte_array_append (out, data, length);
    }
  emit (server, HONEST_CHUNK, out);
}

static void
answer_read_in_chunks (HonestNbd *server, const WireRequest *request)
{
  const HonestSpec *spec = server->spec;
  guint64 end = request->offset + request->length;
  guint64 step = spec->chunk != 0 ? spec->chunk : MAX (request->length, 1);
  guint64 first = request->offset / step, n = (end - 1) / step - first + 1;

  for (guint64 i = 0; i < n; i++)
    {
      guint64 at = first + (spec->backwards ? n - 1 - i : i);

      emit_chunk (server, request, MAX (at * step, request->offset), MIN ((at + 1) * step, end),
                  i == n - 1);
    }
}

static void
answer_read (HonestNbd *server, const WireRequest *request)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();

  if (server->export.structured)
    {
      answer_read_in_chunks (server, request);
      return;
    }
  put_simple (out, 0, request->cookie);
  g_byte_array_append (out, server->spec->data + request->offset, request->length);
  emit (server, HONEST_SIMPLE, out);
}

static void
emit_status (HonestNbd *server, const WireRequest *request, guint32 id, const guint8 *blocks,
             gboolean last)
{
  g_autoptr (GByteArray) list = g_byte_array_new ();
  g_autoptr (GByteArray) out = g_byte_array_new ();
  guint64 end = request->offset + request->length;
  guint64 pos = request->offset;

  while (pos < end)
    {
      guint64 start = pos;
      guint8 state = blocks[pos / HONEST_BLOCK];

      while (pos < end && blocks[pos / HONEST_BLOCK] == state)
        pos = MIN (end, (pos / HONEST_BLOCK + 1) * HONEST_BLOCK);
      honest_put_u32 (list, (guint32)(pos - start));
      honest_put_u32 (list, state);
      if ((request->flags & NBD_CMD_FLAG_REQ_ONE) || server->spec->short_status)
        break;
    }
  honest_put_chunk (out, last ? NBD_REPLY_FLAG_DONE : 0, NBD_REPLY_TYPE_BLOCK_STATUS,
                    request->cookie, 4 + list->len);
  honest_put_u32 (out, id);
  g_byte_array_append (out, list->data, list->len);
  emit (server, HONEST_CHUNK, out);
}

static void
answer_status (HonestNbd *server, const WireRequest *request)
{
  const NbdExport *export = &server->export;

  if (export->has_context[0])
    emit_status (server, request, BITMAP_ID, server->spec->dirty, !export->has_context[1]);
  if (export->has_context[1])
    emit_status (server, request, ALLOCATION_ID, server->spec->state, TRUE);
}

static void
answer_plain (HonestNbd *server, const WireRequest *request, guint32 error)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();

  if (!server->export.structured || request->command != NBD_CMD_READ)
    {
      put_simple (out, error, request->cookie);
      emit (server, HONEST_SIMPLE, out);
      return;
    }
  honest_put_error (out, request->cookie, error, "no");
  emit (server, HONEST_CHUNK, out);
}

static gboolean
is_valid (const HonestNbd *server, const WireRequest *request)
{
  const HonestSpec *spec = server->spec;
  guint32 align = MAX (spec->min_block, 1);
  guint64 end = request->offset + request->length;

  if (request->command != NBD_CMD_READ && request->command != NBD_CMD_BLOCK_STATUS)
    return FALSE;
  if (request->command == NBD_CMD_BLOCK_STATUS && server->export.n_contexts == 0)
    return FALSE;
  if (request->command == NBD_CMD_READ && request->length > server->export.max_payload)
    return FALSE;
  return request->length > 0 && request->offset <= spec->size
         && request->length <= spec->size - request->offset && request->offset % align == 0
         && (end % align == 0 || end == spec->size);
}

static void
answer_request (HonestNbd *server, const WireRequest *request)
{
  if (request->command == NBD_CMD_DISC)
    {
      server->state = STATE_OVER;
      return;
    }
  server->handlers->request (server->user_data, request);
  if (!is_valid (server, request))
    {
      server->n_invalid++;
      answer_plain (server, request, NBD_EINVAL);
    }
  else if (request->command == NBD_CMD_READ)
    answer_read (server, request);
  else
    answer_status (server, request);
}

/* The stream of the client: how many bytes were taken, 0: more are needed. */

static gsize
take_option (HonestNbd *server)
{
  const guint8 *buf = server->in->data;
  guint32 len;

  if (server->in->len < sizeof (NbdWireOption))
    return 0;
  FUZZ_REQUIRE (wire_get_u64 (buf) == NBD_OPTION_MAGIC);
  len = wire_get_u32 (buf + 12);
  FUZZ_REQUIRE (len <= MAX_MESSAGE);
  if (server->in->len < sizeof (NbdWireOption) + len)
    return 0;
  answer_option (server, wire_get_u32 (buf + 8), buf + sizeof (NbdWireOption), len);
  return sizeof (NbdWireOption) + len;
}

static gsize
take_request (HonestNbd *server)
{
  const guint8 *buf = server->in->data;
  WireRequest request;

  if (server->in->len < sizeof (NbdWireRequest))
    return 0;
  FUZZ_REQUIRE (wire_get_u32 (buf) == NBD_REQUEST_MAGIC);
  request = (WireRequest){ .flags = wire_get_u16 (buf + 4),
                           .command = wire_get_u16 (buf + 6),
                           .cookie = wire_get_u64 (buf + 8),
                           .offset = wire_get_u64 (buf + 16),
                           .length = wire_get_u32 (buf + 24) };
  answer_request (server, &request);
  return sizeof (NbdWireRequest);
}

static gsize
take_message (HonestNbd *server)
{
  switch (server->state)
    {
    case STATE_FLAGS:
      if (server->in->len < 4)
        return 0;
      server->state = STATE_OPTION;
      return 4;
    case STATE_OPTION:
      return take_option (server);
    case STATE_REQUEST:
      return take_request (server);
    default:
      return server->in->len;
    }
}

void
honest_nbd_feed (HonestNbd *server, const guint8 *data, gsize len)
{
  gsize n;

  if (server->state == STATE_NEW)
    {
      server->state = STATE_FLAGS;
      greet (server);
    }
  g_byte_array_append (server->in, data, (guint)len);
  FUZZ_REQUIRE (server->in->len <= 2 * MAX_MESSAGE);
  while (server->in->len > 0 && (n = take_message (server)) > 0)
    g_byte_array_remove_range (server->in, 0, (guint)n);
}

HonestNbd *
honest_nbd_new (const HonestSpec *spec, const HonestHandlers *handlers, gpointer user_data)
{
  HonestNbd *server = g_new0 (HonestNbd, 1);

  server->spec = spec;
  server->handlers = handlers;
  server->user_data = user_data;
  server->in = g_byte_array_new ();
  server->export.size = spec->size;
  server->export.flags
      = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | (spec->multi_conn ? NBD_FLAG_CAN_MULTI_CONN : 0);
  server->export.min_block = spec->go && spec->min_block != 0 ? spec->min_block : 1;
  server->export.max_payload
      = spec->go && spec->min_block != 0 ? spec->max_block : NBD_DEFAULT_MAX_PAYLOAD;
  return server;
}

void
honest_nbd_free (HonestNbd *server)
{
  if (server == NULL)
    return;
  g_byte_array_unref (server->in);
  g_free (server);
}

gboolean
honest_nbd_is_over (const HonestNbd *server)
{
  return server->state == STATE_OVER;
}

guint
honest_nbd_get_n_invalid (const HonestNbd *server)
{
  return server->n_invalid;
}

const NbdExport *
honest_nbd_get_export (const HonestNbd *server)
{
  return &server->export;
}
