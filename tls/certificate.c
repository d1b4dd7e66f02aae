/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/certificate.h"

#include <string.h>
#include <time.h>

#include "tls/text.h"

/* More than any chain or CA bundle of a host needs. */
#define CERTIFICATES_MAX 256

void
certificate_list_free (CertificateList *list)
{
  if (list == NULL)
    return;
  for (guint i = 0; i < list->n; i++)
    gnutls_x509_crt_deinit (list->certs[i]);
  gnutls_free (list->certs);
  g_free (list);
}

CertificateList *
certificate_list_parse_pem (const gnutls_datum_t *pem, GError **error)
{
  g_autoptr (CertificateList) list = g_new0 (CertificateList, 1);
  int rc = gnutls_x509_crt_list_import2 (&list->certs, &list->n, pem, GNUTLS_X509_FMT_PEM, 0);

  if (rc < 0 || list->n == 0)
    {
      list->n = 0;
      g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS, "there is no certificate in it (%s)",
                   rc < 0 ? gnutls_strerror (rc) : "it is empty");
      return NULL;
    }
  if (list->n > CERTIFICATES_MAX)
    {
      g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS,
                   "it holds %u certificates, at most %d are accepted", list->n, CERTIFICATES_MAX);
      return NULL;
    }
  return g_steal_pointer (&list);
}

CertificateList *
certificate_list_from_peer (gnutls_session_t session, GError **error)
{
  g_autoptr (CertificateList) list = g_new0 (CertificateList, 1);
  guint n = 0;
  const gnutls_datum_t *raw = NULL;

  if (gnutls_certificate_type_get2 (session, GNUTLS_CTYPE_PEERS) == GNUTLS_CRT_X509)
    raw = gnutls_certificate_get_peers (session, &n);
  if (raw == NULL || n == 0 || n > CERTIFICATES_MAX)
    {
      g_set_error (error, TLS_ERROR, TLS_ERROR_UNTRUSTED, "it showed no usable certificate");
      return NULL;
    }
  list->certs = gnutls_calloc (n, sizeof *list->certs);
  for (guint i = 0; i < n; i++)
    {
      gnutls_x509_crt_init (&list->certs[list->n++]);
      int rc = gnutls_x509_crt_import (list->certs[i], &raw[i], GNUTLS_X509_FMT_DER);
      if (rc == 0)
        continue;
      g_set_error (error, TLS_ERROR, TLS_ERROR_UNTRUSTED, "its certificate can't be read (%s)",
                   gnutls_strerror (rc));
      return NULL;
    }
  return g_steal_pointer (&list);
}

typedef int (*GetName) (gnutls_x509_crt_t cert, char *buf, size_t *size);

static char *
get_name (gnutls_x509_crt_t cert, GetName get)
{
  size_t size = 0;

  if (get (cert, NULL, &size) != GNUTLS_E_SHORT_MEMORY_BUFFER)
    return g_strdup ("");
  g_autofree char *name = g_malloc0 (size + 1);
  if (get (cert, name, &size) < 0)
    return g_strdup ("");
  return g_steal_pointer (&name);
}

char *
certificate_get_identity (gnutls_x509_crt_t cert)
{
  return get_name (cert, gnutls_x509_crt_get_dn);
}

char *
certificate_get_issuer (gnutls_x509_crt_t cert)
{
  return get_name (cert, gnutls_x509_crt_get_issuer_dn);
}

/* ---- problems in words ---- */

static char *
format_date (time_t when)
{
  struct tm parts;
  char text[64];

  if (gmtime_r (&when, &parts) == NULL
      || strftime (text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts) == 0)
    return g_strdup_printf ("%" G_GINT64_FORMAT, (gint64)when);
  return g_strdup (text);
}

/* "" for the leaf, which the message is about anyway. */
static char *
chain_prefix (const CertificateList *chain, guint i)
{
  if (i == 0)
    return g_strdup ("");
  g_autofree char *identity = certificate_get_identity (chain->certs[i]);
  g_autofree char *shown = text_escape_name (identity);
  return g_strdup_printf ("comes with an intermediate one (%s) that ", shown);
}

