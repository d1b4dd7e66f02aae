/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/tls-channel.h"

#include "tls/handshake-error.h"
#include "tls/tls-transport.h"
#include "tls/verify.h"

/* How long a peer that is refused has to take the alert: closing at once could destroy it. */
#define LINGER_MS 500
#define LINGER_BYTES (1024 * 1024)
#define SCRAP_BYTES (16 * 1024)

/* Records without data (tickets, key updates) that one read goes through. */
#define CONTROL_RECORDS_MAX 64

typedef struct
{
  Channel base;
  TlsTransport transport;
  Credentials *credentials;
  gnutls_session_t session;
  char *name;      /* whom a client wants to reach; NULL: a server, or TLS-PSK */
  char *identity;  /* once the peer's certificate is verified */
  GError *refusal; /* of the peer's certificate, by us */
  gnutls_alert_description_t refusal_alert;
  gsize unsent;      /* bytes of the caller in a record that was not sent whole */
  gboolean received; /* data of the peer was read */
  short read_events; /* what the last read that got CHANNEL_AGAIN waits for */
} TlsChannel;

static ChannelStatus
fail_with (TlsChannel *tls, GError *local, GError **error)
{
  g_prefix_error (&local, "%s: ", tls->base.peer);
  g_propagate_error (error, local);
  return CHANNEL_FAILED;
}

/* A server that refuses our certificate in TLS 1.3 does so when our handshake is over. */
static gboolean
is_early_end (const TlsChannel *tls, int rc)
{
  if (tls->received || credentials_get_endpoint (tls->credentials) == CREDENTIALS_SERVER)
    return FALSE;
  return rc == GNUTLS_E_PREMATURE_TERMINATION
         || (tls->transport.io_error != NULL
             && g_error_matches (tls->transport.io_error, G_IO_ERROR,
                                 G_IO_ERROR_CONNECTION_CLOSED));
}

static ChannelStatus
fail_session (TlsChannel *tls, int rc, GError **error)
{
  if (rc == GNUTLS_E_FATAL_ALERT_RECEIVED)
    return fail_with (
        tls, handshake_error_from_alert (gnutls_alert_get (tls->session), tls->credentials), error);
  if (is_early_end (tls, rc))
    return fail_with (tls, handshake_error_from_early_end (tls->credentials), error);
  if (tls->transport.io_error != NULL) /* it names the peer */
    {
      g_propagate_error (error, g_steal_pointer (&tls->transport.io_error));
      return CHANNEL_FAILED;
    }
  if (rc == GNUTLS_E_PREMATURE_TERMINATION)
    return fail_with (tls,
                      g_error_new (G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED,
                                   "the connection ended without the end of TLS: it was cut, or "
                                   "the program there died"),
                      error);
  if (rc == GNUTLS_E_REHANDSHAKE)
    return fail_with (tls,
                      g_error_new (G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                                   "it asks for a TLS renegotiation, which is refused"),
                      error);
  return fail_with (
      tls,
      g_error_new (G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "TLS failed: %s", gnutls_strerror (rc)),
      error);
}

static gboolean
is_again (int rc)
{
  return rc == GNUTLS_E_AGAIN || rc == GNUTLS_E_INTERRUPTED;
}

static ChannelStatus
tls_channel_read (Channel *channel, void *buf, gsize len, gsize *ret_n, GError **error)
{
  TlsChannel *tls = (TlsChannel *)channel;
  ssize_t n;

  /* GnuTLS says "again" after a record without data, too, when the next one is already here */
  for (guint i = 0; i < CONTROL_RECORDS_MAX; i++)
    {
      n = gnutls_record_recv (tls->session, buf, len);
      if (!is_again ((int)n) || tls_transport_pending (&tls->transport) == 0)
        break;
    }
  if (is_again ((int)n))
    {
      if (tls_transport_pending (&tls->transport) > 0)
        return fail_with (tls,
                          g_error_new (G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                                       "it sends TLS records without data, and no end of them"),
                          error);
      tls->read_events = gnutls_record_get_direction (tls->session) == 1 ? POLLOUT : POLLIN;
      return CHANNEL_AGAIN;
    }
  tls->read_events = POLLIN;
  if (n == 0)
    return CHANNEL_EOF;
  if (n < 0)
    return fail_session (tls, (int)n, error);
  tls->received = TRUE;
  *ret_n = (gsize)n;
  return CHANNEL_OK;
}

/* When sending fails, the peer's last word may still be there to be read: why it closed. */
static ChannelStatus
fail_write (TlsChannel *tls, int rc, GError **error)
{
  if (!tls->received)
    {
      guint8 byte;
      int why = (int)gnutls_record_recv (tls->session, &byte, 1);
      if (why == GNUTLS_E_FATAL_ALERT_RECEIVED)
        rc = why;
    }
  return fail_session (tls, rc, error);
}

