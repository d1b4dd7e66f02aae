/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/executor.h"

/* The migration of RAM and device state. */

/* MigrationInfo.  What QEMU doesn't tell in the present state is -1, or NULL. */
typedef struct
{
  char *status; /* "none", "setup", "active", "pre-switchover", "device", "completed", ... */
  gint64 ram_transferred;  /* bytes */
  gint64 ram_remaining;    /* bytes */
  gint64 ram_total;        /* bytes */
  gint64 dirty_pages_rate; /* pages per second */
  gint64 page_size;        /* bytes */
  double mbps;             /* megabits per second */
  gint64 total_time_ms;
  gint64 downtime_ms;
  gint64 expected_downtime_ms;
  char *error_desc;
  char **blocked_reasons; /* why it can't be migrated; NULL: nothing is in the way */
} QmpMigration;

void qmp_migration_free (QmpMigration *migration);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QmpMigration, qmp_migration_free)

/* query-migrate.  The status is "none" before the first migration. */
QmpMigration *qmp_query_migrate (QmpExecutor *executor, GCancellable *cancellable, GError **error);

/* migrate-set-capabilities: those named (NULL-terminated) become `state`, others stay. */
gboolean qmp_migrate_set_capabilities (QmpExecutor *executor, const char *const *names,
                                       gboolean state, GCancellable *cancellable, GError **error);
/* migrate-set-parameters; takes over `parameters`. */
gboolean qmp_migrate_set_parameters (QmpExecutor *executor, JsonObject *parameters,
                                     GCancellable *cancellable, GError **error);
/* The same, and query-migrate-parameters: TRUE only where QEMU then tells every text in
 * `parameters` as it was given.  A stream must not begin before: QEMU sends in clear until it
 * notices that the other side wants TLS. */
gboolean qmp_migrate_ensure_parameters (QmpExecutor *executor, JsonObject *parameters,
                                        GCancellable *cancellable, GError **error);
/* query-migrate-parameters.  Free with json_object_unref. */
JsonObject *qmp_query_migrate_parameters (QmpExecutor *executor, GCancellable *cancellable,
                                          GError **error);
/* migrate.  Returns when it has begun; query-migrate and MIGRATION events tell the rest. */
gboolean qmp_migrate (QmpExecutor *executor, const char *uri, GCancellable *cancellable,
                      GError **error);
/* migrate-incoming: QEMU listens when this returns. */
gboolean qmp_migrate_incoming (QmpExecutor *executor, const char *uri, GCancellable *cancellable,
                               GError **error);
/* migrate-continue of "pre-switchover". */
gboolean qmp_migrate_continue (QmpExecutor *executor, GCancellable *cancellable, GError **error);
/* migrate_cancel.  Without a migration it does nothing. */
gboolean qmp_migrate_cancel (QmpExecutor *executor, GCancellable *cancellable, GError **error);
/* announce-self: five gratuitous packets that tell switches where the guest is now. */
gboolean qmp_announce_self (QmpExecutor *executor, GCancellable *cancellable, GError **error);
