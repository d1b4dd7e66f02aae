/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tls/channel.h"
#include "tls/credentials.h"

/* The client's half of the fixed newstyle handshake (doc/proto.md, "Fixed newstyle negotiation").
 */

#define NBD_MAX_CONTEXTS 2

typedef struct
{
  const char *export_name; /* "" is the default export; at most 4096 bytes */
  /* With credentials STARTTLS is the first option, and the only one in clear: a server that does
   * not accept it is refused.  NULL speaks in clear: for local sockets. */
  Credentials *credentials;
  const char *tls_name; /* that the server's certificate must have */
  /* Metadata contexts to ask for, NULL at the end, at most NBD_MAX_CONTEXTS; NULL: none. */
  const char *const *contexts;
} NbdHandshake;

/* What was agreed on. */
typedef struct
{
  guint64 size;            /* bytes; at most G_MAXINT64 */
  guint16 flags;           /* NBD_FLAG_ */
  guint32 min_block;       /* offsets and lengths of requests are multiples of it */
  guint32 preferred_block; /* a power of two, at least min_block */
  guint32 max_payload;     /* of a read or a write */
  gboolean structured;     /* replies come in chunks */
  guint n_contexts;        /* how many of those asked for the server has */
  /* In the order of NbdHandshake.contexts. */
  gboolean has_context[NBD_MAX_CONTEXTS];
  guint32 context_id[NBD_MAX_CONTEXTS];
} NbdExport;

/* Takes `channel` over (freed on failure), blocks until `deadline`, and returns the channel for
 * the transmission phase: TLS over the given one where there are credentials.  Nothing is read
 * beyond the server's last message, so that what was injected after the STARTTLS reply goes to
 * GnuTLS and fails there.  A context that the server does not have is no error here.
 * Errors: NBD_ERROR, TLS_ERROR, G_IO_ERROR; they name the peer. */
Channel *nbd_handshake_run (Channel *channel, const NbdHandshake *handshake, Deadline deadline,
                            NbdExport *ret_export, GError **error);