static ChannelStatus
tls_channel_write (Channel *channel, const void *buf, gsize len, gsize *ret_n, GError **error)
{
  TlsChannel *tls = (TlsChannel *)channel;
  ssize_t n;

  if (tls->unsent > 0)
    n = gnutls_record_send (tls->session, NULL, 0); /* it has the record */
  else
    n = gnutls_record_send (tls->session, buf, len);
  if (is_again ((int)n))
    {
      if (tls->unsent == 0)
        tls->unsent = MIN (len, gnutls_record_get_max_size (tls->session));
      return CHANNEL_AGAIN;
    }
  if (n < 0)
    return fail_write (tls, (int)n, error);
  tls->unsent = 0;
  g_return_val_if_fail ((gsize)n <= len, CHANNEL_FAILED);
  *ret_n = (gsize)n;
  return CHANNEL_OK;
}

static gsize
tls_channel_pending (Channel *channel)
{
  TlsChannel *tls = (TlsChannel *)channel;

  return gnutls_record_check_pending (tls->session) + tls_transport_pending (&tls->transport);
}

static short
tls_channel_poll_events (Channel *channel, short wanted)
{
  TlsChannel *tls = (TlsChannel *)channel;
  short events = wanted & POLLOUT;

  if ((wanted & POLLIN) != 0)
    events |= tls->read_events;
  return channel_poll_events (tls->transport.lower, events);
}

static void
tls_channel_shutdown (Channel *channel)
{
  TlsChannel *tls = (TlsChannel *)channel;

  gnutls_bye (tls->session, GNUTLS_SHUT_WR);
  channel_shutdown (tls->transport.lower);
}

static void
tls_channel_free (Channel *channel)
{
  TlsChannel *tls = (TlsChannel *)channel;

  gnutls_deinit (tls->session);
  tls_transport_clear (&tls->transport);
  credentials_unref (tls->credentials);
  g_clear_error (&tls->refusal);
  g_free (tls->name);
  g_free (tls->identity);
  g_free (tls);
}

static const ChannelClass tls_channel_class = {
  .read = tls_channel_read,
  .write = tls_channel_write,
  .pending = tls_channel_pending,
  .poll_events = tls_channel_poll_events,
  .shutdown = tls_channel_shutdown,
  .free = tls_channel_free,
};

/* ---- the handshake ---- */

/* Runs inside the handshake, so that a client doesn't show its certificate to a server that it
 * refuses, and the alert goes out at the place where the peer expects one. */
static int
verify_in_handshake (gnutls_session_t session)
{
  TlsChannel *tls = gnutls_session_get_ptr (session);

  if (credentials_is_psk (tls->credentials)) /* a certificate proves nothing to us */
    return GNUTLS_E_CERTIFICATE_ERROR;
  g_free (tls->identity);
  g_clear_error (&tls->refusal);
  tls->identity = verify_peer (session, tls->credentials, tls->base.peer, tls->name,
                               &tls->refusal_alert, &tls->refusal);
  return tls->identity != NULL ? 0 : GNUTLS_E_CERTIFICATE_ERROR;
}

static TlsChannel *
tls_channel_new (Channel *lower, Credentials *credentials, const char *name)
{
  TlsChannel *tls = g_new0 (TlsChannel, 1);
  gboolean server = credentials_get_endpoint (credentials) == CREDENTIALS_SERVER;
  guint side = server ? GNUTLS_SERVER : GNUTLS_CLIENT | GNUTLS_FORCE_CLIENT_CERT;

  tls->base.klass = &tls_channel_class;
  tls->base.fd = lower->fd;
  tls->base.peer = g_strdup (lower->peer);
  tls->credentials = credentials_ref (credentials);
  tls->name = g_strdup (name);
  tls->read_events = POLLIN;

  /* no tickets: each connection is verified in full */
  gnutls_init (&tls->session, side | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS);
  gnutls_session_set_ptr (tls->session, tls);
  gnutls_session_set_verify_function (tls->session, verify_in_handshake);
  tls_transport_init (&tls->transport, tls->session, lower);
  gnutls_handshake_set_timeout (tls->session, GNUTLS_INDEFINITE_TIMEOUT);
  if (server)
    gnutls_certificate_server_set_request (tls->session, GNUTLS_CERT_REQUIRE);
  return tls;
}

static gboolean
configure_session (TlsChannel *tls, GError **error)
{
  int rc = credentials_apply (tls->credentials, tls->session);

  if (rc == 0)
    return TRUE;
  g_set_error (error, TLS_ERROR, TLS_ERROR_HANDSHAKE,
               "this host's GnuTLS can't do TLS with AEAD ciphers (system policy?): %s",
               gnutls_strerror (rc));
  return FALSE;
}

