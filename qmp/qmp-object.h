/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/executor.h"

/* What we make in a QEMU besides bitmaps and exports: objects and named descriptors. */

/* object-add; takes over `object` ("qom-type", "id", ...). */
gboolean qmp_object_add (QmpExecutor *executor, JsonObject *object, GCancellable *cancellable,
                         GError **error);
/* object-del; absent is fine. */
gboolean qmp_object_del (QmpExecutor *executor, const char *id, GCancellable *cancellable,
                         GError **error);
/* object-add of a tls-creds-x509 from the directory `dir` on QEMU's host; `endpoint` is "server" or
 * "client".  The peer is always verified and TLS is 1.2 at least. */
gboolean qmp_tls_creds_add (QmpExecutor *executor, const char *id, const char *dir,
                            const char *endpoint, GCancellable *cancellable, GError **error);
/* object-add of an authz-simple for one distinguished name, in encoding order. */
gboolean qmp_authz_add (QmpExecutor *executor, const char *id, const char *identity,
                        GCancellable *cancellable, GError **error);

/* getfd: QEMU keeps a duplicate of `fd` under `name`; one that it had there is replaced. */
gboolean qmp_getfd (QmpExecutor *executor, const char *name, int fd, GCancellable *cancellable,
                    GError **error);
/* closefd; absent is fine. */
gboolean qmp_closefd (QmpExecutor *executor, const char *name, GCancellable *cancellable,
                      GError **error);
