/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/handshake-private.h"
#include "nbd/nbd-error.h"
#include "nbd/wire.h"
#include "tls/handshake-error.h"
#include "tls/tls-channel.h"

#include <string.h>

static gboolean
session_fail_greeting (Session *session, const guint8 *buf, gsize len, GError **error)
{
  g_autofree char *found = nbd_text_escape (buf, len);

  g_set_error (error, NBD_ERROR, NBD_ERROR_PROTOCOL,
               "%s: this is not an NBD server: it sent \"%s\" where \"NBDMAGICIHAVEOPT\" belongs",
               channel_get_peer (session->channel), found);
  return FALSE;
}

static gboolean
session_greet (Session *session, GError **error)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();
  guint8 buf[sizeof (NbdWireGreeting)];
  guint16 flags = 0;

  if (!session_read (session, "the greeting of an NBD server", buf, sizeof buf, error))
    return FALSE;
  switch (wire_get_greeting (buf, &flags))
    {
    case WIRE_GREETING_NOT_NBD:
      return session_fail_greeting (session, buf, sizeof buf, error);
    case WIRE_GREETING_OLDSTYLE:
      flags = 0;
      break;
    case WIRE_GREETING_NEWSTYLE:
      break;
    }
  if (!(flags & NBD_FLAG_FIXED_NEWSTYLE))
    {
      if (session->spec->credentials != NULL)
        return session_fail (session, error, NBD_ERROR_NO_TLS,
                             "the server offers no TLS (it speaks an old version of NBD); nothing "
                             "was sent in clear: turn TLS on over there");
      return session_fail (session, error, NBD_ERROR_REFUSED,
                           "the server speaks an old version of NBD; one with the fixed newstyle "
                           "handshake is needed");
    }
  session->no_zeroes = (flags & NBD_FLAG_NO_ZEROES) != 0;
  wire_put_client_flags (out, flags & (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
  return channel_write_all (session->channel, out->data, out->len, session->deadline, error);
}

static gboolean
session_start_tls (Session *session, GError **error)
{
  g_autofree Reply *reply = g_new (Reply, 1);

  if (!session_send (session, NBD_OPT_STARTTLS, NULL, error)
      || !session_read_replies (session, NBD_OPT_STARTTLS, NULL, reply, error))
    return FALSE;
  if (reply->type != NBD_REP_ACK)
    {
      g_autofree char *answer = session_describe_reply (reply);

      g_set_error (
          error, NBD_ERROR, NBD_ERROR_NO_TLS,
          "%s: the server offers no TLS (%s); nothing was sent in clear: turn TLS on over there",
          channel_get_peer (session->channel), answer);
      return FALSE;
    }
  session->channel = tls_channel_connect (session->channel, session->spec->credentials,
                                          session->spec->tls_name, session->deadline, error);
  return session->channel != NULL;
}

static gboolean
is_disconnect (const GError *error)
{
  return g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED)
         || g_error_matches (error, G_IO_ERROR, G_IO_ERROR_BROKEN_PIPE);
}

/* The first option inside TLS.  With TLS 1.3 a server that refuses our certificate says so only
 * now, and QEMU says it by closing. */
static gboolean
session_ask_structured (Session *session, GError **error)
{
  g_autofree Reply *reply = g_new (Reply, 1);
  g_autoptr (GError) failure = NULL;

  if (!session_send (session, NBD_OPT_STRUCTURED_REPLY, NULL, &failure)
      || !session_read_replies (session, NBD_OPT_STRUCTURED_REPLY, NULL, reply, &failure))
    {
      if (session->spec->credentials == NULL || !is_disconnect (failure))
        {
          g_propagate_error (error, g_steal_pointer (&failure));
          return FALSE;
        }
      GError *refused = handshake_error_from_early_end (session->spec->credentials);
      g_prefix_error (&refused, "%s: ", channel_get_peer (session->channel));
      g_propagate_error (error, refused);
      return FALSE;
    }
  if (reply->type == NBD_REP_ERR_TLS_REQD || reply->type == NBD_REP_ERR_SHUTDOWN)
    return session_refused (session, "to negotiate", reply, error);
  session->export.structured = reply->type == NBD_REP_ACK;
  return TRUE;
}

