/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/client.h"
#include "nbd/nbd-error.h"
#include "nbd/pending.h"
#include "nbd/wire.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

/* Two TLS records.  Payload beyond what is in it goes straight to where it belongs. */
#define IN_SIZE 32768
/* What is left of a payload below this is taken through the buffer, with the headers behind it. */
#define DIRECT_MIN 8192
#define OUT_SIZE 16384

typedef enum
{
  STATE_HEADER,
  STATE_SMALL, /* a hole or an error: its whole payload in one piece */
  STATE_DATA_OFFSET,
  STATE_DATA,
  STATE_STATUS_CONTEXT,
  STATE_STATUS
} ClientState;

typedef enum
{
  STEP_OK,
  STEP_STARVED,
  STEP_FAILED
} Step;

struct NbdClient
{
  Channel *channel;
  NbdExport export;
  char *name;
  char *export_name; /* escaped */
  gboolean quickack;

  NbdPending *slots[NBD_CLIENT_MAX_REQUESTS]; /* cookie % N is the slot */
  guint n_outstanding;
  guint64 serial;
  GQueue unsent; /* NbdPending */
  GQueue done;   /* NbdRequest */

  GByteArray *out; /* headers */
  gsize out_done;
  NbdPending *payload; /* the WRITE whose data comes after `out` */
  guint32 payload_done;

  guint8 in[IN_SIZE];
  gsize in_start;
  gsize in_end;
  gboolean drained; /* `in` holds no whole message, and the channel has nothing now */
  ClientState state;
  WireReply reply;
  NbdPending *current; /* whose reply is being received */
  guint8 *data;        /* STATE_DATA: where it goes */
  gsize left;          /* STATE_DATA, STATE_STATUS: bytes of payload to come */
  guint64 received;
};

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
  client->quickack = TRUE;
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

/* What the channel says names the server alone. */
static gboolean
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

static gboolean
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

/* Receiving */

static void
client_complete (NbdClient *client)
{
  NbdPending *pending = client->current;

  client->slots[pending->cookie % NBD_CLIENT_MAX_REQUESTS] = NULL;
  client->current = NULL;
  client->state = STATE_HEADER;
  pending->request->pending = NULL;
  g_queue_push_tail (&client->done, pending->request);
  nbd_pending_free (pending);
}

/* The payload of a chunk (or of a simple reply) has been taken. */
static Step
client_end_chunk (NbdClient *client, GError **error)
{
  client->state = STATE_HEADER;
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
      client->data = request->data;
      client->left = request->length;
      client->state = STATE_DATA;
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
      client->state = STATE_DATA_OFFSET;
      return STEP_OK;
    case NBD_REPLY_TYPE_BLOCK_STATUS:
      client->state = STATE_STATUS_CONTEXT;
      return STEP_OK;
    default:
      client->state = STATE_SMALL;
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
  client->data = client->current->request->data + (offset - client->current->request->offset);
  client->left = client->reply.length - 8;
  client->state = STATE_DATA;
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
  client->state = STATE_STATUS;
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
    case STATE_HEADER:
      return client_step_header (client, error);
    case STATE_SMALL:
      return client_step_small (client, error);
    case STATE_DATA_OFFSET:
      return client_step_data_offset (client, error);
    case STATE_DATA:
      return client_step_data (client, error);
    case STATE_STATUS_CONTEXT:
      return client_step_status_context (client, error);
    case STATE_STATUS:
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

  if (client->state == STATE_DATA && client->left >= DIRECT_MIN)
    {
      status = channel_read (client->channel, client->data, client->left, &n, error);
      client->data += n;
      client->left -= n;
      client->received += n;
      return status;
    }
  memmove (client->in, client->in + client->in_start, client->in_end - client->in_start);
  client->in_end -= client->in_start;
  client->in_start = 0;
  status = channel_read (client->channel, client->in + client->in_end, IN_SIZE - client->in_end, &n,
                         error);
  client->in_end += n;
  return status;
}

static gboolean
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

gboolean
nbd_client_pump (NbdClient *client, GError **error)
{
  return client_send (client, error) && client_receive (client, error);
}

/* A server without TCP_NODELAY holds the end of a reply back until the last one is acknowledged,
 * which the kernel delays by 40 ms unless it is told otherwise before each wait. */
static void
client_ask_quick_ack (NbdClient *client)
{
  int on = 1;

  if (client->quickack
      && setsockopt (channel_get_fd (client->channel), IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on)
             < 0)
    client->quickack = FALSE;
}

gboolean
nbd_client_wait (NbdClient *client, gint64 until, GCancellable *cancellable, GError **error)
{
  Deadline deadline = { .at = until, .cancellable = cancellable };
  g_autoptr (GError) failure = NULL;
  short events = POLLIN;

  if (!client->drained || channel_pending (client->channel) > 0)
    return TRUE;
  if (client_has_output (client))
    events |= POLLOUT;
  client_ask_quick_ack (client);
  if (deadline_poll (deadline, channel_get_fd (client->channel),
                     channel_poll_events (client->channel, events), &failure)
      || g_error_matches (failure, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&failure));
  return FALSE;
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
