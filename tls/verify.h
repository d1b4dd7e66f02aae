/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tls/credentials.h"

/* Verifies the peer's certificate in the handshake, as tls_channel_connect () describes.
 * `name` is NULL on the server's side.  Returns the peer's identity (free with g_free); on failure
 * NULL, and in `alert` the one that tells the peer why. */
char *verify_peer (gnutls_session_t session, const Credentials *credentials, const char *peer,
                   const char *name, gnutls_alert_description_t *alert, GError **error);
