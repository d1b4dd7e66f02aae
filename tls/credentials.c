/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/credentials.h"

#include <string.h>
#include <time.h>

#include "tls/certificate.h"
#include "tls/pem-file.h"
#include "tls/psk-file.h"
#include "tls/text.h"

/* Forward secrecy and AEAD only.  GnuTLS' own order, AES-256 first, stays: with hardware AES a bulk
 * read costs the same CPU time with 128. */
#define PRIORITY_OF(key_exchanges)                                                                 \
  "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-KX-ALL:" key_exchanges                              \
  ":-CIPHER-ALL:+AES-256-GCM:+AES-128-GCM:+CHACHA20-POLY1305:-MAC-ALL:+AEAD:%PROFILE_MEDIUM"
#define PRIORITY_X509 PRIORITY_OF ("+ECDHE-ECDSA:+ECDHE-RSA:+DHE-RSA")
/* QEMU, nbdkit and libnbd have these two and PSK, which would give away the past with the key. */
#define PRIORITY_PSK PRIORITY_OF ("+ECDHE-PSK:+DHE-PSK")

struct Credentials
{
  gatomicrefcount refs;
  char *path;
  CredentialsEndpoint endpoint;
  char *identity;
  char *ca_file, *crl_file, *cert_file, *key_file;
  /* One of the two; the other one is NULL. */
  gnutls_certificate_credentials_t x509;
  gnutls_psk_client_credentials_t psk;
};

G_DEFINE_QUARK (vmferry - tls - error - quark, tls_error)

static gboolean
fail_file (const char *file, const char *problem, GError **error)
{
  g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS, "cannot use %s: %s", file, problem);
  return FALSE;
}

/* ---- the CA ---- */

static gboolean
check_ca (gnutls_x509_crt_t ca, const char *file, GError **error)
{
  g_autofree char *identity = certificate_get_identity (ca);
  g_autofree char *shown = text_escape_name (identity);

  if (gnutls_x509_crt_get_ca_status (ca, NULL) > 0)
    return TRUE;
  g_autofree char *problem = g_strdup_printf (
      "%s is not a CA (it lacks basicConstraints CA): put the certificate of the CA there", shown);
  return fail_file (file, problem, error);
}

static gboolean
load_ca (Credentials *credentials, GError **error)
{
  const char *file = credentials->ca_file;
  g_auto (gnutls_datum_t) pem = { 0 };

  if (!pem_file_read (file, PEM_FILE_PUBLIC, "copy the certificate of your CA there", &pem, error))
    return FALSE;
  g_autoptr (CertificateList) list = certificate_list_parse_pem (&pem, error);
  if (list == NULL)
    {
      g_prefix_error (error, "cannot use %s: ", file);
      return FALSE;
    }
  for (guint i = 0; i < list->n; i++)
    if (!check_ca (list->certs[i], file, error))
      return FALSE;
  int rc = gnutls_certificate_set_x509_trust (credentials->x509, list->certs, (int)list->n);
  return rc > 0 || fail_file (file, gnutls_strerror (rc), error);
}

/* GnuTLS treats each certificate as doubtful once the list is out of date; said here, where it can
 * be mended. */
static gboolean
check_crl_date (const gnutls_datum_t *pem, const char *file, GError **error)
{
  gnutls_x509_crl_t *crls = NULL;
  guint n = 0;
  gboolean ok = TRUE;

  int rc = gnutls_x509_crl_list_import2 (&crls, &n, pem, GNUTLS_X509_FMT_PEM, 0);
  if (rc < 0)
    return fail_file (file, "there is no revocation list in it", error);
  for (guint i = 0; i < n; i++)
    {
      time_t next = gnutls_x509_crl_get_next_update (crls[i]);
      if (ok && next != (time_t)-1 && next < time (NULL))
        ok = fail_file (file, "this revocation list is out of date: fetch a new one", error);
      gnutls_x509_crl_deinit (crls[i]);
    }
  gnutls_free (crls);
  return ok;
}

static gboolean
load_crl (Credentials *credentials, GError **error)
{
  const char *file = credentials->crl_file;
  g_auto (gnutls_datum_t) pem = { 0 };

  if (!g_file_test (file, G_FILE_TEST_EXISTS))
    return TRUE;
  if (!pem_file_read (file, PEM_FILE_PUBLIC, "", &pem, error)
      || !check_crl_date (&pem, file, error))
    return FALSE;
  int rc = gnutls_certificate_set_x509_crl_mem (credentials->x509, &pem, GNUTLS_X509_FMT_PEM);
  return rc > 0 || fail_file (file, "there is no usable revocation list in it", error);
}

