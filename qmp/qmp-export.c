/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/qmp-export.h"

#include <string.h>

#include "qmp/json-client.h"
#include "qmp/qmp-reply.h"

#define FIRST_WAIT_US 500
#define LONGEST_WAIT_US 20000

void
qmp_export_free (QmpExport *exported)
{
  if (exported == NULL)
    return;
  g_free (exported->id);
  g_free (exported->type);
  g_free (exported->node_name);
  g_free (exported);
}

gboolean
qmp_nbd_server_start_fd (QmpExecutor *executor, const char *fd_name, const char *tls_creds,
                         const char *tls_authz, guint max_connections, GCancellable *cancellable,
                         GError **error)
{
  JsonObject *addr
      = json_args ("type", "s", "fd", "data", "o", json_args ("str", "s", fd_name, NULL), NULL);
  JsonObject *args = json_args ("addr", "o", addr, "tls-creds", "s", tls_creds, "tls-authz", "s",
                                tls_authz, "max-connections", "i", (gint64)max_connections, NULL);

  return qmp_call (executor, "nbd-server-start", args, -1, cancellable, NULL, error);
}

gboolean
qmp_nbd_server_stop (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  g_autoptr (GError) local = NULL;

  /* No command tells whether it runs, so the words must. */
  if (qmp_call (executor, "nbd-server-stop", NULL, -1, cancellable, NULL, &local)
      || qmp_was_refused (local, "not running"))
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}

gboolean
qmp_export_add (QmpExecutor *executor, const char *id, const char *node, const char *name,
                const char *const *bitmaps, GCancellable *cancellable, GError **error)
{
  JsonObject *args = json_args ("type", "s", "nbd", "id", "s", id, "node-name", "s", node, "name",
                                "s", name, "writable", "b", FALSE, NULL);

  if (bitmaps != NULL)
    {
      JsonArray *list = json_array_new ();

      for (; *bitmaps != NULL; bitmaps++)
        json_array_add_string_element (list, *bitmaps);
      json_object_set_array_member (args, "bitmaps", list);
    }
  if (executor->schema != NULL
      && qmp_schema_has (executor->schema, "block-export-add/allow-inactive"))
    json_object_set_boolean_member (args, "allow-inactive", TRUE);
  return qmp_call (executor, "block-export-add", args, -1, cancellable, NULL, error);
}

static gboolean
is_exported (QmpExecutor *executor, const char *id, GCancellable *cancellable,
             gboolean *ret_exported, GError **error)
{
  g_autoptr (GPtrArray) exports = qmp_query_exports (executor, cancellable, error);

  if (exports == NULL)
    return FALSE;
  *ret_exported = FALSE;
  for (guint i = 0; i < exports->len; i++)
    {
      const QmpExport *exported = g_ptr_array_index (exports, i);

      *ret_exported |= strcmp (exported->id, id) == 0;
    }
  return TRUE;
}

static gboolean
wait_deleted (QmpExecutor *executor, const char *id, GCancellable *cancellable, GError **error)
{
  Deadline deadline = deadline_in (executor->call_timeout_ms, cancellable);
  gulong wait_us = FIRST_WAIT_US;
  gboolean there;

  while (is_exported (executor, id, cancellable, &there, error))
    {
      if (!there)
        return TRUE;
      if (!deadline_check (deadline, NULL))
        {
          g_set_error (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_TIMEOUT,
                       "%s: block-export-del: export %s is still there after %" G_GINT64_FORMAT
                       " ms",
                       executor->name, id, executor->call_timeout_ms);
          return FALSE;
        }
      g_usleep (wait_us);
      wait_us = MIN (wait_us * 2, LONGEST_WAIT_US);
    }
  return FALSE;
}

gboolean
qmp_export_del_hard (QmpExecutor *executor, const char *id, GCancellable *cancellable,
                     GError **error)
{
  g_autoptr (GError) local = NULL;
  gboolean there;

  if (qmp_call (executor, "block-export-del", json_args ("id", "s", id, "mode", "s", "hard", NULL),
                -1, cancellable, NULL, &local))
    return wait_deleted (executor, id, cancellable, error);
  if (qmp_was_refused (local, NULL) && is_exported (executor, id, cancellable, &there, NULL)
      && !there)
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}

/* BlockExportInfo */
static gpointer
parse_export (QmpReply reply, JsonObject *object, GError **error)
{
  const char *id, *type, *node;
  gboolean shutting_down;
  QmpExport *exported;

  if (!qmp_reply_string (reply, object, "id", &id, error)
      || !qmp_reply_string (reply, object, "type", &type, error)
      || !qmp_reply_string (reply, object, "node-name", &node, error)
      || !qmp_reply_bool (reply, object, "shutting-down", &shutting_down, error))
    return NULL;
  exported = g_new0 (QmpExport, 1);
  exported->id = g_strdup (id);
  exported->type = g_strdup (type);
  exported->node_name = g_strdup (node);
  exported->shutting_down = shutting_down;
  return exported;
}

GPtrArray *
qmp_query_exports (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  return qmp_call_list (executor, "query-block-exports", parse_export,
                        (GDestroyNotify)qmp_export_free, cancellable, error);
}
