/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/libvirt/virt-move.h"

typedef struct
{
  char *desturi;
  virTypedParameterPtr params;
  int n_params, max_params;
  guint flags;
} Arguments;

static void
arguments_clear (gpointer data)
{
  Arguments *arguments = data;

  g_free (arguments->desturi);
  virTypedParamsFree (arguments->params, arguments->n_params);
}

static gboolean
run_move (virDomainPtr domain, gpointer data, GError **error)
{
  Arguments *arguments = data;

  if (virDomainMigrateToURI3 (domain, arguments->desturi, arguments->params, arguments->n_params,
                              arguments->flags)
      == 0)
    return TRUE;
  virt_set_error ("libvirt's migration of the memory", error);
  return FALSE;
}

static void
add_string (Arguments *arguments, const char *name, const char *value)
{
  if (value)
    virTypedParamsAddString (&arguments->params, &arguments->n_params, &arguments->max_params, name,
                             value);
}

static guint
flags_of (const VirtMove *move)
{
  guint flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER | VIR_MIGRATE_TLS | VIR_MIGRATE_PAUSED
                | VIR_MIGRATE_UNSAFE;

  if (move->persistent)
    flags |= VIR_MIGRATE_PERSIST_DEST;
  return move->auto_converge ? flags | VIR_MIGRATE_AUTO_CONVERGE : flags;
}

VirtCall *
virt_move_begin (const char *uri, const char *uuid, const VirtMove *move)
{
  g_autoptr (VirtDomain) domain = virt_domain_new (uri, uuid, NULL, NULL);
  Arguments *arguments = g_atomic_rc_box_new0 (Arguments);
  VirtCall *call;

  arguments->desturi = g_strdup (move->desturi);
  arguments->flags = flags_of (move);
  add_string (arguments, VIR_MIGRATE_PARAM_URI, move->migrate_uri);
  add_string (arguments, VIR_MIGRATE_PARAM_LISTEN_ADDRESS, move->listen_address);
  add_string (arguments, VIR_MIGRATE_PARAM_TLS_DESTINATION, move->tls_destination);
  add_string (arguments, VIR_MIGRATE_PARAM_DEST_XML, move->xml);
  add_string (arguments, VIR_MIGRATE_PARAM_DEST_NAME, move->name);
  if (move->persistent)
    add_string (arguments, VIR_MIGRATE_PARAM_PERSIST_XML, move->persistent_xml);
  if (move->bandwidth_mib_s > 0)
    virTypedParamsAddULLong (&arguments->params, &arguments->n_params, &arguments->max_params,
                             VIR_MIGRATE_PARAM_BANDWIDTH, move->bandwidth_mib_s);
  call = virt_domain_begin (domain, run_move, arguments, arguments_clear);
  g_atomic_rc_box_release_full (arguments, arguments_clear);
  return call;
}
