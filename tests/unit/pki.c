/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/pki.h"

#include <string.h>
#include <time.h>
#include <unistd.h>
#include <glib/gstdio.h>

#define DAY_S (24 * 3600)

struct PkiPair
{
  gnutls_x509_crt_t cert;
  gnutls_x509_privkey_t key;
  const PkiPair *issuer; /* NULL: self-signed */
};

static void
must (int rc, const char *what)
{
  if (rc < 0)
    g_error ("pki: %s: %s", what, gnutls_strerror (rc));
}
#define MUST(call) must (call, #call)

/* ---- issuing ---- */

/* GnuTLS cuts a name at its first zero when it writes one, so this is by hand: SEQUENCE of one
 * dNSName (RFC 5280, section 4.2.1.6), short enough for lengths of one byte. */
static void
set_raw_name (gnutls_x509_crt_t cert, const char *name, gsize len)
{
  guint8 der[4 + 64] = { 0x30, (guint8)(len + 2), 0x82, (guint8)len };

  g_assert (len <= 64);
  memcpy (der + 4, name, len);
  MUST (gnutls_x509_crt_set_extension_by_oid (cert, GNUTLS_X509EXT_OID_SAN, der, (guint)(len + 4),
                                              0));
}

static void
set_names (gnutls_x509_crt_t cert, const PkiRequest *request)
{
  for (gsize i = 0; i < G_N_ELEMENTS (request->dns) && request->dns[i] != NULL; i++)
    MUST (gnutls_x509_crt_set_subject_alt_name (cert, GNUTLS_SAN_DNSNAME, request->dns[i],
                                                (guint)strlen (request->dns[i]),
                                                GNUTLS_FSAN_APPEND));
  for (gsize i = 0; i < G_N_ELEMENTS (request->ips) && request->ips[i] != NULL; i++)
    {
      g_autoptr (GInetAddress) address = g_inet_address_new_from_string (request->ips[i]);
      MUST (gnutls_x509_crt_set_subject_alt_name (
          cert, GNUTLS_SAN_IPADDRESS, g_inet_address_to_bytes (address),
          (guint)g_inet_address_get_native_size (address), GNUTLS_FSAN_APPEND));
    }
  if (request->raw_dns != NULL)
    set_raw_name (cert, request->raw_dns, request->raw_dns_len);
}

static void
set_use (gnutls_x509_crt_t cert, const PkiRequest *request)
{
  MUST (gnutls_x509_crt_set_basic_constraints (cert, request->is_ca, -1));
  MUST (gnutls_x509_crt_set_key_usage (cert, request->is_ca
                                                 ? GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN
                                                 : GNUTLS_KEY_DIGITAL_SIGNATURE));
  if (request->use & PKI_SERVER)
    MUST (gnutls_x509_crt_set_key_purpose_oid (cert, GNUTLS_KP_TLS_WWW_SERVER, 0));
  if (request->use & PKI_CLIENT)
    MUST (gnutls_x509_crt_set_key_purpose_oid (cert, GNUTLS_KP_TLS_WWW_CLIENT, 0));
}

static void
set_dates (gnutls_x509_crt_t cert, const PkiRequest *request)
{
  gint64 starts = request->starts_in_s != 0 ? request->starts_in_s : -DAY_S;
  gint64 ends = request->ends_in_s != 0 ? request->ends_in_s : DAY_S;

  MUST (gnutls_x509_crt_set_activation_time (cert, time (NULL) + (time_t)starts));
  MUST (gnutls_x509_crt_set_expiration_time (cert, time (NULL) + (time_t)ends));
}

static void
set_subject (gnutls_x509_crt_t cert, const PkiRequest *request)
{
  static guint32 serials = 0;
  guint32 serial;

  serials++;
  serial = GUINT32_TO_BE (serials);
  MUST (gnutls_x509_crt_set_version (cert, 3));
  MUST (gnutls_x509_crt_set_serial (cert, &serial, sizeof serial));
  if (request->cn == NULL)
    return;
  MUST (gnutls_x509_crt_set_dn_by_oid (cert, GNUTLS_OID_X520_ORGANIZATION_NAME, 0, "vmferry", 7));
  MUST (gnutls_x509_crt_set_dn_by_oid (cert, GNUTLS_OID_X520_COMMON_NAME, 0, request->cn,
                                       (guint)strlen (request->cn)));
}

