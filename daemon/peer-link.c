/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/peer-link.h"
#include "qmp/json-args.h"
#include "tls/tls-channel.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEFAULT_PORT 10810
#define PROTOCOL_VERSION 1
#define PING_MS 1000

struct PeerLink
{
  JsonClient *client;
  PeerLinkHandlers handlers;
  gpointer user_data;
  char *name, *local_address, *remote_address, *client_dn;
  int fd; /* a duplicate of the client's, which closes its own when it likes; -1 */
  gint64 timeout_ms;
  GThread *pinger;
  GCancellable *stop; /* ends the ping that is under way */
  GMutex lock;
  GCond cond;
  gboolean closing;
};

char *
peer_link_socket_address (int fd, gboolean remote, GError **error)
{
  struct sockaddr_storage storage;
  socklen_t len = sizeof storage;
  g_autoptr (GSocketAddress) address = NULL;
  g_autofree char *text = NULL;
  GInetAddress *inet;

  if ((remote ? getpeername (fd, (struct sockaddr *)&storage, &len)
              : getsockname (fd, (struct sockaddr *)&storage, &len))
          < 0
      || !(address = g_socket_address_new_from_native (&storage, len))
      || !G_IS_INET_SOCKET_ADDRESS (address))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "the connection has no address any more");
      return NULL;
    }
  inet = g_inet_socket_address_get_address (G_INET_SOCKET_ADDRESS (address));
  text = g_inet_address_to_string (inet);
  if (g_str_has_prefix (text, "::ffff:") && strchr (text, '.'))
    return g_strdup (text + strlen ("::ffff:"));
  return g_steal_pointer (&text);
}

