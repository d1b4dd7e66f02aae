/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/mirror-pass.h"
#include "nbd/buffer-pool.h"
#include "nbd/extent.h"
#include "nbd/mirror.h"
#include "nbd/nbd-error.h"
#include "nbd/zero-scan.h"

/* Reads of single dirty blocks are small: more of them make no difference to QEMU. */
#define MAX_READS 64
/* Headers of a reply: one chunk of data and the last one. */
#define REPLY_OVERHEAD (2 * sizeof (NbdWireChunk) + 8)
/* One call of zero (): between two of them we can be cancelled. */
#define MAX_ZERO (G_GUINT64_CONSTANT (256) * 1024 * 1024)

typedef struct
{
  MirrorPassSpec spec;
  const NbdExport *export;
  ExtentScan *scan;
  BufferPool *pool;
  gboolean skip_zeroes; /* the target holds nothing but zeroes where this pass has not been */
  guint64 limit_end;    /* of the target: data beyond it has no place there */

  ExtentPiece piece; /* being split into requests */
  guint n_reads;
  gsize read_cost;   /* bytes of replies that are under way */
  gsize status_cost; /* the same, at most */
  ExtentQuery query; /* waits for room */
  gboolean has_query;
  gint64 limited_until; /* when the rate limit lets the next request go; 0: now */

  gint64 progress_at;
  guint64 received;
} MirrorPass;

typedef struct
{
  NbdRequest request;
  gsize cost;
} PassRequest;

static gsize
read_cost (guint32 length)
{
  return length + REPLY_OVERHEAD;
}

static void
pass_submit (MirrorPass *pass, guint16 command, guint16 flags, guint64 offset, guint32 length,
             gsize cost)
{
  PassRequest *own = g_new0 (PassRequest, 1);

  own->cost = cost;
  own->request
      = (NbdRequest){ .command = command, .flags = flags, .offset = offset, .length = length };
  if (command == NBD_CMD_READ)
    {
      own->request.data = buffer_pool_take (pass->pool, length);
      pass->read_cost += cost;
      pass->n_reads++;
    }
  else
    {
      pass->status_cost += cost;
    }
  nbd_client_submit (pass->spec.client, &own->request);
}

static void
pass_request_free (MirrorPass *pass, PassRequest *own)
{
  if (own->request.data != NULL)
    buffer_pool_give (pass->pool, own->request.data, own->request.length);
  nbd_request_clear (&own->request);
  g_free (own);
}

/* Asking */

/* Status replies and reads together stay below what the server's socket can hold, so that it never
 * has to wait for us.  One request is always allowed. */
static gboolean
pass_has_room (const MirrorPass *pass, gsize cost)
{
  gsize all = pass->read_cost + pass->status_cost;

  return all == 0 || all + cost <= MIRROR_MAX_IN_FLIGHT;
}

static void
pass_send_queries (MirrorPass *pass)
{
  for (;;)
    {
      gsize cost;

      if (!pass->has_query)
        pass->has_query = extent_scan_next_query (pass->scan, &pass->query);
      if (!pass->has_query)
        return;
      cost = extent_query_reply_size (pass->scan, &pass->query);
      if (!pass_has_room (pass, cost))
        return;
      pass_submit (pass, NBD_CMD_BLOCK_STATUS, pass->query.flags, pass->query.offset,
                   pass->query.length, cost);
      pass->has_query = FALSE;
    }
}

static gboolean
pass_may_read (MirrorPass *pass, guint32 length)
{
  gsize cost = read_cost (length);
  gint64 wait;

  if (pass->n_reads > 0
      && (pass->n_reads >= MAX_READS || pass->read_cost + cost > pass->spec.state->in_flight))
    return FALSE;
  /* A query that waits comes first: reads would take its room for ever. */
  if (pass->has_query && pass->n_reads > 0)
    return FALSE;
  if (!pass_has_room (pass, cost))
    return FALSE;
  if (pass->spec.limit == NULL)
    return TRUE;
  wait = rate_limit_take (pass->spec.limit, length);
  pass->limited_until = wait > 0 ? g_get_monotonic_time () + wait : 0;
  return wait == 0;
}

