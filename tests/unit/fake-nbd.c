/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/fake-nbd.h"
#include "nbd/protocol.h"
#include "nbd/wire.h"
#include "tls/tls-channel.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ALLOCATION_ID 7
#define BITMAP_ID 9
#define DRIP_MS 50
#define EXTENDED_REPLY_MAGIC 0x6e8a278cu
/* Control characters, the sequences of a terminal, what isn't UTF-8, and a text that runs to the
 * left. */
#define UGLY                                                                                       \
  "\r\n\x1b]0;owned\x07\x1b[2J\x9b"                                                                \
  "1m\xff\xfe\xc0\xaf\xe2\x80\xaetxet\b\x7f\"\\"

struct FakeNbd
{
  FakeNbdSpec spec;
  GThread *thread;
  GCancellable *stop;
  Deadline deadline;
  int listener;
  Channel *channel;
  gboolean structured;
  gboolean has_allocation;
  gboolean has_bitmap;
  guint n_requests;
  guint n_by_command[8];
  guint64 data_sent;
  guint clear_options;
  gboolean goodbye;
};

static gboolean
fake_write (FakeNbd *fake, const GByteArray *out)
{
  return channel_write_all (fake->channel, out->data, out->len, fake->deadline, NULL);
}

static void
put_u16 (GByteArray *out, guint16 value)
{
  value = GUINT16_TO_BE (value);
  g_byte_array_append (out, (guint8 *)&value, sizeof value);
}

static void
put_u32 (GByteArray *out, guint32 value)
{
  value = GUINT32_TO_BE (value);
  g_byte_array_append (out, (guint8 *)&value, sizeof value);
}

static void
put_u64 (GByteArray *out, guint64 value)
{
  value = GUINT64_TO_BE (value);
  g_byte_array_append (out, (guint8 *)&value, sizeof value);
}

static void
put_chunk (GByteArray *out, guint16 flags, guint16 type, guint64 cookie, guint32 length)
{
  put_u32 (out, NBD_STRUCTURED_REPLY_MAGIC);
  put_u16 (out, flags);
  put_u16 (out, type);
  put_u64 (out, cookie);
  put_u32 (out, length);
}

static void
put_simple (GByteArray *out, guint32 error, guint64 cookie)
{
  put_u32 (out, NBD_SIMPLE_REPLY_MAGIC);
  put_u32 (out, error);
  put_u64 (out, cookie);
}

/* Never answers; ends when the client hangs up or the test is over. */
static gboolean
fake_be_silent (FakeNbd *fake)
{
  guint8 byte;

  while (channel_read_all (fake->channel, &byte, 1, fake->deadline, NULL))
    ;
  return FALSE;
}

/* Goes on until the client has enough of it. */
static gboolean
fake_drip (FakeNbd *fake)
{
  guint8 byte = 0;

  while (channel_write_all (fake->channel, &byte, 1, fake->deadline, NULL))
    deadline_poll (deadline_sooner (fake->deadline, DRIP_MS), -1, 0, NULL);
  return FALSE;
}

/* The handshake */

static gboolean
fake_greet (FakeNbd *fake)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();
  guint8 flags[4];

  if (fake->spec.fault == FAKE_SILENT_GREETING)
    return fake_be_silent (fake);
  put_u64 (out, fake->spec.fault == FAKE_NOT_NBD ? NBD_INIT_MAGIC + 1 : NBD_INIT_MAGIC);
  put_u64 (out, fake->spec.fault == FAKE_OLDSTYLE ? NBD_OLDSTYLE_MAGIC : NBD_OPTION_MAGIC);
  put_u16 (out, fake->spec.fault == FAKE_NO_FIXED ? NBD_FLAG_NO_ZEROES
                : fake->spec.fault == FAKE_STRANGE_FLAGS
                    ? G_MAXUINT16
                    : NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  return fake_write (fake, out)
         && channel_read_all (fake->channel, flags, sizeof flags, fake->deadline, NULL);
}

