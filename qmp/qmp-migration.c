/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/qmp-migration.h"

#include <string.h>

#include "qmp/qmp-reply.h"

void
qmp_migration_free (QmpMigration *migration)
{
  if (migration == NULL)
    return;
  g_free (migration->status);
  g_free (migration->error_desc);
  g_strfreev (migration->blocked_reasons);
  g_free (migration);
}

/* -1 where it is absent; negative numbers are none that QEMU sends. */
static gboolean
parse_optional_count (QmpReply reply, JsonObject *object, const char *name, gint64 *ret_value,
                      GError **error)
{
  *ret_value = -1;
  return !json_object_has_member (object, name)
         || qmp_reply_count (reply, object, name, ret_value, error);
}

/* MigrationStats */
static gboolean
parse_ram (QmpReply reply, QmpMigration *migration, JsonObject *info, GError **error)
{
  JsonObject *ram;

  migration->ram_transferred = migration->ram_remaining = migration->ram_total = -1;
  migration->dirty_pages_rate = migration->page_size = -1;
  migration->mbps = -1;
  if (!json_object_has_member (info, "ram"))
    return TRUE;
  if (!qmp_reply_object (reply, info, "ram", &ram, error)
      || !qmp_reply_count (reply, ram, "transferred", &migration->ram_transferred, error)
      || !qmp_reply_count (reply, ram, "remaining", &migration->ram_remaining, error)
      || !qmp_reply_count (reply, ram, "total", &migration->ram_total, error)
      || !parse_optional_count (reply, ram, "dirty-pages-rate", &migration->dirty_pages_rate, error)
      || !parse_optional_count (reply, ram, "page-size", &migration->page_size, error))
    return FALSE;
  json_get_double (ram, "mbps", &migration->mbps);
  return TRUE;
}

static gboolean
parse_blocked (QmpReply reply, QmpMigration *migration, JsonObject *info, GError **error)
{
  g_autoptr (GPtrArray) reasons = g_ptr_array_new_with_free_func (g_free);
  JsonArray *list;

  if (!json_object_has_member (info, "blocked-reasons"))
    return TRUE;
  if (!json_get_array (info, "blocked-reasons", &list))
    {
      qmp_set_unexpected (reply.executor, reply.command, "blocked-reasons is no list", error);
      return FALSE;
    }
  for (guint i = 0; i < json_array_get_length (list); i++)
    {
      const char *reason = json_array_get_string_or_null (list, i);

      g_ptr_array_add (reasons, g_strdup (reason != NULL ? reason : "(no reason given)"));
    }
  if (reasons->len == 0)
    return TRUE;
  g_ptr_array_add (reasons, NULL);
  migration->blocked_reasons = (char **)g_ptr_array_free (g_steal_pointer (&reasons), FALSE);
  return TRUE;
}

QmpMigration *
qmp_query_migrate (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  QmpReply reply = { executor, "query-migrate" };
  g_autoptr (JsonObject) info = qmp_call_object (executor, reply.command, NULL, cancellable, error);
  g_autoptr (QmpMigration) migration = g_new0 (QmpMigration, 1);
  const char *status = "none";

  if (info == NULL)
    return NULL;
  if ((json_object_has_member (info, "status")
       && !qmp_reply_string (reply, info, "status", &status, error))
      || !parse_ram (reply, migration, info, error)
      || !parse_optional_count (reply, info, "total-time", &migration->total_time_ms, error)
      || !parse_optional_count (reply, info, "downtime", &migration->downtime_ms, error)
      || !parse_optional_count (reply, info, "expected-downtime", &migration->expected_downtime_ms,
                                error)
      || !parse_blocked (reply, migration, info, error))
    return NULL;
  migration->status = g_strdup (status);
  migration->error_desc = g_strdup (json_dig_string (info, "error-desc", NULL));
  return g_steal_pointer (&migration);
}

gboolean
qmp_migrate_set_capabilities (QmpExecutor *executor, const char *const *names, gboolean state,
                              GCancellable *cancellable, GError **error)
{
  JsonArray *list = json_array_new ();

  for (; *names != NULL; names++)
    json_array_add_object_element (
        list, json_args ("capability", "s", *names, "state", "b", state, NULL));
  return qmp_call (executor, "migrate-set-capabilities",
                   json_args ("capabilities", "a", list, NULL), -1, cancellable, NULL, error);
}

gboolean
qmp_migrate_set_parameters (QmpExecutor *executor, JsonObject *parameters,
                            GCancellable *cancellable, GError **error)
{
  return qmp_call (executor, "migrate-set-parameters", parameters, -1, cancellable, NULL, error);
}

JsonObject *
qmp_query_migrate_parameters (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  return qmp_call_object (executor, "query-migrate-parameters", NULL, cancellable, error);
}

/* The first text that `told` has otherwise, or NULL. */
static const char *
find_difference (JsonObject *wanted, JsonObject *told)
{
  g_autoptr (GList) names = json_object_get_members (wanted);

  for (GList *i = names; i != NULL; i = i->next)
    {
      const char *want, *have = "";

      if (!json_get_string (wanted, i->data, &want))
        continue;
      json_get_string (told, i->data, &have);
      if (!g_str_equal (want, have))
        return i->data;
    }
  return NULL;
}

gboolean
qmp_migrate_ensure_parameters (QmpExecutor *executor, JsonObject *parameters,
                               GCancellable *cancellable, GError **error)
{
  g_autoptr (JsonObject) wanted = json_object_ref (parameters);
  g_autoptr (JsonObject) told = NULL;
  const char *differs;

  if (!qmp_migrate_set_parameters (executor, parameters, cancellable, error))
    return FALSE;
  told = qmp_query_migrate_parameters (executor, cancellable, error);
  if (told == NULL)
    return FALSE;
  differs = find_difference (wanted, told);
  if (differs == NULL)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED,
               "%s: QEMU took the migration parameter %s but doesn't have it", executor->name,
               differs);
  return FALSE;
}

gboolean
qmp_migrate (QmpExecutor *executor, const char *uri, GCancellable *cancellable, GError **error)
{
  return qmp_call (executor, "migrate", json_args ("uri", "s", uri, NULL), -1, cancellable, NULL,
                   error);
}

gboolean
qmp_migrate_incoming (QmpExecutor *executor, const char *uri, GCancellable *cancellable,
                      GError **error)
{
  return qmp_call (executor, "migrate-incoming", json_args ("uri", "s", uri, NULL), -1, cancellable,
                   NULL, error);
}

gboolean
qmp_migrate_continue (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  return qmp_call (executor, "migrate-continue", json_args ("state", "s", "pre-switchover", NULL),
                   -1, cancellable, NULL, error);
}

gboolean
qmp_migrate_cancel (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  return qmp_call (executor, "migrate_cancel", NULL, -1, cancellable, NULL, error);
}

gboolean
qmp_announce_self (QmpExecutor *executor, GCancellable *cancellable, GError **error)
{
  /* QEMU's own defaults after a migration (announce-initial and so on), in ms. */
  JsonObject *args = json_args ("initial", "i", (gint64)50, "max", "i", (gint64)550, "rounds", "i",
                                (gint64)5, "step", "i", (gint64)100, NULL);

  return qmp_call (executor, "announce-self", args, -1, cancellable, NULL, error);
}