static gboolean
pass_zero (MirrorPass *pass, guint64 offset, guint64 length, GError **error)
{
  NbdTarget *target = pass->spec.target;

  /* An export is padded to whole sectors. */
  if (offset >= pass->limit_end)
    return TRUE;
  length = MIN (length, pass->limit_end - offset);
  while (length > 0 && !pass->skip_zeroes)
    {
      guint64 n = MIN (length, MAX_ZERO);

      if (g_cancellable_set_error_if_cancelled (pass->spec.cancellable, error)
          || !target->klass->zero (target, offset, n, error))
        return FALSE;
      offset += n;
      length -= n;
    }
  return TRUE;
}

static gboolean
pass_do_zero_piece (MirrorPass *pass, GError **error)
{
  if (!pass_zero (pass, pass->piece.offset, pass->piece.length, error))
    return FALSE;
  pass->spec.state->zero_bytes += pass->piece.length;
  pass->spec.state->done += pass->piece.length;
  pass->piece.length = 0;
  return TRUE;
}

static void
pass_read_some (MirrorPass *pass, guint32 length)
{
  pass_submit (pass, NBD_CMD_READ, 0, pass->piece.offset, length, read_cost (length));
  pass->piece.offset += length;
  pass->piece.length -= length;
}

static guint32
pass_next_length (const MirrorPass *pass)
{
  guint32 most = MIN (MIRROR_REQUEST_SIZE, pass->export->max_payload);

  most -= most % pass->export->min_block;
  return (guint32)MIN (pass->piece.length, most);
}

static gboolean
pass_send_reads (MirrorPass *pass, GError **error)
{
  for (;;)
    {
      guint32 length;

      if (pass->piece.length == 0 && !extent_scan_next_piece (pass->scan, &pass->piece))
        return TRUE;
      if (pass->piece.kind == EXTENT_ZERO)
        {
          if (!pass_do_zero_piece (pass, error))
            return FALSE;
          continue;
        }
      length = pass_next_length (pass);
      if (!pass_may_read (pass, length))
        return TRUE;
      pass_read_some (pass, length);
    }
}

/* Storing */

/* Data up to the target's end; what is beyond it must be the padding of the last sector. */
static gboolean
pass_clip (MirrorPass *pass, const NbdRequest *request, guint32 *ret_length, GError **error)
{
  guint64 keep = request->length;

  if (request->offset + request->length > pass->limit_end)
    keep = request->offset < pass->limit_end ? pass->limit_end - request->offset : 0;
  if (!zero_scan_is_zero (request->data + keep, request->length - keep))
    {
      g_set_error (error, NBD_ERROR, NBD_ERROR_SIZE,
                   "%s: it has only %" G_GUINT64_FORMAT
                   " bytes, and %s has data beyond that which is not zero",
                   pass->spec.target->name, pass->limit_end,
                   nbd_client_get_name (pass->spec.client));
      return FALSE;
    }
  *ret_length = (guint32)keep;
  return TRUE;
}

static gboolean
pass_store (MirrorPass *pass, const NbdRequest *request, GError **error)
{
  NbdTarget *target = pass->spec.target;
  guint32 length, pos = 0;
  /* A target of zeroes stays sparse to the block; elsewhere only long runs are worth a hole. */
  gsize min_run = pass->skip_zeroes ? 1 : ZERO_SCAN_LONG;

  if (!pass_clip (pass, request, &length, error))
    return FALSE;
  if (request->hole_bytes == request->length)
    return pass_zero (pass, request->offset, length, error);
  while (pos < length)
    {
      const guint8 *data = request->data + pos;
      gsize n = zero_scan_data_run (data, length - pos, min_run);
      gsize zeroes = zero_scan_zero_run (data + n, length - pos - n);

      if (n > 0 && !target->klass->write (target, data, n, request->offset + pos, error))
        return FALSE;
      if (zeroes > 0 && !pass_zero (pass, request->offset + pos + n, zeroes, error))
        return FALSE;
      pos += (guint32)(n + zeroes);
    }
  return TRUE;
}