static gboolean
fake_reply_option (FakeNbd *fake, guint32 option, guint32 type, const GByteArray *data)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();
  guint32 length = data != NULL ? data->len : 0;
  gboolean long_ack = fake->spec.fault == FAKE_LONG_ACK && type == NBD_REP_ACK;

  if (fake->spec.fault == FAKE_UNKNOWN_REPLY && type == NBD_REP_ACK)
    type = 99;
  put_u64 (out, NBD_OPTION_REPLY_MAGIC + (fake->spec.fault == FAKE_BAD_OPTION_MAGIC));
  put_u32 (out, option + (fake->spec.fault == FAKE_WRONG_OPTION));
  put_u32 (out, type);
  put_u32 (out, fake->spec.fault == FAKE_HUGE_OPTION_REPLY ? 0x10000000 : long_ack ? 4 : length);
  if (long_ack)
    put_u32 (out, 0);
  if (data != NULL)
    g_byte_array_append (out, data->data, data->len);
  return fake_write (fake, out);
}

static gboolean
fake_refuse_option (FakeNbd *fake, guint32 option, guint32 type, const char *text)
{
  g_autoptr (GByteArray) data = g_byte_array_new ();

  g_byte_array_append (data, (const guint8 *)text, (guint)strlen (text));
  return fake_reply_option (fake, option, type, data);
}

static gboolean
fake_drip_option (FakeNbd *fake, guint32 option)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();

  put_u64 (out, NBD_OPTION_REPLY_MAGIC);
  put_u32 (out, option);
  put_u32 (out, NBD_REP_ERR_POLICY);
  put_u32 (out, 4096);
  return fake_write (fake, out) && fake_drip (fake);
}

/* A ServerHello of four bytes. */
static gboolean
fake_send_tls_garbage (FakeNbd *fake)
{
  static const guint8 record[] = { 22, 3, 3, 0, 8, 2, 0, 0, 4, 0xa5, 0xa5, 0xa5, 0xa5 };

  return channel_write_all (fake->channel, record, sizeof record, fake->deadline, NULL)
         && fake_be_silent (fake);
}

static gboolean
fake_start_tls (FakeNbd *fake)
{
  if (fake->spec.credentials == NULL || fake->spec.fault == FAKE_NO_TLS)
    return fake_refuse_option (fake, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY, "no \x1b[31mTLS\n");
  if (!fake_reply_option (fake, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL))
    return FALSE;
  if (fake->spec.fault == FAKE_HANG_UP_AT_TLS)
    return FALSE;
  if (fake->spec.fault == FAKE_SILENT_IN_TLS)
    return fake_be_silent (fake);
  if (fake->spec.fault == FAKE_TLS_GARBAGE)
    return fake_send_tls_garbage (fake);
  if (fake->spec.fault == FAKE_INJECT)
    return fake_reply_option (fake, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL)
           && fake_be_silent (fake);
  fake->channel = tls_channel_accept (fake->channel, fake->spec.credentials, fake->deadline, NULL);
  return fake->channel != NULL && fake->spec.fault != FAKE_HANG_UP_IN_TLS;
}

static gboolean
fake_send_context (FakeNbd *fake, guint32 id, const char *name)
{
  g_autoptr (GByteArray) data = g_byte_array_new ();

  put_u32 (data, id);
  g_byte_array_append (data, (const guint8 *)name, (guint)strlen (name));
  if (fake->spec.fault == FAKE_SHORT_CONTEXT)
    g_byte_array_set_size (data, 3);
  return fake_reply_option (fake, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, data);
}

/* Looks for the names in the option's data; the queries need no parser for that. */
static gboolean
fake_set_contexts (FakeNbd *fake, const GByteArray *data)
{
  g_autofree char *bitmap = g_strconcat ("qemu:dirty-bitmap:", fake->spec.bitmap, NULL);

  fake->has_allocation
      = fake->spec.state != NULL && memmem (data->data, data->len, "base:allocation", 15) != NULL;
  fake->has_bitmap = fake->spec.bitmap != NULL
                     && memmem (data->data, data->len, bitmap, strlen (bitmap)) != NULL;
  if (fake->spec.fault == FAKE_FOREIGN_CONTEXT && !fake_send_context (fake, 1, "x-other:thing"))
    return FALSE;
  while (fake->spec.fault == FAKE_ENDLESS_CONTEXTS)
    if (!fake_send_context (fake, ALLOCATION_ID, "base:allocation"))
      return FALSE;
  /* Not in the order of the request. */
  if (fake->has_allocation && !fake_send_context (fake, ALLOCATION_ID, "base:allocation"))
    return FALSE;
  if (fake->has_bitmap && !fake_send_context (fake, BITMAP_ID, bitmap))
    return FALSE;
  return fake_reply_option (fake, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NULL);
}

