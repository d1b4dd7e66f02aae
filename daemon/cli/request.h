/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/cli/options.h"
#include "daemon/cli/session.h"

/* The commands of docs/protocol.md as vmferry sends them, and answers of the right shape.  Errors
 * as cli_session_call (), and CLI_ERROR_AGENT for an answer that makes no sense. */

/* Free `ret_id` with g_free. */
gboolean cli_request_migrate (CliSession *session, const CliOptions *options, char **ret_id,
                              GError **error);
/* The job object of `job`, which may be the beginning of a UUID; `ret_id` is the whole one and
 * lives with it. Free `ret_object` with json_object_unref. */
gboolean cli_request_query (CliSession *session, const char *job, JsonObject **ret_object,
                            const char **ret_id, GError **error);
/* All job objects; free with json_array_unref. */
JsonArray *cli_request_query_all (CliSession *session, GError **error);
/* `job` NULL: all. */
gboolean cli_request_watch (CliSession *session, const char *job, GError **error);
gboolean cli_request_cancel (CliSession *session, const char *job, GError **error);
gboolean cli_request_resolve (CliSession *session, const char *job, const char *owner,
                              GError **error);
