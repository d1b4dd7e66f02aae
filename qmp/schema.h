/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

/* What QAPI introspection (query-qmp-schema) tells of one QEMU. */
typedef struct QmpSchema QmpSchema;

/* Takes a reference on the answer of query-qmp-schema. */
QmpSchema *qmp_schema_new (JsonArray *schema);
void qmp_schema_free (QmpSchema *schema);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QmpSchema, qmp_schema_free)

/* Paths as "block-export-add/writable", "migrate-set-parameters/tls-authz",
 * "block-export-add/bitmaps": a command, then members of its arguments, all variants of a flat
 * union included. */
gboolean qmp_schema_has (QmpSchema *schema, const char *path);
/* The paths that vmferry needs and this QEMU lacks, NULL-terminated; NULL where nothing lacks. */
char **qmp_schema_missing (QmpSchema *schema);