static guint16
fake_flags (const FakeNbd *fake)
{
  return (fake->spec.fault == FAKE_NO_FLAGS ? 0 : NBD_FLAG_HAS_FLAGS)
         | (fake->spec.fault == FAKE_STRANGE_FLAGS ? 0xe000 : 0) | NBD_FLAG_SEND_FLUSH
         | NBD_FLAG_SEND_WRITE_ZEROES | (fake->spec.read_only ? NBD_FLAG_READ_ONLY : 0)
         | (fake->spec.multi_conn ? NBD_FLAG_CAN_MULTI_CONN : 0);
}

static gboolean
fake_send_block_sizes (FakeNbd *fake)
{
  g_autoptr (GByteArray) data = g_byte_array_new ();

  put_u16 (data, NBD_INFO_BLOCK_SIZE);
  put_u32 (data, fake->spec.fault == FAKE_BAD_BLOCK_SIZE ? 513 : fake->spec.min_block);
  put_u32 (data, MAX (fake->spec.preferred_block, 4096));
  put_u32 (data, fake->spec.max_payload > 0 ? fake->spec.max_payload : NBD_DEFAULT_MAX_PAYLOAD);
  return fake_reply_option (fake, NBD_OPT_GO, NBD_REP_INFO, data);
}

static gboolean
fake_refuses (const FakeNbd *fake)
{
  return fake->spec.fault == FAKE_NO_EXPORT || fake->spec.fault == FAKE_LONG_OPTION_TEXT
         || fake->spec.fault == FAKE_UGLY_OPTION_TEXT || fake->spec.fault == FAKE_GOING_DOWN;
}

static gboolean
fake_refuse (FakeNbd *fake)
{
  g_autofree char *text = NULL;

  switch (fake->spec.fault)
    {
    case FAKE_NO_EXPORT:
      return fake_refuse_option (fake, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, "no such \"export\"");
    case FAKE_UGLY_OPTION_TEXT:
      return fake_refuse_option (fake, NBD_OPT_GO, NBD_REP_ERR_POLICY, UGLY);
    case FAKE_GOING_DOWN:
      return fake_refuse_option (fake, NBD_OPT_GO, NBD_REP_ERR_SHUTDOWN, "");
    default:
      text = g_strnfill (60000, '\x1b');
      return fake_refuse_option (fake, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, text);
    }
}

static gboolean
fake_send_size (FakeNbd *fake, guint64 size)
{
  g_autoptr (GByteArray) data = g_byte_array_new ();

  put_u16 (data, NBD_INFO_EXPORT);
  put_u64 (data, size);
  if (fake->spec.fault != FAKE_SHORT_INFO)
    put_u16 (data, fake_flags (fake));
  return fake_reply_option (fake, NBD_OPT_GO, NBD_REP_INFO, data);
}

/* What no option has asked for. */
static gboolean
fake_send_early_reply (FakeNbd *fake)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();

  put_chunk (out, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, 0, 0);
  return fake_write (fake, out);
}

static gboolean
fake_go (FakeNbd *fake)
{
  g_autoptr (GByteArray) unknown = g_byte_array_new ();

  if (fake_refuses (fake))
    return fake_refuse (fake);
  put_u16 (unknown, 999);
  while (fake_reply_option (fake, NBD_OPT_GO, NBD_REP_INFO, unknown))
    if (fake->spec.fault != FAKE_ENDLESS_INFO)
      break;
  if ((fake->spec.min_block != 0 || fake->spec.fault == FAKE_BAD_BLOCK_SIZE)
      && !fake_send_block_sizes (fake))
    return FALSE;
  if (fake->spec.fault == FAKE_TWO_SIZES && !fake_send_size (fake, fake->spec.size + FAKE_BLOCK))
    return FALSE;
  return (fake->spec.fault == FAKE_NO_INFO
          || fake_send_size (fake, fake->spec.fault == FAKE_HUGE_SIZE ? G_MAXUINT64 - 4095
                                                                      : fake->spec.size))
         && fake_reply_option (fake, NBD_OPT_GO, NBD_REP_ACK, NULL)
         && (fake->spec.fault != FAKE_EARLY_REPLY || fake_send_early_reply (fake));
}

