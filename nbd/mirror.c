/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/mirror.h"
#include "nbd/mirror-pass.h"
#include "nbd/nbd-error.h"

#define DEFAULT_IN_FLIGHT (4 * MIRROR_REQUEST_SIZE)
#define BITMAP_PREFIX "qemu:dirty-bitmap:"
#define ALLOCATION "base:allocation"

struct Mirror
{
  NbdTarget *target;
  RateLimit *limit;
  MirrorState state;
};

Mirror *
mirror_new (NbdTarget *target, RateLimit *limit)
{
  Mirror *mirror = g_new0 (Mirror, 1);

  mirror->target = target;
  mirror->limit = limit;
  mirror->state.in_flight = DEFAULT_IN_FLIGHT;
  mirror->state.size = target->size;
  return mirror;
}

void
mirror_free (Mirror *mirror)
{
  g_free (mirror);
}

void
mirror_set_in_flight (Mirror *mirror, gsize bytes)
{
  mirror->state.in_flight = MIN (bytes, MIRROR_MAX_IN_FLIGHT);
}

void
mirror_get_progress (Mirror *mirror, MirrorProgress *ret_progress)
{
  *ret_progress = (MirrorProgress){ .size = mirror->state.size,
                                    .todo = mirror->state.todo,
                                    .done = mirror->state.done,
                                    .read_bytes = mirror->state.read_bytes,
                                    .zero_bytes = mirror->state.zero_bytes };
}

static NbdClient *
mirror_connect (const MirrorServer *server, const char *export_name, const char *const *contexts,
                Deadline deadline, GError **error)
{
  NbdHandshake handshake = { .export_name = export_name,
                             .credentials = server->credentials,
                             .tls_name = server->tls_name,
                             .contexts = contexts };
  Channel *channel;
  NbdExport export;

  g_return_val_if_fail (server->credentials != NULL, NULL);
  channel = channel_connect_tcp (server->host, server->port, deadline, error);
  if (channel == NULL)
    return NULL;
  channel = nbd_handshake_run (channel, &handshake, deadline, &export, error);
  if (channel == NULL)
    return NULL;
  return nbd_client_new (channel, &export, export_name);
}

static gboolean
mirror_check_bitmap (NbdClient *client, const char *bitmap, GError **error)
{
  if (bitmap == NULL || nbd_client_get_export (client)->has_context[0])
    return TRUE;
  g_set_error (error, NBD_ERROR, NBD_ERROR_NO_CONTEXT,
               "%s: the server does not offer the dirty bitmap \"%s\" with it",
               nbd_client_get_name (client), bitmap);
  return FALSE;
}

gboolean
mirror_run_pass (Mirror *mirror, const MirrorServer *server, const char *export_name,
                 const char *bitmap, gint64 timeout_ms, GCancellable *cancellable,
                 guint64 *ret_bytes, GError **error)
{
  g_autofree char *bitmap_context = g_strconcat (BITMAP_PREFIX, bitmap, NULL);
  /* With a bitmap base:allocation is asked for, too: ranges that the guest has discarded since are
   * not read but zeroed. */
  const char *seed_contexts[] = { ALLOCATION, NULL };
  const char *pass_contexts[] = { bitmap_context, ALLOCATION, NULL };
  int allocation = bitmap != NULL ? 1 : 0;
  g_autoptr (NbdClient) client
      = mirror_connect (server, export_name, bitmap != NULL ? pass_contexts : seed_contexts,
                        deadline_in (timeout_ms, cancellable), error);
  MirrorPassSpec spec = { .client = client,
                          .target = mirror->target,
                          .limit = mirror->limit,
                          .state = &mirror->state,
                          .bitmap_context = bitmap != NULL ? 0 : -1,
                          .timeout_ms = timeout_ms,
                          .cancellable = cancellable };

  if (client == NULL || !mirror_check_bitmap (client, bitmap, error))
    return FALSE;
  spec.allocation_context
      = nbd_client_get_export (client)->has_context[allocation] ? allocation : -1;
  if (!mirror_pass_run (&spec, ret_bytes, error))
    return FALSE;
  nbd_client_disconnect (client);
  return TRUE;
}
