/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tls/deadline.h"

/* A byte stream: a socket, or TLS over another channel.  A channel belongs to one thread at a
 * time: GnuTLS sessions are not safe to share, not even between one reader and one writer, because
 * of rekeying.  Nothing here blocks except the functions that take a Deadline. */
typedef struct Channel Channel;

typedef enum
{
  CHANNEL_OK,    /* at least one byte was moved */
  CHANNEL_AGAIN, /* nothing can be moved now: poll for channel_poll_events () */
  CHANNEL_EOF,   /* reads only: an orderly end (for TLS: a close_notify was received) */
  CHANNEL_FAILED /* error is set; the channel is of no more use */
} ChannelStatus;

typedef struct
{
  ChannelStatus (*read) (Channel *channel, void *buf, gsize len, gsize *ret_n, GError **error);
  ChannelStatus (*write) (Channel *channel, const void *buf, gsize len, gsize *ret_n,
                          GError **error);
  /* Bytes that were received from the socket but not read yet: poll(2) can't see them.  Not 0: try
   * to read before you poll (it may still be CHANNEL_AGAIN, and then it is 0). */
  gsize (*pending) (Channel *channel);
  /* The poll(2) events to wait for before `wanted` (POLLIN and/or POLLOUT) can go on: TLS may have
   * to write before it can read. */
  short (*poll_events) (Channel *channel, short wanted);
  void (*shutdown) (Channel *channel);
  void (*free) (Channel *channel); /* all but `peer`, which channel_free () frees */
} ChannelClass;

struct Channel
{
  const ChannelClass *klass;
  int fd;     /* for poll(2); the bottom channel owns it */
  char *peer; /* whom errors name: "hostB", "hostB:10810", "/run/x.sock" */
};

/* Takes over a connected stream socket and makes it non-blocking.  `peer` names it in errors.
 * A reset or closed connection is G_IO_ERROR_CONNECTION_CLOSED or _BROKEN_PIPE. */
Channel *channel_new_fd (int fd, const char *peer);

/* Resolves and connects, each address in turn, with TCP_NODELAY and keepalive set.
 * `host` is a name or an address without brackets.  Errors: G_IO_ERROR codes (connection refused,
 * timed out, host not found, ...), message "cannot connect to HOST:PORT: ...". */
Channel *channel_connect_tcp (const char *host, guint16 port, Deadline deadline, GError **error);
/* Errors: "cannot connect to PATH: ...", G_IO_ERROR_NOT_FOUND where there is none. */
Channel *channel_connect_unix (const char *path, Deadline deadline, GError **error);

/* len > 0.  After CHANNEL_AGAIN the next write must begin with the same bytes (there may be more of
 * them, not fewer): TLS has already made a record of them. */
ChannelStatus channel_read (Channel *channel, void *buf, gsize len, gsize *ret_n, GError **error);
ChannelStatus channel_write (Channel *channel, const void *buf, gsize len, gsize *ret_n,
                             GError **error);
gsize channel_pending (Channel *channel);
short channel_poll_events (Channel *channel, short wanted);

/* Waits until `wanted` (POLLIN and/or POLLOUT) may be possible; at once TRUE when POLLIN is wanted
 * and something is pending.  Errors as deadline_poll (), with the peer's name in front. */
gboolean channel_wait (Channel *channel, short wanted, Deadline deadline, GError **error);

/* Exactly `len` bytes, or FALSE.  An end before that is G_IO_ERROR_CONNECTION_CLOSED. */
gboolean channel_read_all (Channel *channel, void *buf, gsize len, Deadline deadline,
                           GError **error);
gboolean channel_write_all (Channel *channel, const void *buf, gsize len, Deadline deadline,
                            GError **error);

int channel_get_fd (const Channel *channel);
const char *channel_get_peer (const Channel *channel);

/* Tells the other side that nothing more comes (TLS: close_notify, one attempt, no wait). */
void channel_shutdown (Channel *channel);
/* Closes the descriptor too.  NULL is fine. */
void channel_free (Channel *channel);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Channel, channel_free)
