/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/oracle.h"

#include <string.h>

#include "nbd/protocol.h"
#include "tests/fuzz/fuzz.h"

struct Oracle
{
  NbdExport export;
  GPtrArray *answers; /* OracleAnswer */
  GByteArray *in;
  gboolean broken;
};

static void
answer_free (OracleAnswer *answer)
{
  g_free (answer->data);
  g_free (answer->covered);
  for (guint i = 0; i < NBD_MAX_CONTEXTS; i++)
    g_clear_pointer (&answer->extents[i], g_byte_array_unref);
  g_free (answer);
}

Oracle *
oracle_new (const NbdExport *export)
{
  Oracle *oracle = g_new0 (Oracle, 1);

  oracle->export = *export;
  oracle->answers = g_ptr_array_new_with_free_func ((GDestroyNotify)answer_free);
  oracle->in = g_byte_array_new ();
  return oracle;
}

void
oracle_free (Oracle *oracle)
{
  if (oracle == NULL)
    return;
  g_ptr_array_unref (oracle->answers);
  g_byte_array_unref (oracle->in);
  g_free (oracle);
}

void
oracle_add_request (Oracle *oracle, const WireRequest *request)
{
  OracleAnswer *answer = g_new0 (OracleAnswer, 1);

  answer->request = *request;
  if (request->command == NBD_CMD_READ)
    {
      answer->data = g_malloc0 (request->length);
      answer->covered = g_malloc0 (request->length);
    }
  for (guint i = 0; i < oracle->answers->len; i++)
    {
      const OracleAnswer *other = g_ptr_array_index (oracle->answers, i);

      FUZZ_REQUIRE (other->over || other->request.cookie != request->cookie);
    }
  g_ptr_array_add (oracle->answers, answer);
}

static OracleAnswer *
find_open (Oracle *oracle, guint64 cookie)
{
  for (guint i = oracle->answers->len; i > 0; i--)
    {
      OracleAnswer *answer = g_ptr_array_index (oracle->answers, i - 1);

      if (answer->request.cookie == cookie && !answer->over)
        return answer;
    }
  return NULL;
}

/* Chunks: FALSE for what the protocol does not allow. */

static gboolean
cover (OracleAnswer *answer, guint64 offset, guint64 length, const guint8 *data)
{
  const WireRequest *request = &answer->request;
  guint64 at = offset - request->offset;

  if (request->command != NBD_CMD_READ || length == 0 || offset < request->offset
      || at > request->length || length > request->length - at)
    return FALSE;
  if (memchr (answer->covered + at, 1, length) != NULL)
    return FALSE;
  memset (answer->covered + at, 1, length);
  if (data != NULL)
    memcpy (answer->data + at, data, length);
  answer->hole_bytes += data == NULL ? (guint32)length : 0;
  return TRUE;
}

static gboolean
add_status (Oracle *oracle, OracleAnswer *answer, const guint8 *payload, guint32 length)
{
  const WireRequest *request = &answer->request;
  const NbdExport *export = &oracle->export;
  guint64 told = 0;

  if (request->command != NBD_CMD_BLOCK_STATUS || length < 12 || (length - 4) % 8 != 0)
    return FALSE;
  for (guint32 at = 4; at < length; at += 8)
    {
      guint32 extent = wire_get_u32 (payload + at);

      if (extent == 0 || told >= request->length)
        return FALSE;
      if ((request->flags & NBD_CMD_FLAG_REQ_ONE) && (length != 12 || extent > request->length))
        return FALSE;
      told += extent;
    }
  for (guint i = 0; i < NBD_MAX_CONTEXTS; i++)
    if (export->has_context[i] && export->context_id[i] == wire_get_u32 (payload))
      {
        if (answer->extents[i] != NULL)
          return FALSE;
        answer->extents[i] = g_byte_array_new ();
        g_byte_array_append (answer->extents[i], payload + 4, length - 4);
        return TRUE;
      }
  return FALSE;
}

static gboolean
add_error (OracleAnswer *answer, guint16 type, const guint8 *payload, guint32 length)
{
  const WireRequest *request = &answer->request;
  guint32 tail = type == NBD_REPLY_TYPE_ERROR_OFFSET ? 8 : 0;
  guint64 offset;

  if (length < 6 + tail || wire_get_u32 (payload) == 0
      || wire_get_u16 (payload + 4) > length - 6 - tail
      || wire_get_u16 (payload + 4) > NBD_MAX_STRING)
    return FALSE;
  offset = tail != 0 ? wire_get_u64 (payload + 6 + wire_get_u16 (payload + 4)) : request->offset;
  if (tail != 0 && (offset < request->offset || offset - request->offset >= request->length))
    return FALSE;
  answer->failed = TRUE;
  return TRUE;
}