static gboolean
fake_export_name (FakeNbd *fake)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();

  put_u64 (out, fake->spec.size);
  put_u16 (out, fake_flags (fake));
  return fake_write (fake, out);
}

static gboolean
fake_answer_option (FakeNbd *fake, guint32 option, const GByteArray *data, gboolean *ret_over)
{
  *ret_over = FALSE;
  switch (option)
    {
    case NBD_OPT_STARTTLS:
      return fake_start_tls (fake);
    case NBD_OPT_STRUCTURED_REPLY:
      fake->structured = !fake->spec.simple;
      return fake_reply_option (fake, option, fake->structured ? NBD_REP_ACK : NBD_REP_ERR_UNSUP,
                                NULL);
    case NBD_OPT_SET_META_CONTEXT:
      return fake_set_contexts (fake, data);
    case NBD_OPT_GO:
      if (fake->spec.fault == FAKE_NO_GO)
        return fake_reply_option (fake, option, NBD_REP_ERR_UNSUP, NULL);
      *ret_over = !fake_refuses (fake);
      return fake_go (fake);
    case NBD_OPT_EXPORT_NAME:
      *ret_over = TRUE;
      return fake_export_name (fake);
    default:
      return fake_reply_option (fake, option, NBD_REP_ERR_UNSUP, NULL);
    }
}

static gboolean
fake_handshake (FakeNbd *fake)
{
  gboolean over = FALSE;
  Channel *clear = fake->channel;

  if (!fake_greet (fake))
    return FALSE;
  while (!over)
    {
      guint8 header[sizeof (NbdWireOption)];
      g_autoptr (GByteArray) data = g_byte_array_new ();

      if (!channel_read_all (fake->channel, header, sizeof header, fake->deadline, NULL))
        return FALSE;
      if (fake->channel == clear)
        fake->clear_options++;
      g_byte_array_set_size (data, wire_get_u32 (header + 12));
      if (!channel_read_all (fake->channel, data->data, data->len, fake->deadline, NULL))
        return FALSE;
      if (fake->spec.fault == FAKE_SILENT_OPTION)
        return fake_be_silent (fake);
      if (fake->spec.fault == FAKE_DRIP_OPTION)
        return fake_drip_option (fake, wire_get_u32 (header + 8));
      if (!fake_answer_option (fake, wire_get_u32 (header + 8), data, &over))
        return FALSE;
    }
  return TRUE;
}

/* The transmission */

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
      put_status (fake, out, r, ALLOCATION_ID, fake->spec.state, 0);
      put_status (fake, out, r, ALLOCATION_ID, fake->spec.state, NBD_REPLY_FLAG_DONE);
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

static gboolean
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

static gboolean
fake_read_request (FakeNbd *fake, WireRequest *request)
{
  guint8 buf[sizeof (NbdWireRequest)];

  if (!channel_read_all (fake->channel, buf, sizeof buf, fake->deadline, NULL))
    return FALSE;
  g_assert_cmphex (wire_get_u32 (buf), ==, NBD_REQUEST_MAGIC);
  request->flags = wire_get_u16 (buf + 4);
  request->command = wire_get_u16 (buf + 6);
  request->cookie = wire_get_u64 (buf + 8);
  request->offset = wire_get_u64 (buf + 16);
  request->length = wire_get_u32 (buf + 24);
  /* What every client owes to a server. */
  g_assert_cmpuint (request->command, <=, NBD_CMD_BLOCK_STATUS);
  g_assert_cmpuint (request->offset, <=, fake->spec.size);
  g_assert_cmpuint (request->length, <=, fake->spec.size - request->offset);
  if (fake->spec.min_block != 0)
    g_assert_cmpuint (request->offset % fake->spec.min_block, ==, 0);
  return TRUE;
}

static gpointer
fake_thread (gpointer data)
{
  FakeNbd *fake = data;
  WireRequest request;

  if (fake->listener >= 0)
    {
      int fd;

      if (!deadline_poll (fake->deadline, fake->listener, POLLIN, NULL))
        return NULL;
      fd = accept (fake->listener, NULL, NULL);
      g_assert_cmpint (fd, >=, 0);
      fake->channel = channel_new_fd (fd, "client");
    }
  if (fake_handshake (fake))
    while (fake_read_request (fake, &request))
      {
        fake->n_by_command[request.command]++;
        fake->goodbye = request.command == NBD_CMD_DISC;
        if (fake->goodbye || !fake_answer (fake, &request))
          break;
        fake->n_requests++;
      }
  g_clear_pointer (&fake->channel, channel_free);
  return NULL;
}