/* ---- our own pair ---- */

static gboolean
check_own_chain (Credentials *credentials, const CertificateList *chain, GError **error)
{
  gboolean server = credentials->endpoint == CREDENTIALS_SERVER;
  gnutls_typed_vdata_st purpose = {
    .type = GNUTLS_DT_KEY_PURPOSE_OID,
    .data = (guchar *)(server ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT),
  };
  gnutls_x509_trust_list_t trust = NULL;
  guint status = 0;

  gnutls_certificate_get_trust_list (credentials->x509, &trust);
  int rc = gnutls_x509_trust_list_verify_crt2 (
      trust, chain->certs, chain->n, &purpose, 1,
      gnutls_certificate_get_verify_flags (credentials->x509), &status, NULL);
  if (rc < 0)
    return fail_file (credentials->cert_file, gnutls_strerror (rc), error);
  if (status == 0)
    return TRUE;

  const CertificateContext context = {
    .ca_file = credentials->ca_file,
    .crl_file = credentials->crl_file,
    .endpoint = credentials->endpoint,
  };
  g_autofree char *shown = text_escape_name (credentials->identity);
  g_autofree char *problem = certificate_describe_problem (chain, status, &context);
  g_autofree char *line = g_strdup_printf ("the certificate (%s) %s", shown, problem);
  return fail_file (credentials->cert_file, line, error);
}

/* The chain is judged here, so that a bad certificate is told before a bad key. */
static gboolean
load_cert (Credentials *credentials, gnutls_datum_t *pem, GError **error)
{
  const char *file = credentials->cert_file;

  if (!pem_file_read (file, PEM_FILE_PUBLIC, "issue a certificate for this host with your CA", pem,
                      error))
    return FALSE;
  g_autoptr (CertificateList) chain = certificate_list_parse_pem (pem, error);
  if (chain == NULL)
    {
      g_prefix_error (error, "cannot use %s: ", file);
      return FALSE;
    }
  credentials->identity = certificate_get_identity (chain->certs[0]);
  if (*credentials->identity == '\0')
    return fail_file (file, "its distinguished name is empty: issue one with a name", error);
  return check_own_chain (credentials, chain, error);
}

static gboolean
set_pair (Credentials *credentials, const gnutls_datum_t *cert, const gnutls_datum_t *key,
          GError **error)
{
  int rc = gnutls_certificate_set_x509_key_mem2 (credentials->x509, cert, key, GNUTLS_X509_FMT_PEM,
                                                 NULL, 0);
  if (rc >= 0)
    return TRUE;
  if (rc == GNUTLS_E_DECRYPTION_FAILED)
    return fail_file (credentials->key_file,
                      "it is encrypted: store it without a password, readable by root only", error);
  g_autofree char *problem
      = rc == GNUTLS_E_CERTIFICATE_KEY_MISMATCH
            ? g_strdup_printf ("it is not the key of %s: put the two that belong together there",
                               credentials->cert_file)
            : g_strdup ("there is no usable private key in it");
  return fail_file (credentials->key_file, problem, error);
}

static gboolean
load_pair (Credentials *credentials, GError **error)
{
  g_auto (gnutls_datum_t) cert = { 0 };
  g_auto (gnutls_datum_t) key = { 0 };

  return load_cert (credentials, &cert, error)
         && pem_file_read (credentials->key_file, PEM_FILE_SECRET,
                           "put the key that belongs to the certificate there", &key, error)
         && set_pair (credentials, &cert, &key, error);
}

/* ---- the whole ---- */

static Credentials *
credentials_new (const char *path, CredentialsEndpoint endpoint)
{
  Credentials *credentials = g_new0 (Credentials, 1);

  g_atomic_ref_count_init (&credentials->refs);
  credentials->path = g_strdup (path);
  credentials->endpoint = endpoint;
  return credentials;
}

