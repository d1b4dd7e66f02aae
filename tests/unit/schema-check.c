/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/schema-check.h"

#include <string.h>

static char *check_value (JsonArray *schema, const char *type, JsonNode *value, const char *where);

static JsonObject *
find_entry (JsonArray *schema, const char *name)
{
  for (guint i = 0; i < json_array_get_length (schema); i++)
    {
      JsonObject *entry = json_array_get_object_element (schema, i);

      if (strcmp (json_object_get_string_member (entry, "name"), name) == 0)
        return entry;
    }
  return NULL;
}

/* The arrays of types are our own data file: no need to distrust it. */
static JsonObject *
find_named (JsonArray *list, const char *key, const char *name)
{
  for (guint i = 0; list != NULL && i < json_array_get_length (list); i++)
    {
      JsonObject *item = json_array_get_object_element (list, i);

      if (g_strcmp0 (json_object_get_string_member_with_default (item, key, NULL), name) == 0)
        return item;
    }
  return NULL;
}

static JsonArray *
get_list (JsonObject *type, const char *key)
{
  return json_object_has_member (type, key) ? json_object_get_array_member (type, key) : NULL;
}

/* The type that the tag of a flat union selects; NULL for none. */
static JsonObject *
find_variant (JsonArray *schema, JsonObject *type, JsonObject *value)
{
  const char *tag = json_object_get_string_member_with_default (type, "tag", NULL);
  const char *choice
      = tag != NULL ? json_object_get_string_member_with_default (value, tag, NULL) : NULL;
  JsonObject *variant
      = choice != NULL ? find_named (get_list (type, "variants"), "case", choice) : NULL;

  return variant != NULL ? find_entry (schema, json_object_get_string_member (variant, "type"))
                         : NULL;
}

static char *
check_present (JsonArray *members, JsonObject *value, const char *where)
{
  for (guint i = 0; members != NULL && i < json_array_get_length (members); i++)
    {
      JsonObject *member = json_array_get_object_element (members, i);
      const char *name = json_object_get_string_member (member, "name");

      if (!json_object_has_member (member, "default") && !json_object_has_member (value, name))
        return g_strdup_printf ("%s: parameter '%s' is missing", where, name);
    }
  return NULL;
}

static char *
check_object (JsonArray *schema, JsonObject *type, JsonNode *node, const char *where)
{
  JsonObject *value, *variant;
  JsonArray *members = get_list (type, "members"), *more;
  g_autoptr (GList) names = NULL;
  char *wrong;

  if (!JSON_NODE_HOLDS_OBJECT (node))
    return g_strdup_printf ("%s: an object is expected", where);
  value = json_node_get_object (node);
  variant = find_variant (schema, type, value);
  more = variant != NULL ? get_list (variant, "members") : NULL;
  if ((wrong = check_present (members, value, where)) != NULL
      || (wrong = check_present (more, value, where)) != NULL)
    return wrong;
  names = json_object_get_members (value);
  for (GList *l = names; l != NULL; l = l->next)
    {
      g_autofree char *path = g_strdup_printf ("%s/%s", where, (const char *)l->data);
      JsonObject *member = find_named (members, "name", l->data);

      if (member == NULL)
        member = find_named (more, "name", l->data);
      if (member == NULL)
        return g_strdup_printf ("%s: parameter '%s' is unexpected", where, (const char *)l->data);
      wrong = check_value (schema, json_object_get_string_member (member, "type"),
                           json_object_get_member (value, l->data), path);
      if (wrong != NULL)
        return wrong;
    }
  return NULL;
}

static char *
check_array (JsonArray *schema, JsonObject *type, JsonNode *node, const char *where)
{
  JsonArray *value;

  if (!JSON_NODE_HOLDS_ARRAY (node))
    return g_strdup_printf ("%s: an array is expected", where);
  value = json_node_get_array (node);
  for (guint i = 0; i < json_array_get_length (value); i++)
    {
      char *wrong = check_value (schema, json_object_get_string_member (type, "element-type"),
                                 json_array_get_element (value, i), where);

      if (wrong != NULL)
        return wrong;
    }
  return NULL;
}

