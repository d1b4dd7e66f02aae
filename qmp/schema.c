/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/schema.h"

#include <string.h>

#include "qmp/json-args.h"

/* A schema that nests arrays or variants in themselves must not run us out of stack, or of time. */
#define MAX_DETOURS 16
#define MAX_STEPS 100000

struct QmpSchema
{
  JsonArray *entries;
  GHashTable *by_name; /* borrowed name -> borrowed JsonObject */
};

/* Every command and argument that qmp/qmp-*.c sends and that not every QEMU has. */
static const char *const needed[] = {
  "block-dirty-bitmap-remove",
  "block-export-add/bitmaps",
  "block-export-add/id",
  "block-export-add/name",
  "block-export-add/node-name",
  "block-export-add/type/nbd",
  "block-export-add/writable",
  "block-export-del/mode/hard",
  "closefd",
  "getfd",
  "migrate-continue/state/pre-switchover",
  "migrate-incoming/uri",
  "migrate-set-capabilities/capabilities/capability/events",
  "migrate-set-capabilities/capabilities/capability/late-block-activate",
  "migrate-set-capabilities/capabilities/capability/pause-before-switchover",
  "migrate-set-parameters/downtime-limit",
  "migrate-set-parameters/max-bandwidth",
  "migrate-set-parameters/tls-authz",
  "migrate-set-parameters/tls-creds",
  "migrate-set-parameters/tls-hostname",
  "migrate/uri",
  "migrate_cancel",
  "announce-self",
  "nbd-server-start/addr/type/fd",
  "nbd-server-start/max-connections",
  "nbd-server-start/tls-authz",
  "nbd-server-start/tls-creds",
  "nbd-server-stop",
  "object-add/qom-type/authz-simple",
  "object-add/qom-type/tls-creds-x509",
  "object-add/identity",
  "object-add/priority",
  "object-add/verify-peer",
  "object-del",
  "qom-get",
  "qom-list",
  "query-block",
  "query-block-exports",
  "query-block-jobs",
  "query-blockstats",
  "query-migrate",
  "query-migrate-parameters",
  "query-named-block-nodes",
  "query-name",
  "query-status",
  "transaction/actions/type/block-dirty-bitmap-add",
  "transaction/actions/type/block-dirty-bitmap-disable",
  "transaction/actions/data/granularity",
};

/* One search. */
typedef struct
{
  QmpSchema *schema;
  guint steps;
} Walk;

QmpSchema *
qmp_schema_new (JsonArray *entries)
{
  QmpSchema *schema = g_new0 (QmpSchema, 1);

  schema->entries = json_array_ref (entries);
  schema->by_name = g_hash_table_new (g_str_hash, g_str_equal);
  for (guint i = 0; i < json_array_get_length (entries); i++)
    {
      JsonObject *entry = json_array_get_object_or_null (entries, i);
      const char *name;

      if (entry != NULL && json_get_string (entry, "name", &name))
        g_hash_table_insert (schema->by_name, (gpointer)name, entry);
    }
  return schema;
}

void
qmp_schema_free (QmpSchema *schema)
{
  if (schema == NULL)
    return;
  g_hash_table_unref (schema->by_name);
  json_array_unref (schema->entries);
  g_free (schema);
}

static JsonObject *
find_type (Walk *walk, JsonObject *referrer, const char *member)
{
  const char *name;

  if (!json_get_string (referrer, member, &name))
    return NULL;
  return g_hash_table_lookup (walk->schema->by_name, name);
}

static gboolean has_path (Walk *walk, JsonObject *type, char **path, guint detours);

/* "members" of an object ("name", "type"), of an alternate ("type"), of an enum ("name"); and
 * "variants" of an object ("type"). */
static gboolean
has_in_members (Walk *walk, JsonArray *members, char **path, guint detours)
{
  for (guint i = 0; i < json_array_get_length (members); i++)
    {
      JsonObject *member = json_array_get_object_or_null (members, i);
      const char *name;

      if (member == NULL)
        continue;
      if (!json_get_string (member, "name", &name))
        {
          if (has_path (walk, find_type (walk, member, "type"), path, detours + 1))
            return TRUE;
        }
      else if (strcmp (name, path[0]) == 0
               && has_path (walk, find_type (walk, member, "type"), path + 1, detours))
        return TRUE;
    }
  return FALSE;
}

static gboolean
has_in_values (JsonArray *values, char **path)
{
  for (guint i = 0; i < json_array_get_length (values); i++)
    if (g_strcmp0 (json_array_get_string_or_null (values, i), path[0]) == 0)
      return path[1] == NULL;
  return FALSE;
}

/* Whether `path` leads on from `type`. */
static gboolean
has_path (Walk *walk, JsonObject *type, char **path, guint detours)
{
  JsonArray *list;

  if (path[0] == NULL)
    return TRUE;
  if (type == NULL || detours > MAX_DETOURS || ++walk->steps > MAX_STEPS)
    return FALSE;
  if (json_object_has_member (type, "element-type"))
    return has_path (walk, find_type (walk, type, "element-type"), path, detours + 1);
  if (json_get_array (type, "members", &list) && has_in_members (walk, list, path, detours))
    return TRUE;
  if (json_get_array (type, "variants", &list) && has_in_members (walk, list, path, detours))
    return TRUE;
  return json_get_array (type, "values", &list) && has_in_values (list, path);
}

gboolean
qmp_schema_has (QmpSchema *schema, const char *path)
{
  g_auto (GStrv) parts = g_strsplit (path, "/", -1);
  JsonObject *command = parts[0] != NULL ? g_hash_table_lookup (schema->by_name, parts[0]) : NULL;
  Walk walk = { .schema = schema };
  const char *kind;

  if (command == NULL || !json_get_string (command, "meta-type", &kind)
      || strcmp (kind, "command") != 0)
    return FALSE;
  return has_path (&walk, find_type (&walk, command, "arg-type"), parts + 1, 0);
}

char **
qmp_schema_missing (QmpSchema *schema)
{
  g_autoptr (GPtrArray) missing = g_ptr_array_new_with_free_func (g_free);

  for (guint i = 0; i < G_N_ELEMENTS (needed); i++)
    if (!qmp_schema_has (schema, needed[i]))
      g_ptr_array_add (missing, g_strdup (needed[i]));
  if (missing->len == 0)
    return NULL;
  g_ptr_array_add (missing, NULL);
  return (char **)g_ptr_array_free (g_steal_pointer (&missing), FALSE);
}
