/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/mirror-pass-private.h"
#include "nbd/mirror-store.h"
#include "nbd/mirror.h"

static void
pass_request_free (MirrorPass *pass, PassRequest *own)
{
  if (own->request.data != NULL)
    buffer_pool_give (pass->pool, own->request.data, own->request.length);
  nbd_request_clear (&own->request);
  g_free (own);
}

/* Storing may have taken its time: that is not the server's fault. */
void
pass_count_done (MirrorPass *pass, guint64 bytes)
{
  pass->progress_at = g_get_monotonic_time ();
  pass->done += bytes;
  pass->spec.state->done += bytes;
  pass->spec.state->progress_at = pass->progress_at;
}

gboolean
pass_fail_target (MirrorPass *pass, GError **error)
{
  gboolean cancelled = error != NULL && g_error_matches (*error, G_IO_ERROR, G_IO_ERROR_CANCELLED);

  if (pass->spec.memo != NULL && !cancelled)
    pass->spec.memo->target_failed = TRUE;
  return FALSE;
}

/* Answers */

static gboolean
pass_on_read (MirrorPass *pass, const PassRequest *own, GError **error)
{
  const NbdRequest *request = &own->request;
  MirrorState *state = pass->spec.state;

  pass->read_cost -= own->cost;
  pass->n_reads--;
  if (pass->spec.flight != NULL)
    in_flight_answered (pass->spec.flight, request->length,
                        g_get_monotonic_time () - own->asked_at);
  state->read_bytes += request->length - request->hole_bytes;
  state->zero_bytes += request->hole_bytes;
  if (!mirror_store_data (&pass->spec, request, error))
    return pass_fail_target (pass, error);
  settle_line_end (pass->line, own->piece);
  pass_count_done (pass, request->length);
  return TRUE;
}

static void
pass_tell_todo (MirrorPass *pass)
{
  guint64 todo = extent_scan_get_read_bytes (pass->scan) + extent_scan_get_zero_bytes (pass->scan);

  pass->spec.state->todo += todo - pass->todo;
  pass->todo = todo;
}

static void
pass_on_status (MirrorPass *pass, const PassRequest *own)
{
  const MirrorPassSpec *spec = &pass->spec;
  GArray *const *extents = own->request.extents;

  pass->status_cost -= own->cost;
  extent_scan_add_reply (pass->scan, own->request.offset,
                         spec->bitmap_context < 0 ? NULL : extents[spec->bitmap_context],
                         spec->allocation_context < 0 ? NULL : extents[spec->allocation_context]);
  pass_tell_todo (pass);
}

/* Where the next request may begin: a whole block, from which another pass can go on. */
static guint64
pass_next_offset (const MirrorPass *pass)
{
  guint64 next
      = pass->piece.length > 0 ? pass->piece.offset : extent_scan_get_position (pass->scan);

  return next < pass->spec.end ? next - next % pass->spec.block : next;
}

static void
pass_tell_position (MirrorPass *pass)
{
  const MirrorObserver *observer = pass->spec.observer;
  guint64 position = settle_line_get_position (pass->line, pass_next_offset (pass));

  if (position <= pass->position)
    return;
  pass->position = position;
  if (observer != NULL && observer->settled != NULL)
    observer->settled (pass->spec.user_data, position);
}

static gboolean
pass_on_reply (MirrorPass *pass, PassRequest *own, GError **error)
{
  gboolean good = own->request.error == NULL;

  if (!good)
    g_propagate_error (error, g_steal_pointer (&own->request.error));
  else if (own->request.command == NBD_CMD_READ)
    good = pass_on_read (pass, own, error);
  else
    pass_on_status (pass, own);
  pass_request_free (pass, own);
  return good;
}

/* The loop */

static gboolean
pass_timed_out (MirrorPass *pass, GError **error)
{
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
               "%s: no progress in %" G_GINT64_FORMAT ".%" G_GINT64_FORMAT
               " s, at offset %" G_GUINT64_FORMAT,
               nbd_client_get_name (pass->spec.client), pass->spec.timeout_ms / 1000,
               pass->spec.timeout_ms % 1000 / 100, pass->piece.offset);
  return FALSE;
}

/* The server has time as long as it gets on, and while nothing was asked of it. */
static gboolean
pass_wait (MirrorPass *pass, GError **error)
{
  NbdClient *client = pass->spec.client;
  guint64 progress = nbd_client_get_progress (client);
  gint64 now = g_get_monotonic_time ();
  gint64 until = G_MAXINT64;

  /* All that was known was zero: now there is room to ask for what comes behind it. */
  if (nbd_client_get_outstanding (client) == 0 && pass->limited_until == 0)
    return TRUE;
  if (progress != pass->progress || nbd_client_get_outstanding (client) == 0)
    pass->progress_at = now;
  pass->progress = progress;
  if (pass->spec.timeout_ms >= 0)
    until = pass->progress_at + pass->spec.timeout_ms * 1000;
  if (now >= until)
    return pass_timed_out (pass, error);
  if (pass->limited_until != 0)
    until = MIN (until, pass->limited_until);
  return nbd_client_wait (client, until, pass->spec.cancellable, error);
}

