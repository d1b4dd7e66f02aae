/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/json-args.h"
#include "qmp/schema.h"
#include "tls/deadline.h"

/* Something that runs QMP commands in one QEMU: its monitor socket (qmp/qmp-socket.h), or libvirt.
 * Command and descriptors in, reply and events out. */
typedef struct QmpExecutor QmpExecutor;

/* Called in a thread of the executor's; must not call back into it.  All are borrowed. */
typedef void (*QmpEventHandler) (const char *event, JsonObject *data, gpointer user_data);

typedef struct
{
  gboolean (*call) (QmpExecutor *executor, const char *command, JsonObject *args, int fd,
                    Deadline deadline, JsonNode **ret_value, GError **error);
  /* Frees the executor itself; qmp_executor_clear () takes care of the members below. */
  void (*free) (QmpExecutor *executor);
} QmpExecutorClass;

struct QmpExecutor
{
  const QmpExecutorClass *klass;
  char *name; /* whom errors name: the socket's path, the domain's name */
  gint64 call_timeout_ms;
  QmpSchema *schema; /* owned; NULL where it isn't known */
};

#define QMP_CALL_TIMEOUT_MS 10000

/* Blocks for the answer, at most call_timeout_ms (10 s unless set otherwise) and never beyond
 * `cancellable` (may be NULL).  Takes over `args`; `fd` is -1 or goes along.  Thread-safe.
 * `ret_value` may be NULL.  Errors: JSON_CLIENT_ERROR, G_IO_ERROR_CANCELLED. */
gboolean qmp_call (QmpExecutor *executor, const char *command, JsonObject *args, int fd,
                   GCancellable *cancellable, JsonNode **ret_value, GError **error);
/* The same for a command that returns an object / an array. Any other type is an error. */
JsonObject *qmp_call_object (QmpExecutor *executor, const char *command, JsonObject *args,
                             GCancellable *cancellable, GError **error);
JsonArray *qmp_call_array (QmpExecutor *executor, const char *command, JsonObject *args,
                           GCancellable *cancellable, GError **error);

/* JSON_CLIENT_ERROR_UNEXPECTED, "NAME: COMMAND: unexpected reply: WHAT". */
void qmp_set_unexpected (QmpExecutor *executor, const char *command, const char *what,
                         GError **error);

/* For implementations: asks query-qmp-schema, keeps it, and checks that this QEMU has every command
 * and argument that vmferry needs; JSON_CLIENT_ERROR_LACKING says which "WHOSE lacks". */
gboolean qmp_executor_learn_schema (QmpExecutor *executor, const char *whose, Deadline deadline,
                                    GError **error);
/* For implementations: frees what the struct above owns, not the struct. */
void qmp_executor_clear (QmpExecutor *executor);
void qmp_executor_free (QmpExecutor *executor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QmpExecutor, qmp_executor_free)
