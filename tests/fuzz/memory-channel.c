/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/memory-channel.h"

#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

typedef struct
{
  Channel channel;
  const MemoryPeer *peer;
  gpointer user_data;
  guint64 seed;
  GByteArray *refused; /* what the next write has to begin with */
  /* The peer of memory_channel_new_fixed () */
  const guint8 *data;
  gsize left;
} MemoryChannel;

/* Descriptors to poll: one that can be read and written, one that can only be written. They live as
 * long as the program, which runs a target millions of times. */
static int
get_fd (gboolean ready)
{
  static int fds[2] = { -1, -1 };

  if (fds[ready] < 0)
    fds[ready] = eventfd (ready ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
  FUZZ_REQUIRE (fds[ready] >= 0);
  return fds[ready];
}

/* Most are large, so that an input is soon through; some are a byte. */
static gsize
portion (MemoryChannel *memory, gsize len)
{
  guint64 value;

  if (memory->seed == 0)
    return len;
  value = fuzz_random (&memory->seed);
  switch (value % 8)
    {
    case 0:
      return 1;
    case 1:
    case 2:
      return MIN (len, 1 + (value >> 8) % 64);
    case 3:
    case 4:
      return MIN (len, 1 + (value >> 8) % 8192);
    default:
      return len;
    }
}

static ChannelStatus
memory_channel_read (Channel *channel, void *buf, gsize len, gsize *ret_n, GError **error)
{
  MemoryChannel *memory = (MemoryChannel *)channel;
  ChannelStatus status;

  /* A socket may have nothing now and something in a moment. */
  if (memory->seed != 0 && fuzz_random (&memory->seed) % 16 == 0)
    {
      channel->fd = get_fd (TRUE);
      return CHANNEL_AGAIN;
    }
  status = memory->peer->give (memory->user_data, buf, portion (memory, len), ret_n);
  channel->fd = get_fd (status != CHANNEL_AGAIN);
  return status;
}

static ChannelStatus
memory_channel_write (Channel *channel, const void *buf, gsize len, gsize *ret_n, GError **error)
{
  MemoryChannel *memory = (MemoryChannel *)channel;

  FUZZ_REQUIRE (memory->refused->len <= len);
  if (memory->refused->len > 0)
    FUZZ_REQUIRE (memcmp (memory->refused->data, buf, memory->refused->len) == 0);
  g_byte_array_set_size (memory->refused, 0);
  if (memory->seed != 0 && fuzz_random (&memory->seed) % 16 == 0)
    {
      g_byte_array_append (memory->refused, buf, (guint)len);
      channel->fd = get_fd (TRUE);
      return CHANNEL_AGAIN;
    }
  *ret_n = portion (memory, len);
  memory->peer->sent (memory->user_data, buf, *ret_n);
  return CHANNEL_OK;
}

static gsize
memory_channel_pending (Channel *channel)
{
  return 0;
}

static short
memory_channel_poll_events (Channel *channel, short wanted)
{
  return wanted;
}

static void
memory_channel_shutdown (Channel *channel)
{
}

static void
memory_channel_free (Channel *channel)
{
  g_byte_array_unref (((MemoryChannel *)channel)->refused);
  g_free (channel);
}

static const ChannelClass memory_channel_class = {
  .read = memory_channel_read,
  .write = memory_channel_write,
  .pending = memory_channel_pending,
  .poll_events = memory_channel_poll_events,
  .shutdown = memory_channel_shutdown,
  .free = memory_channel_free,
};

Channel *
memory_channel_new (const MemoryPeer *peer, gpointer user_data, guint64 seed)
{
  MemoryChannel *memory = g_new0 (MemoryChannel, 1);

  memory->channel.klass = &memory_channel_class;
  memory->channel.fd = get_fd (TRUE);
  memory->channel.peer = g_strdup ("memory:10809");
  memory->peer = peer;
  memory->user_data = user_data;
  memory->seed = seed;
  memory->refused = g_byte_array_new ();
  return &memory->channel;
}

static void
fixed_sent (gpointer user_data, const guint8 *data, gsize len)
{
}

static ChannelStatus
fixed_give (gpointer user_data, guint8 *buf, gsize len, gsize *ret_n)
{
  MemoryChannel *memory = user_data;

  if (memory->left == 0)
    return CHANNEL_EOF;
  *ret_n = MIN (len, memory->left);
  memcpy (buf, memory->data, *ret_n);
  memory->data += *ret_n;
  memory->left -= *ret_n;
  return CHANNEL_OK;
}

static const MemoryPeer fixed_peer = { fixed_sent, fixed_give };

Channel *
memory_channel_new_fixed (const guint8 *data, gsize len, guint64 seed)
{
  Channel *channel = memory_channel_new (&fixed_peer, NULL, seed);
  MemoryChannel *memory = (MemoryChannel *)channel;

  memory->user_data = memory;
  memory->data = data;
  memory->left = len;
  return channel;
}
