/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/handshake.h"

/* Options and the replies to them, which handshake.c makes a handshake of. */

#define MAX_REPLY_DATA 16384

typedef struct
{
  Channel *channel;
  const NbdHandshake *spec;
  Deadline deadline;
  gboolean no_zeroes;
  NbdExport export;
} Session;

typedef struct
{
  guint32 type;
  gsize length;
  guint8 data[MAX_REPLY_DATA];
} Reply;

/* Judges one informative reply to an option. */
typedef gboolean (*ReplyHandler) (Session *session, const Reply *reply, GError **error);

/* Always FALSE, and the server's name before `text`. */
gboolean session_fail (Session *session, GError **error, int code, const char *text);
/* The same for a reply that `option` doesn't have. */
gboolean session_fail_reply (Session *session, guint32 option, const Reply *reply, GError **error);
/* The same for an option that was refused; `what`: "export ..." */
gboolean session_refused (Session *session, const char *what, const Reply *reply, GError **error);

/* `what`: of the server, for the message of a time-out. */
gboolean session_read (Session *session, const char *what, void *buf, gsize len, GError **error);
/* `data` may be NULL. */
gboolean session_send (Session *session, guint32 option, const GByteArray *data, GError **error);
/* Reads replies until the last one, which it returns: an acknowledgement or an error.  `handler`
 * may be NULL: no other is expected. */
gboolean session_read_replies (Session *session, guint32 option, ReplyHandler handler, Reply *reply,
                               GError **error);
/* "NBD_REP_ERR_POLICY" or "NBD_REP_ERR_POLICY: its text"; free with g_free. */
char *session_describe_reply (const Reply *reply);
