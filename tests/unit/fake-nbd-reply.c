/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/fake-nbd-private.h"

#include "nbd/protocol.h"

#include <string.h>
#include <sys/socket.h>

#define EXTENDED_REPLY_MAGIC 0x6e8a278cu

static void
put_simple (GByteArray *out, guint32 error, guint64 cookie)
{
  put_u32 (out, NBD_SIMPLE_REPLY_MAGIC);
  put_u32 (out, error);
  put_u64 (out, cookie);
}

static void
put_error (GByteArray *out, guint16 type, const WireRequest *request, guint32 error,
           const char *text, guint64 offset)
{
  gboolean has_offset = type == NBD_REPLY_TYPE_ERROR_OFFSET;
  guint32 len = (guint32)strlen (text);

  put_chunk (out, NBD_REPLY_FLAG_DONE, type, request->cookie, 6 + len + (has_offset ? 8 : 0));
  put_u32 (out, error);
  put_u16 (out, (guint16)len);
  g_byte_array_append (out, (const guint8 *)text, len);
  if (has_offset)
    put_u64 (out, offset);
}

static void
put_data (FakeNbd *fake, GByteArray *out, guint16 flags, guint64 cookie, guint64 offset,
          guint32 length)
{
  put_chunk (out, flags, NBD_REPLY_TYPE_OFFSET_DATA, cookie, length + 8);
  put_u64 (out, offset);
  g_byte_array_append (out, fake->spec.data + offset, length);
  fake->data_sent += length;
}

static void
put_hole (GByteArray *out, guint16 flags, guint64 cookie, guint64 offset, guint32 length)
{
  put_chunk (out, flags, NBD_REPLY_TYPE_OFFSET_HOLE, cookie, 12);
  put_u64 (out, offset);
  put_u32 (out, length);
}

static gboolean
is_zero (const guint8 *data, gsize len)
{
  for (gsize i = 0; i < len; i++)
    if (data[i] != 0)
      return FALSE;
  return TRUE;
}

/* Block by block, the last one first. */
static void
put_holes_and_data (FakeNbd *fake, GByteArray *out, const WireRequest *request)
{
  guint64 end = request->offset + request->length;

  while (end > request->offset)
    {
      guint64 start = MAX (request->offset, (end - 1) / FAKE_BLOCK * FAKE_BLOCK);
      guint16 flags = start == request->offset ? NBD_REPLY_FLAG_DONE : 0;
      guint32 length = (guint32)(end - start);

      if (is_zero (fake->spec.data + start, length))
        put_hole (out, flags, request->cookie, start, length);
      else
        put_data (fake, out, flags, request->cookie, start, length);
      end = start;
    }
}

static void
put_read (FakeNbd *fake, GByteArray *out, const WireRequest *request)
{
  if (!fake->structured)
    {
      put_simple (out, 0, request->cookie);
      g_byte_array_append (out, fake->spec.data + request->offset, request->length);
      fake->data_sent += request->length;
    }
  else if (fake->spec.holes)
    put_holes_and_data (fake, out, request);
  else
    put_data (fake, out, NBD_REPLY_FLAG_DONE, request->cookie, request->offset, request->length);
}

static void
put_status (FakeNbd *fake, GByteArray *out, const WireRequest *request, guint32 id,
            const guint8 *blocks, guint16 flags)
{
  g_autoptr (GByteArray) list = g_byte_array_new ();
  guint64 end = request->offset + request->length;
  guint64 pos = request->offset;

  while (pos < end)
    {
      guint64 start = pos;
      guint8 state = blocks[pos / FAKE_BLOCK];

      while (pos < end && blocks[pos / FAKE_BLOCK] == state)
        pos = MIN (end, (pos / FAKE_BLOCK + 1) * FAKE_BLOCK);
      if (fake->spec.fault == FAKE_TINY_STATUS)
        pos = MIN (end, (start / FAKE_BLOCK + 1) * FAKE_BLOCK);
      if (fake->spec.fault == FAKE_CRUMBS)
        pos = MIN (end, (start / 16 + 1) * 16);
      put_u32 (list, pos == end && fake->spec.fault == FAKE_LAST_EXTENT ? G_MAXUINT32 - 4095
                                                                        : (guint32)(pos - start));
      put_u32 (list, fake->spec.fault == FAKE_STRANGE_STATE ? state | 0xfffffff0 : state);
      if ((request->flags & NBD_CMD_FLAG_REQ_ONE) || fake->spec.fault == FAKE_TINY_STATUS)
        break;
    }
  put_chunk (out, flags, NBD_REPLY_TYPE_BLOCK_STATUS, request->cookie, 4 + list->len);
  put_u32 (out, id);
  g_byte_array_append (out, list->data, list->len);
}

