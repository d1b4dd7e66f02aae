/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/qmp-machine.h"

#include <string.h>

#include "qmp/json-client.h"
#include "qmp/qmp-reply.h"

gboolean
qmp_query_status (QmpExecutor *executor, GCancellable *cancellable, char **ret_status,
                  gboolean *ret_running, GError **error)
{
  QmpReply reply = { executor, "query-status" };
  g_autoptr (JsonObject) info = qmp_call_object (executor, reply.command, NULL, cancellable, error);
  const char *status;
  gboolean running;

  if (info == NULL || !qmp_reply_string (reply, info, "status", &status, error)
      || !qmp_reply_bool (reply, info, "running", &running, error))
    return FALSE;
  if (ret_status != NULL)
    *ret_status = g_strdup (status);
  if (ret_running != NULL)
    *ret_running = running;
  return TRUE;
}

gboolean
qmp_cont (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  return qmp_call (executor, "cont", NULL, -1, cancellable, NULL, error);
}

gboolean
qmp_stop (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  return qmp_call (executor, "stop", NULL, -1, cancellable, NULL, error);
}

gboolean
qmp_quit (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  g_autoptr (GError) local = NULL;

  if (qmp_call (executor, "quit", NULL, -1, cancellable, NULL, &local)
      || g_error_matches (local, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_LOST))
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}

gboolean
qmp_query_name (QmpExecutor *executor, GCancellable *cancellable, char **ret_name, GError **error)
{
  g_autoptr (JsonObject) info = qmp_call_object (executor, "query-name", NULL, cancellable, error);
  const char *name = NULL;

  if (info == NULL)
    return FALSE;
  json_get_string (info, "name", &name);
  *ret_name = g_strdup (name);
  return TRUE;
}

char *
qmp_query_machine_type (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  char *type = qmp_qom_get_string (executor, "/machine", "type", cancellable, error);

  if (type != NULL && g_str_has_suffix (type, "-machine"))
    type[strlen (type) - strlen ("-machine")] = '\0';
  return type;
}

/* A property's value, of the GType `type`; other types are an error that calls it `kind`. */
static JsonNode *
get_property (QmpExecutor *executor, const char *path, const char *property, GType type,
              const char *kind, GCancellable *cancellable, GError **error)
{
  g_autoptr (JsonNode) node = NULL;
  g_autofree char *what = NULL;

  if (!qmp_call (executor, "qom-get",
                 json_args ("path", "s", path, "property", "s", property, NULL), -1, cancellable,
                 &node, error))
    return NULL;
  if (JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == type)
    return g_steal_pointer (&node);
  what = g_strdup_printf ("%s of %s is no %s", property, path, kind);
  qmp_set_unexpected (executor, "qom-get", what, error);
  return NULL;
}

char *
qmp_qom_get_string (QmpExecutor *executor, const char *path, const char *property,
                    GCancellable *cancellable, GError **error)
{
  g_autoptr (JsonNode) node
      = get_property (executor, path, property, G_TYPE_STRING, "string", cancellable, error);

  return node != NULL ? json_node_dup_string (node) : NULL;
}

gboolean
qmp_qom_get_bool (QmpExecutor *executor, const char *path, const char *property,
                  GCancellable *cancellable, gboolean *ret_value, GError **error)
{
  g_autoptr (JsonNode) node
      = get_property (executor, path, property, G_TYPE_BOOLEAN, "boolean", cancellable, error);

  if (node == NULL)
    return FALSE;
  *ret_value = json_node_get_boolean (node);
  return TRUE;
}

gboolean
qmp_qom_get_int (QmpExecutor *executor, const char *path, const char *property,
                 GCancellable *cancellable, gint64 *ret_value, GError **error)
{
  g_autoptr (JsonNode) node
      = get_property (executor, path, property, G_TYPE_INT64, "integer", cancellable, error);

  if (node == NULL)
    return FALSE;
  *ret_value = json_node_get_int (node);
  return TRUE;
}

gboolean
qmp_qom_list_has (QmpExecutor *executor, const char *path, const char *name,
                  GCancellable *cancellable, gboolean *ret_has, GError **error)
{
  g_autoptr (GError) local = NULL;
  g_autoptr (JsonNode) node = NULL;
  JsonArray *list;

  if (!qmp_call (executor, "qom-list", json_args ("path", "s", path, NULL), -1, cancellable, &node,
                 &local))
    {
      if (strcmp (json_client_error_class (local), "DeviceNotFound") == 0)
        {
          *ret_has = FALSE;
          return TRUE;
        }
      g_propagate_error (error, g_steal_pointer (&local));
      return FALSE;
    }
  if (!JSON_NODE_HOLDS_ARRAY (node))
    {
      qmp_set_unexpected (executor, "qom-list", "not a list", error);
      return FALSE;
    }
  list = json_node_get_array (node);
  *ret_has = FALSE;
  for (guint i = 0; i < json_array_get_length (list) && !*ret_has; i++)
    *ret_has
        = g_strcmp0 (json_dig_string (json_array_get_object_or_null (list, i), "name", NULL), name)
          == 0;
  return TRUE;
}