static FakeNbd *
fake_new (const FakeNbdSpec *spec)
{
  FakeNbd *fake = g_new0 (FakeNbd, 1);

  fake->spec = *spec;
  fake->stop = g_cancellable_new ();
  fake->deadline = deadline_in (-1, fake->stop);
  fake->listener = -1;
  return fake;
}

FakeNbd *
fake_nbd_new (const FakeNbdSpec *spec, Channel **ret_channel)
{
  FakeNbd *fake = fake_new (spec);
  int fds[2];

  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
  fake->channel = channel_new_fd (fds[0], "client");
  *ret_channel = channel_new_fd (fds[1], "fake:10809");
  fake->thread = g_thread_new ("fake-nbd", fake_thread, fake);
  return fake;
}

FakeNbd *
fake_nbd_new_fd (const FakeNbdSpec *spec, int fd)
{
  FakeNbd *fake = fake_new (spec);

  fake->channel = channel_new_fd (fd, "client");
  fake->thread = g_thread_new ("fake-nbd", fake_thread, fake);
  return fake;
}

FakeNbd *
fake_nbd_new_listening (const FakeNbdSpec *spec, const char *path)
{
  FakeNbd *fake = fake_new (spec);
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  fake->listener = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  g_assert_cmpint (bind (fake->listener, (struct sockaddr *)&address, sizeof address), ==, 0);
  g_assert_cmpint (listen (fake->listener, 1), ==, 0);
  fake->thread = g_thread_new ("fake-nbd", fake_thread, fake);
  return fake;
}

