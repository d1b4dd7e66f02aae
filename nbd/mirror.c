/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/mirror.h"
#include "nbd/mirror-pass.h"
#include "nbd/mirror-store.h"
#include "nbd/nbd-error.h"
#include "nbd/pull.h"

#define DEFAULT_IN_FLIGHT (4 * MIRROR_REQUEST_SIZE)

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

/* Sizes may differ by the padding to a whole sector that QEMU adds to images of odd sizes. */
static gboolean
whole_check_size (const MirrorPassSpec *spec, guint64 size, GError **error)
{
  const NbdTarget *target = spec->target;

  if ((size + 511) / 512 == (target->size + 511) / 512)
    return TRUE;
  g_set_error (error, NBD_ERROR, NBD_ERROR_SIZE,
               "%s has %" G_GUINT64_FORMAT " bytes, but %s has %" G_GUINT64_FORMAT
               ": the sizes have to be the same",
               nbd_client_get_name (spec->client), size, target->name, target->size);
  return FALSE;
}

/* The padding of a target that is longer than an export of an odd size. */
static gboolean
whole_zero_padding (const MirrorPassSpec *spec, GError **error)
{
  guint64 size = spec->target->size;

  return spec->end >= size || mirror_store_zero (spec, spec->end, size - spec->end, error);
}

gboolean
mirror_pass_run_whole (MirrorPassSpec *spec, guint64 *ret_bytes, GError **error)
{
  const NbdExport *export = nbd_client_get_export (spec->client);
  gboolean seed = spec->bitmap_context < 0;

  spec->start = 0;
  spec->end = export->size;
  spec->block = MAX (export->min_block, 512);
  spec->zeroed = seed && spec->target->is_zero;
  spec->state->todo = 0;
  spec->state->done = 0;
  spec->state->size = export->size;
  return whole_check_size (spec, export->size, error) && (!seed || whole_zero_padding (spec, error))
         && mirror_pass_run (spec, ret_bytes, error);
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

gboolean
mirror_run_pass (Mirror *mirror, const MirrorServer *server, const char *export_name,
                 const char *bitmap, gint64 timeout_ms, GCancellable *cancellable,
                 guint64 *ret_bytes, GError **error)
{
  g_auto (GStrv) contexts = pull_get_contexts (bitmap);
  int allocation = bitmap != NULL ? 1 : 0;
  g_autoptr (NbdClient) client = mirror_connect (server, export_name, (const char *const *)contexts,
                                                 deadline_in (timeout_ms, cancellable), error);
  MirrorPassSpec spec = { .client = client,
                          .target = mirror->target,
                          .limit = mirror->limit,
                          .state = &mirror->state,
                          .bitmap_context = bitmap != NULL ? 0 : -1,
                          .timeout_ms = timeout_ms,
                          .cancellable = cancellable };

  if (client == NULL || !pull_check_bitmap (client, bitmap, error))
    return FALSE;
  spec.allocation_context
      = nbd_client_get_export (client)->has_context[allocation] ? allocation : -1;
  if (!mirror_pass_run_whole (&spec, ret_bytes, error))
    return FALSE;
  nbd_client_disconnect (client);
  return TRUE;
}
