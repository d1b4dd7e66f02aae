/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <gnutls/gnutls.h>

typedef enum
{
  PEM_FILE_PUBLIC, /* anybody may read it */
  PEM_FILE_SECRET  /* refused where others have any access (mode & 0007); the group may have some:
                      QEMU's keys are usually 0640 root:libvirt-qemu */
} PemFileKind;

/* Reads a regular file of at most 1 MiB.  `cure` says what to do where there is none.  Free with
 * pem_file_clear (), which wipes the memory.
 * Errors: TLS_ERROR_CREDENTIALS, "cannot use PATH: ...". */
gboolean pem_file_read (const char *path, PemFileKind kind, const char *cure,
                        gnutls_datum_t *ret_pem, GError **error);
void pem_file_clear (gnutls_datum_t *pem);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (gnutls_datum_t, pem_file_clear)
