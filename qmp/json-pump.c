/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/json-pump.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE 65536

typedef struct
{
  char *data;
  gsize len;
  gsize sent;
  int fd; /* goes along with the first byte; -1 once it is gone */
} Outgoing;

struct JsonPump
{
  gatomicrefcount refs; /* the user's and the thread's */
  GThread *thread;
  int wake; /* eventfd */
  char *peer;
  JsonPumpLimits limits;
  JsonPumpHandlers handlers;
  gpointer data;

  /* Of the thread alone. */
  Channel *channel;
  JsonFramer *framer;
  gboolean drained; /* all is sent and shut down; waiting for the other side's end */
  guint8 buf[READ_SIZE];

  GMutex lock;
  GQueue queue; /* Outgoing *; the thread alone takes from it */
  gsize queued; /* bytes */
  gboolean closing;
  gint64 linger_until; /* monotonic, with `closing` */
  gboolean gone;       /* nothing more can be sent */
  GError *failure;     /* set by a sender that found the queue full */
};

typedef enum
{
  STEP_OK,
  STEP_END, /* an orderly end */
  STEP_FAILED
} Step;

static void
outgoing_free (Outgoing *out)
{
  if (out->fd >= 0)
    close (out->fd);
  g_free (out->data);
  g_free (out);
}

static void
pump_unref (JsonPump *pump)
{
  Outgoing *out;

  if (!g_atomic_ref_count_dec (&pump->refs))
    return;
  while ((out = g_queue_pop_head (&pump->queue)) != NULL)
    outgoing_free (out);
  g_clear_error (&pump->failure);
  json_framer_free (pump->framer);
  close (pump->wake);
  g_mutex_clear (&pump->lock);
  g_free (pump->peer);
  g_free (pump);
}

static void
wake_thread (JsonPump *pump)
{
  guint64 one = 1;

  /* Fails only when the counter is at its maximum, and then it is readable anyway. */
  if (write (pump->wake, &one, sizeof one) < 0)
    return;
}

static void
clear_wake (JsonPump *pump)
{
  guint64 count;

  if (read (pump->wake, &count, sizeof count) < 0)
    return;
}

/* Sends the descriptor with what the socket takes of the message, past the channel, which knows
 * bytes only: for a plain UNIX socket it keeps nothing back, so the order holds. */
static ChannelStatus
send_with_fd (JsonPump *pump, Outgoing *out, gsize *ret_n, GError **error)
{
  char control[CMSG_SPACE (sizeof (int))] = { 0 };
  struct iovec iov = { out->data, out->len };
  struct msghdr msg = {
    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
  };
  struct cmsghdr *cmsg = CMSG_FIRSTHDR (&msg);
  ssize_t n;

  cmsg->cmsg_level = SOL_SOCKET;
  cmsg->cmsg_type = SCM_RIGHTS;
  cmsg->cmsg_len = CMSG_LEN (sizeof (int));
  memcpy (CMSG_DATA (cmsg), &out->fd, sizeof (int));
  do
    n = sendmsg (channel_get_fd (pump->channel), &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    {
      int code = errno;

      if (code == EAGAIN || code == EWOULDBLOCK)
        return CHANNEL_AGAIN;
      g_set_error (error, G_IO_ERROR, (gint)g_io_error_from_errno (code),
                   "%s: cannot send a descriptor: %s", pump->peer, g_strerror (code));
      return CHANNEL_FAILED;
    }
  close (out->fd);
  out->fd = -1;
  *ret_n = (gsize)n;
  return CHANNEL_OK;
}

/* The oldest message, of which bytes remain to be sent.  Only the thread removes messages, so it
 * may use this one without the lock. */
static Outgoing *
peek_outgoing (JsonPump *pump)
{
  Outgoing *out;

  g_mutex_lock (&pump->lock);
  out = g_queue_peek_head (&pump->queue);
  g_mutex_unlock (&pump->lock);
  return out;
}

static void
account_sent (JsonPump *pump, Outgoing *out, gsize n)
{
  g_mutex_lock (&pump->lock);
  out->sent += n;
  pump->queued -= n;
  if (out->sent == out->len)
    {
      g_queue_pop_head (&pump->queue);
      outgoing_free (out);
    }
  g_mutex_unlock (&pump->lock);
}

/* Sends until the queue is empty or the channel takes no more. */
static Step
send_queued (JsonPump *pump, GError **error)
{
  Outgoing *out;

  while ((out = peek_outgoing (pump)) != NULL)
    {
      ChannelStatus status;
      gsize n = 0;

      if (out->fd >= 0)
        status = send_with_fd (pump, out, &n, error);
      else
        status
            = channel_write (pump->channel, out->data + out->sent, out->len - out->sent, &n, error);
      if (status == CHANNEL_FAILED)
        return STEP_FAILED;
      if (status != CHANNEL_OK)
        return STEP_OK;
      account_sent (pump, out, n);
    }
  return STEP_OK;
}

static gboolean
is_closing (JsonPump *pump)
{
  gboolean closing;

  g_mutex_lock (&pump->lock);
  closing = pump->closing;
  g_mutex_unlock (&pump->lock);
  return closing;
}

static Step
deliver (JsonPump *pump, gsize len, GError **error)
{
  gboolean good = json_framer_push (pump->framer, pump->buf, len, error);

  while (good && !is_closing (pump))
    {
      GError *local = NULL;
      JsonObject *message = json_framer_pop (pump->framer, &local);

      if (local != NULL)
        {
          g_propagate_error (error, local);
          good = FALSE;
        }
      else if (message == NULL)
        return STEP_OK;
      else
        pump->handlers.message (message, pump->data);
    }
  if (good)
    return STEP_OK;
  g_prefix_error (error, "%s: ", pump->peer);
  return STEP_FAILED;
}

static Step
end_of_stream (JsonPump *pump, GError **error)
{
  if (json_framer_is_empty (pump->framer))
    return STEP_END;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED,
               "%s: the connection ended in the middle of a message", pump->peer);
  return STEP_FAILED;
}

