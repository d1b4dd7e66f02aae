/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/handshake-private.h"
#include "nbd/nbd-error.h"
#include "nbd/wire.h"

/* Real servers send three or four replies of some hundred bytes. */
#define MAX_REPLIES 64

static const char *
option_name (guint32 option)
{
  switch (option)
    {
    case NBD_OPT_EXPORT_NAME:
      return "NBD_OPT_EXPORT_NAME";
    case NBD_OPT_STARTTLS:
      return "NBD_OPT_STARTTLS";
    case NBD_OPT_GO:
      return "NBD_OPT_GO";
    case NBD_OPT_STRUCTURED_REPLY:
      return "NBD_OPT_STRUCTURED_REPLY";
    case NBD_OPT_SET_META_CONTEXT:
      return "NBD_OPT_SET_META_CONTEXT";
    default:
      return "an option that was not asked";
    }
}

gboolean
session_fail (Session *session, GError **error, int code, const char *text)
{
  g_set_error (error, NBD_ERROR, code, "%s: %s", channel_get_peer (session->channel), text);
  return FALSE;
}

gboolean
session_read (Session *session, const char *what, void *buf, gsize len, GError **error)
{
  GError *failure = NULL;

  if (channel_read_all (session->channel, buf, len, session->deadline, &failure))
    return TRUE;
  if (g_error_matches (failure, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
    {
      g_clear_error (&failure);
      failure = g_error_new (G_IO_ERROR, G_IO_ERROR_TIMED_OUT, "%s: timed out waiting for %s",
                             channel_get_peer (session->channel), what);
    }
  g_propagate_error (error, failure);
  return FALSE;
}

gboolean
session_send (Session *session, guint32 option, const GByteArray *data, GError **error)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();

  wire_put_option (out, option, data);
  return channel_write_all (session->channel, out->data, out->len, session->deadline, error);
}

static gboolean
session_get_reply_header (Session *session, guint32 option, const guint8 *buf,
                          WireOptionReply *ret_header, GError **error)
{
  const char *peer = channel_get_peer (session->channel);
  gboolean valid = wire_get_option_reply (buf, ret_header);
  guint32 most = ret_header->type == NBD_REP_ACK ? 0 : MAX_REPLY_DATA;

  if (!valid)
    g_set_error (error, NBD_ERROR, NBD_ERROR_PROTOCOL,
                 "%s: the server sent garbage (magic number 0x%016" G_GINT64_MODIFIER
                 "x) for the reply to %s",
                 peer, wire_get_u64 (buf), option_name (option));
  else if (ret_header->option != option)
    g_set_error (error, NBD_ERROR, NBD_ERROR_PROTOCOL,
                 "%s: the server answered option %u where %u (%s) was asked", peer,
                 ret_header->option, option, option_name (option));
  else if (ret_header->length > most)
    g_set_error (error, NBD_ERROR, NBD_ERROR_PROTOCOL,
                 "%s: the server's reply to %s is %u bytes long, which may have %u", peer,
                 option_name (option), ret_header->length, most);
  else
    return TRUE;
  return FALSE;
}

static gboolean
session_read_reply (Session *session, guint32 option, Reply *reply, GError **error)
{
  g_autofree char *what = g_strdup_printf ("the reply to %s", option_name (option));
  guint8 buf[sizeof (NbdWireOptionReply)];
  WireOptionReply header = { 0 };

  if (!session_read (session, what, buf, sizeof buf, error)
      || !session_get_reply_header (session, option, buf, &header, error))
    return FALSE;
  reply->type = header.type;
  reply->length = header.length;
  return session_read (session, what, reply->data, header.length, error);
}

gboolean
session_fail_reply (Session *session, guint32 option, const Reply *reply, GError **error)
{
  g_set_error (error, NBD_ERROR, NBD_ERROR_PROTOCOL,
               "%s: the server sent a reply of type %u to %s, where it does not belong",
               channel_get_peer (session->channel), reply->type, option_name (option));
  return FALSE;
}

gboolean
session_read_replies (Session *session, guint32 option, ReplyHandler handler, Reply *reply,
                      GError **error)
{
  for (guint i = 0; i < MAX_REPLIES; i++)
    {
      if (!session_read_reply (session, option, reply, error))
        return FALSE;
      if (reply->type == NBD_REP_ACK || (reply->type & NBD_REP_FLAG_ERROR))
        return TRUE;
      if (handler == NULL)
        return session_fail_reply (session, option, reply, error);
      if (!handler (session, reply, error))
        return FALSE;
    }
  return session_fail (session, error, NBD_ERROR_PROTOCOL,
                       "the server sends replies to an option without end");
}

char *
session_describe_reply (const Reply *reply)
{
  const char *name = nbd_option_error_text (reply->type);
  g_autofree char *text = nbd_text_escape (reply->data, reply->length);

  return reply->length == 0 ? g_strdup (name) : g_strdup_printf ("%s: %s", name, text);
}

gboolean
session_refused (Session *session, const char *what, const Reply *reply, GError **error)
{
  g_autofree char *answer = session_describe_reply (reply);
  int code = reply->type == NBD_REP_ERR_SHUTDOWN ? NBD_ERROR_SHUTDOWN : NBD_ERROR_REFUSED;

  g_set_error (error, NBD_ERROR, code, "%s: the server refused %s (%s)%s",
               channel_get_peer (session->channel), what, answer,
               reply->type == NBD_REP_ERR_TLS_REQD
                   ? "; it demands TLS: use nbds:// with its credentials"
                   : "");
  return FALSE;
}
