/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/handshake-error.h"

#include "tls/text.h"

/* RFC 8446, section 5.1: the types of records, of which a peer may start with the first two */
#define RECORD_ALERT 21
#define RECORD_HANDSHAKE 22

#define SHOWN_BYTES 40

static const struct
{
  gnutls_alert_description_t alert;
  const char *words;
} refusals[] = {
  { GNUTLS_A_UNKNOWN_CA,
    "it doesn't know the CA that issued it: both hosts need the same ca-cert.pem" },
  { GNUTLS_A_CERTIFICATE_EXPIRED,
    "it finds it expired or not valid yet: check its dates and the clocks of both hosts" },
  { GNUTLS_A_CERTIFICATE_REVOKED, "it finds it revoked in its ca-crl.pem" },
  { GNUTLS_A_UNSUPPORTED_CERTIFICATE,
    "it finds that it may not be used for this: check its extended key usage" },
  { GNUTLS_A_BAD_CERTIFICATE,
    "it finds it bad or for another name: the message over there tells more" },
  { GNUTLS_A_CERTIFICATE_UNKNOWN, "it can't verify it: the message over there tells more" },
  { GNUTLS_A_ACCESS_DENIED, "this identity has no access there: allow it in its configuration" },
  { GNUTLS_A_CERTIFICATE_REQUIRED, "it didn't get it: the two may have no algorithm in common" },
};

static const char *
describe_refusal (gnutls_alert_description_t alert)
{
  for (gsize i = 0; i < G_N_ELEMENTS (refusals); i++)
    if (refusals[i].alert == alert)
      return refusals[i].words;
  return NULL;
}

static const char *
describe_other_alert (gnutls_alert_description_t alert)
{
  switch (alert)
    {
    case GNUTLS_A_PROTOCOL_VERSION:
      return "it has no TLS version in common with us (1.2 or 1.3)";
    case GNUTLS_A_HANDSHAKE_FAILURE:
    case GNUTLS_A_INSUFFICIENT_SECURITY:
      return "it has no TLS version or cipher in common with us, or no certificate (TLS-PSK?)";
    default:
      return gnutls_alert_get_name (alert);
    }
}

static const char *
describe_psk_alert (gnutls_alert_description_t alert)
{
  switch (alert)
    {
    case GNUTLS_A_UNKNOWN_PSK_IDENTITY:
      return "it has no key of that user";
    case GNUTLS_A_DECRYPT_ERROR:
    case GNUTLS_A_BAD_RECORD_MAC:
    case GNUTLS_A_ILLEGAL_PARAMETER:
      return "it has another key of that user, or none";
    default:
      return "it has no TLS-PSK (only certificates?), or no key of that user";
    }
}

/* The alerts differ between versions of TLS and of GnuTLS; the cure is the same. */
static GError *
error_from_psk_alert (gnutls_alert_description_t alert, const Credentials *credentials)
{
  g_autofree char *shown = text_escape_name (credentials_get_identity (credentials));

  if (alert == GNUTLS_A_PROTOCOL_VERSION)
    return NULL;
  return g_error_new (TLS_ERROR, TLS_ERROR_REFUSED,
                      "it refused TLS-PSK with user \"%s\" and the key in %s: %s: both hosts need "
                      "the same line for the user in their files",
                      shown, credentials_get_path (credentials), describe_psk_alert (alert));
}

/* We showed none.  With TLS 1.2 a server has no alert that says just this. */
static GError *
error_from_missing_certificate (gnutls_alert_description_t alert, const Credentials *credentials)
{
  const char *dir = credentials_get_path (credentials);

  if (alert == GNUTLS_A_CERTIFICATE_REQUIRED || alert == GNUTLS_A_BAD_CERTIFICATE
      || alert == GNUTLS_A_CERTIFICATE_UNKNOWN || alert == GNUTLS_A_ACCESS_DENIED)
    return g_error_new (TLS_ERROR, TLS_ERROR_REFUSED,
                        "it demands a client certificate, and %s has none: put client-cert.pem and "
                        "client-key.pem there",
                        dir);
  if (alert == GNUTLS_A_HANDSHAKE_FAILURE)
    return g_error_new (TLS_ERROR, TLS_ERROR_REFUSED,
                        "it demands a client certificate, and %s has none (put client-cert.pem and "
                        "client-key.pem there), or it has no certificate itself (TLS-PSK?), or no "
                        "TLS version or cipher in common with us",
                        dir);
  return NULL;
}

static GError *
error_from_refusal (gnutls_alert_description_t alert, const Credentials *credentials)
{
  const char *identity = credentials_get_identity (credentials);
  const char *refusal = describe_refusal (alert);

  if (credentials_is_psk (credentials))
    return error_from_psk_alert (alert, credentials);
  if (identity == NULL)
    return error_from_missing_certificate (alert, credentials);
  if (refusal == NULL)
    return NULL;
  g_autofree char *shown = text_escape_name (identity);
  return g_error_new (TLS_ERROR, TLS_ERROR_REFUSED, "it refused our certificate (%s): %s", shown,
                      refusal);
}

