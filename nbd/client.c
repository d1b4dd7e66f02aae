/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/client-private.h"
#include "nbd/nbd-error.h"

#include <string.h>

#define OUT_SIZE 16384
#define PROGRESS_BYTES 4096

void
nbd_request_clear (NbdRequest *request)
{
  g_clear_error (&request->error);
  for (guint i = 0; i < NBD_MAX_CONTEXTS; i++)
    g_clear_pointer (&request->extents[i], g_array_unref);
  request->hole_bytes = 0;
  request->sent = FALSE;
}

NbdClient *
nbd_client_new (Channel *channel, const NbdExport *export, const char *name)
{
  NbdClient *client = g_new0 (NbdClient, 1);
  client->channel = channel;
  client->export = *export;
  client->export_name = nbd_text_escape (name, strlen (name));
  client->name
      = g_strdup_printf ("%s, export \"%s\"", channel_get_peer (channel), client->export_name);
  client->is_tcp = TRUE;
  client->low_water = 1;
  client->out = g_byte_array_new ();
  g_queue_init (&client->unsent);
  g_queue_init (&client->done);
  return client;
}

void
nbd_client_abandon (NbdClient *client)
{
  for (guint i = 0; i < NBD_CLIENT_MAX_REQUESTS; i++)
    if (client->slots[i] != NULL)
      {
        client->slots[i]->request->pending = NULL;
        g_queue_push_tail (&client->done, client->slots[i]->request);
        g_clear_pointer (&client->slots[i], nbd_pending_free);
      }
  g_queue_clear (&client->unsent);
  client->payload = NULL;
  client->current = NULL;
}

void
nbd_client_free (NbdClient *client)
{
  if (client == NULL)
    return;
  nbd_client_abandon (client);
  g_queue_clear (&client->done);
  g_byte_array_unref (client->out);
  channel_free (client->channel);
  g_free (client->name);
  g_free (client->export_name);
  g_free (client);
}

const NbdExport *
nbd_client_get_export (const NbdClient *client)
{
  return &client->export;
}

const char *
nbd_client_get_name (const NbdClient *client)
{
  return client->name;
}

guint
nbd_client_get_outstanding (const NbdClient *client)
{
  return client->n_outstanding;
}

guint64
nbd_client_get_received (const NbdClient *client)
{
  return client->received;
}

guint64
nbd_client_get_progress (const NbdClient *client)
{
  return client->received / PROGRESS_BYTES + client->n_answered;
}

void
nbd_client_submit (NbdClient *client, NbdRequest *request)
{
  guint slot = 0;

  g_assert (client->n_outstanding < NBD_CLIENT_MAX_REQUESTS);
  nbd_request_clear (request);
  /* Done requests that were not handed back yet count, but have left their slot. */
  for (slot = (guint)(client->serial % NBD_CLIENT_MAX_REQUESTS); client->slots[slot] != NULL;)
    slot = (slot + 1) % NBD_CLIENT_MAX_REQUESTS;
  client->serial++;
  request->pending = nbd_pending_new (request, client->serial * NBD_CLIENT_MAX_REQUESTS + slot);
  client->slots[slot] = request->pending;
  client->n_outstanding++;
  if (request->command == NBD_CMD_READ)
    client->data_due += request->length;
  g_queue_push_tail (&client->unsent, request->pending);
}

NbdRequest *
nbd_client_pop (NbdClient *client)
{
  NbdRequest *request = g_queue_pop_head (&client->done);

  if (request != NULL)
    client->n_outstanding--;
  return request;
}

/* Sending */

gboolean
client_lost (NbdClient *client, GError **error)
{
  g_prefix_error (error, "export \"%s\" of ", client->export_name);
  return FALSE;
}

static void
client_put_header (NbdClient *client, NbdPending *pending)
{
  const NbdRequest *request = pending->request;
  WireRequest wire = { .flags = request->flags,
                       .command = request->command,
                       .cookie = pending->cookie,
                       .offset = request->offset,
                       .length = request->length };

  wire_put_request (client->out, &wire);
}

/* Headers of several requests go out as one record, up to the first one that data follows. */
static void
client_fill_out (NbdClient *client)
{
  g_byte_array_set_size (client->out, 0);
  client->out_done = 0;
  while (client->out->len < OUT_SIZE && client->payload == NULL
         && !g_queue_is_empty (&client->unsent))
    {
      NbdPending *pending = g_queue_pop_head (&client->unsent);

      client_put_header (client, pending);
      if (pending->request->command == NBD_CMD_WRITE)
        {
          client->payload = pending;
          client->payload_done = 0;
        }
      else
        pending->request->sent = TRUE;
    }
}

static ChannelStatus
client_send_some (NbdClient *client, GError **error)
{
  ChannelStatus status;
  gsize n = 0;

  if (client->out_done < client->out->len)
    {
      status = channel_write (client->channel, client->out->data + client->out_done,
                              client->out->len - client->out_done, &n, error);
      client->out_done += n;
      return status;
    }
  status = channel_write (client->channel, client->payload->request->data + client->payload_done,
                          client->payload->request->length - client->payload_done, &n, error);
  client->payload_done += (guint32)n;
  if (client->payload_done == client->payload->request->length)
    {
      client->payload->request->sent = TRUE;
      client->payload = NULL;
    }
  return status;
}

gboolean
client_has_output (const NbdClient *client)
{
  return client->out_done < client->out->len || client->payload != NULL
         || client->unsent.length > 0;
}

static gboolean
client_send (NbdClient *client, GError **error)
{
  while (client_has_output (client))
    {
      if (client->out_done == client->out->len && client->payload == NULL)
        client_fill_out (client);
      switch (client_send_some (client, error))
        {
        case CHANNEL_OK:
          break;
        case CHANNEL_AGAIN:
          return TRUE;
        default:
          return client_lost (client, error);
        }
    }
  return TRUE;
}

gboolean
nbd_client_pump (NbdClient *client, GError **error)
{
  return client_send (client, error) && client_receive (client, error);
}

void
nbd_client_disconnect (NbdClient *client)
{
  WireRequest goodbye = { .command = NBD_CMD_DISC };

  if (client_has_output (client))
    return;
  g_byte_array_set_size (client->out, 0);
  client->out_done = 0;
  wire_put_request (client->out, &goodbye);
  if (client_send (client, NULL))
    channel_shutdown (client->channel);
}
