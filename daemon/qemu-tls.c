/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/qemu-tls.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <gnutls/gnutls.h>
#include <unistd.h>

#define DH_PARAMS "dh-params.pem"

static gboolean
fail_gnutls (int code, GError **error)
{
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "cannot make %s: %s", DH_PARAMS,
               gnutls_strerror (code));
  return FALSE;
}

static gboolean
write_dh_params (const char *dir, GError **error)
{
  g_autofree char *path = g_build_filename (dir, DH_PARAMS, NULL);
  gnutls_dh_params_t params;
  gnutls_datum_t pem = { NULL, 0 };
  gboolean written = FALSE;
  int code = gnutls_dh_params_init (&params);

  if (code < 0)
    return fail_gnutls (code, error);
  code = gnutls_dh_params_import_raw (params, &gnutls_ffdhe_2048_group_prime,
                                      &gnutls_ffdhe_2048_group_generator);
  if (code >= 0)
    code = gnutls_dh_params_export2_pkcs3 (params, GNUTLS_X509_FMT_PEM, &pem);
  if (code >= 0)
    written = g_file_set_contents_full (path, (const char *)pem.data, pem.size,
                                        G_FILE_SET_CONTENTS_CONSISTENT, 0644, error);
  else
    fail_gnutls (code, error);
  gnutls_free (pem.data);
  gnutls_dh_params_deinit (params);
  return written;
}

/* A link may lead nowhere: whether a file has to be there is QEMU's business, as with the original.
 */
static gboolean
link_files (const char *tls_dir, const char *dir, GError **error)
{
  static const char *const names[] = { "ca-cert.pem",    "ca-crl.pem",      "server-cert.pem",
                                       "server-key.pem", "client-cert.pem", "client-key.pem" };

  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      g_autofree char *from = g_build_filename (tls_dir, names[i], NULL);
      g_autofree char *to = g_build_filename (dir, names[i], NULL);

      if ((unlink (to) < 0 && errno != ENOENT) || symlink (from, to) < 0)
        {
          g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno), "cannot link %s to %s: %s",
                       to, from, g_strerror (errno));
          return FALSE;
        }
    }
  return TRUE;
}

char *
qemu_tls_make_dir (const char *tls_dir, const char *runtime_dir, GError **error)
{
  g_autofree char *theirs = g_build_filename (tls_dir, DH_PARAMS, NULL);
  g_autofree char *dir = g_build_filename (runtime_dir, "qemu-tls", NULL);

  if (g_file_test (theirs, G_FILE_TEST_EXISTS))
    return g_strdup (tls_dir);
  if (g_mkdir (dir, 0755) < 0 && errno != EEXIST)
    {
      g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno), "cannot make %s: %s", dir,
                   g_strerror (errno));
      return NULL;
    }
  if (!link_files (tls_dir, dir, error) || !write_dh_params (dir, error))
    return NULL;
  return g_steal_pointer (&dir);
}
