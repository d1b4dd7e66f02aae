/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* Makes RUNTIME_DIR/qemu-tls: links to the files of `tls_dir`, and a dh-params.pem with the group
 * ffdhe2048 (RFC 7919).  Without that file QEMU searches for a prime of its own at each object-add
 * of a tls-creds-x509 server, with the guest's devices locked: 50 to 500 ms, now and then more.
 * Returns the directory to give to QEMU: `tls_dir` itself where it has a dh-params.pem.  Free with
 * g_free. */
char *qemu_tls_make_dir (const char *tls_dir, const char *runtime_dir, GError **error);
