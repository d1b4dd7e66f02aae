/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/executor.h"

#include "qmp/json-client.h"

gboolean
qmp_call (QmpExecutor *executor, const char *command, JsonObject *args, int fd,
          GCancellable *cancellable, JsonNode **ret_value, GError **error)
{
  Deadline deadline = deadline_in (executor->call_timeout_ms, cancellable);

  return executor->klass->call (executor, command, args, fd, deadline, ret_value, error);
}

static JsonNode *
call_typed (QmpExecutor *executor, const char *command, JsonObject *args, JsonNodeType type,
            GCancellable *cancellable, GError **error)
{
  g_autoptr (JsonNode) node = NULL;

  if (!qmp_call (executor, command, args, -1, cancellable, &node, error))
    return NULL;
  if (json_node_get_node_type (node) == type)
    return g_steal_pointer (&node);
  qmp_set_unexpected (executor, command, type == JSON_NODE_ARRAY ? "not a list" : "not an object",
                      error);
  return NULL;
}

JsonObject *
qmp_call_object (QmpExecutor *executor, const char *command, JsonObject *args,
                 GCancellable *cancellable, GError **error)
{
  g_autoptr (JsonNode) node
      = call_typed (executor, command, args, JSON_NODE_OBJECT, cancellable, error);

  return node != NULL ? json_node_dup_object (node) : NULL;
}

JsonArray *
qmp_call_array (QmpExecutor *executor, const char *command, JsonObject *args,
                GCancellable *cancellable, GError **error)
{
  g_autoptr (JsonNode) node
      = call_typed (executor, command, args, JSON_NODE_ARRAY, cancellable, error);

  return node != NULL ? json_node_dup_array (node) : NULL;
}

void
qmp_set_unexpected (QmpExecutor *executor, const char *command, const char *what, GError **error)
{
  g_set_error (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_UNEXPECTED,
               "%s: %s: unexpected reply: %s", executor->name, command, what);
}

gboolean
qmp_executor_learn_schema (QmpExecutor *executor, const char *whose, Deadline deadline,
                           GError **error)
{
  g_autoptr (JsonNode) node = NULL;
  g_auto (GStrv) missing = NULL;
  g_autofree char *list = NULL;

  if (!executor->klass->call (executor, "query-qmp-schema", NULL, -1, deadline, &node, error))
    return FALSE;
  if (!JSON_NODE_HOLDS_ARRAY (node))
    {
      qmp_set_unexpected (executor, "query-qmp-schema", "not a list", error);
      return FALSE;
    }
  executor->schema = qmp_schema_new (json_node_get_array (node));
  missing = qmp_schema_missing (executor->schema);
  if (missing == NULL)
    return TRUE;
  list = g_strjoinv (", ", missing);
  g_set_error (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_LACKING,
               "%s: %s lacks what a migration needs: %s", executor->name, whose, list);
  return FALSE;
}

void
qmp_executor_clear (QmpExecutor *executor)
{
  g_clear_pointer (&executor->name, g_free);
  g_clear_pointer (&executor->schema, qmp_schema_free);
}

void
qmp_executor_free (QmpExecutor *executor)
{
  if (executor != NULL)
    executor->klass->free (executor);
}
