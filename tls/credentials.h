/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <gnutls/gnutls.h>

/* An x509 identity from a directory in QEMU's layout (docs: tls-creds-x509): ca-cert.pem,
 * {server,client}-{cert,key}.pem, optional ca-crl.pem.  Immutable and thread-safe once loaded;
 * to reload, load anew and drop the old one.  Reference counted. */
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
  TLS_ERROR_REFUSED      /* the peer refused ours, with a TLS alert or by closing */
} TlsError;

/* Loads and checks what can be checked without a peer: files present, keys not accessible to
 * others (mode & 0007), pair matches, chain to our own CA, dates, key usage for `endpoint`.
 * Errors: TLS_ERROR_CREDENTIALS, one line that names the file, what is wrong and what to do. */
Credentials *credentials_load (const char *dir, CredentialsEndpoint endpoint, GError **error);
Credentials *credentials_ref (Credentials *credentials);
void credentials_unref (Credentials *credentials);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Credentials, credentials_unref)

const char *credentials_get_dir (const Credentials *credentials);
CredentialsEndpoint credentials_get_endpoint (const Credentials *credentials);
/* Our own certificate's distinguished name as tls-authz spells it: encoding order,
 * "O=mig,CN=src.test" (gnutls_x509_crt_get_dn). */
const char *credentials_get_identity (const Credentials *credentials);
/* For tls-channel.c. */
gnutls_certificate_credentials_t credentials_get_gnutls (const Credentials *credentials);

/* The identity (as above) of the first certificate in a PEM file.  Used to tell the peer which
 * name QEMU, which loads the same files, will show. */
char *credentials_read_identity (const char *file, GError **error);