void
peer_link_tune_socket (int fd, gint64 timeout_ms)
{
  int on = 1, idle = 5, interval = 5, count = 3;
  unsigned user_timeout = timeout_ms;

  setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt (fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  setsockopt (fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof user_timeout);
}

static void
link_on_event (const char *event, JsonObject *data, gpointer user_data)
{
  PeerLink *link = user_data;

  if (link->handlers.event)
    link->handlers.event (event, data, link->user_data);
}

static void
link_on_closed (const GError *error, gpointer user_data)
{
  PeerLink *link = user_data;
  g_autoptr (GError) ended = NULL;
  gboolean closing;

  g_mutex_lock (&link->lock);
  closing = link->closing;
  shutdown (link->fd, SHUT_RDWR);
  g_mutex_unlock (&link->lock);
  if (closing || !link->handlers.lost)
    return;
  if (!error)
    ended = g_error_new (JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_LOST,
                         "%s: its agent closed the connection", link->name);
  link->handlers.lost (error ? error : ended, link->user_data);
}

static gpointer
link_ping_thread (gpointer data)
{
  PeerLink *link = data;

  g_mutex_lock (&link->lock);
  while (!link->closing)
    {
      gint64 timeout_ms = link->timeout_ms;
      gboolean alive;

      g_mutex_unlock (&link->lock);
      alive = json_client_call (link->client, "execute", "ping", NULL, -1,
                                deadline_in (timeout_ms, link->stop), NULL, NULL);
      g_mutex_lock (&link->lock);
      if (!alive)
        break;
      if (!link->closing)
        g_cond_wait_until (&link->cond, &link->lock, g_get_monotonic_time () + PING_MS * 1000);
    }
  /* The pump notices, completes every call and tells us by link_on_closed (). */
  if (!link->closing)
    shutdown (link->fd, SHUT_RDWR);
  g_mutex_unlock (&link->lock);
  return NULL;
}

void
peer_link_free (PeerLink *link)
{
  if (!link)
    return;
  g_mutex_lock (&link->lock);
  link->closing = TRUE;
  g_cond_signal (&link->cond);
  g_mutex_unlock (&link->lock);
  g_cancellable_cancel (link->stop);
  if (link->pinger)
    g_thread_join (link->pinger);
  json_client_free (link->client);
  if (link->fd >= 0)
    close (link->fd);
  g_free (link->name);
  g_free (link->local_address);
  g_free (link->remote_address);
  g_free (link->client_dn);
  g_object_unref (link->stop);
  g_mutex_clear (&link->lock);
  g_cond_clear (&link->cond);
  g_free (link);
}

void
peer_link_abort (PeerLink *link)
{
  struct linger reset = { .l_onoff = 1, .l_linger = 0 };

  if (link && link->fd >= 0)
    setsockopt (link->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  peer_link_free (link);
}

static Channel *
link_connect (PeerLink *link, const PeerLinkSetup *setup, const char *host, Deadline deadline,
              GError **error)
{
  const ConfigPeer *peer;
  g_autofree char *where = NULL;
  guint16 port, routed_port = 0;
  g_autoptr (Channel) channel = NULL;

  if (!config_split_host (host, &link->name, &port, error))
    return NULL;
  peer = config_find_peer (setup->config, link->name);
  if (peer && peer->address)
    {
      if (!config_split_host (peer->address, &where, &routed_port, error))
        return NULL;
    }
  else
    where = g_strdup (link->name);
  if (port == 0)
    port = routed_port > 0 ? routed_port : DEFAULT_PORT;

  channel = channel_connect_tcp (where, port, deadline, error);
  if (!channel)
    {
      g_prefix_error (error, "%s: no agent answers: ", link->name);
      return NULL;
    }
  link->fd = fcntl (channel_get_fd (channel), F_DUPFD_CLOEXEC, 3);
  link->local_address = peer_link_socket_address (link->fd, FALSE, error);
  if (!link->local_address)
    return NULL;
  link->remote_address = peer_link_socket_address (link->fd, TRUE, error);
  if (!link->remote_address)
    return NULL;
  peer_link_tune_socket (link->fd, link->timeout_ms);
  return tls_channel_connect (g_steal_pointer (&channel), setup->credentials, link->name, deadline,
                              error);
}

/* A certificate of the right CA with the right name is not enough: a [peer] must list it. */
static const ConfigPeer *
link_authorise (PeerLink *link, const Config *config, const char *dn, GError **error)
{
  const ConfigPeer *peer = config_find_peer (config, link->name);

  if (!peer)
    peer = config_find_peer_by_dn (config, dn);
  if (peer && config_peer_allows_dn (peer, dn))
    return peer;
  g_set_error (
      error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
      peer ? "%s: its certificate %s is not listed: add it to dn= of [peer %s] in vmferryd.conf"
           : "%s: no [peer] lists its certificate %s: add a [peer %s] to vmferryd.conf",
      link->name, dn, link->name);
  return NULL;
}

static gboolean
link_hello (PeerLink *link, const PeerLinkSetup *setup, const ConfigPeer *peer, Deadline deadline,
            GError **error)
{
  g_autoptr (JsonNode) answer = NULL;
  gint64 theirs = 0;
  const char *client_dn, *server_dn;
  JsonObject *hello;

  json_get_int (json_client_get_greeting (link->client), "protocol", &theirs);
  if (theirs < PROTOCOL_VERSION)
    {
      g_set_error (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_GREETING,
                   "%s: its agent speaks version %" G_GINT64_FORMAT
                   " of the control protocol, this one %d: upgrade the agent there",
                   link->name, theirs, PROTOCOL_VERSION);
      return FALSE;
    }
  if (!json_client_call (link->client, "execute", "hello",
                         json_args ("protocol", "i", (gint64)PROTOCOL_VERSION, "host", "s",
                                    link->name, "client-dn", "s",
                                    credentials_get_identity (setup->credentials), "server-dn", "s",
                                    setup->server_dn, NULL),
                         -1, deadline, &answer, error))
    return FALSE;
  if (!JSON_NODE_HOLDS_OBJECT (answer))
    goto malformed;
  hello = json_node_get_object (answer);
  if (!json_get_string (hello, "client-dn", &client_dn)
      || !json_get_string (hello, "server-dn", &server_dn))
    goto malformed;
  if (!config_peer_allows_dn (peer, client_dn) || !config_peer_allows_dn (peer, server_dn))
    {
      g_autofree char *dns = g_strdup_printf ("%s; %s", client_dn, server_dn);
      g_autofree char *shown = g_strescape (dns, NULL);
      g_set_error (
          error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
          "%s: the certificates of its QEMU (%.500s) are not all listed in dn= of [peer %s]",
          link->name, shown, peer->name);
      return FALSE;
    }
  link->client_dn = g_strdup (client_dn);
  return TRUE;

malformed:
  g_set_error (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_GREETING,
               "%s: its agent's answer to hello is malformed", link->name);
  return FALSE;
}

PeerLink *
peer_link_open (const PeerLinkSetup *setup, const char *host, const PeerLinkHandlers *handlers,
                gpointer user_data, Deadline deadline, GError **error)
{
  static const JsonPumpLimits limits
      = { .max_line = 1024 * 1024, .max_depth = 64, .max_queued = 4 * 1024 * 1024 };
  g_autoptr (PeerLink) link = g_new0 (PeerLink, 1);
  g_autoptr (Channel) channel = NULL;
  const ConfigPeer *peer;

  g_mutex_init (&link->lock);
  g_cond_init (&link->cond);
  link->handlers = *handlers;
  link->user_data = user_data;
  link->timeout_ms = 30 * 1000;
  link->fd = -1;
  link->stop = g_cancellable_new ();
  /* Until it is open, its end is an error of the caller's and no loss. */
  link->closing = TRUE;
  channel = link_connect (link, setup, host, deadline, error);
  if (!channel)
    return NULL;
  peer = link_authorise (link, setup->config, tls_channel_get_identity (channel), error);
  if (!peer)
    return NULL;
  link->client = json_client_new (g_steal_pointer (&channel), &limits, "vmferry", link_on_event,
                                  link_on_closed, link, deadline, error);
  if (!link->client || !link_hello (link, setup, peer, deadline, error))
    return NULL;
  g_mutex_lock (&link->lock);
  link->closing = FALSE;
  g_mutex_unlock (&link->lock);
  link->pinger = g_thread_new ("ping", link_ping_thread, link);
  return g_steal_pointer (&link);
}

gboolean
peer_link_call (PeerLink *link, const char *command, JsonObject *args, Deadline deadline,
                JsonNode **ret_value, GError **error)
{
  return json_client_call (link->client, "execute", command, args, -1, deadline, ret_value, error);
}

void
peer_link_set_timeout (PeerLink *link, gint64 timeout_ms)
{
  g_mutex_lock (&link->lock);
  link->timeout_ms = timeout_ms;
  peer_link_tune_socket (link->fd, timeout_ms);
  g_mutex_unlock (&link->lock);
}

const char *
peer_link_get_name (PeerLink *link)
{
  return link->name;
}

const char *
peer_link_get_local_address (PeerLink *link)
{
  return link->local_address;
}

const char *
peer_link_get_remote_address (PeerLink *link)
{
  return link->remote_address;
}

const char *
peer_link_get_client_dn (PeerLink *link)
{
  return link->client_dn;
}