/* Sends a fatal alert and waits, briefly, until the peer has it. */
static void
send_alert (TlsChannel *tls, gnutls_alert_description_t alert)
{
  Deadline deadline = deadline_in (LINGER_MS, NULL);
  g_autofree guint8 *scrap = g_malloc (SCRAP_BYTES);
  gsize n = 0, total = 0;

  gnutls_alert_send (tls->session, GNUTLS_AL_FATAL, alert);
  channel_shutdown (tls->transport.lower);
  while (total < LINGER_BYTES)
    {
      ChannelStatus status = channel_read (tls->transport.lower, scrap, SCRAP_BYTES, &n, NULL);
      if (status == CHANNEL_OK)
        total += n;
      else if (status != CHANNEL_AGAIN
               || !channel_wait (tls->transport.lower, POLLIN, deadline, NULL))
        break;
    }
}

static void
fail_handshake (TlsChannel *tls, int rc, GError **error)
{
  if (tls->refusal != NULL)
    {
      send_alert (tls, tls->refusal_alert);
      g_propagate_error (error, g_steal_pointer (&tls->refusal));
      return;
    }
  GError *local = handshake_error_from_gnutls (tls->session, rc, tls->credentials,
                                               tls->transport.first, tls->transport.n_first);
  int level = 0;
  int alert = gnutls_error_to_alert (rc, &level);
  if (alert >= 0 && level == GNUTLS_AL_FATAL && tls->transport.io_error == NULL)
    send_alert (tls, (gnutls_alert_description_t)alert);
  fail_with (tls, local, error);
}

static gboolean
wait_for_handshake (TlsChannel *tls, Deadline deadline, GError **error)
{
  short wanted = gnutls_record_get_direction (tls->session) == 1 ? POLLOUT : POLLIN;
  g_autoptr (GError) local = NULL;

  if (deadline_poll (deadline, tls->base.fd, channel_poll_events (tls->transport.lower, wanted),
                     &local))
    return TRUE;
  g_set_error (error, local->domain, local->code, "%s: %s in the TLS handshake", tls->base.peer,
               local->message);
  return FALSE;
}

/* Nothing else than what the credentials are for may have come out of the handshake. */
static gboolean
is_verified (const TlsChannel *tls)
{
  if (credentials_is_psk (tls->credentials))
    return gnutls_auth_get_type (tls->session) == GNUTLS_CRD_PSK;
  return tls->identity != NULL;
}

static gboolean
handshake (TlsChannel *tls, Deadline deadline, GError **error)
{
  int rc;

  while ((rc = gnutls_handshake (tls->session)) != 0)
    {
      gboolean goes_on = rc == GNUTLS_E_AGAIN         ? wait_for_handshake (tls, deadline, error)
                         : gnutls_error_is_fatal (rc) ? FALSE
                                                      : deadline_check (deadline, error);
      if (goes_on)
        continue;
      if (gnutls_error_is_fatal (rc))
        fail_handshake (tls, rc, error);
      return FALSE;
    }
  tls->transport.handshaking = FALSE;
  if (is_verified (tls))
    return TRUE;
  g_set_error (error, TLS_ERROR, TLS_ERROR_UNTRUSTED, "%s: it was not verified", tls->base.peer);
  return FALSE;
}

static Channel *
tls_channel_open (Channel *lower, Credentials *credentials, const char *name, Deadline deadline,
                  GError **error)
{
  TlsChannel *tls = tls_channel_new (lower, credentials, name);
  g_autoptr (Channel) channel = &tls->base;

  if (!configure_session (tls, error) || !handshake (tls, deadline, error))
    return NULL;
  return g_steal_pointer (&channel);
}

Channel *
tls_channel_connect (Channel *lower, Credentials *credentials, const char *name, Deadline deadline,
                     GError **error)
{
  g_return_val_if_fail (credentials_get_endpoint (credentials) == CREDENTIALS_CLIENT, NULL);
  g_return_val_if_fail (name != NULL || credentials_is_psk (credentials), NULL);
  return tls_channel_open (lower, credentials, name, deadline, error);
}

Channel *
tls_channel_accept (Channel *lower, Credentials *credentials, Deadline deadline, GError **error)
{
  g_return_val_if_fail (credentials_get_endpoint (credentials) == CREDENTIALS_SERVER, NULL);
  return tls_channel_open (lower, credentials, NULL, deadline, error);
}

const char *
tls_channel_get_identity (Channel *channel)
{
  g_return_val_if_fail (channel->klass == &tls_channel_class, NULL);
  return ((TlsChannel *)channel)->identity;
}

void
tls_channel_refuse (Channel *channel)
{
  g_return_if_fail (channel->klass == &tls_channel_class);
  send_alert ((TlsChannel *)channel, GNUTLS_A_ACCESS_DENIED);
}
