/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/channel.h"

#include <errno.h>
#include <glib-unix.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- the bottom: a socket ---- */

static ChannelStatus
fd_channel_fail (Channel *channel, const char *doing, GError **error)
{
  int saved = errno;

  if (saved == EAGAIN || saved == EWOULDBLOCK)
    return CHANNEL_AGAIN;
  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (saved), "%s: cannot %s: %s", channel->peer,
               doing, g_strerror (saved));
  return CHANNEL_FAILED;
}

static ChannelStatus
fd_channel_read (Channel *channel, void *buf, gsize len, gsize *ret_n, GError **error)
{
  ssize_t n;

  do
    n = recv (channel->fd, buf, len, 0);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return fd_channel_fail (channel, "receive", error);
  if (n == 0)
    return CHANNEL_EOF;
  *ret_n = (gsize)n;
  return CHANNEL_OK;
}

static ChannelStatus
fd_channel_write (Channel *channel, const void *buf, gsize len, gsize *ret_n, GError **error)
{
  ssize_t n;

  do
    n = send (channel->fd, buf, len, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return fd_channel_fail (channel, "send", error);
  *ret_n = (gsize)n;
  return CHANNEL_OK;
}

static gsize
fd_channel_pending (Channel *channel)
{
  return 0;
}

static short
fd_channel_poll_events (Channel *channel, short wanted)
{
  return wanted;
}

static void
fd_channel_shutdown (Channel *channel)
{
  shutdown (channel->fd, SHUT_WR);
}

static void
fd_channel_free (Channel *channel)
{
  close (channel->fd);
  g_free (channel);
}

static const ChannelClass fd_channel_class = {
  .read = fd_channel_read,
  .write = fd_channel_write,
  .pending = fd_channel_pending,
  .poll_events = fd_channel_poll_events,
  .shutdown = fd_channel_shutdown,
  .free = fd_channel_free,
};

Channel *
channel_new_fd (int fd, const char *peer)
{
  Channel *channel = g_new0 (Channel, 1);

  g_unix_set_fd_nonblocking (fd, TRUE, NULL);
  channel->klass = &fd_channel_class;
  channel->fd = fd;
  channel->peer = g_strdup (peer);
  return channel;
}

/* ---- any channel ---- */

ChannelStatus
channel_read (Channel *channel, void *buf, gsize len, gsize *ret_n, GError **error)
{
  g_return_val_if_fail (len > 0, CHANNEL_FAILED);
  return channel->klass->read (channel, buf, len, ret_n, error);
}

ChannelStatus
channel_write (Channel *channel, const void *buf, gsize len, gsize *ret_n, GError **error)
{
  g_return_val_if_fail (len > 0, CHANNEL_FAILED);
  return channel->klass->write (channel, buf, len, ret_n, error);
}

gsize
channel_pending (Channel *channel)
{
  return channel->klass->pending (channel);
}

short
channel_poll_events (Channel *channel, short wanted)
{
  return channel->klass->poll_events (channel, wanted);
}

gboolean
channel_wait (Channel *channel, short wanted, Deadline deadline, GError **error)
{
  if ((wanted & POLLIN) != 0 && channel_pending (channel) > 0)
    return TRUE;
  if (deadline_poll (deadline, channel->fd, channel_poll_events (channel, wanted), error))
    return TRUE;
  g_prefix_error (error, "%s: ", channel->peer);
  return FALSE;
}

gboolean
channel_read_all (Channel *channel, void *buf, gsize len, Deadline deadline, GError **error)
{
  gsize done = 0;

  while (done < len)
    {
      gsize n = 0;
      switch (channel_read (channel, (guint8 *)buf + done, len - done, &n, error))
        {
        case CHANNEL_OK:
          done += n;
          break;
        case CHANNEL_AGAIN:
          if (!channel_wait (channel, POLLIN, deadline, error))
            return FALSE;
          break;
        case CHANNEL_EOF:
          g_set_error (error, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED,
                       "%s: it closed the connection after %zu of %zu bytes", channel->peer, done,
                       len);
          return FALSE;
        case CHANNEL_FAILED:
          return FALSE;
        }
    }
  return TRUE;
}

gboolean
channel_write_all (Channel *channel, const void *buf, gsize len, Deadline deadline, GError **error)
{
  gsize done = 0;

  while (done < len)
    {
      gsize n = 0;
      switch (channel_write (channel, (const guint8 *)buf + done, len - done, &n, error))
        {
        case CHANNEL_OK:
          done += n;
          break;
        case CHANNEL_AGAIN:
          if (!channel_wait (channel, POLLOUT, deadline, error))
            return FALSE;
          break;
        case CHANNEL_EOF: /* reads only */
        case CHANNEL_FAILED:
          return FALSE;
        }
    }
  return TRUE;
}

int
channel_get_fd (const Channel *channel)
{
  return channel->fd;
}

const char *
channel_get_peer (const Channel *channel)
{
  return channel->peer;
}

void
channel_shutdown (Channel *channel)
{
  channel->klass->shutdown (channel);
}

void
channel_free (Channel *channel)
{
  if (channel == NULL)
    return;
  char *peer = channel->peer;
  channel->klass->free (channel);
  g_free (peer);
}
