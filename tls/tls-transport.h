/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gnutls/gnutls.h>

#include "tls/channel.h"

/* What a GnuTLS session reads from and writes to: any channel, never waiting. */

#define TLS_TRANSPORT_FIRST_BYTES 40

typedef struct
{
  gnutls_session_t session; /* not owned */
  Channel *lower;
  GError *io_error; /* the first one of `lower`: GnuTLS hands it up as a mere number */
  guint8 first[TLS_TRANSPORT_FIRST_BYTES]; /* of the peer, to show where they are not TLS */
  gsize n_first;
  guint8 *ahead; /* received, not yet asked for by GnuTLS */
  gsize ahead_at, ahead_end;
  gboolean handshaking;
} TlsTransport;

/* Makes `session` use it; takes `lower` over.  The transport must stay where it is. */
void tls_transport_init (TlsTransport *transport, gnutls_session_t session, Channel *lower);

/* Bytes that were received, but not asked for by GnuTLS. */
gsize tls_transport_pending (const TlsTransport *transport);

/* After the session's end. */
void tls_transport_clear (TlsTransport *transport);
