/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/client-private.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

/* A server that sends many small pieces (QEMU: one TLS record a call) would wake us for each of
 * them, which costs both sides more than the piece itself.  So we sleep until a good part of what
 * is due has come, but no longer than this: it may come as a hole. */
#define LOW_WATER_MIN (16 * 1024)
#define LOW_WATER_MAX (128 * 1024)
#define LOW_WATER_US 1000
/* A link that is slower than that: so many waits without. */
#define LOW_WATER_PAUSE 256

static gboolean
client_set_option (NbdClient *client, int level, int name, int value)
{
  return setsockopt (channel_get_fd (client->channel), level, name, &value, sizeof value) == 0;
}

/* A server without TCP_NODELAY holds the end of a reply back until the last one is acknowledged,
 * which the kernel delays by 40 ms unless it is told otherwise before each wait. */
static void
client_ask_quick_ack (NbdClient *client)
{
  if (client->is_tcp && !client_set_option (client, IPPROTO_TCP, TCP_QUICKACK, 1))
    client->is_tcp = FALSE;
}

static void
client_set_low_water (NbdClient *client, int value)
{
  if (!client->is_tcp || value == client->low_water)
    return;
  client_set_option (client, SOL_SOCKET, SO_RCVLOWAT, value);
  client->low_water = value;
}

static int
client_choose_low_water (NbdClient *client)
{
  guint64 most = MIN (client->data_due / 4, LOW_WATER_MAX);
  int value = LOW_WATER_MIN;

  if (client->low_water_pause > 0)
    {
      client->low_water_pause--;
      return 1;
    }
  if (most < LOW_WATER_MIN)
    return 1;
  /* Few different values, and so few system calls. */
  while ((guint64)value * 2 <= most)
    value *= 2;
  return value;
}

/* TRUE: there may be something to receive (or to send), or the time has come. */
static gboolean
client_poll (NbdClient *client, short events, Deadline deadline, GError **error)
{
  g_autoptr (GError) failure = NULL;

  if (deadline_poll (deadline, channel_get_fd (client->channel),
                     channel_poll_events (client->channel, events), &failure)
      || g_error_matches (failure, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&failure));
  return FALSE;
}

gboolean
nbd_client_wait (NbdClient *client, gint64 until, GCancellable *cancellable, GError **error)
{
  Deadline deadline = { .at = until, .cancellable = cancellable };
  short events = POLLIN;
  gint64 soon;

  if (!client->drained || channel_pending (client->channel) > 0)
    return TRUE;
  if (client_has_output (client))
    events |= POLLOUT;
  client_set_low_water (client, client_choose_low_water (client));
  if (client->low_water == 1)
    {
      client_ask_quick_ack (client);
      return client_poll (client, events, deadline, error);
    }

  soon = g_get_monotonic_time () + LOW_WATER_US;
  deadline.at = MIN (until, soon);
  if (!client_poll (client, events, deadline, error))
    return FALSE;
  if (g_get_monotonic_time () >= soon)
    client->low_water_pause = LOW_WATER_PAUSE;
  return TRUE;
}