static char *
check_enum (JsonObject *type, JsonNode *node, const char *where)
{
  JsonArray *values = json_object_get_array_member (type, "values");

  if (json_node_get_value_type (node) != G_TYPE_STRING)
    return g_strdup_printf ("%s: a string is expected", where);
  for (guint i = 0; i < json_array_get_length (values); i++)
    if (strcmp (json_array_get_string_element (values, i), json_node_get_string (node)) == 0)
      return NULL;
  return g_strdup_printf ("%s: '%s' is no possible value", where, json_node_get_string (node));
}

static char *
check_builtin (JsonObject *type, JsonNode *node, const char *where)
{
  const char *kind = json_object_get_string_member (type, "json-type");
  GType value = json_node_get_value_type (node);
  gboolean good;

  if (strcmp (kind, "string") == 0)
    good = value == G_TYPE_STRING;
  else if (strcmp (kind, "int") == 0)
    good = value == G_TYPE_INT64;
  else if (strcmp (kind, "number") == 0)
    good = value == G_TYPE_INT64 || value == G_TYPE_DOUBLE;
  else if (strcmp (kind, "boolean") == 0)
    good = value == G_TYPE_BOOLEAN;
  else if (strcmp (kind, "null") == 0)
    good = JSON_NODE_HOLDS_NULL (node);
  else
    good = TRUE; /* "value": any */
  return good ? NULL : g_strdup_printf ("%s: a value of type %s is expected", where, kind);
}

static char *
check_alternate (JsonArray *schema, JsonObject *type, JsonNode *node, const char *where)
{
  JsonArray *members = json_object_get_array_member (type, "members");
  g_autofree char *wrong = NULL;

  for (guint i = 0; i < json_array_get_length (members); i++)
    {
      JsonObject *member = json_array_get_object_element (members, i);

      g_free (wrong);
      wrong = check_value (schema, json_object_get_string_member (member, "type"), node, where);
      if (wrong == NULL)
        return NULL;
    }
  return g_steal_pointer (&wrong);
}

static char *
check_value (JsonArray *schema, const char *type_name, JsonNode *value, const char *where)
{
  JsonObject *type = find_entry (schema, type_name);
  const char *meta = json_object_get_string_member (type, "meta-type");

  if (strcmp (meta, "object") == 0)
    return check_object (schema, type, value, where);
  if (strcmp (meta, "array") == 0)
    return check_array (schema, type, value, where);
  if (strcmp (meta, "enum") == 0)
    return check_enum (type, value, where);
  if (strcmp (meta, "alternate") == 0)
    return check_alternate (schema, type, value, where);
  return check_builtin (type, value, where);
}

static JsonObject *
find_command (JsonArray *schema, const char *command)
{
  JsonObject *entry = find_entry (schema, command);

  if (entry == NULL || strcmp (json_object_get_string_member (entry, "meta-type"), "command") != 0)
    return NULL;
  return entry;
}

char *
schema_check_command (JsonArray *schema, const char *command, JsonObject *args)
{
  JsonObject *entry = find_command (schema, command);
  g_autoptr (JsonObject) none = json_object_new ();
  g_autoptr (JsonNode) node = json_node_init_object (json_node_alloc (), args ? args : none);

  if (entry == NULL)
    return g_strdup_printf ("The command %s has not been found", command);
  return check_value (schema, json_object_get_string_member (entry, "arg-type"), node, command);
}

const char *
schema_check_returns (JsonArray *schema, const char *command)
{
  JsonObject *entry = find_command (schema, command);

  return entry != NULL ? json_object_get_string_member_with_default (entry, "x-returns", "object")
                       : NULL;
}
