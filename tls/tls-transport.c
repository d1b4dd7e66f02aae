/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/tls-transport.h"

#include <errno.h>
#include <string.h>

/* GnuTLS asks for each record in two reads, its header and the rest.  Reading ahead saves those
 * system calls: 0.69 s of CPU time for 1 GB, against 0.84 without and 0.77 with 64 KiB. */
#define AHEAD_BYTES (256 * 1024)

static ssize_t
take_from_ahead (TlsTransport *transport, void *buf, size_t len)
{
  gsize n = MIN (len, transport->ahead_end - transport->ahead_at);

  memcpy (buf, transport->ahead + transport->ahead_at, n);
  transport->ahead_at += n;
  return (ssize_t)n;
}

static ssize_t
fail_transport (TlsTransport *transport, ChannelStatus status, GError *error)
{
  gnutls_transport_set_errno (transport->session, status == CHANNEL_AGAIN ? EAGAIN : EIO);
  if (error != NULL && transport->io_error == NULL)
    transport->io_error = error;
  else
    g_clear_error (&error);
  return -1;
}

static void
note_first_bytes (TlsTransport *transport, gsize n)
{
  gsize more = MIN (n, sizeof transport->first - transport->n_first);

  memcpy (transport->first + transport->n_first, transport->ahead, more);
  transport->n_first += more;
}

static ssize_t
pull (gnutls_transport_ptr_t data, void *buf, size_t len)
{
  TlsTransport *transport = data;
  GError *error = NULL;
  gsize n = 0;

  if (transport->ahead_at < transport->ahead_end)
    return take_from_ahead (transport, buf, len);
  ChannelStatus status = channel_read (transport->lower, transport->ahead, AHEAD_BYTES, &n, &error);
  if (status == CHANNEL_EOF)
    return 0;
  if (status != CHANNEL_OK)
    return fail_transport (transport, status, error);
  transport->ahead_at = 0;
  transport->ahead_end = n;
  if (transport->n_first < sizeof transport->first)
    note_first_bytes (transport, n);
  return take_from_ahead (transport, buf, len);
}

/* Who refuses our certificate says so and closes: the next flight can't be written any more, but
 * the alert is still to be read.  If there is none, the read finds the end. */
static gboolean
may_be_refused (const TlsTransport *transport, ChannelStatus status, const GError *error)
{
  return transport->handshaking && status == CHANNEL_FAILED
         && g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED);
}

static ssize_t
push (gnutls_transport_ptr_t data, const void *buf, size_t len)
{
  TlsTransport *transport = data;
  GError *error = NULL;
  gsize n = 0;
  ChannelStatus status = channel_write (transport->lower, buf, len, &n, &error);

  if (may_be_refused (transport, status, error))
    {
      g_error_free (error);
      return (ssize_t)len;
    }
  if (status != CHANNEL_OK)
    return fail_transport (transport, status, error);
  return (ssize_t)n;
}

/* GnuTLS may look, never wait: waiting is ours. */
static int
pull_timeout (gnutls_transport_ptr_t data, unsigned int ms)
{
  return 1;
}

void
tls_transport_init (TlsTransport *transport, gnutls_session_t session, Channel *lower)
{
  transport->lower = lower;
  transport->session = session;
  transport->handshaking = TRUE;
  transport->ahead = g_malloc (AHEAD_BYTES);
  gnutls_transport_set_ptr (session, transport);
  gnutls_transport_set_pull_function (session, pull);
  gnutls_transport_set_push_function (session, push);
  gnutls_transport_set_pull_timeout_function (session, pull_timeout);
}

gsize
tls_transport_pending (const TlsTransport *transport)
{
  return transport->ahead_end - transport->ahead_at;
}

void
tls_transport_clear (TlsTransport *transport)
{
  channel_free (transport->lower);
  g_clear_error (&transport->io_error);
  g_free (transport->ahead);
}
