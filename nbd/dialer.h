/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/client.h"
#include "nbd/uri.h"
#include "tls/deadline.h"

/* Connects to one export, as often as needed.  Thread-safe. */
typedef struct NbdDialer NbdDialer;

/* Loads the credentials that the URI names.  Where it is nbds and names none: the client's
 * certificates of the first directory that has a ca-cert.pem of $HOME/.pki/libnbd and
 * $HOME/.config/pki/libnbd (these two not as root), /etc/pki/libnbd and /etc/pki/qemu.  In any such
 * directory ca-cert.pem is a must, client-cert.pem with client-key.pem is not: servers may do
 * without.  With tls-psk-file the user is the URI's, or $LOGNAME, or who has logged in.
 * Clear text over TCP is refused unless `allow_plaintext`; over a UNIX socket nbd:// is clear text.
 * Errors: TLS_ERROR, G_IO_ERROR_INVALID_ARGUMENT; one line that says what to do. */
NbdDialer *nbd_dialer_new (const NbdUri *uri, gboolean allow_plaintext, GError **error);
void nbd_dialer_free (NbdDialer *dialer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (NbdDialer, nbd_dialer_free)

/* Connects, shakes hands and opens the export.  `contexts` as NbdHandshake has them.  Blocks until
 * `deadline`.  Errors as nbd_handshake_run (): NBD_ERROR, TLS_ERROR, G_IO_ERROR. */
NbdClient *nbd_dialer_connect (const NbdDialer *dialer, const char *const *contexts,
                               Deadline deadline, GError **error);

/* The connection was lost or the server is going away: another attempt may succeed.  FALSE for
 * whatever the same server would say again (certificates, names, protocol, errors of its disk).
 * An end without close_notify is a loss, never a good end.  So is a server that hangs up right
 * after the TLS handshake, once it has taken this dialer's credentials; before that it is
 * TLS_ERROR_HUNG_UP, which means that it may not like them. */
gboolean nbd_error_is_lost (const GError *error);