static gboolean
pass_handle_replies (MirrorPass *pass, gboolean *ret_any, GError **error)
{
  NbdRequest *request;

  *ret_any = FALSE;
  while ((request = nbd_client_pop (pass->spec.client)) != NULL)
    {
      if (!pass_on_reply (pass, (PassRequest *)request, error))
        return FALSE;
      *ret_any = TRUE;
    }
  return TRUE;
}

/* After a failure. */
static void
pass_drop_requests (MirrorPass *pass)
{
  NbdRequest *request;

  nbd_client_abandon (pass->spec.client);
  while ((request = nbd_client_pop (pass->spec.client)) != NULL)
    pass_request_free (pass, (PassRequest *)request);
}

static gboolean
pass_is_done (const MirrorPass *pass)
{
  return extent_scan_is_done (pass->scan) && pass->piece.length == 0
         && nbd_client_get_outstanding (pass->spec.client) == 0;
}

static gboolean
pass_loop (MirrorPass *pass, GError **error)
{
  gboolean any;

  for (;;)
    {
      if (g_cancellable_set_error_if_cancelled (pass->spec.cancellable, error))
        return FALSE;
      pass_send_queries (pass);
      if (!pass_send_reads (pass, error))
        return FALSE;
      pass_tell_position (pass);
      if (pass_is_done (pass))
        return TRUE;
      if (!nbd_client_pump (pass->spec.client, error) || !pass_handle_replies (pass, &any, error))
        return FALSE;
      if (!any && !pass_wait (pass, error))
        return FALSE;
    }
}

/* Larger than we like it where the server's blocks are larger, never more than we may have under
 * way, and whole blocks. */
static guint32
pass_request_size (const MirrorPass *pass)
{
  const NbdExport *export = pass->export;
  guint32 usual = pass->spec.request_size > 0 ? pass->spec.request_size : MIRROR_REQUEST_SIZE;
  guint32 size = CLAMP (export->preferred_block, usual, MIRROR_MAX_IN_FLIGHT / 2);
  guint32 block = pass->spec.block;

  size = MIN (size, export->max_payload);
  return size - size % (size >= block ? block : export->min_block);
}

static void
pass_init (MirrorPass *pass)
{
  const MirrorPassSpec *spec = &pass->spec;

  pass->export = nbd_client_get_export (spec->client);
  pass->position = spec->start;
  pass->piece.offset = spec->start;
  pass->request_size = pass_request_size (pass);
  pass->pool = buffer_pool_new ();
  pass->line = settle_line_new ();
  pass->scan = extent_scan_new (spec->start, spec->end, spec->block, spec->bitmap_context >= 0,
                                spec->allocation_context >= 0);
  if (spec->memo != NULL && spec->memo->span > 0)
    extent_scan_set_span (pass->scan, spec->memo->span);
  pass->progress_at = g_get_monotonic_time ();
  pass_tell_todo (pass);
}

static void
pass_clear (MirrorPass *pass)
{
  pass_drop_requests (pass);
  /* What was not done is somebody else's, who will count it again. */
  pass->spec.state->todo -= pass->todo - pass->done;
  if (pass->spec.memo != NULL)
    pass->spec.memo->span = extent_scan_get_span (pass->scan);
  extent_scan_free (pass->scan);
  settle_line_free (pass->line);
  buffer_pool_free (pass->pool);
}

gboolean
mirror_pass_run (const MirrorPassSpec *spec, guint64 *ret_bytes, GError **error)
{
  MirrorPass pass = { .spec = *spec };
  gboolean good;
  int cancel_fd;

  g_return_val_if_fail (spec->block > 0 && spec->start % spec->block == 0, FALSE);
  pass_init (&pass);
  /* Each wait would make this descriptor, and close it. */
  cancel_fd = g_cancellable_get_fd (spec->cancellable);
  good = pass_loop (&pass, error);
  if (cancel_fd >= 0)
    g_cancellable_release_fd (spec->cancellable);
  if (!good && spec->memo != NULL)
    settle_line_get_beyond (pass.line, pass_next_offset (&pass), spec->block, spec->memo->beyond);
  if (good && ret_bytes != NULL)
    *ret_bytes = extent_scan_get_read_bytes (pass.scan)
                 + (spec->bitmap_context < 0 ? 0 : extent_scan_get_zero_bytes (pass.scan));
  pass_clear (&pass);
  return good;
}
