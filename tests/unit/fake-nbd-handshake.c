/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/fake-nbd-private.h"

#include "nbd/protocol.h"
#include "tls/tls-channel.h"

#include <string.h>

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

gboolean
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