static void
put_statuses (FakeNbd *fake, GByteArray *out, const WireRequest *request)
{
  if (fake->has_bitmap)
    put_status (fake, out, request, BITMAP_ID, fake->spec.dirty, 0);
  if (fake->has_allocation)
    put_status (fake, out, request, ALLOCATION_ID, fake->spec.state, 0);
  put_chunk (out, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, request->cookie, 0);
}

static void
put_bad_data (FakeNbd *fake, GByteArray *out, const WireRequest *r)
{
  switch (fake->spec.fault)
    {
    case FAKE_LONG_CHUNK:
      put_chunk (out, 0, NBD_REPLY_TYPE_OFFSET_DATA, r->cookie, r->length + 9);
      put_u64 (out, r->offset);
      break;
    case FAKE_FOREIGN_CHUNK:
      put_chunk (out, 0, NBD_REPLY_TYPE_OFFSET_DATA, r->cookie, r->length + 8);
      put_u64 (out, r->offset + 512);
      break;
    case FAKE_UNCOVERED:
      put_data (fake, out, NBD_REPLY_FLAG_DONE, r->cookie, r->offset, r->length / 2);
      break;
    case FAKE_OVERLAP:
      put_data (fake, out, 0, r->cookie, r->offset, r->length / 2);
      put_data (fake, out, 0, r->cookie, r->offset + r->length / 2 - 1, r->length / 2);
      break;
    case FAKE_ENDLESS_CHUNKS:
      for (guint32 i = 0; i < r->length; i++)
        put_data (fake, out, 0, r->cookie, r->offset + i, 1);
      break;
    case FAKE_HOLE_BEYOND:
      put_hole (out, 0, r->cookie, r->offset + r->length, 1);
      break;
    case FAKE_HUGE_CHUNK:
      put_chunk (out, 0, NBD_REPLY_TYPE_OFFSET_DATA, r->cookie, G_MAXUINT32);
      put_u64 (out, r->offset);
      break;
    case FAKE_HUGE_ERROR:
      put_chunk (out, 0, NBD_REPLY_TYPE_ERROR, r->cookie, G_MAXUINT32);
      put_u32 (out, NBD_EIO);
      put_u16 (out, G_MAXUINT16);
      break;
    case FAKE_EMPTY_CHUNK:
      put_data (fake, out, 0, r->cookie, r->offset, 0);
      break;
    case FAKE_ENDLESS_NOTHING:
      for (guint i = 0; i < 100000; i++)
        put_chunk (out, 0, NBD_REPLY_TYPE_NONE, r->cookie, 0);
      break;
    case FAKE_STATUS_FOR_DATA:
      put_chunk (out, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS, r->cookie, 12);
      put_u32 (out, ALLOCATION_ID);
      put_u32 (out, r->length);
      put_u32 (out, 0);
      break;
    case FAKE_EMPTY_HOLE:
      put_hole (out, 0, r->cookie, r->offset, 0);
      break;
    case FAKE_HUGE_HOLE:
      put_hole (out, NBD_REPLY_FLAG_DONE, r->cookie, r->offset, G_MAXUINT32);
      break;
    case FAKE_WRAPPED_HOLE:
      put_hole (out, NBD_REPLY_FLAG_DONE, r->cookie, r->offset - r->length, r->length * 2);
      break;
    case FAKE_FULL_NOTHING:
      put_chunk (out, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, r->cookie, 4);
      put_u32 (out, 0);
      break;
    case FAKE_MIXED:
      put_data (fake, out, 0, r->cookie, r->offset, r->length / 2);
      put_simple (out, 0, r->cookie);
      break;
    case FAKE_ERROR_AND_DATA:
      put_error (out, NBD_REPLY_TYPE_ERROR, r, NBD_EIO, "", 0);
      memset (out->data + 4, 0, 2); /* not the last chunk */
      put_data (fake, out, NBD_REPLY_FLAG_DONE, r->cookie, r->offset, r->length);
      break;
    case FAKE_DRIP_DATA:
      put_chunk (out, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA, r->cookie, r->length + 8);
      put_u64 (out, r->offset);
      break;
    case FAKE_STRANGE_REPLY_FLAGS:
      put_data (fake, out, 0xffff, r->cookie, r->offset, r->length);
      break;
    case FAKE_STALL:
      put_data (fake, out, 0, r->cookie, r->offset, r->length / 2);
      break;
    case FAKE_EARLY_DONE:
      put_data (fake, out, 0, r->cookie, r->offset, r->length / 2);
      put_chunk (out, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, r->cookie, 0);
      break;
    case FAKE_TWICE:
      put_data (fake, out, NBD_REPLY_FLAG_DONE, r->cookie, r->offset, r->length);
      put_data (fake, out, NBD_REPLY_FLAG_DONE, r->cookie, r->offset, r->length);
      break;
    default:
      g_assert_not_reached ();
    }
}

