/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/client-private.h"
#include "nbd/nbd-error.h"

#include <string.h>

/* What is left of a payload below this is taken through the buffer, with the headers behind it. */
#define DIRECT_MIN 8192

typedef enum
{
  STEP_OK,
  STEP_STARVED,
  STEP_FAILED
} Step;

/* So much of what the current request asks for has come, or will not come as data. */
static void
client_take_data (NbdClient *client, guint32 len)
{
  client->data_due -= len;
  client->current->data_left -= len;
}

static void
client_complete (NbdClient *client)
{
  NbdPending *pending = client->current;

  client->slots[pending->cookie % NBD_CLIENT_MAX_REQUESTS] = NULL;
  client_take_data (client, pending->data_left);
  client->current = NULL;
  client->n_answered++;
  client->state = CLIENT_HEADER;
  pending->request->pending = NULL;
  g_queue_push_tail (&client->done, pending->request);
  nbd_pending_free (pending);
}

/* The payload of a chunk (or of a simple reply) has been taken. */
static Step
client_end_chunk (NbdClient *client, GError **error)
{
  client->state = CLIENT_HEADER;
  if (client->reply.structured && !(client->reply.flags & NBD_REPLY_FLAG_DONE))
    return STEP_OK;
  /* A simple reply covers its request by itself. */
  if (client->reply.structured && !nbd_pending_finish (client->current, &client->export, error))
    return STEP_FAILED;
  client_complete (client);
  return STEP_OK;
}

static Step
client_begin_simple (NbdClient *client, GError **error)
{
  NbdRequest *request = client->current->request;

  if (client->reply.error != 0)
    nbd_pending_set_errno (client->current, client->reply.error, client->name);
  else if (request->command == NBD_CMD_READ)
    {
      client->data = nbd_pending_get_data (client->current);
      client->left = request->length;
      client->state = CLIENT_DATA;
      return STEP_OK;
    }
  return client_end_chunk (client, error);
}

static Step
client_begin_chunk (NbdClient *client, GError **error)
{
  switch (client->reply.type)
    {
    case NBD_REPLY_TYPE_NONE:
      return client_end_chunk (client, error);
    case NBD_REPLY_TYPE_OFFSET_DATA:
      client->state = CLIENT_DATA_OFFSET;
      return STEP_OK;
    case NBD_REPLY_TYPE_BLOCK_STATUS:
      client->state = CLIENT_STATUS_CONTEXT;
      return STEP_OK;
    default:
      client->state = CLIENT_SMALL;
      return STEP_OK;
    }
}

static const guint8 *
client_take (NbdClient *client, gsize len)
{
  const guint8 *at = client->in + client->in_start;

  if (client->in_end - client->in_start < len)
    return NULL;
  client->in_start += len;
  client->received += len;
  return at;
}

static Step
client_step_header (NbdClient *client, GError **error)
{
  const guint8 *buf = client->in + client->in_start;
  gsize have = client->in_end - client->in_start;
  gsize size;

  if (have < 4)
    return STEP_STARVED;
  size = wire_reply_header_size (buf);
  if (size == 0)
    {
      g_set_error (error, NBD_ERROR, NBD_ERROR_PROTOCOL,
                   "the server sent garbage (magic number 0x%08x) where a reply belongs",
                   wire_get_u32 (buf));
      return STEP_FAILED;
    }
  if (client_take (client, size) == NULL)
    return STEP_STARVED;
  wire_get_reply (buf, &client->reply);
  client->current = client->slots[client->reply.cookie % NBD_CLIENT_MAX_REQUESTS];
  if (client->current == NULL || client->current->cookie != client->reply.cookie)
    {
      g_set_error (error, NBD_ERROR, NBD_ERROR_PROTOCOL,
                   "the server answered a request that was not made (cookie 0x%" G_GINT64_MODIFIER
                   "x)",
                   client->reply.cookie);
      return STEP_FAILED;
    }
  if (!nbd_pending_check_header (client->current, &client->reply, &client->export, error))
    return STEP_FAILED;
  return client->reply.structured ? client_begin_chunk (client, error)
                                  : client_begin_simple (client, error);
}

