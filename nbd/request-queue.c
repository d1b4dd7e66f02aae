/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/request-queue.h"

/* qemu-nbd works on 16 requests at a time. */
#define MAX_REQUESTS 64

struct RequestQueue
{
  NbdClient *client;
  char *name;
  gint64 timeout_ms;
  GCancellable *cancellable;
  NbdRequest requests[MAX_REQUESTS];
  gboolean busy[MAX_REQUESTS];
  guint n_busy;
  guint64 bytes; /* of data, in busy requests */
};

RequestQueue *
request_queue_new (NbdClient *client, const char *name, gint64 timeout_ms,
                   GCancellable *cancellable)
{
  RequestQueue *queue = g_new0 (RequestQueue, 1);

  queue->client = client;
  queue->name = g_strdup (name);
  queue->timeout_ms = timeout_ms;
  queue->cancellable = cancellable != NULL ? g_object_ref (cancellable) : NULL;
  return queue;
}

void
request_queue_free (RequestQueue *queue)
{
  if (queue == NULL)
    return;
  nbd_client_disconnect (queue->client);
  nbd_client_free (queue->client);
  for (guint i = 0; i < MAX_REQUESTS; i++)
    nbd_request_clear (&queue->requests[i]);
  g_clear_object (&queue->cancellable);
  g_free (queue->name);
  g_free (queue);
}

NbdClient *
request_queue_get_client (RequestQueue *queue)
{
  return queue->client;
}

/* A failed request fails the call that sees it, whoever sent it. */
static gboolean
queue_collect (RequestQueue *queue, GError **error)
{
  NbdRequest *request;

  while ((request = nbd_client_pop (queue->client)) != NULL)
    {
      queue->busy[request - queue->requests] = FALSE;
      queue->n_busy--;
      if (request->command == NBD_CMD_WRITE)
        queue->bytes -= request->length;
      if (request->error != NULL)
        {
          g_propagate_prefixed_error (error, g_steal_pointer (&request->error),
                                      "%s: ", queue->name);
          return FALSE;
        }
    }
  return TRUE;
}

static gboolean
queue_timed_out (RequestQueue *queue, GError **error)
{
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
               "%s: %s does not answer: no progress in %" G_GINT64_FORMAT " s", queue->name,
               nbd_client_get_name (queue->client), queue->timeout_ms / 1000);
  return FALSE;
}

/* Tells whether the state is reached that a call waits for. */
typedef gboolean (*QueueReady) (const RequestQueue *queue, const NbdRequest *request);

static gboolean
queue_run (RequestQueue *queue, QueueReady ready, const NbdRequest *request, GError **error)
{
  Deadline deadline = deadline_in (queue->timeout_ms, queue->cancellable);
  guint64 progress = nbd_client_get_progress (queue->client);

  for (;;)
    {
      if (!nbd_client_pump (queue->client, error) || !queue_collect (queue, error))
        return FALSE;
      if (ready (queue, request))
        return TRUE;
      if (nbd_client_get_progress (queue->client) != progress)
        {
          progress = nbd_client_get_progress (queue->client);
          deadline = deadline_in (queue->timeout_ms, queue->cancellable);
        }
      if (g_get_monotonic_time () >= deadline.at)
        return queue_timed_out (queue, error);
      if (!nbd_client_wait (queue->client, deadline.at, queue->cancellable, error))
        return FALSE;
    }
}

static gboolean
queue_is_sent (const RequestQueue *queue, const NbdRequest *request)
{
  return request->sent;
}

static gboolean
queue_is_idle (const RequestQueue *queue, const NbdRequest *request)
{
  return queue->n_busy == 0;
}

static gboolean
queue_is_clear (const RequestQueue *queue, const NbdRequest *request)
{
  if (queue->n_busy == MAX_REQUESTS
      || (queue->bytes > 0 && queue->bytes + request->length > REQUEST_QUEUE_MAX_BYTES))
    return FALSE;
  for (guint i = 0; i < MAX_REQUESTS; i++)
    {
      const NbdRequest *other = &queue->requests[i];

      if (queue->busy[i] && other->offset < request->offset + request->length
          && request->offset < other->offset + other->length)
        return FALSE;
    }
  return TRUE;
}

static NbdRequest *
queue_submit (RequestQueue *queue, const NbdRequest *request)
{
  guint i = 0;

  while (queue->busy[i])
    i++;
  queue->busy[i] = TRUE;
  queue->n_busy++;
  if (request->command == NBD_CMD_WRITE)
    queue->bytes += request->length;
  queue->requests[i] = *request;
  nbd_client_submit (queue->client, &queue->requests[i]);
  return &queue->requests[i];
}

gboolean
request_queue_send (RequestQueue *queue, const NbdRequest *request, GError **error)
{
  return queue_run (queue, queue_is_clear, request, error)
         && queue_run (queue, queue_is_sent, queue_submit (queue, request), error);
}

gboolean
request_queue_drain (RequestQueue *queue, GError **error)
{
  return queue_run (queue, queue_is_idle, NULL, error);
}
