/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "tls/credentials.h"

/* A chain (the leaf first) or a set of certificates. */
typedef struct
{
  gnutls_x509_crt_t *certs;
  guint n;
} CertificateList;

void certificate_list_free (CertificateList *list);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CertificateList, certificate_list_free)

/* At least one certificate, or a one-line error of TLS_ERROR without the file's name. */
CertificateList *certificate_list_parse_pem (const gnutls_datum_t *pem, GError **error);
/* What the peer of a finished key exchange showed.  TLS_ERROR_UNTRUSTED where that is nothing. */
CertificateList *certificate_list_from_peer (gnutls_session_t session, GError **error);

/* The distinguished name in encoding order ("O=mig,CN=src.test"), as QEMU's tls-authz compares it;
 * "" where it is empty.  Not escaped: for comparing. */
char *certificate_get_identity (gnutls_x509_crt_t cert);
char *certificate_get_issuer (gnutls_x509_crt_t cert);

/* What certificate_describe_problem () needs to know beside the certificates. */
typedef struct
{
  const char *ca_file;
  const char *crl_file;
  CredentialsEndpoint endpoint; /* of the certificate's owner */
} CertificateContext;

/* Why a chain was not accepted, as a predicate of its first certificate with what to do:
 * "expired on 2020-01-01 00:00:00 UTC: issue a new one".  `status` is that of gnutls's
 * verification, not 0.  Names in it are escaped. */
char *certificate_describe_problem (const CertificateList *chain, guint status,
                                    const CertificateContext *context);
