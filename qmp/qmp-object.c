/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/qmp-object.h"

#include "qmp/qmp-machine.h"
#include "qmp/qmp-reply.h"

/* NORMAL alone lets TLS 1.0 and 1.1 in. */
#define TLS_PRIORITY "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1"

gboolean
qmp_object_add (QmpExecutor *executor, JsonObject *object, GCancellable *cancellable,
                GError **error)
{
  return qmp_call (executor, "object-add", object, -1, cancellable, NULL, error);
}

gboolean
qmp_object_del (QmpExecutor *executor, const char *id, GCancellable *cancellable, GError **error)
{
  g_autoptr (GError) local = NULL;
  gboolean there;

  if (qmp_call (executor, "object-del", json_args ("id", "s", id, NULL), -1, cancellable, NULL,
                &local))
    return TRUE;
  if (qmp_was_refused (local, NULL)
      && qmp_qom_list_has (executor, "/objects", id, cancellable, &there, NULL) && !there)
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}

gboolean
qmp_tls_creds_add (QmpExecutor *executor, const char *id, const char *dir, const char *endpoint,
                   GCancellable *cancellable, GError **error)
{
  JsonObject *object
      = json_args ("qom-type", "s", "tls-creds-x509", "id", "s", id, "dir", "s", dir, "endpoint",
                   "s", endpoint, "verify-peer", "b", TRUE, "priority", "s", TLS_PRIORITY, NULL);

  return qmp_object_add (executor, object, cancellable, error);
}

gboolean
qmp_authz_add (QmpExecutor *executor, const char *id, const char *identity,
               GCancellable *cancellable, GError **error)
{
  JsonObject *object
      = json_args ("qom-type", "s", "authz-simple", "id", "s", id, "identity", "s", identity, NULL);

  return qmp_object_add (executor, object, cancellable, error);
}

gboolean
qmp_getfd (QmpExecutor *executor, const char *name, int fd, GCancellable *cancellable,
           GError **error)
{
  return qmp_call (executor, "getfd", json_args ("fdname", "s", name, NULL), fd, cancellable, NULL,
                   error);
}

gboolean
qmp_closefd (QmpExecutor *executor, const char *name, GCancellable *cancellable, GError **error)
{
  g_autoptr (GError) local = NULL;

  /* No command lists the descriptors, so the words must tell. */
  if (qmp_call (executor, "closefd", json_args ("fdname", "s", name, NULL), -1, cancellable, NULL,
                &local)
      || qmp_was_refused (local, "not found"))
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}
