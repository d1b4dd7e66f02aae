/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/exchange.h"
#include "nbd/nbd-error.h"
#include "nbd/pending.h"

#define MAX_READ (1024u * 1024)

static gboolean
exchange_timed_out (NbdClient *client, const NbdRequest *request, gint64 timeout_ms, GError **error)
{
  g_autofree char *what = nbd_request_describe (request);

  g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
               "%s: %s: no progress in %" G_GINT64_FORMAT ".%" G_GINT64_FORMAT " s",
               nbd_client_get_name (client), what, timeout_ms / 1000, timeout_ms % 1000 / 100);
  return FALSE;
}

static gboolean
exchange_run (NbdClient *client, const NbdRequest *request, gint64 timeout_ms,
              GCancellable *cancellable, GError **error)
{
  gint64 progress_at = g_get_monotonic_time ();
  guint64 progress = nbd_client_get_progress (client);

  for (;;)
    {
      gint64 until = timeout_ms < 0 ? G_MAXINT64 : progress_at + timeout_ms * 1000;

      if (!nbd_client_pump (client, error))
        return FALSE;
      if (nbd_client_pop (client) != NULL)
        return TRUE;
      if (nbd_client_get_progress (client) != progress)
        {
          progress = nbd_client_get_progress (client);
          progress_at = g_get_monotonic_time ();
          continue;
        }
      if (g_get_monotonic_time () >= until)
        return exchange_timed_out (client, request, timeout_ms, error);
      if (!nbd_client_wait (client, until, cancellable, error))
        return FALSE;
    }
}

gboolean
nbd_exchange (NbdClient *client, NbdRequest *request, gint64 timeout_ms, GCancellable *cancellable,
              GError **error)
{
  nbd_client_submit (client, request);
  if (!exchange_run (client, request, timeout_ms, cancellable, error))
    {
      /* The request is the caller's: the client must not look at it again. */
      nbd_client_abandon (client);
      while (nbd_client_pop (client) != NULL)
        continue;
      nbd_request_clear (request);
      return FALSE;
    }
  if (request->error == NULL)
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&request->error));
  nbd_request_clear (request);
  return FALSE;
}

gboolean
nbd_exchange_read (NbdClient *client, void *buf, gsize len, guint64 offset, gint64 timeout_ms,
                   GCancellable *cancellable, GError **error)
{
  const NbdExport *export = nbd_client_get_export (client);
  guint32 most = MIN (MAX_READ, export->max_payload);
  gsize done = 0;

  most -= most % export->min_block;
  while (done < len)
    {
      NbdRequest request = { .command = NBD_CMD_READ,
                             .offset = offset + done,
                             .length = (guint32)MIN (most, len - done),
                             .data = (guint8 *)buf + done };

      if (!nbd_exchange (client, &request, timeout_ms, cancellable, error))
        return FALSE;
      nbd_request_clear (&request);
      done += request.length;
    }
  return TRUE;
}