/* One read, so that sending gets its turn. */
static Step
receive (JsonPump *pump, GError **error)
{
  gsize n = 0;

  switch (channel_read (pump->channel, pump->buf, sizeof pump->buf, &n, error))
    {
    case CHANNEL_OK:
      /* What comes after json_pump_close () is only taken off the socket: closing it with unread
       * bytes would reset the connection and destroy what the other side has yet to read. */
      return is_closing (pump) ? STEP_OK : deliver (pump, n, error);
    case CHANNEL_AGAIN:
      return STEP_OK;
    case CHANNEL_EOF:
      return is_closing (pump) ? STEP_END : end_of_stream (pump, error);
    case CHANNEL_FAILED:
    default:
      return STEP_FAILED;
    }
}

/* poll(2)'s time-out; FALSE when lingering is over. */
static gboolean
linger_left (JsonPump *pump, gboolean *ret_sending, int *ret_timeout)
{
  gboolean go_on = TRUE;

  g_mutex_lock (&pump->lock);
  *ret_sending = !g_queue_is_empty (&pump->queue);
  *ret_timeout = -1;
  if (pump->closing)
    {
      gint64 left = pump->linger_until - g_get_monotonic_time ();

      *ret_timeout = (int)CLAMP ((left + 999) / 1000, 0, G_MAXINT);
      go_on = left > 0;
    }
  g_mutex_unlock (&pump->lock);
  return go_on;
}

static Step
take_failure (JsonPump *pump, GError **error)
{
  Step step = STEP_OK;

  g_mutex_lock (&pump->lock);
  if (pump->failure != NULL)
    {
      g_propagate_error (error, g_steal_pointer (&pump->failure));
      pump->gone = TRUE;
      step = STEP_FAILED;
    }
  g_mutex_unlock (&pump->lock);
  return step;
}

/* Waits for something to do, and does it. */
static Step
pump_once (JsonPump *pump, GError **error)
{
  struct pollfd fds[2] = { { .fd = pump->wake, .events = POLLIN } };
  gboolean sending, pending;
  int timeout;
  Step step;

  if (!linger_left (pump, &sending, &timeout))
    return STEP_END;
  if (!sending && timeout >= 0 && !pump->drained)
    {
      channel_shutdown (pump->channel);
      pump->drained = TRUE;
    }
  pending = channel_pending (pump->channel) > 0;
  fds[1].fd = channel_get_fd (pump->channel);
  fds[1].events = channel_poll_events (pump->channel, POLLIN);
  if (sending)
    fds[1].events |= channel_poll_events (pump->channel, POLLOUT);
  if (poll (fds, 2, pending ? 0 : timeout) < 0 && errno != EINTR)
    {
      g_set_error (error, G_IO_ERROR, (gint)g_io_error_from_errno (errno), "%s: poll: %s",
                   pump->peer, g_strerror (errno));
      return STEP_FAILED;
    }
  clear_wake (pump);
  step = take_failure (pump, error);
  if (step == STEP_OK && !pump->drained)
    step = send_queued (pump, error);
  if (step == STEP_OK && (pending || fds[1].revents != 0))
    step = receive (pump, error);
  return step;
}

