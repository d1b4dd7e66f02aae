/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <gnutls/gnutls.h>

/* What one side of TLS proves itself with and checks the other by: an x509 identity from a
 * directory in QEMU's layout (docs: tls-creds-x509): ca-cert.pem, {server,client}-{cert,key}.pem,
 * optional ca-crl.pem; or a client's pre-shared key.  Immutable and thread-safe once loaded; to
 * reload, load anew and drop the old one.  Reference counted. */
typedef struct Credentials Credentials;

typedef enum
{
  CREDENTIALS_CLIENT,
  CREDENTIALS_SERVER
} CredentialsEndpoint;

#define TLS_ERROR (tls_error_quark ())
GQuark tls_error_quark (void);

typedef enum
{
  TLS_ERROR_CREDENTIALS, /* our own files: absent, unreadable, open to others, expired, no pair */
  TLS_ERROR_HANDSHAKE,   /* no common version or cipher, garbage, plain text where TLS belongs */
  TLS_ERROR_UNTRUSTED,   /* the peer's chain, dates, revocation, key usage or strength */
  TLS_ERROR_NAME,        /* the peer's certificate is good, but for another name */
  TLS_ERROR_REFUSED,     /* the peer refused ours, with a TLS alert */
  TLS_ERROR_HUNG_UP      /* it closed without a word when the handshake was over: that is how QEMU
                            refuses a certificate, but it may just have ended */
} TlsError;

/* Loads and checks what can be checked without a peer: files present, keys not accessible to
 * others (mode & 0007), pair matches, chain to our own CA, dates, key usage for `endpoint`.
 * Errors: TLS_ERROR_CREDENTIALS, one line that names the file, what is wrong and what to do. */
Credentials *credentials_load (const char *dir, CredentialsEndpoint endpoint, GError **error);
/* The same for a client whose servers may do without its certificate: the directory may lack
 * client-cert.pem and client-key.pem, both of them. */
Credentials *credentials_load_client (const char *dir, GError **error);
/* TLS-PSK for a client: the key of `user` in `file` (tls/psk-file.h), which others must not read
 * either.  The server proves that it has the same key; there is no certificate and no name. */
Credentials *credentials_load_psk (const char *file, const char *user, GError **error);
Credentials *credentials_ref (Credentials *credentials);
void credentials_unref (Credentials *credentials);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Credentials, credentials_unref)

/* The directory, or the file of a pre-shared key. */
const char *credentials_get_path (const Credentials *credentials);
CredentialsEndpoint credentials_get_endpoint (const Credentials *credentials);
gboolean credentials_is_psk (const Credentials *credentials);
/* Our own certificate's distinguished name as tls-authz spells it: encoding order,
 * "O=mig,CN=src.test" (gnutls_x509_crt_get_dn); the user's name of a pre-shared key; NULL: there is
 * no certificate. */
const char *credentials_get_identity (const Credentials *credentials);

/* For tls-channel.c: which versions, ciphers and keys `session` uses.  A code of gnutls. */
int credentials_apply (const Credentials *credentials, gnutls_session_t session);