static gboolean
finish (Oracle *oracle, OracleAnswer *answer)
{
  const WireRequest *request = &answer->request;
  gboolean good = TRUE;

  if (request->command == NBD_CMD_READ)
    good = memchr (answer->covered, 0, request->length) == NULL;
  for (guint i = 0; i < NBD_MAX_CONTEXTS; i++)
    if (request->command == NBD_CMD_BLOCK_STATUS && oracle->export.has_context[i])
      good = good && answer->extents[i] != NULL;
  answer->over = good || answer->failed;
  return answer->over;
}

static gboolean
add_chunk (Oracle *oracle, OracleAnswer *answer, const WireReply *reply, const guint8 *payload)
{
  gboolean good = FALSE;

  switch (reply->type)
    {
    case NBD_REPLY_TYPE_NONE:
      good = reply->length == 0 && (reply->flags & NBD_REPLY_FLAG_DONE);
      break;
    case NBD_REPLY_TYPE_OFFSET_DATA:
      good = reply->length > 8
             && cover (answer, wire_get_u64 (payload), reply->length - 8, payload + 8);
      break;
    case NBD_REPLY_TYPE_OFFSET_HOLE:
      good = reply->length == 12
             && cover (answer, wire_get_u64 (payload), wire_get_u32 (payload + 8), NULL);
      break;
    case NBD_REPLY_TYPE_BLOCK_STATUS:
      good = add_status (oracle, answer, payload, reply->length);
      break;
    default:
      good = (reply->type & NBD_REPLY_TYPE_FLAG_ERROR)
             && add_error (answer, reply->type, payload, reply->length);
      break;
    }
  return good && (!(reply->flags & NBD_REPLY_FLAG_DONE) || finish (oracle, answer));
}

static gboolean
add_simple (Oracle *oracle, OracleAnswer *answer, const WireReply *reply, const guint8 *payload)
{
  const WireRequest *request = &answer->request;

  answer->failed = reply->error != 0;
  if (!answer->failed && request->command == NBD_CMD_READ
      && !cover (answer, request->offset, request->length, payload))
    return FALSE;
  return finish (oracle, answer);
}

/* The stream, from `taken` on: how many bytes were taken; 0: more are needed, or it is broken. */
static gsize
take_reply (Oracle *oracle, gsize taken)
{
  const guint8 *buf = oracle->in->data + taken;
  gsize have = oracle->in->len - taken;
  gsize header = have >= 4 ? wire_reply_header_size (buf) : 0;
  gsize payload;
  OracleAnswer *answer;
  WireReply reply;

  oracle->broken = have >= 4 && header == 0;
  if (oracle->broken || have < 4 || have < header)
    return 0;
  wire_get_reply (buf, &reply);
  answer = find_open (oracle, reply.cookie);
  oracle->broken = answer == NULL
                   || (reply.structured
                           ? !oracle->export.structured
                           : oracle->export.structured && answer->request.command == NBD_CMD_READ);
  if (oracle->broken)
    return 0;
  payload = reply.length;
  if (!reply.structured)
    payload
        = reply.error == 0 && answer->request.command == NBD_CMD_READ ? answer->request.length : 0;
  if (have < header + payload)
    return 0;
  oracle->broken
      = !(reply.structured ? add_chunk : add_simple) (oracle, answer, &reply, buf + header);
  return oracle->broken ? 0 : header + payload;
}

void
oracle_feed (Oracle *oracle, const guint8 *data, gsize len)
{
  gsize n, taken = 0;

  if (oracle->broken || len == 0)
    return;
  g_byte_array_append (oracle->in, data, (guint)len);
  while ((n = take_reply (oracle, taken)) > 0)
    taken += n;
  g_byte_array_remove_range (oracle->in, 0, (guint)taken);
}

gboolean
oracle_is_broken (const Oracle *oracle)
{
  return oracle->broken;
}

guint
oracle_get_n_open (const Oracle *oracle)
{
  guint n = 0;

  for (guint i = 0; i < oracle->answers->len; i++)
    n += ((const OracleAnswer *)g_ptr_array_index (oracle->answers, i))->over ? 0 : 1;
  return n;
}

const OracleAnswer *
oracle_get_answer (const Oracle *oracle, guint index)
{
  return index < oracle->answers->len ? g_ptr_array_index (oracle->answers, index) : NULL;
}