GError *
handshake_error_from_alert (gnutls_alert_description_t alert, const Credentials *credentials)
{
  const char *other = describe_other_alert (alert);
  GError *refusal = error_from_refusal (alert, credentials);

  if (refusal != NULL)
    return refusal;
  return g_error_new (TLS_ERROR, TLS_ERROR_HANDSHAKE, "it ended TLS: %s",
                      other != NULL ? other : "unknown alert");
}

static GError *
error_plain_text (const guint8 *first, gsize n)
{
  g_autofree char *shown = text_escape (first, n, SHOWN_BYTES);

  return g_error_new (TLS_ERROR, TLS_ERROR_HANDSHAKE,
                      "no TLS there: it sent \"%s\" in clear: check the port, and that TLS is on",
                      shown);
}

static GError *
error_no_certificate (const Credentials *credentials)
{
  return g_error_new (TLS_ERROR, TLS_ERROR_UNTRUSTED,
                      "it showed no certificate: it needs one of the CA in %s/ca-cert.pem",
                      credentials_get_path (credentials));
}

/* As GnuTLS does, without an alert, where it can't serve what a client has. */
static GError *
error_closed (const Credentials *credentials)
{
  static const char closed[] = "it closed the connection in the TLS handshake";
  static const char hint[] = "or it ended: its log tells";

  if (credentials_is_psk (credentials))
    {
      g_autofree char *user = text_escape_name (credentials_get_identity (credentials));

      return g_error_new (G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED,
                          "%s: it may have another key of user \"%s\" than %s, or no TLS-PSK, %s",
                          closed, user, credentials_get_path (credentials), hint);
    }
  if (credentials_get_endpoint (credentials) == CREDENTIALS_CLIENT)
    return g_error_new (G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED,
                        "%s: it may have no certificate (TLS-PSK?), or no TLS version or cipher in "
                        "common with us, %s",
                        closed, hint);
  return g_error_new_literal (G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED, closed);
}

GError *
handshake_error_from_gnutls (gnutls_session_t session, int rc, const Credentials *credentials,
                             const guint8 *first, gsize n)
{
  if (rc == GNUTLS_E_FATAL_ALERT_RECEIVED)
    return handshake_error_from_alert (gnutls_alert_get (session), credentials);
  if (n > 0 && first[0] != RECORD_HANDSHAKE && first[0] != RECORD_ALERT)
    return error_plain_text (first, n);
  if (rc == GNUTLS_E_INSUFFICIENT_CREDENTIALS && credentials_is_psk (credentials))
    return g_error_new (TLS_ERROR, TLS_ERROR_HANDSHAKE,
                        "it chose certificates, where we have a pre-shared key: give it the key, "
                        "too, or use tls-certificates");

  switch (rc)
    {
    case GNUTLS_E_PREMATURE_TERMINATION:
    case GNUTLS_E_PULL_ERROR:
    case GNUTLS_E_PUSH_ERROR:
      return error_closed (credentials);
    case GNUTLS_E_NO_CERTIFICATE_FOUND:
    case GNUTLS_E_CERTIFICATE_REQUIRED:
      return error_no_certificate (credentials);
    case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
      return g_error_new (TLS_ERROR, TLS_ERROR_HANDSHAKE,
                          "it has no TLS version in common with us (1.2 or 1.3)");
    case GNUTLS_E_NO_CIPHER_SUITES:
      return g_error_new (TLS_ERROR, TLS_ERROR_HANDSHAKE, "it has no cipher in common with us");
    default:
      return g_error_new (TLS_ERROR, TLS_ERROR_HANDSHAKE, "the TLS handshake failed: %s",
                          gnutls_strerror (rc));
    }
}

GError *
handshake_error_from_early_end (const Credentials *credentials)
{
  const char *how
      = "it closed the connection right after the TLS handshake, which is how it refuses";
  const char *identity = credentials_get_identity (credentials);

  if (identity == NULL)
    return g_error_new (TLS_ERROR, TLS_ERROR_HUNG_UP,
                        "%s a client without a certificate: put client-cert.pem and client-key.pem "
                        "into %s; or it ended: its log tells",
                        how, credentials_get_path (credentials));
  g_autofree char *shown = text_escape_name (identity);
  if (credentials_is_psk (credentials))
    return g_error_new (TLS_ERROR, TLS_ERROR_HUNG_UP,
                        "%s a client: TLS-PSK user \"%s\" may not be allowed there, or it ended: "
                        "its log tells",
                        how, shown);
  return g_error_new (TLS_ERROR, TLS_ERROR_HUNG_UP,
                      "%s a certificate: ours (%s) is not allowed there, or revoked, or of a CA "
                      "that it doesn't know, or it ended: its log tells",
                      how, shown);
}