static Credentials *
credentials_new_x509 (const char *dir, CredentialsEndpoint endpoint)
{
  Credentials *credentials = credentials_new (dir, endpoint);
  gboolean server = endpoint == CREDENTIALS_SERVER;

  credentials->ca_file = g_build_filename (dir, "ca-cert.pem", NULL);
  credentials->crl_file = g_build_filename (dir, "ca-crl.pem", NULL);
  credentials->cert_file
      = g_build_filename (dir, server ? "server-cert.pem" : "client-cert.pem", NULL);
  credentials->key_file
      = g_build_filename (dir, server ? "server-key.pem" : "client-key.pem", NULL);
  gnutls_certificate_allocate_credentials (&credentials->x509);
  /* RSA 2048, SHA-256 and the like, for every certificate of a chain */
  gnutls_certificate_set_verify_flags (credentials->x509,
                                       GNUTLS_PROFILE_TO_VFLAGS (GNUTLS_PROFILE_MEDIUM));
  return credentials;
}

Credentials *
credentials_load (const char *dir, CredentialsEndpoint endpoint, GError **error)
{
  g_autoptr (Credentials) credentials = credentials_new_x509 (dir, endpoint);

  if (!load_ca (credentials, error) || !load_crl (credentials, error)
      || !load_pair (credentials, error))
    return NULL;
  return g_steal_pointer (&credentials);
}

/* Half a pair is a mistake, which loading it tells. */
static gboolean
has_part_of_pair (const Credentials *credentials)
{
  return g_file_test (credentials->cert_file, G_FILE_TEST_EXISTS)
         || g_file_test (credentials->key_file, G_FILE_TEST_EXISTS);
}

Credentials *
credentials_load_client (const char *dir, GError **error)
{
  g_autoptr (Credentials) credentials = credentials_new_x509 (dir, CREDENTIALS_CLIENT);

  if (!load_ca (credentials, error) || !load_crl (credentials, error))
    return NULL;
  if (has_part_of_pair (credentials) && !load_pair (credentials, error))
    return NULL;
  return g_steal_pointer (&credentials);
}

Credentials *
credentials_load_psk (const char *file, const char *user, GError **error)
{
  g_autoptr (Credentials) credentials = credentials_new (file, CREDENTIALS_CLIENT);
  g_auto (gnutls_datum_t) text = { 0 };
  gnutls_datum_t hex = { 0 };

  credentials->identity = g_strdup (user);
  if (!pem_file_read (file, PEM_FILE_SECRET, "make one with psktool, the same for the server",
                      &text, error)
      || !psk_file_find_key (&text, file, user, &hex, error))
    return NULL;
  gnutls_psk_allocate_client_credentials (&credentials->psk);
  int rc = gnutls_psk_set_client_credentials (credentials->psk, user, &hex, GNUTLS_PSK_KEY_HEX);
  if (rc < 0)
    {
      fail_file (file, gnutls_strerror (rc), error);
      return NULL;
    }
  return g_steal_pointer (&credentials);
}

Credentials *
credentials_ref (Credentials *credentials)
{
  g_atomic_ref_count_inc (&credentials->refs);
  return credentials;
}

void
credentials_unref (Credentials *credentials)
{
  if (credentials == NULL || !g_atomic_ref_count_dec (&credentials->refs))
    return;
  g_clear_pointer (&credentials->x509, gnutls_certificate_free_credentials);
  g_clear_pointer (&credentials->psk, gnutls_psk_free_client_credentials);
  g_free (credentials->path);
  g_free (credentials->identity);
  g_free (credentials->ca_file);
  g_free (credentials->crl_file);
  g_free (credentials->cert_file);
  g_free (credentials->key_file);
  g_free (credentials);
}

const char *
credentials_get_path (const Credentials *credentials)
{
  return credentials->path;
}

CredentialsEndpoint
credentials_get_endpoint (const Credentials *credentials)
{
  return credentials->endpoint;
}

const char *
credentials_get_identity (const Credentials *credentials)
{
  return credentials->identity;
}

gboolean
credentials_is_psk (const Credentials *credentials)
{
  return credentials->psk != NULL;
}

int
credentials_apply (const Credentials *credentials, gnutls_session_t session)
{
  gboolean psk = credentials->psk != NULL;
  int rc = gnutls_priority_set_direct (session, psk ? PRIORITY_PSK : PRIORITY_X509, NULL);

  if (rc != 0)
    return rc;
  return psk ? gnutls_credentials_set (session, GNUTLS_CRD_PSK, credentials->psk)
             : gnutls_credentials_set (session, GNUTLS_CRD_CERTIFICATE, credentials->x509);
}