static gboolean
pass_on_read (MirrorPass *pass, const PassRequest *own, GError **error)
{
  const NbdRequest *request = &own->request;
  MirrorState *state = pass->spec.state;

  pass->read_cost -= own->cost;
  pass->n_reads--;
  state->read_bytes += request->length - request->hole_bytes;
  state->zero_bytes += request->hole_bytes;
  if (!pass_store (pass, request, error))
    return FALSE;
  state->done += request->length;
  return TRUE;
}

static void
pass_tell_todo (MirrorPass *pass)
{
  pass->spec.state->todo
      = extent_scan_get_read_bytes (pass->scan) + extent_scan_get_zero_bytes (pass->scan);
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

/* The server has time as long as it sends something, and while nothing was asked of it. */
static gboolean
pass_wait (MirrorPass *pass, GError **error)
{
  NbdClient *client = pass->spec.client;
  guint64 received = nbd_client_get_received (client);
  gint64 now = g_get_monotonic_time ();
  gint64 until = G_MAXINT64;

  if (received != pass->received || nbd_client_get_outstanding (client) == 0)
    pass->progress_at = now;
  pass->received = received;
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
  /* Our own disk may have been slow: that is not the server's fault. */
  if (*ret_any)
    pass->progress_at = g_get_monotonic_time ();
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
      if (pass_is_done (pass))
        return TRUE;
      if (!nbd_client_pump (pass->spec.client, error) || !pass_handle_replies (pass, &any, error))
        return FALSE;
      if (!any && !pass_wait (pass, error))
        return FALSE;
    }
}

/* Sizes may differ by the padding to a whole sector that QEMU adds to images of odd sizes. */
static gboolean
pass_check_size (MirrorPass *pass, GError **error)
{
  const NbdTarget *target = pass->spec.target;

  if ((pass->export->size + 511) / 512 == (target->size + 511) / 512)
    return TRUE;
  g_set_error (error, NBD_ERROR, NBD_ERROR_SIZE,
               "%s has %" G_GUINT64_FORMAT " bytes, but %s has %" G_GUINT64_FORMAT
               ": the sizes have to be the same",
               nbd_client_get_name (pass->spec.client), pass->export->size, target->name,
               target->size);
  return FALSE;
}

/* The padding of a target that is longer than an export of an odd size. */
static gboolean
pass_zero_padding (MirrorPass *pass, GError **error)
{
  guint64 end = pass->export->size;

  return end >= pass->limit_end || pass_zero (pass, end, pass->limit_end - end, error);
}

gboolean
mirror_pass_run (const MirrorPassSpec *spec, guint64 *ret_bytes, GError **error)
{
  MirrorPass pass = { .spec = *spec, .export = nbd_client_get_export (spec->client) };
  gboolean seed = spec->bitmap_context < 0;
  gboolean good;

  pass.limit_end = spec->target->size;
  pass.skip_zeroes = seed && spec->target->is_zero;
  pass.progress_at = g_get_monotonic_time ();
  spec->state->todo = 0;
  spec->state->done = 0;
  spec->state->size = pass.export->size;
  if (!pass_check_size (&pass, error))
    return FALSE;
  pass.pool = buffer_pool_new (MIRROR_REQUEST_SIZE);
  pass.scan = extent_scan_new (pass.export->size, MAX (pass.export->min_block, 512), !seed,
                               spec->allocation_context >= 0);
  pass_tell_todo (&pass);
  good = (!seed || pass_zero_padding (&pass, error)) && pass_loop (&pass, error);
  if (good && ret_bytes != NULL)
    *ret_bytes = extent_scan_get_read_bytes (pass.scan)
                 + (seed ? 0 : extent_scan_get_zero_bytes (pass.scan));
  pass_drop_requests (&pass);
  extent_scan_free (pass.scan);
  buffer_pool_free (pass.pool);
  return good;
}