static gboolean
session_on_context (Session *session, const Reply *reply, GError **error)
{
  const char *const *contexts = session->spec->contexts;
  NbdExport *export = &session->export;
  const char *name;
  gsize name_len;
  guint32 id;

  if (reply->type != NBD_REP_META_CONTEXT)
    return session_fail_reply (session, NBD_OPT_SET_META_CONTEXT, reply, error);
  if (!wire_get_meta_context (reply->data, reply->length, &id, &name, &name_len))
    return session_fail (session, error, NBD_ERROR_PROTOCOL,
                         "the server sent a malformed metadata context");
  for (guint i = 0; contexts[i] != NULL; i++)
    {
      if (strlen (contexts[i]) != name_len || memcmp (contexts[i], name, name_len) != 0)
        continue;
      if (export->has_context[i])
        break;
      for (guint k = 0; k < NBD_MAX_CONTEXTS; k++)
        if (export->has_context[k] && export->context_id[k] == id)
          return session_fail (session, error, NBD_ERROR_PROTOCOL,
                               "the server gave two metadata contexts one number");
      export->has_context[i] = TRUE;
      export->context_id[i] = id;
      export->n_contexts++;
      return TRUE;
    }
  return session_fail (session, error, NBD_ERROR_PROTOCOL,
                       "the server selected a metadata context that was not asked for");
}

static gboolean
session_ask_contexts (Session *session, GError **error)
{
  const NbdHandshake *spec = session->spec;
  g_autoptr (GByteArray) data = g_byte_array_new ();
  g_autofree Reply *reply = g_new (Reply, 1);

  wire_put_meta_context_data (data, spec->export_name, spec->contexts);
  if (!session_send (session, NBD_OPT_SET_META_CONTEXT, data, error)
      || !session_read_replies (session, NBD_OPT_SET_META_CONTEXT, session_on_context, reply,
                                error))
    return FALSE;
  if (reply->type != NBD_REP_ACK)
    {
      /* After an error none is selected, whatever was told before. */
      memset (session->export.has_context, 0, sizeof session->export.has_context);
      session->export.n_contexts = 0;
    }
  return TRUE;
}

static gboolean
session_set_size (Session *session, guint64 size, guint16 flags, GError **error)
{
  const NbdExport *export = &session->export;

  if ((export->flags & NBD_FLAG_HAS_FLAGS) && (size != export->size || flags != export->flags))
    {
      g_set_error (error, NBD_ERROR, NBD_ERROR_PROTOCOL,
                   "%s: the server described the export twice: size %" G_GUINT64_FORMAT
                   ", flags 0x%x, and then size %" G_GUINT64_FORMAT ", flags 0x%x",
                   channel_get_peer (session->channel), export->size, export->flags, size, flags);
      return FALSE;
    }
  if (size > G_MAXINT64 || !(flags & NBD_FLAG_HAS_FLAGS))
    {
      g_set_error (error, NBD_ERROR, NBD_ERROR_PROTOCOL,
                   "%s: the server described an impossible export (size %" G_GUINT64_FORMAT
                   ", flags 0x%x): at most 2^63-1 bytes and flag 0x1 belong there",
                   channel_get_peer (session->channel), size, flags);
      return FALSE;
    }
  session->export.size = size;
  session->export.flags = flags;
  return TRUE;
}

