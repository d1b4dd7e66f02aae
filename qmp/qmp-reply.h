/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/executor.h"

/* For the qmp-*.c files: members of replies that must be there.  FALSE with
 * JSON_CLIENT_ERROR_UNEXPECTED ("NAME: COMMAND: unexpected reply: no string \"status\"") where one
 * is absent or of another type.  Results are borrowed from `object`. */
typedef struct
{
  QmpExecutor *executor;
  const char *command;
} QmpReply;

gboolean qmp_reply_string (QmpReply reply, JsonObject *object, const char *name,
                           const char **ret_value, GError **error);
/* Not negative: sizes, counts and times. */
gboolean qmp_reply_count (QmpReply reply, JsonObject *object, const char *name, gint64 *ret_value,
                          GError **error);
gboolean qmp_reply_bool (QmpReply reply, JsonObject *object, const char *name, gboolean *ret_value,
                         GError **error);
gboolean qmp_reply_object (QmpReply reply, JsonObject *object, const char *name,
                           JsonObject **ret_value, GError **error);

/* Calls a command that returns a list of objects and turns each of them into a struct, which
 * `parse` makes and `free_func` frees. */
typedef gpointer (*QmpParseFunc) (QmpReply reply, JsonObject *object, GError **error);
GPtrArray *qmp_call_list (QmpExecutor *executor, const char *command, QmpParseFunc parse,
                          GDestroyNotify free_func, GCancellable *cancellable, GError **error);

/* Whether the server itself refused the command, with `text` in its words (NULL: any). */
gboolean qmp_was_refused (const GError *error, const char *text);
