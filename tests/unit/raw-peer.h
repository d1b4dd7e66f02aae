/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <gnutls/gnutls.h>

/* The other side of a TLS connection, in a thread, written with GnuTLS alone: it checks nothing,
 * and so can show what tls/ would never let us load, or behave as other programs do. */
typedef enum
{
  RAW_PEER_CLOSE,       /* after the handshake: just close, as QEMU does with a stranger */
  RAW_PEER_ECHO,        /* send back what comes, until the end; then close_notify */
  RAW_PEER_KEY_UPDATES, /* the same, with a key update (TLS 1.3) after each piece */
  RAW_PEER_CUT,         /* send "hello", then close without close_notify */
  RAW_PEER_BYE,         /* send "hello", then close_notify */
  RAW_PEER_GARBAGE,     /* send "hello", then a forged record */
  RAW_PEER_RENEGOTIATE  /* TLS 1.2 server: send "hello", then ask for a new handshake */
} RawPeerThen;

typedef struct
{
  gboolean is_server;
  const char *dir;       /* SIDE-cert.pem, SIDE-key.pem; NULL: shows no certificate */
  const char *priority;  /* GnuTLS' spelling; NULL: its default */
  const char *trust_dir; /* client: verifies against its ca-cert.pem, in the handshake; or NULL */
  RawPeerThen then;
} RawPeerPlan;

typedef struct RawPeer RawPeer;

/* Takes `fd` over.  `plan` is copied, but not its strings. */
RawPeer *raw_peer_start (int fd, const RawPeerPlan *plan);
/* Waits for its end and frees it.  Returns the alert that it got, or -1. */
int raw_peer_join (RawPeer *peer);
