/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

/* Certificates for tests, made when the test runs, the bad ones included.  Whatever fails here
 * aborts the test. */

typedef enum
{
  PKI_ANY_USE = 0, /* no extended key usage at all */
  PKI_SERVER = 1 << 0,
  PKI_CLIENT = 1 << 1
} PkiUse;

/* All zero but `cn`: "O=vmferry,CN=cn", ECDSA, valid from yesterday until tomorrow, any use. */
typedef struct
{
  const char *cn;
  const char *dns[8]; /* subjectAltNames */
  const char *ips[4]; /* the same, IPv4 or IPv6 */
  PkiUse use;
  gint64 starts_in_s; /* from now; 0: a day ago */
  gint64 ends_in_s;   /* from now; 0: in a day */
  guint rsa_bits;     /* 0: ECDSA with P-256 */
  gboolean is_ca;
  const char *raw_dns; /* the only subjectAltName, with zeroes in it; at most 64 bytes */
  gsize raw_dns_len;
} PkiRequest;

/* A certificate with its key and the chain above it. */
typedef struct PkiPair PkiPair;

/* `issuer` NULL: self-signed.  The issuer must outlive what it issued. */
PkiPair *pki_issue (const PkiPair *issuer, const PkiRequest *request);
PkiPair *pki_new_ca (const char *cn);
void pki_pair_free (PkiPair *pair);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (PkiPair, pki_pair_free)

/* Lives with the pair. */
gnutls_x509_crt_t pki_pair_get_cert (const PkiPair *pair);

/* Writes DIR/NAME: the certificate with its intermediates, without the root unless it is the root
 * itself; the key, with mode 0600; the revocation list of `ca` with one entry, valid for
 * `ends_in_s` seconds. */
void pki_write_cert (const PkiPair *pair, const char *dir, const char *name);
void pki_write_key (const PkiPair *pair, const char *dir, const char *name);
void pki_write_bundle (const PkiPair *first, const PkiPair *second, const char *dir,
                       const char *name);
void pki_write_encrypted_key (const PkiPair *pair, const char *dir, const char *name);
void pki_write_crl (const PkiPair *ca, const PkiPair *revoked, gint64 ends_in_s, const char *dir,
                    const char *name);

/* ca-cert.pem, and SIDE-cert.pem with SIDE-key.pem ("server", "client") unless the pair is NULL. */
void pki_fill_dir (const char *dir, const PkiPair *ca, const PkiPair *server,
                   const PkiPair *client);

/* A new directory below the temporary one; pki_dir_free () removes it with the files in it. */
typedef char PkiDir;
PkiDir *pki_dir_new (void);
void pki_dir_free (PkiDir *dir);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (PkiDir, pki_dir_free)

/* The usual case in one call: a directory with a CA of its own, both pairs for the names
 * `hostname` and 127.0.0.1 and ::1, identity "O=vmferry,CN=hostname". */
PkiDir *pki_dir_new_for (const char *hostname);
