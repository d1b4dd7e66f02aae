/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tls/credentials.h"

/* Verifies the peer's certificate after a handshake, as tls_channel_connect () describes.
 * `name` is NULL on the server's side.  Returns the peer's identity (free with g_free). */
char *verify_peer (gnutls_session_t session, const Credentials *credentials, const char *peer,
                   const char *name, GError **error);

/* The alert that tells the peer why verify_peer () refused it. */
gnutls_alert_description_t verify_get_alert (gnutls_session_t session);