/* As a peer would get it: GnuTLS shows the names of a certificate only after an import. */
static void
import_again (PkiPair *pair)
{
  gnutls_datum_t der = { 0 };

  MUST (gnutls_x509_crt_export2 (pair->cert, GNUTLS_X509_FMT_DER, &der));
  gnutls_x509_crt_deinit (pair->cert);
  MUST (gnutls_x509_crt_init (&pair->cert));
  MUST (gnutls_x509_crt_import (pair->cert, &der, GNUTLS_X509_FMT_DER));
  gnutls_free (der.data);
}

PkiPair *
pki_issue (const PkiPair *issuer, const PkiRequest *request)
{
  PkiPair *pair = g_new0 (PkiPair, 1);
  const PkiPair *signer = issuer != NULL ? issuer : pair;
  guint8 id[20];
  size_t id_len = sizeof id;

  pair->issuer = issuer;
  MUST (gnutls_x509_privkey_init (&pair->key));
  if (request->rsa_bits > 0)
    MUST (gnutls_x509_privkey_generate (pair->key, GNUTLS_PK_RSA, request->rsa_bits, 0));
  else
    MUST (gnutls_x509_privkey_generate (pair->key, GNUTLS_PK_ECDSA,
                                        GNUTLS_CURVE_TO_BITS (GNUTLS_ECC_CURVE_SECP256R1), 0));
  MUST (gnutls_x509_crt_init (&pair->cert));
  set_subject (pair->cert, request);
  set_dates (pair->cert, request);
  set_use (pair->cert, request);
  set_names (pair->cert, request);
  MUST (gnutls_x509_crt_set_key (pair->cert, pair->key));
  MUST (gnutls_x509_crt_get_key_id (pair->cert, 0, id, &id_len));
  MUST (gnutls_x509_crt_set_subject_key_id (pair->cert, id, id_len));
  MUST (gnutls_x509_crt_sign2 (pair->cert, signer->cert, signer->key, GNUTLS_DIG_SHA256, 0));
  import_again (pair);
  return pair;
}

PkiPair *
pki_new_ca (const char *cn)
{
  return pki_issue (NULL, &(PkiRequest){ .cn = cn, .is_ca = TRUE });
}

void
pki_pair_free (PkiPair *pair)
{
  if (pair == NULL)
    return;
  gnutls_x509_crt_deinit (pair->cert);
  gnutls_x509_privkey_deinit (pair->key);
  g_free (pair);
}

gnutls_x509_crt_t
pki_pair_get_cert (const PkiPair *pair)
{
  return pair->cert;
}

/* ---- files ---- */

static void
write_file (const char *dir, const char *name, const char *text, gssize len)
{
  g_autofree char *path = g_build_filename (dir, name, NULL);
  g_autoptr (GError) error = NULL;

  if (!g_file_set_contents_full (path, text, len, G_FILE_SET_CONTENTS_CONSISTENT, 0600, &error)
      || g_chmod (path, 0600) != 0)
    g_error ("pki: %s: %s", path, error != NULL ? error->message : "chmod");
}

static void
append_pem (GString *text, const PkiPair *pair)
{
  gnutls_datum_t pem = { 0 };

  MUST (gnutls_x509_crt_export2 (pair->cert, GNUTLS_X509_FMT_PEM, &pem));
  g_string_append_len (text, (const char *)pem.data, pem.size);
  gnutls_free (pem.data);
}

void
pki_write_cert (const PkiPair *pair, const char *dir, const char *name)
{
  g_autoptr (GString) text = g_string_new (NULL);

  append_pem (text, pair);
  for (const PkiPair *p = pair->issuer; p != NULL && p->issuer != NULL; p = p->issuer)
    append_pem (text, p);
  write_file (dir, name, text->str, (gssize)text->len);
}

