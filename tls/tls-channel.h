/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tls/channel.h"
#include "tls/credentials.h"

/* TLS 1.2 or newer over another channel, both sides authenticated by certificate.
 *
 * Both functions take `lower` over (freed on failure too), run the whole handshake and the
 * verification of the peer's certificate, and block until `deadline`.  Every failure is one line
 * that names the peer (channel_get_peer), what was expected and what was found, and what to do;
 * domains TLS_ERROR and G_IO_ERROR.
 *
 * Verification: chain to our CA, dates, revocation (ca-crl.pem), extended key usage, key strength,
 * and for the client `name` against the subjectAltNames (DNS or IP address; a common name is never
 * looked at; RFC 6125).
 *
 * Reading: an end of the stream without close_notify is CHANNEL_FAILED with
 * G_IO_ERROR_CONNECTION_CLOSED, never CHANNEL_EOF. */
Channel *tls_channel_connect (Channel *lower, Credentials *credentials, const char *name,
                              Deadline deadline, GError **error);
/* The identity of the client is not judged here: ask tls_channel_get_identity (). */
Channel *tls_channel_accept (Channel *lower, Credentials *credentials, Deadline deadline,
                             GError **error);

/* The distinguished name of the peer's certificate, in QEMU's spelling; lives with the channel. */
const char *tls_channel_get_identity (Channel *channel);

/* For a server whose list does not have the peer's identity: says so with an alert, which makes the
 * client's first read TLS_ERROR_REFUSED in words.  Waits up to half a second for the peer to take
 * it; the channel is then of no more use but for channel_free (). */
void tls_channel_refuse (Channel *channel);
