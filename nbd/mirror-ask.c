/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/mirror-pass-private.h"
#include "nbd/mirror-store.h"
#include "nbd/mirror.h"

/* Reads of single dirty blocks are small: more of them make no difference to QEMU. */
#define MAX_READS 64
/* Headers of a reply: one chunk of data and the last one. */
#define REPLY_OVERHEAD (2 * sizeof (NbdWireChunk) + 8)

static gsize
read_cost (guint32 length)
{
  return length + REPLY_OVERHEAD;
}

static guint8 *
request_take_data (NbdRequest *request)
{
  return buffer_pool_take (((PassRequest *)request)->pool, request->length);
}

static void
pass_submit (MirrorPass *pass, guint16 command, guint16 flags, guint64 offset, guint32 length,
             gsize cost)
{
  PassRequest *own = g_new0 (PassRequest, 1);

  own->cost = cost;
  own->pool = pass->pool;
  own->request
      = (NbdRequest){ .command = command, .flags = flags, .offset = offset, .length = length };
  if (command == NBD_CMD_READ)
    {
      own->request.take_data = request_take_data;
      own->asked_at = g_get_monotonic_time ();
      own->piece = settle_line_begin (pass->line, offset);
      pass->read_cost += cost;
      pass->n_reads++;
    }
  else
    {
      pass->status_cost += cost;
    }
  nbd_client_submit (pass->spec.client, &own->request);
}

static guint64
pass_get_in_flight (const MirrorPass *pass)
{
  return pass->spec.flight != NULL ? pass->spec.flight->bytes : pass->spec.state->in_flight;
}

/* Status replies and reads together stay below what the socket of a QEMU whose guest runs can hold,
 * so that it never has to wait for us; who learns what is best has another server.  One request is
 * always allowed. */
static gboolean
pass_has_room (const MirrorPass *pass, gsize cost)
{
  gsize all = pass->read_cost + pass->status_cost;

  return all == 0 || all + cost <= MAX (MIRROR_MAX_IN_FLIGHT, pass_get_in_flight (pass));
}

void
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

static void
pass_limit (MirrorPass *pass, gint64 wait)
{
  pass->limited_until = wait > 0 ? g_get_monotonic_time () + wait : 0;
}

/* The one who admits is asked once for each byte, however often the rate limit says no. */
static gboolean
pass_is_admitted (MirrorPass *pass, guint32 length)
{
  const MirrorObserver *observer = pass->spec.observer;
  gint64 wait = 0;

  if (observer != NULL && observer->admit != NULL && pass->admitted < length)
    {
      wait = observer->admit (pass->spec.user_data, length - pass->admitted);
      if (wait == 0)
        pass->admitted = length;
    }
  if (wait == 0 && pass->spec.limit != NULL)
    wait = rate_limit_take (pass->spec.limit, length);
  pass_limit (pass, wait);
  return wait == 0;
}

static gboolean
pass_may_read (MirrorPass *pass, guint32 length)
{
  gsize cost = read_cost (length);

  pass->limited_until = 0;
  if (pass->n_reads > 0
      && (pass->n_reads >= MAX_READS || pass->read_cost + cost > pass_get_in_flight (pass)))
    return FALSE;
  /* A query that waits comes first: reads would take its room for ever. */
  if (pass->has_query && pass->n_reads > 0)
    return FALSE;
  return pass_has_room (pass, cost) && pass_is_admitted (pass, length);
}

static gboolean
pass_do_zero_piece (MirrorPass *pass, GError **error)
{
  SettlePiece *piece = settle_line_begin (pass->line, pass->piece.offset);

  if (!mirror_store_zero (&pass->spec, pass->piece.offset, pass->piece.length, error))
    return pass_fail_target (pass, error);
  settle_line_end (pass->line, piece);
  pass->spec.state->zero_bytes += pass->piece.length;
  pass_count_done (pass, pass->piece.length);
  pass->piece.length = 0;
  return TRUE;
}

static void
pass_read_some (MirrorPass *pass, guint32 length)
{
  pass_submit (pass, NBD_CMD_READ, 0, pass->piece.offset, length, read_cost (length));
  pass->piece.offset += length;
  pass->piece.length -= length;
  pass->admitted -= MIN (pass->admitted, length);
}

/* Requests end where the server likes its blocks to end. */
static guint32
pass_next_length (const MirrorPass *pass)
{
  guint32 length = (guint32)MIN (pass->piece.length, pass->request_size);
  guint32 preferred = pass->export->preferred_block;
  guint32 over = (guint32)((pass->piece.offset + length) % preferred);

  return length < pass->piece.length && over < length && preferred >= pass->spec.block
             ? length - over
             : length;
}

gboolean
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
