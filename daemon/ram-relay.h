/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <poll.h>

/* The bytes of a migration stream between two QEMUs, which speak TLS with each other: ciphertext is
 * passed on as it is.  What comes from the source passes up to 64 KiB, because the handshake must
 * get through; from there on the newest 256 KiB are kept back until the relay is open.  So the
 * destination can't have the end of the stream before that, and the source, whose QEMU waits for
 * the destination's word that all of it was loaded, can't complete.  What comes from the
 * destination passes always. */
typedef struct RamRelay RamRelay;

#define RAM_RELAY_HANDSHAKE (64 * 1024)
#define RAM_RELAY_KEEP (256 * 1024)

/* Takes over two connected stream sockets and makes them non-blocking. */
RamRelay *ram_relay_new (int source_fd, int destination_fd);
/* Closes both. */
void ram_relay_free (RamRelay *relay);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (RamRelay, ram_relay_free)

typedef enum
{
  RAM_RELAY_GOES_ON,
  RAM_RELAY_ENDED, /* open, all passed, both sides have ended it */
  RAM_RELAY_BROKEN /* an error, no TLS, or an end before it was open */
} RamRelayResult;

/* What to wait for before the next step: the source's socket, the destination's. */
void ram_relay_prepare (const RamRelay *relay, gboolean open, struct pollfd fds[2]);
/* Moves what can be moved without waiting.  `error` is set where it is broken. */
RamRelayResult ram_relay_step (RamRelay *relay, gboolean open, GError **error);
