/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/verify.h"

#include "tls/certificate.h"
#include "tls/names.h"
#include "tls/text.h"

static gnutls_alert_description_t
alert_for_status (guint status)
{
  if (status & GNUTLS_CERT_REVOKED)
    return GNUTLS_A_CERTIFICATE_REVOKED;
  if (status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNATURE_FAILURE))
    return GNUTLS_A_UNKNOWN_CA;
  if (status & (GNUTLS_CERT_EXPIRED | GNUTLS_CERT_NOT_ACTIVATED))
    return GNUTLS_A_CERTIFICATE_EXPIRED;
  if (status & GNUTLS_CERT_PURPOSE_MISMATCH)
    return GNUTLS_A_UNSUPPORTED_CERTIFICATE;
  return GNUTLS_A_BAD_CERTIFICATE;
}

/* What a verification said about the chain, in words. */
static void
fail_chain (const Credentials *credentials, const CertificateList *chain, const char *shown,
            guint status, GError **error)
{
  gboolean peer_is_server = credentials_get_endpoint (credentials) == CREDENTIALS_CLIENT;
  const char *dir = credentials_get_path (credentials);
  g_autofree char *ca_file = g_build_filename (dir, "ca-cert.pem", NULL);
  g_autofree char *crl_file = g_build_filename (dir, "ca-crl.pem", NULL);
  const CertificateContext context = {
    .ca_file = ca_file,
    .crl_file = crl_file,
    .endpoint = peer_is_server ? CREDENTIALS_SERVER : CREDENTIALS_CLIENT,
  };
  g_autofree char *problem = certificate_describe_problem (chain, status, &context);

  g_set_error (error, TLS_ERROR, TLS_ERROR_UNTRUSTED, "its certificate (%s) %s", shown, problem);
}

static gboolean
verify_chain (gnutls_session_t session, const Credentials *credentials,
              const CertificateList *chain, const char *shown, gnutls_alert_description_t *alert,
              GError **error)
{
  gboolean peer_is_server = credentials_get_endpoint (credentials) == CREDENTIALS_CLIENT;
  gnutls_typed_vdata_st purpose = {
    .type = GNUTLS_DT_KEY_PURPOSE_OID,
    .data = (guchar *)(peer_is_server ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT),
  };
  guint status = 0;
  int rc = gnutls_certificate_verify_peers (session, &purpose, 1, &status);

  if (rc < 0)
    {
      g_set_error (error, TLS_ERROR, TLS_ERROR_UNTRUSTED, "its certificate (%s) is not usable: %s",
                   shown, gnutls_strerror (rc));
      return FALSE;
    }
  if (status == 0)
    return TRUE;

  *alert = alert_for_status (status);
  fail_chain (credentials, chain, shown, status, error);
  return FALSE;
}

static gboolean
verify_name (gnutls_x509_crt_t cert, const char *name, const char *shown, GError **error)
{
  if (names_match (cert, name))
    return TRUE;
  g_autofree char *names = names_describe (cert);
  g_autofree char *wanted = text_escape_name (name);
  if (names == NULL)
    g_set_error (error, TLS_ERROR, TLS_ERROR_NAME,
                 "its certificate (%s) has no subjectAltName, and a common name doesn't count: "
                 "issue one with subjectAltName %s",
                 shown, wanted);
  else
    g_set_error (error, TLS_ERROR, TLS_ERROR_NAME,
                 "its certificate (%s) is for %s, not for \"%s\": connect by a name that it has, "
                 "or issue one with subjectAltName %s",
                 shown, names, wanted, wanted);
  return FALSE;
}

/* Who can't be named can't be given rights, or be refused them. */
static gboolean
verify_identity (const char *identity, const char *name, GError **error)
{
  if (name != NULL || *identity != '\0')
    return TRUE;
  g_set_error (error, TLS_ERROR, TLS_ERROR_UNTRUSTED,
               "its certificate has an empty distinguished name: issue one with a name");
  return FALSE;
}

char *
verify_peer (gnutls_session_t session, const Credentials *credentials, const char *peer,
             const char *name, gnutls_alert_description_t *alert, GError **error)
{
  g_autoptr (CertificateList) chain = certificate_list_from_peer (session, error);
  g_autofree char *identity = NULL;
  gboolean ok = FALSE;

  *alert = GNUTLS_A_BAD_CERTIFICATE;
  if (chain != NULL)
    {
      identity = certificate_get_identity (chain->certs[0]);
      g_autofree char *shown = text_escape_name (identity);
      ok = verify_chain (session, credentials, chain, shown, alert, error)
           && (name == NULL || verify_name (chain->certs[0], name, shown, error))
           && verify_identity (identity, name, error);
    }
  if (ok)
    return g_steal_pointer (&identity);
  g_prefix_error (error, "%s: ", peer);
  return NULL;
}
