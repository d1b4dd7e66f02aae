/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ram-relay.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK (1024 * 1024)
#define CAPACITY (RAM_RELAY_KEEP + CHUNK)
#define MAX_ROUNDS 64

/* The first two bytes of every TLS stream: a handshake record of version 3.x (RFC 8446, 5.1). */
#define TLS_HANDSHAKE 0x16
#define TLS_MAJOR 0x03

typedef struct
{
  const char *from_name, *to_name;
  int from, to;
  guint8 *buf; /* CAPACITY bytes */
  gsize len;
  guint64 total; /* that have come */
  gboolean holds;
  gboolean ended, told; /* an end came; it was passed on */
} Way;

struct RamRelay
{
  Way forth, back;
};

static void
tune (int fd)
{
  int on = 1;

  fcntl (fd, F_SETFL, fcntl (fd, F_GETFL) | O_NONBLOCK);
  setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

RamRelay *
ram_relay_new (int source_fd, int destination_fd)
{
  RamRelay *relay = g_new0 (RamRelay, 1);

  tune (source_fd);
  tune (destination_fd);
  relay->forth = (Way){ "source", "destination", source_fd, destination_fd, g_malloc (CAPACITY) };
  relay->forth.holds = TRUE;
  relay->back = (Way){ "destination", "source", destination_fd, source_fd, g_malloc (CAPACITY) };
  return relay;
}

void
ram_relay_free (RamRelay *relay)
{
  if (!relay)
    return;
  close (relay->forth.from);
  close (relay->forth.to);
  g_free (relay->forth.buf);
  g_free (relay->back.buf);
  g_free (relay);
}

static gsize
may_pass (const Way *way, gboolean open)
{
  gsize keep = 0;

  if (way->holds && !open && way->total > RAM_RELAY_HANDSHAKE)
    keep = MIN (way->total - RAM_RELAY_HANDSHAKE, RAM_RELAY_KEEP);
  return way->len > keep ? way->len - keep : 0;
}

static gboolean
fail (const Way *way, const char *what, GError **error)
{
  int code = errno;

  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (code), "the stream %s the %s: %s", what,
               g_str_equal (what, "from") ? way->from_name : way->to_name, g_strerror (code));
  return FALSE;
}

/* A source that sends its guest's memory in clear is cut off before any of it is passed on. */
static gboolean
looks_like_tls (const Way *way, GError **error)
{
  if (!way->holds || way->len == 0
      || (way->buf[0] == TLS_HANDSHAKE && (way->len < 2 || way->buf[1] == TLS_MAJOR)))
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
               "the stream from the source doesn't begin with a TLS handshake");
  return FALSE;
}

static gboolean
receive (Way *way, gboolean *ret_moved, GError **error)
{
  gboolean first = way->total < 2;
  gssize n;

  if (way->ended || way->len == CAPACITY)
    return TRUE;
  n = recv (way->from, way->buf + way->len, CAPACITY - way->len, 0);
  if (n < 0)
    return errno == EAGAIN || errno == EINTR || fail (way, "from", error);
  *ret_moved = TRUE;
  way->ended = n == 0;
  way->len += n;
  way->total += n;
  return !first || looks_like_tls (way, error);
}

static gboolean
deliver (Way *way, gboolean open, gboolean *ret_moved, GError **error)
{
  gsize want = may_pass (way, open);
  gssize n;

  /* Half of the two bytes that tell is nothing to pass on. */
  if (want == 0 || (way->holds && way->total < 2))
    return TRUE;
  n = send (way->to, way->buf, want, MSG_NOSIGNAL);
  if (n < 0)
    return errno == EAGAIN || errno == EINTR || fail (way, "to", error);
  *ret_moved = TRUE;
  way->len -= n;
  memmove (way->buf, way->buf + n, way->len);
  return TRUE;
}

static gboolean
tell_end (Way *way, gboolean open, GError **error)
{
  if (!way->ended || way->told)
    return TRUE;
  if (!open)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_CLOSED,
                   "the %s ended the stream before it was let go", way->from_name);
      return FALSE;
    }
  if (way->len > 0)
    return TRUE;
  shutdown (way->to, SHUT_WR);
  way->told = TRUE;
  return TRUE;
}

static gboolean
move (Way *way, gboolean open, gboolean *ret_moved, GError **error)
{
  return receive (way, ret_moved, error) && deliver (way, open, ret_moved, error)
         && tell_end (way, open, error);
}

RamRelayResult
ram_relay_step (RamRelay *relay, gboolean open, GError **error)
{
  gboolean moved = TRUE;

  /* Not for as long as both sides keep up: who let go, or gave up, must be heard. */
  for (guint i = 0; moved && i < MAX_ROUNDS; i++)
    {
      moved = FALSE;
      if (!move (&relay->forth, open, &moved, error) || !move (&relay->back, open, &moved, error))
        return RAM_RELAY_BROKEN;
    }
  return relay->forth.told && relay->back.told ? RAM_RELAY_ENDED : RAM_RELAY_GOES_ON;
}

static short
wants_in (const Way *way)
{
  return !way->ended && way->len < CAPACITY ? POLLIN : 0;
}

static short
wants_out (const Way *way, gboolean open)
{
  return may_pass (way, open) > 0 ? POLLOUT : 0;
}

/* A descriptor of which nothing is wanted is left out: an end or an error that nobody takes would
 * have poll () return at once, without end. */
static void
prepare_one (struct pollfd *fd, int number, short events)
{
  *fd = (struct pollfd){ .fd = events ? number : -1, .events = events };
}

void
ram_relay_prepare (const RamRelay *relay, gboolean open, struct pollfd fds[2])
{
  prepare_one (&fds[0], relay->forth.from,
               wants_in (&relay->forth) | wants_out (&relay->back, open));
  prepare_one (&fds[1], relay->forth.to, wants_in (&relay->back) | wants_out (&relay->forth, open));
}