void
pki_write_bundle (const PkiPair *first, const PkiPair *second, const char *dir, const char *name)
{
  g_autoptr (GString) text = g_string_new (NULL);

  append_pem (text, first);
  append_pem (text, second);
  write_file (dir, name, text->str, (gssize)text->len);
}

void
pki_write_key (const PkiPair *pair, const char *dir, const char *name)
{
  gnutls_datum_t pem = { 0 };

  MUST (gnutls_x509_privkey_export2 (pair->key, GNUTLS_X509_FMT_PEM, &pem));
  write_file (dir, name, (const char *)pem.data, pem.size);
  gnutls_free (pem.data);
}

void
pki_write_encrypted_key (const PkiPair *pair, const char *dir, const char *name)
{
  guint8 pem[8192];
  size_t len = sizeof pem;

  MUST (gnutls_x509_privkey_export_pkcs8 (pair->key, GNUTLS_X509_FMT_PEM, "secret",
                                          GNUTLS_PKCS_PBES2_AES_256, pem, &len));
  write_file (dir, name, (const char *)pem, (gssize)len);
}

void
pki_write_crl (const PkiPair *ca, const PkiPair *revoked, gint64 ends_in_s, const char *dir,
               const char *name)
{
  gnutls_x509_crl_t crl;
  gnutls_datum_t pem = { 0 };

  MUST (gnutls_x509_crl_init (&crl));
  MUST (gnutls_x509_crl_set_version (crl, 2));
  MUST (gnutls_x509_crl_set_this_update (crl, time (NULL) - DAY_S));
  MUST (gnutls_x509_crl_set_next_update (crl, time (NULL) + (time_t)ends_in_s));
  MUST (gnutls_x509_crl_set_number (crl, "\1", 1));
  MUST (gnutls_x509_crl_set_crt (crl, revoked->cert, time (NULL) - 3600));
  MUST (gnutls_x509_crl_sign2 (crl, ca->cert, ca->key, GNUTLS_DIG_SHA256, 0));
  MUST (gnutls_x509_crl_export2 (crl, GNUTLS_X509_FMT_PEM, &pem));
  write_file (dir, name, (const char *)pem.data, pem.size);
  gnutls_free (pem.data);
  gnutls_x509_crl_deinit (crl);
}

void
pki_fill_dir (const char *dir, const PkiPair *ca, const PkiPair *server, const PkiPair *client)
{
  pki_write_cert (ca, dir, "ca-cert.pem");
  if (server != NULL)
    {
      pki_write_cert (server, dir, "server-cert.pem");
      pki_write_key (server, dir, "server-key.pem");
    }
  if (client != NULL)
    {
      pki_write_cert (client, dir, "client-cert.pem");
      pki_write_key (client, dir, "client-key.pem");
    }
}

PkiDir *
pki_dir_new (void)
{
  g_autoptr (GError) error = NULL;
  char *dir = g_dir_make_tmp ("vmferry-pki-XXXXXX", &error);

  if (dir == NULL)
    g_error ("pki: %s", error->message);
  return dir;
}

void
pki_dir_free (PkiDir *dir)
{
  if (dir == NULL)
    return;
  g_autoptr (GDir) list = g_dir_open (dir, 0, NULL);
  for (const char *name; list != NULL && (name = g_dir_read_name (list)) != NULL;)
    {
      g_autofree char *path = g_build_filename (dir, name, NULL);
      g_unlink (path);
    }
  g_rmdir (dir);
  g_free (dir);
}

PkiDir *
pki_dir_new_for (const char *hostname)
{
  PkiDir *dir = pki_dir_new ();
  g_autoptr (PkiPair) ca = pki_new_ca ("vmferry test CA");
  const PkiRequest server
      = { .cn = hostname, .dns = { hostname }, .ips = { "127.0.0.1", "::1" }, .use = PKI_SERVER };
  const PkiRequest client = { .cn = hostname, .use = PKI_CLIENT };
  g_autoptr (PkiPair) server_pair = pki_issue (ca, &server);
  g_autoptr (PkiPair) client_pair = pki_issue (ca, &client);

  pki_fill_dir (dir, ca, server_pair, client_pair);
  return dir;
}
