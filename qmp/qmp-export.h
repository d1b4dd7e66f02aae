/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/executor.h"

/* QEMU's NBD server and its exports. */

/* One of query-block-exports. */
typedef struct
{
  char *id;
  char *type; /* "nbd", ... */
  char *node_name;
  gboolean shutting_down;
} QmpExport;

void qmp_export_free (QmpExport *exported);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QmpExport, qmp_export_free)

/* nbd-server-start on the listening socket that was passed by qmp_getfd () as `fd_name`. */
gboolean qmp_nbd_server_start_fd (QmpExecutor *executor, const char *fd_name, const char *tls_creds,
                                  const char *tls_authz, guint max_connections,
                                  GCancellable *cancellable, GError **error);
/* nbd-server-stop; one that doesn't run is fine.  Freezes QEMU 7.2 while a client negotiates: close
 * the door first. */
gboolean qmp_nbd_server_stop (QmpExecutor *executor, GCancellable *cancellable, GError **error);

/* block-export-add of a read-only NBD export `name` of `node`, with the dirty bitmaps `bitmaps`
 * (NULL-terminated, disabled ones; NULL for none).  Where this QEMU knows "allow-inactive", the
 * export leaves an inactive node inactive. */
gboolean qmp_export_add (QmpExecutor *executor, const char *id, const char *node, const char *name,
                         const char *const *bitmaps, GCancellable *cancellable, GError **error);
/* block-export-del with mode hard, and then query-block-exports until it is gone (its bitmaps are
 * busy until then), for at most the executor's call_timeout_ms.  An absent export is fine. */
gboolean qmp_export_del_hard (QmpExecutor *executor, const char *id, GCancellable *cancellable,
                              GError **error);
/* query-block-exports: an array of QmpExport, free with g_ptr_array_unref. */
GPtrArray *qmp_query_exports (QmpExecutor *executor, GCancellable *cancellable, GError **error);
