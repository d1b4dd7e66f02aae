/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/json-args.h"

#include <stdarg.h>

JsonObject *
json_args (const char *name, ...)
{
  JsonObject *object = json_object_new ();
  va_list ap;

  va_start (ap, name);
  for (; name != NULL; name = va_arg (ap, const char *))
    {
      const char *type = va_arg (ap, const char *);
      gpointer value;

      switch (type[0])
        {
        case 'b':
          json_object_set_boolean_member (object, name, va_arg (ap, gboolean));
          continue;
        case 'i':
          json_object_set_int_member (object, name, va_arg (ap, gint64));
          continue;
        case 'd':
          json_object_set_double_member (object, name, va_arg (ap, double));
          continue;
        default:
          break;
        }
      value = va_arg (ap, gpointer);
      if (value == NULL)
        continue;
      if (type[0] == 's')
        json_object_set_string_member (object, name, value);
      else if (type[0] == 'o')
        json_object_set_object_member (object, name, value);
      else if (type[0] == 'a')
        json_object_set_array_member (object, name, value);
      else
        g_error ("json_args: unknown type \"%s\" of \"%s\"", type, name);
    }
  va_end (ap);
  return object;
}

/* The member, where it is a value of `type`. */
static JsonNode *
get_value (JsonObject *object, const char *name, GType type)
{
  JsonNode *node = json_object_get_member (object, name);

  if (node == NULL || !JSON_NODE_HOLDS_VALUE (node) || json_node_get_value_type (node) != type)
    return NULL;
  return node;
}

gboolean
json_get_string (JsonObject *object, const char *name, const char **ret_value)
{
  JsonNode *node = get_value (object, name, G_TYPE_STRING);

  if (node == NULL)
    return FALSE;
  *ret_value = json_node_get_string (node);
  return TRUE;
}

gboolean
json_get_int (JsonObject *object, const char *name, gint64 *ret_value)
{
  JsonNode *node = get_value (object, name, G_TYPE_INT64);

  if (node == NULL)
    return FALSE;
  *ret_value = json_node_get_int (node);
  return TRUE;
}

gboolean
json_get_double (JsonObject *object, const char *name, double *ret_value)
{
  JsonNode *node = get_value (object, name, G_TYPE_DOUBLE);

  if (node == NULL)
    node = get_value (object, name, G_TYPE_INT64);
  if (node == NULL)
    return FALSE;
  *ret_value = json_node_get_double (node);
  return TRUE;
}

gboolean
json_get_bool (JsonObject *object, const char *name, gboolean *ret_value)
{
  JsonNode *node = get_value (object, name, G_TYPE_BOOLEAN);

  if (node == NULL)
    return FALSE;
  *ret_value = json_node_get_boolean (node);
  return TRUE;
}

gboolean
json_get_object (JsonObject *object, const char *name, JsonObject **ret_value)
{
  JsonNode *node = json_object_get_member (object, name);

  if (node == NULL || !JSON_NODE_HOLDS_OBJECT (node))
    return FALSE;
  *ret_value = json_node_get_object (node);
  return TRUE;
}

gboolean
json_get_array (JsonObject *object, const char *name, JsonArray **ret_value)
{
  JsonNode *node = json_object_get_member (object, name);

  if (node == NULL || !JSON_NODE_HOLDS_ARRAY (node))
    return FALSE;
  *ret_value = json_node_get_array (node);
  return TRUE;
}

JsonObject *
json_array_get_object_or_null (JsonArray *array, guint i)
{
  JsonNode *node;

  if (i >= json_array_get_length (array))
    return NULL;
  node = json_array_get_element (array, i);
  return JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

const char *
json_array_get_string_or_null (JsonArray *array, guint i)
{
  JsonNode *node;

  if (i >= json_array_get_length (array))
    return NULL;
  node = json_array_get_element (array, i);
  return json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node) : NULL;
}

const char *
json_dig_string (JsonObject *object, ...)
{
  const char *value = NULL;
  const char *name, *next;
  va_list ap;

  va_start (ap, object);
  name = va_arg (ap, const char *);
  while (name != NULL && object != NULL)
    {
      next = va_arg (ap, const char *);
      if (next == NULL)
        json_get_string (object, name, &value);
      else if (!json_get_object (object, name, &object))
        object = NULL;
      name = next;
    }
  va_end (ap);
  return value;
}