static Step
client_step_small (NbdClient *client, GError **error)
{
  const guint8 *payload = client_take (client, client->reply.length);
  gboolean good;

  if (payload == NULL)
    return STEP_STARVED;
  if (client->reply.type == NBD_REPLY_TYPE_OFFSET_HOLE)
    good = nbd_pending_add_hole (client->current, payload, error);
  else
    good = nbd_pending_add_error (client->current, client->reply.type, payload,
                                  client->reply.length, client->name, error);
  return good ? client_end_chunk (client, error) : STEP_FAILED;
}

static Step
client_step_data_offset (NbdClient *client, GError **error)
{
  const guint8 *payload = client_take (client, 8);
  guint64 offset;

  if (payload == NULL)
    return STEP_STARVED;
  offset = wire_get_u64 (payload);
  if (!nbd_pending_cover (client->current, offset, client->reply.length - 8, error))
    return STEP_FAILED;
  client->data
      = nbd_pending_get_data (client->current) + (offset - client->current->request->offset);
  client->left = client->reply.length - 8;
  client->state = CLIENT_DATA;
  return STEP_OK;
}

static Step
client_step_data (NbdClient *client, GError **error)
{
  gsize n = MIN (client->left, client->in_end - client->in_start);
  const guint8 *from = client_take (client, n);

  if (n > 0)
    memcpy (client->data, from, n);
  client->data += n;
  client->left -= n;
  client_take_data (client, (guint32)n);
  return client->left > 0 ? STEP_STARVED : client_end_chunk (client, error);
}

static Step
client_step_status_context (NbdClient *client, GError **error)
{
  const guint8 *payload = client_take (client, 4);

  if (payload == NULL)
    return STEP_STARVED;
  if (!nbd_pending_begin_status (client->current, wire_get_u32 (payload), &client->export, error))
    return STEP_FAILED;
  client->left = client->reply.length - 4;
  client->state = CLIENT_STATUS;
  return STEP_OK;
}

static Step
client_step_status (NbdClient *client, GError **error)
{
  const guint8 *descriptor;

  while (client->left > 0)
    {
      descriptor = client_take (client, 8);
      if (descriptor == NULL)
        return STEP_STARVED;
      if (!nbd_pending_add_extent (client->current, descriptor, error))
        return STEP_FAILED;
      client->left -= 8;
    }
  return client_end_chunk (client, error);
}

static Step
client_step (NbdClient *client, GError **error)
{
  switch (client->state)
    {
    case CLIENT_HEADER:
      return client_step_header (client, error);
    case CLIENT_SMALL:
      return client_step_small (client, error);
    case CLIENT_DATA_OFFSET:
      return client_step_data_offset (client, error);
    case CLIENT_DATA:
      return client_step_data (client, error);
    case CLIENT_STATUS_CONTEXT:
      return client_step_status_context (client, error);
    case CLIENT_STATUS:
      return client_step_status (client, error);
    }
  g_return_val_if_reached (STEP_FAILED);
}

/* One read of the channel, straight into the request's data where that is worth it. */
static ChannelStatus
client_receive_some (NbdClient *client, GError **error)
{
  ChannelStatus status;
  gsize n = 0;

  if (client->state == CLIENT_DATA && client->left >= DIRECT_MIN)
    {
      status = channel_read (client->channel, client->data, client->left, &n, error);
      client->data += n;
      client->left -= n;
      client->received += n;
      client_take_data (client, (guint32)n);
      return status;
    }
  memmove (client->in, client->in + client->in_start, client->in_end - client->in_start);
  client->in_end -= client->in_start;
  client->in_start = 0;
  status = channel_read (client->channel, client->in + client->in_end,
                         CLIENT_IN_SIZE - client->in_end, &n, error);
  client->in_end += n;
  return status;
}

gboolean
client_receive (NbdClient *client, GError **error)
{
  client->drained = FALSE;
  while (g_queue_is_empty (&client->done))
    {
      Step step = client_step (client, error);

      if (step == STEP_FAILED)
        {
          g_prefix_error (error, "%s: ", client->name);
          return FALSE;
        }
      if (step == STEP_OK)
        continue;
      switch (client_receive_some (client, error))
        {
        case CHANNEL_OK:
          break;
        case CHANNEL_AGAIN:
          client->drained = TRUE;
          return TRUE;
        case CHANNEL_EOF:
          g_set_error (error, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED,
                       "%s: the server closed the connection with %u requests unanswered",
                       client->name, client->n_outstanding);
          return FALSE;
        case CHANNEL_FAILED:
          return client_lost (client, error);
        }
    }
  return TRUE;
}
