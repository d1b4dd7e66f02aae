/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/qmp-bitmap.h"

#include "qmp/qmp-reply.h"

static void
append_add (JsonArray *actions, const QmpBitmapRef *bitmap)
{
  JsonObject *data = json_args ("node", "s", bitmap->node, "name", "s", bitmap->name, "granularity",
                                "i", (gint64)bitmap->granularity, NULL);

  json_array_add_object_element (
      actions, json_args ("type", "s", "block-dirty-bitmap-add", "data", "o", data, NULL));
}

static void
append_disable (JsonArray *actions, const QmpBitmapRef *bitmap)
{
  JsonObject *data = json_args ("node", "s", bitmap->node, "name", "s", bitmap->name, NULL);

  json_array_add_object_element (
      actions, json_args ("type", "s", "block-dirty-bitmap-disable", "data", "o", data, NULL));
}

static gboolean
run_transaction (QmpExecutor *executor, JsonArray *actions, GCancellable *cancellable,
                 GError **error)
{
  return qmp_call (executor, "transaction", json_args ("actions", "a", actions, NULL), -1,
                   cancellable, NULL, error);
}

gboolean
qmp_bitmaps_add (QmpExecutor *executor, const QmpBitmapRef *bitmaps, gsize n_bitmaps,
                 GCancellable *cancellable, GError **error)
{
  JsonArray *actions = json_array_new ();

  for (gsize i = 0; i < n_bitmaps; i++)
    append_add (actions, &bitmaps[i]);
  return run_transaction (executor, actions, cancellable, error);
}

gboolean
qmp_bitmaps_rotate (QmpExecutor *executor, const QmpBitmapRef *add, const QmpBitmapRef *disable,
                    gsize n, GCancellable *cancellable, GError **error)
{
  JsonArray *actions = json_array_new ();

  for (gsize i = 0; i < n; i++)
    {
      append_add (actions, &add[i]);
      append_disable (actions, &disable[i]);
    }
  return run_transaction (executor, actions, cancellable, error);
}

gboolean
qmp_bitmaps_disable (QmpExecutor *executor, const QmpBitmapRef *bitmaps, gsize n_bitmaps,
                     GCancellable *cancellable, GError **error)
{
  JsonArray *actions = json_array_new ();

  for (gsize i = 0; i < n_bitmaps; i++)
    append_disable (actions, &bitmaps[i]);
  return run_transaction (executor, actions, cancellable, error);
}

/* Of one node of query-named-block-nodes. */
static gboolean
has_bitmap (JsonObject *node, const char *name)
{
  JsonArray *bitmaps;

  if (!json_get_array (node, "dirty-bitmaps", &bitmaps))
    return FALSE;
  for (guint i = 0; i < json_array_get_length (bitmaps); i++)
    if (g_strcmp0 (json_dig_string (json_array_get_object_or_null (bitmaps, i), "name", NULL), name)
        == 0)
      return TRUE;
  return FALSE;
}

/* query-named-block-nodes knows every node, also one that no device uses any more. */
static gboolean
is_absent (QmpExecutor *executor, const char *node_name, const char *name,
           GCancellable *cancellable)
{
  g_autoptr (JsonArray) nodes = qmp_call_array (
      executor, "query-named-block-nodes", json_args ("flat", "b", TRUE, NULL), cancellable, NULL);

  if (nodes == NULL)
    return FALSE;
  for (guint i = 0; i < json_array_get_length (nodes); i++)
    {
      JsonObject *node = json_array_get_object_or_null (nodes, i);

      if (g_strcmp0 (json_dig_string (node, "node-name", NULL), node_name) == 0)
        return !has_bitmap (node, name);
    }
  return TRUE;
}

gboolean
qmp_bitmap_remove (QmpExecutor *executor, const char *node, const char *name,
                   GCancellable *cancellable, GError **error)
{
  g_autoptr (GError) local = NULL;

  if (qmp_call (executor, "block-dirty-bitmap-remove",
                json_args ("node", "s", node, "name", "s", name, NULL), -1, cancellable, NULL,
                &local))
    return TRUE;
  if (qmp_was_refused (local, NULL) && is_absent (executor, node, name, cancellable))
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}