static gpointer
pump_thread (gpointer data)
{
  JsonPump *pump = data;
  g_autoptr (GError) error = NULL;
  gboolean lingering;

  while (pump_once (pump, &error) == STEP_OK)
    ;
  g_mutex_lock (&pump->lock);
  pump->gone = TRUE;
  lingering = pump->closing;
  g_mutex_unlock (&pump->lock);
  if (error == NULL && !pump->drained)
    channel_shutdown (pump->channel);
  g_clear_pointer (&pump->channel, channel_free);
  /* After our own json_pump_close () a failure is of no interest. */
  pump->handlers.closed (lingering ? NULL : error, pump->data);
  pump_unref (pump);
  return NULL;
}

JsonPump *
json_pump_new (Channel *channel, const JsonPumpLimits *limits, const JsonPumpHandlers *handlers,
               gpointer data)
{
  JsonPump *pump = g_new0 (JsonPump, 1);

  g_atomic_ref_count_init (&pump->refs);
  g_atomic_ref_count_inc (&pump->refs);
  g_mutex_init (&pump->lock);
  g_queue_init (&pump->queue);
  pump->channel = channel;
  pump->peer = g_strdup (channel_get_peer (channel));
  pump->limits = *limits;
  pump->handlers = *handlers;
  pump->data = data;
  pump->framer = json_framer_new (limits->max_line, limits->max_depth);
  pump->wake = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (pump->wake < 0)
    g_error ("eventfd: %s", g_strerror (errno));
  /* The thread waits for the lock before it does anything, so a handler sees `thread` set. */
  g_mutex_lock (&pump->lock);
  pump->thread = g_thread_new ("json-pump", pump_thread, pump);
  g_mutex_unlock (&pump->lock);
  return pump;
}

static gboolean
enqueue (JsonPump *pump, Outgoing *out, GError **error)
{
  if (pump->gone || pump->closing || pump->failure != NULL)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_CLOSED, "%s: the connection is closed",
                   pump->peer);
      return FALSE;
    }
  if (pump->queued + out->len > pump->limits.max_queued)
    {
      g_set_error (&pump->failure, G_IO_ERROR, G_IO_ERROR_CLOSED,
                   "%s: doesn't read what it is sent: %" G_GSIZE_FORMAT " bytes are waiting",
                   pump->peer, pump->queued);
      if (error != NULL)
        *error = g_error_copy (pump->failure);
      return FALSE;
    }
  pump->queued += out->len;
  g_queue_push_tail (&pump->queue, out);
  return TRUE;
}

gboolean
json_pump_send (JsonPump *pump, JsonObject *message, int fd, GError **error)
{
  Outgoing *out = g_new0 (Outgoing, 1);
  gboolean ok = TRUE;

  out->fd = -1;
  if (fd >= 0 && (out->fd = fcntl (fd, F_DUPFD_CLOEXEC, 3)) < 0)
    {
      g_set_error (error, G_IO_ERROR, (gint)g_io_error_from_errno (errno),
                   "%s: cannot duplicate a descriptor: %s", pump->peer, g_strerror (errno));
      ok = FALSE;
    }
  if (ok)
    {
      out->data = json_framer_encode (message, &out->len);
      g_mutex_lock (&pump->lock);
      ok = enqueue (pump, out, error);
      g_mutex_unlock (&pump->lock);
      wake_thread (pump);
    }
  if (!ok)
    outgoing_free (out);
  return ok;
}

void
json_pump_close (JsonPump *pump, gint64 linger_ms)
{
  gint64 until = g_get_monotonic_time () + MAX (linger_ms, 0) * 1000;

  g_mutex_lock (&pump->lock);
  if (!pump->closing || until < pump->linger_until)
    pump->linger_until = until;
  pump->closing = TRUE;
  g_mutex_unlock (&pump->lock);
  wake_thread (pump);
}

void
json_pump_free (JsonPump *pump)
{
  GThread *thread;
  gboolean closing;

  if (pump == NULL)
    return;
  g_mutex_lock (&pump->lock);
  thread = pump->thread;
  closing = pump->closing;
  g_mutex_unlock (&pump->lock);
  if (!closing)
    json_pump_close (pump, 0);
  if (thread == g_thread_self ())
    g_thread_unref (thread);
  else
    g_thread_join (thread);
  pump_unref (pump);
}
