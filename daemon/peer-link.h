/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/config.h"
#include "qmp/json-client.h"
#include "tls/credentials.h"

/* The source agent's connection to the destination's agent.  Thread-safe once it is open, except
 * peer_link_free (). */
typedef struct PeerLink PeerLink;

typedef struct
{
  const Config *config;
  Credentials *credentials; /* client */
  const char *server_dn;    /* of the certificate that our QEMU shows as a server */
} PeerLinkSetup;

typedef struct
{
  /* In a thread of the link's. Both are borrowed. */
  void (*event) (const char *event, JsonObject *data, gpointer user_data);
  /* Once, unless the link is freed first: nothing more can be said or heard. */
  void (*lost) (const GError *error, gpointer user_data);
} PeerLinkHandlers;

/* Connects to HOST (a [peer], or name|address[:port]), verifies that its certificate has that
 * name and that a [peer] of ours lists it, agrees on the protocol's version and says hello. Blocks.
 * From then on it pings, so that a peer that is gone is noticed. */
PeerLink *peer_link_open (const PeerLinkSetup *setup, const char *host,
                          const PeerLinkHandlers *handlers, gpointer user_data, Deadline deadline,
                          GError **error);
void peer_link_free (PeerLink *link);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (PeerLink, peer_link_free)
/* The same, and throws away what has not been sent or acknowledged yet; takes NULL. */
void peer_link_abort (PeerLink *link);

/* As json_client_call ().  Takes over `args`. */
gboolean peer_link_call (PeerLink *link, const char *command, JsonObject *args, Deadline deadline,
                         JsonNode **ret_value, GError **error);
/* A peer that doesn't answer a ping for so long is lost. */
void peer_link_set_timeout (PeerLink *link, gint64 timeout_ms);

/* HOST without port: the name that its certificates must have. */
const char *peer_link_get_name (PeerLink *link);
/* The addresses of the connection, without port. */
const char *peer_link_get_local_address (PeerLink *link);
const char *peer_link_get_remote_address (PeerLink *link);
/* The names of the certificates that its QEMU shows; a [peer] of ours allows them. */
const char *peer_link_get_client_dn (PeerLink *link);

/* The address of one end of a TCP socket without its port; IPv4-mapped addresses as IPv4. */
char *peer_link_socket_address (int fd, gboolean remote, GError **error);
/* A connection that is dead for so long is given up by the kernel. */
void peer_link_tune_socket (int fd, gint64 timeout_ms);
