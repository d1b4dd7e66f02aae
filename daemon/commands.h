/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/connection.h"

/* Carry out one command of docs/protocol.md.  Take over `request`; `args` is borrowed. */
void commands_run_local (Connection *connection, const char *command, JsonObject *args,
                         JobRequest *request);
void commands_run_peer (Connection *connection, const char *command, JsonObject *args,
                        JobRequest *request);

/* Checks `args` against `spec`: words "name:type", type as in json_args () ("s" "i" "b" "o" "a"),
 * optional with a "?" at the end: "job:s owner:s rate:i?".  Errors: JOB_ERROR_USAGE. */
gboolean commands_check_args (JsonObject *args, const char *spec, GError **error);