const char *
fake_fault_get_name (FakeFault fault)
{
  static const char *const names[FAKE_N_FAULTS] = {
    [FAKE_HONEST] = "honest",
    [FAKE_NOT_NBD] = "not-nbd",
    [FAKE_OLDSTYLE] = "oldstyle",
    [FAKE_NO_TLS] = "no-tls",
    [FAKE_INJECT] = "inject",
    [FAKE_HANG_UP_IN_TLS] = "hang-up-in-tls",
    [FAKE_BAD_OPTION_MAGIC] = "bad-option-magic",
    [FAKE_WRONG_OPTION] = "wrong-option",
    [FAKE_HUGE_OPTION_REPLY] = "huge-option-reply",
    [FAKE_ENDLESS_INFO] = "endless-info",
    [FAKE_NO_EXPORT] = "no-export",
    [FAKE_HUGE_SIZE] = "huge-size",
    [FAKE_BAD_BLOCK_SIZE] = "bad-block-size",
    [FAKE_FOREIGN_CONTEXT] = "foreign-context",
    [FAKE_NO_GO] = "no-go",
    [FAKE_SILENT_OPTION] = "silent-option",
    [FAKE_SILENT_GREETING] = "silent-greeting",
    [FAKE_SILENT_IN_TLS] = "silent-in-tls",
    [FAKE_DRIP_OPTION] = "drip-option",
    [FAKE_ENDLESS_CONTEXTS] = "endless-contexts",
    [FAKE_NO_INFO] = "no-info",
    [FAKE_SHORT_INFO] = "short-info",
    [FAKE_LONG_OPTION_TEXT] = "long-option-text",
    [FAKE_UGLY_OPTION_TEXT] = "ugly-option-text",
    [FAKE_NO_FIXED] = "no-fixed",
    [FAKE_STRANGE_FLAGS] = "strange-flags",
    [FAKE_HANG_UP_AT_TLS] = "hang-up-at-tls",
    [FAKE_TLS_GARBAGE] = "tls-garbage",
    [FAKE_LONG_ACK] = "long-ack",
    [FAKE_UNKNOWN_REPLY] = "unknown-reply",
    [FAKE_SHORT_CONTEXT] = "short-context",
    [FAKE_TWO_SIZES] = "two-sizes",
    [FAKE_NO_FLAGS] = "no-flags",
    [FAKE_GOING_DOWN] = "going-down",
    [FAKE_EARLY_REPLY] = "early-reply",
    [FAKE_WRONG_COOKIE] = "wrong-cookie",
    [FAKE_BAD_MAGIC] = "bad-magic",
    [FAKE_CLOSE] = "close",
    [FAKE_CLOSE_IN_DATA] = "close-in-data",
    [FAKE_SILENT] = "silent",
    [FAKE_LONG_CHUNK] = "long-chunk",
    [FAKE_FOREIGN_CHUNK] = "foreign-chunk",
    [FAKE_UNCOVERED] = "uncovered",
    [FAKE_OVERLAP] = "overlap",
    [FAKE_ENDLESS_CHUNKS] = "endless-chunks",
    [FAKE_SIMPLE] = "simple",
    [FAKE_UNKNOWN_CHUNK] = "unknown-chunk",
    [FAKE_UNKNOWN_ERROR] = "unknown-error",
    [FAKE_EIO] = "eio",
    [FAKE_SHUTDOWN] = "shutdown",
    [FAKE_BAD_ERROR_OFFSET] = "bad-error-offset",
    [FAKE_ZERO_ERROR] = "zero-error",
    [FAKE_LYING_ERROR_TEXT] = "lying-error-text",
    [FAKE_UGLY_ERROR_TEXT] = "ugly-error-text",
    [FAKE_SIMPLE_ERROR] = "simple-error",
    [FAKE_EXTENDED] = "extended",
    [FAKE_ECHO] = "echo",
    [FAKE_BYE] = "bye",
    [FAKE_LONG_ERROR_TEXT] = "long-error-text",
    [FAKE_HOLE_BEYOND] = "hole-beyond",
    [FAKE_HUGE_CHUNK] = "huge-chunk",
    [FAKE_HUGE_ERROR] = "huge-error",
    [FAKE_EMPTY_CHUNK] = "empty-chunk",
    [FAKE_ENDLESS_NOTHING] = "endless-nothing",
    [FAKE_TWICE] = "twice",
    [FAKE_STATUS_FOR_DATA] = "status-for-data",
    [FAKE_EMPTY_HOLE] = "empty-hole",
    [FAKE_HUGE_HOLE] = "huge-hole",
    [FAKE_WRAPPED_HOLE] = "wrapped-hole",
    [FAKE_FULL_NOTHING] = "full-nothing",
    [FAKE_MIXED] = "mixed",
    [FAKE_ERROR_AND_DATA] = "error-and-data",
    [FAKE_DRIP_DATA] = "drip-data",
    [FAKE_STRANGE_REPLY_FLAGS] = "strange-reply-flags",
    [FAKE_CUT] = "cut",
    [FAKE_STALL] = "stall",
    [FAKE_EARLY_DONE] = "early-done",
    [FAKE_EMPTY_EXTENT] = "empty-extent",
    [FAKE_LONG_EXTENTS] = "long-extents",
    [FAKE_WRONG_CONTEXT] = "wrong-context",
    [FAKE_NO_STATUS] = "no-status",
    [FAKE_HUGE_STATUS] = "huge-status",
    [FAKE_CONTEXT_TWICE] = "context-twice",
    [FAKE_UNEVEN_STATUS] = "uneven-status",
    [FAKE_DATA_FOR_STATUS] = "data-for-status",
    [FAKE_STATUS_EIO] = "status-eio",
    [FAKE_LAST_EXTENT] = "last-extent",
    [FAKE_STRANGE_STATE] = "strange-state",
    [FAKE_CRUMBS] = "crumbs",
    [FAKE_TINY_STATUS] = "tiny-status",
  };

  return fault < FAKE_N_FAULTS ? names[fault] : NULL;
}

void
fake_nbd_join (FakeNbd *fake)
{
  g_thread_join (g_steal_pointer (&fake->thread));
}

void
fake_nbd_free (FakeNbd *fake)
{
  if (fake == NULL)
    return;
  g_cancellable_cancel (fake->stop);
  if (fake->thread != NULL)
    fake_nbd_join (fake);
  if (fake->listener >= 0)
    close (fake->listener);
  g_object_unref (fake->stop);
  g_free (fake);
}

guint
fake_nbd_get_n (const FakeNbd *fake, guint16 command)
{
  return fake->n_by_command[command];
}

guint64
fake_nbd_get_data_sent (const FakeNbd *fake)
{
  return fake->data_sent;
}

gboolean
fake_nbd_got_goodbye (const FakeNbd *fake)
{
  return fake->goodbye;
}

guint
fake_nbd_get_clear_options (const FakeNbd *fake)
{
  return fake->clear_options;
}