static gboolean
session_on_info (Session *session, const Reply *reply, GError **error)
{
  NbdExport *export = &session->export;
  guint64 size;
  guint16 type, flags;

  if (reply->type != NBD_REP_INFO)
    return session_fail_reply (session, NBD_OPT_GO, reply, error);
  if (!wire_get_info_type (reply->data, reply->length, &type))
    return session_fail (session, error, NBD_ERROR_PROTOCOL,
                         "the server sent malformed information about the export");
  if (type == NBD_INFO_EXPORT)
    {
      if (!wire_get_info_export (reply->data, reply->length, &size, &flags))
        return session_fail (session, error, NBD_ERROR_PROTOCOL,
                             "the server sent a malformed size of the export");
      return session_set_size (session, size, flags, error);
    }
  if (type == NBD_INFO_BLOCK_SIZE
      && !wire_get_info_block_size (reply->data, reply->length, &export->min_block,
                                    &export->preferred_block, &export->max_payload))
    return session_fail (session, error, NBD_ERROR_PROTOCOL,
                         "the server sent block sizes that the protocol does not allow");
  return TRUE;
}

/* Where NBD_OPT_GO is unknown.  A server that refuses this one can only hang up. */
static gboolean
session_export_name (Session *session, GError **error)
{
  g_autoptr (GByteArray) data = g_byte_array_new ();
  const char *name = session->spec->export_name;
  GError *failure = NULL;
  guint8 buf[10 + 124];

  g_byte_array_append (data, (const guint8 *)name, (guint)strlen (name));
  if (!session_send (session, NBD_OPT_EXPORT_NAME, data, &failure)
      || !session_read (session, "the reply to NBD_OPT_EXPORT_NAME", buf,
                        session->no_zeroes ? 10 : sizeof buf, &failure))
    {
      if (is_disconnect (failure))
        failure->domain = NBD_ERROR, failure->code = NBD_ERROR_REFUSED;
      g_propagate_prefixed_error (error, failure, "the server does not serve this export: ");
      return FALSE;
    }
  return session_set_size (session, wire_get_u64 (buf), wire_get_u16 (buf + 8), error);
}

static gboolean
session_go (Session *session, GError **error)
{
  g_autofree char *name
      = nbd_text_escape (session->spec->export_name, strlen (session->spec->export_name));
  g_autofree char *what = g_strdup_printf ("export \"%s\"", name);
  g_autoptr (GByteArray) data = g_byte_array_new ();
  g_autofree Reply *reply = g_new (Reply, 1);

  wire_put_go_data (data, session->spec->export_name);
  if (!session_send (session, NBD_OPT_GO, data, error)
      || !session_read_replies (session, NBD_OPT_GO, session_on_info, reply, error))
    return FALSE;
  if (reply->type == NBD_REP_ERR_UNSUP)
    return session_export_name (session, error);
  if (reply->type != NBD_REP_ACK)
    return session_refused (session, what, reply, error);
  if (!(session->export.flags & NBD_FLAG_HAS_FLAGS))
    return session_fail (session, error, NBD_ERROR_PROTOCOL,
                         "the server did not tell the size of the export");
  return TRUE;
}

static gboolean
session_run (Session *session, GError **error)
{
  const NbdHandshake *spec = session->spec;

  if (!session_greet (session, error))
    return FALSE;
  if (spec->credentials != NULL && !session_start_tls (session, error))
    return FALSE;
  if (!session_ask_structured (session, error))
    return FALSE;
  if (session->export.structured && spec->contexts != NULL && spec->contexts[0] != NULL
      && !session_ask_contexts (session, error))
    return FALSE;
  return session_go (session, error);
}

Channel *
nbd_handshake_run (Channel *channel, const NbdHandshake *handshake, Deadline deadline,
                   NbdExport *ret_export, GError **error)
{
  Session session = { .channel = channel, .spec = handshake, .deadline = deadline };

  session.export.min_block = 1;
  session.export.preferred_block
      = 4096; /* "SHOULD assume" in doc/proto.md, "Block size constraints" */
  session.export.max_payload = NBD_DEFAULT_MAX_PAYLOAD;
  if (strlen (handshake->export_name) > NBD_MAX_STRING)
    {
      session_fail (&session, error, NBD_ERROR_REFUSED,
                    "the name of an export has at most 4096 bytes");
      channel_free (channel);
      return NULL;
    }
  if (!session_run (&session, error))
    {
      channel_free (session.channel);
      return NULL;
    }
  *ret_export = session.export;
  return session.channel;
}