/* Of the one that the client asked for, whichever that is. */
static void
put_context_twice (FakeNbd *fake, GByteArray *out, const WireRequest *r)
{
  guint32 id = fake->has_bitmap ? BITMAP_ID : ALLOCATION_ID;
  const guint8 *blocks = fake->has_bitmap ? fake->spec.dirty : fake->spec.state;

  put_status (fake, out, r, id, blocks, 0);
  put_status (fake, out, r, id, blocks, NBD_REPLY_FLAG_DONE);
}

static void
put_bad_status (FakeNbd *fake, GByteArray *out, const WireRequest *r)
{
  guint32 id = fake->spec.fault == FAKE_WRONG_CONTEXT ? 77 : ALLOCATION_ID;

  if (fake->spec.fault == FAKE_NO_STATUS)
    {
      put_chunk (out, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, r->cookie, 0);
      return;
    }
  if (fake->spec.fault == FAKE_STATUS_EIO)
    {
      put_error (out, NBD_REPLY_TYPE_ERROR, r, NBD_EIO, "no map", 0);
      return;
    }
  if (fake->spec.fault == FAKE_DATA_FOR_STATUS)
    {
      put_chunk (out, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA, r->cookie, 9);
      put_u64 (out, r->offset);
      put_u64 (out, 0);
      return;
    }
  if (fake->spec.fault == FAKE_CONTEXT_TWICE)
    {
      put_context_twice (fake, out, r);
      return;
    }
  put_chunk (out, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS, r->cookie,
             fake->spec.fault == FAKE_HUGE_STATUS     ? G_MAXUINT32 - 3
             : fake->spec.fault == FAKE_UNEVEN_STATUS ? 4 + 12
                                                      : 4 + 2 * 8);
  put_u32 (out, id);
  put_u32 (out, fake->spec.fault == FAKE_EMPTY_EXTENT ? 0 : r->length);
  put_u32 (out, 0);
  put_u32 (out, 4096);
  put_u32 (out, 0);
}

static void
put_bad_header (FakeNbd *fake, GByteArray *out, const WireRequest *r)
{
  g_autofree char *text = NULL;

  switch (fake->spec.fault)
    {
    case FAKE_WRONG_COOKIE:
      put_chunk (out, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, r->cookie ^ 256, 0);
      break;
    case FAKE_BAD_MAGIC:
      put_u64 (out, 0xdeadbeefdeadbeef);
      break;
    case FAKE_CLOSE_IN_DATA:
      put_chunk (out, 0, NBD_REPLY_TYPE_OFFSET_DATA, r->cookie, r->length + 8);
      put_u64 (out, r->offset);
      put_u64 (out, 0);
      break;
    case FAKE_SIMPLE:
      put_simple (out, 0, r->cookie);
      break;
    case FAKE_UNKNOWN_CHUNK:
      put_chunk (out, NBD_REPLY_FLAG_DONE, 99, r->cookie, 0);
      break;
    case FAKE_UNKNOWN_ERROR:
      put_error (out, NBD_REPLY_TYPE_FLAG_ERROR | 99, r, 4242, "strange", 0);
      break;
    case FAKE_EIO:
      put_error (out, NBD_REPLY_TYPE_ERROR_OFFSET, r, NBD_EIO, "bad\x1b sector", r->offset + 512);
      break;
    case FAKE_SHUTDOWN:
      put_error (out, NBD_REPLY_TYPE_ERROR, r, NBD_ESHUTDOWN, "", 0);
      break;
    case FAKE_BAD_ERROR_OFFSET:
      put_error (out, NBD_REPLY_TYPE_ERROR_OFFSET, r, NBD_EIO, "", r->offset + r->length);
      break;
    case FAKE_ZERO_ERROR:
      put_error (out, NBD_REPLY_TYPE_ERROR, r, 0, "", 0);
      break;
    case FAKE_LYING_ERROR_TEXT:
      put_chunk (out, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, r->cookie, 6);
      put_u32 (out, NBD_EIO);
      put_u16 (out, 4096);
      break;
    case FAKE_UGLY_ERROR_TEXT:
      put_error (out, NBD_REPLY_TYPE_ERROR, r, NBD_EIO, UGLY, 0);
      break;
    case FAKE_SIMPLE_ERROR:
      put_simple (out, NBD_EIO, r->cookie);
      break;
    case FAKE_EXTENDED:
      put_u32 (out, EXTENDED_REPLY_MAGIC);
      put_u64 (out, 0);
      put_u64 (out, 0);
      put_u64 (out, 0);
      break;
    case FAKE_ECHO:
      put_u32 (out, NBD_REQUEST_MAGIC);
      put_u32 (out, r->command);
      put_u64 (out, r->cookie);
      put_u64 (out, r->offset);
      put_u32 (out, r->length);
      break;
    case FAKE_LONG_ERROR_TEXT:
      text = g_strnfill (5000, 'x');
      put_error (out, NBD_REPLY_TYPE_ERROR, r, NBD_EIO, text, 0);
      break;
    default:
      g_assert_not_reached ();
    }
}

