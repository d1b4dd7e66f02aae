/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/raw-peer.h"

#include <sys/socket.h>
#include <unistd.h>

struct RawPeer
{
  GThread *thread;
  int fd;
  RawPeerPlan plan;
  int alert;
};

static gboolean
is_again (ssize_t rc)
{
  return rc == GNUTLS_E_AGAIN || rc == GNUTLS_E_INTERRUPTED;
}

static void
note_alert (RawPeer *peer, gnutls_session_t session, ssize_t rc)
{
  if (rc == GNUTLS_E_FATAL_ALERT_RECEIVED)
    peer->alert = (int)gnutls_alert_get (session);
}

static void
echo (RawPeer *peer, gnutls_session_t session, gboolean update_keys)
{
  char buf[16384];

  for (;;)
    {
      ssize_t n = gnutls_record_recv (session, buf, sizeof buf);
      if (is_again (n))
        continue;
      note_alert (peer, session, n);
      if (n <= 0)
        break;
      for (ssize_t done = 0; done < n;)
        {
          ssize_t sent = gnutls_record_send (session, buf + done, (size_t)(n - done));
          if (sent < 0 && !is_again (sent))
            return;
          done += MAX (sent, 0);
        }
      if (update_keys)
        gnutls_session_key_update (session, GNUTLS_KU_PEER);
    }
  gnutls_bye (session, GNUTLS_SHUT_WR);
}

static void
drain (RawPeer *peer, gnutls_session_t session)
{
  char buf[4096];
  ssize_t n;

  do
    n = gnutls_record_recv (session, buf, sizeof buf);
  while (n > 0 || is_again (n));
  note_alert (peer, session, n);
}

static void
act (RawPeer *peer, gnutls_session_t session)
{
  static const char forged[] = "\x17\x03\x03\x00\x20 this was never encrypted, not at all";

  switch (peer->plan.then)
    {
    case RAW_PEER_CLOSE:
      return;
    case RAW_PEER_ECHO:
      echo (peer, session, FALSE);
      return;
    case RAW_PEER_KEY_UPDATES:
      echo (peer, session, TRUE);
      return;
    default:
      break;
    }
  gnutls_record_send (session, "hello", 5);
  if (peer->plan.then == RAW_PEER_BYE)
    gnutls_bye (session, GNUTLS_SHUT_WR);
  else if (peer->plan.then == RAW_PEER_RENEGOTIATE)
    gnutls_rehandshake (session);
  else if (peer->plan.then == RAW_PEER_GARBAGE)
    g_assert_cmpint (send (peer->fd, forged, 5 + 0x20, MSG_NOSIGNAL), ==, 5 + 0x20);
  if (peer->plan.then != RAW_PEER_CUT)
    drain (peer, session);
}

static void
load (gnutls_certificate_credentials_t credentials, const RawPeerPlan *plan)
{
  const char *side = plan->is_server ? "server" : "client";
  g_autofree char *cert = g_strdup_printf ("%s/%s-cert.pem", plan->dir, side);
  g_autofree char *key = g_strdup_printf ("%s/%s-key.pem", plan->dir, side);
  int rc = gnutls_certificate_set_x509_key_file (credentials, cert, key, GNUTLS_X509_FMT_PEM);

  if (rc < 0)
    g_error ("raw-peer: %s: %s", cert, gnutls_strerror (rc));
}

static void
verify (gnutls_session_t session, gnutls_certificate_credentials_t credentials, const char *dir)
{
  g_autofree char *file = g_build_filename (dir, "ca-cert.pem", NULL);

  gnutls_certificate_set_x509_trust_file (credentials, file, GNUTLS_X509_FMT_PEM);
  gnutls_session_set_verify_cert (session, NULL, 0);
}

static gpointer
run (gpointer data)
{
  RawPeer *peer = data;
  const RawPeerPlan *plan = &peer->plan;
  gnutls_certificate_credentials_t credentials;
  gnutls_session_t session;
  int rc;

  gnutls_certificate_allocate_credentials (&credentials);
  if (plan->dir != NULL)
    load (credentials, plan);
  gnutls_init (&session,
               GNUTLS_NO_SIGNAL
                   | (plan->is_server ? GNUTLS_SERVER : GNUTLS_CLIENT | GNUTLS_FORCE_CLIENT_CERT));
  rc = gnutls_priority_set_direct (session, plan->priority != NULL ? plan->priority : "NORMAL",
                                   NULL);
  g_assert_cmpint (rc, ==, 0);
  gnutls_credentials_set (session, GNUTLS_CRD_CERTIFICATE, credentials);
  if (plan->is_server)
    gnutls_certificate_server_set_request (session, GNUTLS_CERT_REQUEST);
  if (plan->trust_dir != NULL)
    verify (session, credentials, plan->trust_dir);
  gnutls_transport_set_int (session, peer->fd);
  do
    rc = gnutls_handshake (session);
  while (rc < 0 && !gnutls_error_is_fatal (rc));
  note_alert (peer, session, rc);
  if (rc < 0)
    gnutls_alert_send_appropriate (session, rc);
  if (rc == 0)
    act (peer, session);
  close (peer->fd);
  gnutls_deinit (session);
  gnutls_certificate_free_credentials (credentials);
  return NULL;
}

RawPeer *
raw_peer_start (int fd, const RawPeerPlan *plan)
{
  RawPeer *peer = g_new0 (RawPeer, 1);

  peer->fd = fd;
  peer->plan = *plan;
  peer->alert = -1;
  peer->thread = g_thread_new ("raw-peer", run, peer);
  return peer;
}

int
raw_peer_join (RawPeer *peer)
{
  int alert;

  g_thread_join (peer->thread);
  alert = peer->alert;
  g_free (peer);
  return alert;
}
