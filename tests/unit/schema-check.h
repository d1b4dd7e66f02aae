/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

/* Judges QMP commands by QAPI introspection, as QEMU's own input visitor would.  `schema` is what
 * query-qmp-schema returns.  NULL, or what is wrong (free with g_free). */
char *schema_check_command (JsonArray *schema, const char *command, JsonObject *args);

/* "object", "array", ...: the shape of what a command returns; NULL for an unknown one. */
const char *schema_check_returns (JsonArray *schema, const char *command);
