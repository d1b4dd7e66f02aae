/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/qmp-reply.h"

#include <string.h>

#include "qmp/json-client.h"

static gboolean
lacks (QmpReply reply, const char *kind, const char *name, GError **error)
{
  g_autofree char *what = g_strdup_printf ("no %s \"%s\"", kind, name);

  qmp_set_unexpected (reply.executor, reply.command, what, error);
  return FALSE;
}

gboolean
qmp_reply_string (QmpReply reply, JsonObject *object, const char *name, const char **ret_value,
                  GError **error)
{
  return json_get_string (object, name, ret_value) || lacks (reply, "string", name, error);
}

gboolean
qmp_reply_count (QmpReply reply, JsonObject *object, const char *name, gint64 *ret_value,
                 GError **error)
{
  gint64 value;

  if (!json_get_int (object, name, &value) || value < 0)
    return lacks (reply, "natural number", name, error);
  *ret_value = value;
  return TRUE;
}

gboolean
qmp_reply_bool (QmpReply reply, JsonObject *object, const char *name, gboolean *ret_value,
                GError **error)
{
  return json_get_bool (object, name, ret_value) || lacks (reply, "boolean", name, error);
}

gboolean
qmp_reply_object (QmpReply reply, JsonObject *object, const char *name, JsonObject **ret_value,
                  GError **error)
{
  return json_get_object (object, name, ret_value) || lacks (reply, "object", name, error);
}

GPtrArray *
qmp_call_list (QmpExecutor *executor, const char *command, QmpParseFunc parse,
               GDestroyNotify free_func, GCancellable *cancellable, GError **error)
{
  QmpReply reply = { executor, command };
  g_autoptr (JsonArray) list = qmp_call_array (executor, command, NULL, cancellable, error);
  g_autoptr (GPtrArray) parsed = g_ptr_array_new_with_free_func (free_func);

  if (list == NULL)
    return NULL;
  for (guint i = 0; i < json_array_get_length (list); i++)
    {
      JsonObject *object = json_array_get_object_or_null (list, i);
      gpointer item;

      if (object == NULL)
        {
          qmp_set_unexpected (executor, command, "not a list of objects", error);
          return NULL;
        }
      item = parse (reply, object, error);
      if (item == NULL)
        return NULL;
      g_ptr_array_add (parsed, item);
    }
  return g_steal_pointer (&parsed);
}

gboolean
qmp_was_refused (const GError *error, const char *text)
{
  return g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_REPLY)
         && (text == NULL || strstr (error->message, text) != NULL);
}