static gboolean
fake_cut (FakeNbd *fake)
{
  shutdown (channel_get_fd (fake->channel), SHUT_RDWR);
  return FALSE;
}

/* FALSE: the connection ends here. */
static gboolean
fake_misbehave (FakeNbd *fake, const WireRequest *request)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();

  if (fake->spec.fault == FAKE_CLOSE)
    return FALSE;
  if (fake->spec.fault == FAKE_SILENT)
    return fake_be_silent (fake);
  if (fake->spec.fault == FAKE_CUT)
    return fake_cut (fake);
  if (fake->spec.fault == FAKE_BYE)
    {
      channel_shutdown (fake->channel);
      return FALSE;
    }
  if ((fake->spec.fault >= FAKE_LONG_CHUNK && fake->spec.fault <= FAKE_ENDLESS_CHUNKS)
      || (fake->spec.fault >= FAKE_HOLE_BEYOND && fake->spec.fault < FAKE_EMPTY_EXTENT))
    put_bad_data (fake, out, request);
  else if (fake->spec.fault >= FAKE_EMPTY_EXTENT)
    put_bad_status (fake, out, request);
  else
    put_bad_header (fake, out, request);
  if (!fake_write (fake, out))
    return FALSE;
  if (fake->spec.fault == FAKE_DRIP_DATA)
    return fake_drip (fake);
  return fake->spec.fault == FAKE_STALL ? fake_be_silent (fake)
                                        : fake->spec.fault != FAKE_CLOSE_IN_DATA;
}

static gboolean
fake_is_time (const FakeNbd *fake, const WireRequest *request)
{
  FakeFault fault = fake->spec.fault;
  gboolean status = request->command == NBD_CMD_BLOCK_STATUS;

  if (fault < FAKE_WRONG_COOKIE || fault >= FAKE_LAST_EXTENT || fake->n_requests < fake->spec.at)
    return FALSE;
  if (fault >= FAKE_EMPTY_EXTENT)
    return status;
  return fault < FAKE_HOLE_BEYOND || fault == FAKE_CUT ? !status : request->command == NBD_CMD_READ;
}

static gboolean
fake_take_write (FakeNbd *fake, const WireRequest *request)
{
  guint8 *at = (guint8 *)fake->spec.data + request->offset;

  g_assert_cmpuint (request->offset + request->length, <=, fake->spec.size);
  if (request->command == NBD_CMD_WRITE_ZEROES)
    memset (at, 0, request->length);
  return request->command != NBD_CMD_WRITE
         || channel_read_all (fake->channel, at, request->length, fake->deadline, NULL);
}

gboolean
fake_answer (FakeNbd *fake, const WireRequest *request)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();

  if (request->command == NBD_CMD_WRITE || request->command == NBD_CMD_WRITE_ZEROES)
    if (!fake_take_write (fake, request))
      return FALSE;
  if (fake_is_time (fake, request))
    return fake_misbehave (fake, request);
  if (request->command == NBD_CMD_READ)
    put_read (fake, out, request);
  else if (request->command == NBD_CMD_BLOCK_STATUS)
    put_statuses (fake, out, request);
  else
    put_simple (out, 0, request->cookie);
  return fake_write (fake, out);
}
