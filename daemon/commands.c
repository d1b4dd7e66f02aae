/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/commands.h"
#include "daemon/job.h"

static gboolean
arg_has_type (JsonNode *node, char type)
{
  switch (type)
    {
    case 's':
      return JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING;
    case 'i':
      return JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_INT64
             && json_node_get_int (node) >= 0;
    case 'b':
      return JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_BOOLEAN;
    case 'o':
      return JSON_NODE_HOLDS_OBJECT (node);
    case 'a':
      return JSON_NODE_HOLDS_ARRAY (node);
    default:
      return FALSE;
    }
}

gboolean
commands_check_args (JsonObject *args, const char *spec, GError **error)
{
  g_auto (GStrv) words = g_strsplit (spec, " ", -1);
  guint known = 0;

  for (guint i = 0; words[i] && *words[i]; i++)
    {
      char *type = strchr (words[i], ':');
      JsonNode *node;

      *type++ = '\0';
      node = json_object_get_member (args, words[i]);
      if (node)
        known++;
      if (node ? !arg_has_type (node, type[0]) : type[1] != '?')
        {
          g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE, "argument \"%s\" is %s", words[i],
                       node ? "malformed" : "missing");
          return FALSE;
        }
    }
  if (known == json_object_get_size (args))
    return TRUE;
  g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE, "an unknown argument; known are: %s", spec);
  return FALSE;
}
