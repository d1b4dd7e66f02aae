/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tls/credentials.h"

/* An alert of the peer in words, without the peer's name: TLS_ERROR_REFUSED where it is about our
 * certificate or key, which is named, TLS_ERROR_HANDSHAKE otherwise. */
GError *handshake_error_from_alert (gnutls_alert_description_t alert,
                                    const Credentials *credentials);

/* A handshake that failed with gnutls' error `rc`.  The first `n` bytes that the peer sent tell
 * whether it speaks TLS at all. */
GError *handshake_error_from_gnutls (gnutls_session_t session, int rc,
                                     const Credentials *credentials, const guint8 *first, gsize n);

/* A client that hears an end before any data: with TLS 1.3 that is how it learns that the server
 * refused its certificate, when the server (QEMU does so) sends no alert.  TLS_ERROR_HUNG_UP. */
GError *handshake_error_from_early_end (const Credentials *credentials);
