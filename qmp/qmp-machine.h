/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/executor.h"

/* The virtual machine as a whole, and what QOM tells of it. */

/* query-status: "running", "paused", "inmigrate", "finish-migrate", "postmigrate", ...  Free
 * *ret_status with g_free; both results may be NULL. */
gboolean qmp_query_status (QmpExecutor *executor, GCancellable *cancellable, char **ret_status,
                           gboolean *ret_running, GError **error);
/* cont */
gboolean qmp_cont (QmpExecutor *executor, GCancellable *cancellable, GError **error);
/* stop */
gboolean qmp_stop (QmpExecutor *executor, GCancellable *cancellable, GError **error);
/* quit.  A connection that ends before the answer counts as success. */
gboolean qmp_quit (QmpExecutor *executor, GCancellable *cancellable, GError **error);
/* query-name: NULL without error where the VM has none.  Free with g_free. */
gboolean qmp_query_name (QmpExecutor *executor, GCancellable *cancellable, char **ret_name,
                         GError **error);
/* qom-get of /machine's type, without "-machine": "pc-q35-7.2".  Free with g_free. */
char *qmp_query_machine_type (QmpExecutor *executor, GCancellable *cancellable, GError **error);

/* qom-get.  Free the string with g_free. */
char *qmp_qom_get_string (QmpExecutor *executor, const char *path, const char *property,
                          GCancellable *cancellable, GError **error);
gboolean qmp_qom_get_bool (QmpExecutor *executor, const char *path, const char *property,
                           GCancellable *cancellable, gboolean *ret_value, GError **error);
gboolean qmp_qom_get_int (QmpExecutor *executor, const char *path, const char *property,
                          GCancellable *cancellable, gint64 *ret_value, GError **error);
/* qom-list: whether the object at `path` has a property or child `name`.  An object that doesn't
 * exist has none. */
gboolean qmp_qom_list_has (QmpExecutor *executor, const char *path, const char *name,
                           GCancellable *cancellable, gboolean *ret_has, GError **error);
