/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tls/channel.h"

/* A channel that ends in functions instead of a socket: no thread, no wait, the same course each
 * time. */
typedef struct
{
  /* What the client sends. */
  void (*sent) (gpointer user_data, const guint8 *data, gsize len);
  /* Gives up to `len` bytes; as channel_read () has it.  CHANNEL_AGAIN with nothing under way is a
   * peer that says no more: then the channel polls as idle, and its user runs into its deadline. */
  ChannelStatus (*give) (gpointer user_data, guint8 *buf, gsize len, gsize *ret_n);
} MemoryPeer;

/* `peer` and `user_data` are borrowed.  `seed` decides in what portions bytes are moved; 0: in one
 * as large as asked for. */
Channel *memory_channel_new (const MemoryPeer *peer, gpointer user_data, guint64 seed);

/* A peer that sends fixed bytes, then ends, and forgets what it gets. */
Channel *memory_channel_new_fixed (const guint8 *data, gsize len, guint64 seed);