static char *
describe_issuer (const CertificateList *chain, const CertificateContext *context)
{
  gnutls_x509_crt_t top = chain->certs[chain->n - 1];

  if (chain->n == 1 && gnutls_x509_crt_check_issuer (top, top))
    return g_strdup_printf ("is self-signed, not issued by the CA in %s: issue one with that CA",
                            context->ca_file);
  g_autofree char *issuer = certificate_get_issuer (top);
  g_autofree char *shown = text_escape_name (issuer);
  return g_strdup_printf ("was issued by a CA (%s) that is not the one in %s: both hosts need "
                          "certificates of the same CA",
                          shown, context->ca_file);
}

static char *
describe_not_yet_valid (const CertificateList *chain)
{
  time_t now = time (NULL);
  guint i = 0;

  while (i + 1 < chain->n && gnutls_x509_crt_get_activation_time (chain->certs[i]) <= now)
    i++;
  g_autofree char *prefix = chain_prefix (chain, i);
  g_autofree char *date = format_date (gnutls_x509_crt_get_activation_time (chain->certs[i]));
  return g_strdup_printf ("%sis not valid before %s: check the clocks of both hosts", prefix, date);
}

static char *
describe_expired (const CertificateList *chain, const CertificateContext *context)
{
  time_t now = time (NULL);

  for (guint i = 0; i < chain->n; i++)
    {
      time_t end = gnutls_x509_crt_get_expiration_time (chain->certs[i]);
      if (end >= now)
        continue;
      g_autofree char *prefix = chain_prefix (chain, i);
      g_autofree char *date = format_date (end);
      return g_strdup_printf ("%sexpired on %s: issue a new one", prefix, date);
    }
  return g_strdup_printf ("was issued by a CA that has expired: issue a new CA (%s)",
                          context->ca_file);
}

static char *
describe_purpose (const CertificateContext *context)
{
  gboolean server = context->endpoint == CREDENTIALS_SERVER;

  return g_strdup_printf ("may not be used by a TLS %s (its extended key usage lacks %s): issue "
                          "one that may",
                          server ? "server" : "client", server ? "serverAuth" : "clientAuth");
}

static char *
describe_weakness (const CertificateList *chain)
{
  for (guint i = 0; i < chain->n; i++)
    {
      guint bits = 0;
      int algorithm = gnutls_x509_crt_get_pk_algorithm (chain->certs[i], &bits);
      if (algorithm < 0 || gnutls_pk_bits_to_sec_param (algorithm, bits) >= GNUTLS_SEC_PARAM_MEDIUM)
        continue;
      g_autofree char *prefix = chain_prefix (chain, i);
      return g_strdup_printf ("%shas a weak key (%s, %u bits): issue one with RSA of 2048 bits or "
                              "more, or ECDSA",
                              prefix, gnutls_pk_get_name (algorithm), bits);
    }
  int signature = gnutls_x509_crt_get_signature_algorithm (chain->certs[0]);
  return g_strdup_printf ("is signed in a weak way (%s, or a weak key of its CA): issue one with "
                          "SHA-256 and a CA of RSA 2048 bits or more",
                          signature < 0 ? "unknown" : gnutls_sign_get_name (signature));
}

static char *
describe_status (guint status)
{
  gnutls_datum_t text = { 0 };

  if (gnutls_certificate_verification_status_print (status, GNUTLS_CRT_X509, &text, 0) < 0)
    return g_strdup_printf ("is not trusted (status 0x%x)", status);
  g_strstrip ((char *)text.data);
  char *problem = g_strdup_printf ("is not trusted: %s", (char *)text.data);
  gnutls_free (text.data);
  return problem;
}

/* The most telling reason comes first: dates of a certificate of a stranger don't matter. */
char *
certificate_describe_problem (const CertificateList *chain, guint status,
                              const CertificateContext *context)
{
  if (status & GNUTLS_CERT_REVOKED)
    return g_strdup_printf ("was revoked, as %s says: issue a new one", context->crl_file);
  if (status
      & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNATURE_FAILURE | GNUTLS_CERT_SIGNER_NOT_CA))
    return describe_issuer (chain, context);
  if (status & GNUTLS_CERT_NOT_ACTIVATED)
    return describe_not_yet_valid (chain);
  if (status & GNUTLS_CERT_EXPIRED)
    return describe_expired (chain, context);
  if (status & GNUTLS_CERT_PURPOSE_MISMATCH)
    return describe_purpose (context);
  if (status & GNUTLS_CERT_INSECURE_ALGORITHM)
    return describe_weakness (chain);
  if (status & GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED)
    return g_strdup_printf ("can't be checked for revocation: %s is out of date: fetch a new one",
                            context->crl_file);
  return describe_status (status);
}
