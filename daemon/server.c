/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/server.h"
#include "daemon/peer-link.h"
#include "tls/tls-channel.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gunixconnection.h>
#include <gio/gunixsocketaddress.h>
#include <glib-unix.h>
#include <grp.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_LOCAL 256
/* Of one certificate: it can't take up the room of another. */
#define MAX_OF_ONE_PEER 64
/* Beyond it the oldest one has to go: one of a friend takes milliseconds, so it is a stranger's. */
#define MAX_HANDSHAKES 32
#define HANDSHAKE_MS 10000
/* Who finds the queue full waits for a second at least. */
#define BACKLOG 256

struct Server
{
  gint refs; /* handshakes that run hold one */
  Agent *agent;
  gboolean stopped;
  char *path;
  GSocket *local, *remote;
  GSource *local_source, *remote_source;
  guint tick;
  GQueue handshakes; /* Handshake, oldest first */
  GPtrArray *connections;
};

/* A TLS handshake with a client, in a thread of its own. */
typedef struct
{
  Server *server;
  Channel *channel;
  Credentials *credentials;
  ConnectionOrigin origin;
  GCancellable *cancellable;
  GError *error;
} Handshake;

static void
server_unref (Server *server)
{
  if (--server->refs > 0)
    return;
  g_ptr_array_unref (server->connections);
  g_free (server->path);
  g_free (server);
}

static void
server_adopt (Server *server, Channel *channel, const ConnectionOrigin *origin)
{
  g_ptr_array_add (server->connections, connection_new (server->agent, server, channel, origin));
}

/* `identity` NULL: local ones. */
static guint
server_count (Server *server, const char *identity)
{
  guint count = 0;

  for (guint i = 0; i < server->connections->len; i++)
    {
      Connection *connection = g_ptr_array_index (server->connections, i);
      count += g_strcmp0 (connection_get_origin (connection)->identity, identity) == 0;
    }
  return count;
}

void
server_forget (Server *server, Connection *connection)
{
  agent_connection_closed (server->agent, connection);
  g_ptr_array_remove (server->connections, connection);
}

/* Members of the socket's group were let in by its mode; this holds where the mode was changed. */
static gboolean
server_user_may (Server *server, uid_t uid, gid_t gid)
{
  const Config *config = agent_get_config (server->agent);
  struct group *group = getgrnam (config->group);
  struct passwd *user = getpwuid (uid);
  gid_t groups[256];
  int n = G_N_ELEMENTS (groups);

  if (uid == 0 || uid == geteuid ())
    return TRUE;
  if (!group)
    return FALSE;
  if (gid == group->gr_gid)
    return TRUE;
  if (!user || getgrouplist (user->pw_name, gid, groups, &n) < 0)
    return FALSE;
  for (int i = 0; i < n; i++)
    if (groups[i] == group->gr_gid)
      return TRUE;
  return FALSE;
}

static gboolean
server_on_local (GSocket *socket, GIOCondition condition, gpointer data)
{
  Server *server = data;
  int fd = accept4 (g_socket_get_fd (socket), NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  struct ucred user;
  socklen_t len = sizeof user;
  ConnectionOrigin origin = { .local = TRUE };

  if (fd < 0)
    return G_SOURCE_CONTINUE;
  if (getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &user, &len) < 0
      || !server_user_may (server, user.uid, user.gid))
    {
      g_message ("%s: user %u is neither root nor in the group %s: refused", server->path,
                 (unsigned)user.uid, agent_get_config (server->agent)->group);
      close (fd);
    }
  else if (server_count (server, NULL) >= MAX_LOCAL)
    close (fd);
  else
    server_adopt (server, channel_new_fd (fd, server->path), &origin);
  return G_SOURCE_CONTINUE;
}

static gboolean
server_on_handshake_end (gpointer data)
{
  Handshake *handshake = data;
  Server *server = handshake->server;

  g_queue_remove (&server->handshakes, handshake);
  if (handshake->channel && !server->stopped
      && server_count (server, handshake->origin.identity) < MAX_OF_ONE_PEER)
    {
      handshake->origin.peer
          = config_find_peer_by_dn (agent_get_config (server->agent), handshake->origin.identity);
      server_adopt (server, handshake->channel, &handshake->origin);
    }
  else
    {
      if (handshake->error && !g_cancellable_is_cancelled (handshake->cancellable))
        g_message ("%s", handshake->error->message);
      channel_free (handshake->channel);
      g_free (handshake->origin.identity);
      g_free (handshake->origin.local_address);
      g_free (handshake->origin.remote_address);
    }
  g_clear_error (&handshake->error);
  credentials_unref (handshake->credentials);
  g_object_unref (handshake->cancellable);
  server_unref (server);
  g_free (handshake);
  return G_SOURCE_REMOVE;
}

static gpointer
server_handshake_thread (gpointer data)
{
  Handshake *handshake = data;

  handshake->channel
      = tls_channel_accept (handshake->channel, handshake->credentials,
                            deadline_in (HANDSHAKE_MS, handshake->cancellable), &handshake->error);
  if (handshake->channel)
    handshake->origin.identity = g_strdup (tls_channel_get_identity (handshake->channel));
  g_idle_add_full (G_PRIORITY_DEFAULT, server_on_handshake_end, handshake, NULL);
  return NULL;
}

/* FALSE while those that had to go are still going. */
static gboolean
server_make_room (Server *server)
{
  guint length = g_queue_get_length (&server->handshakes);

  if (length >= 2 * MAX_HANDSHAKES)
    return FALSE;
  if (length >= MAX_HANDSHAKES)
    {
      Handshake *oldest = g_queue_peek_nth (&server->handshakes, length - MAX_HANDSHAKES);
      g_cancellable_cancel (oldest->cancellable);
    }
  return TRUE;
}

static gboolean
server_on_remote (GSocket *socket, GIOCondition condition, gpointer data)
{
  Server *server = data;
  int fd = accept4 (g_socket_get_fd (socket), NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  Handshake *handshake;

  if (fd < 0)
    return G_SOURCE_CONTINUE;
  if (!server_make_room (server))
    {
      close (fd);
      return G_SOURCE_CONTINUE;
    }
  handshake = g_new0 (Handshake, 1);
  handshake->origin.local_address = peer_link_socket_address (fd, FALSE, NULL);
  handshake->origin.remote_address = peer_link_socket_address (fd, TRUE, NULL);
  peer_link_tune_socket (fd, 30 * 1000);
  handshake->channel = channel_new_fd (fd, handshake->origin.remote_address);
  handshake->credentials = agent_get_credentials (server->agent, CREDENTIALS_SERVER);
  handshake->server = server;
  server->refs++;
  handshake->cancellable = g_cancellable_new ();
  g_queue_push_tail (&server->handshakes, handshake);
  g_thread_unref (g_thread_new ("handshake", server_handshake_thread, handshake));
  return G_SOURCE_CONTINUE;
}

static gboolean
server_on_tick (gpointer data)
{
  Server *server = data;

  for (guint i = 0; i < server->connections->len; i++)
    connection_check_timeout (g_ptr_array_index (server->connections, i));
  return G_SOURCE_CONTINUE;
}

static GSource *
server_watch (Server *server, GSocket *socket, GSocketSourceFunc func)
{
  GSource *source = g_socket_create_source (socket, G_IO_IN, NULL);

  g_source_set_callback (source, G_SOURCE_FUNC (func), server, NULL);
  g_source_attach (source, NULL);
  return source;
}

/* Another agent that listens there is not pushed aside; a socket that nobody listens on is. */
static gboolean
server_clear_stale_socket (const char *path, GError **error)
{
  g_autoptr (GError) stale = NULL;
  g_autoptr (Channel) channel = channel_connect_unix (path, deadline_in (1000, NULL), &stale);

  if (channel)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_ADDRESS_IN_USE,
                   "%s: another agent is running: stop it first, or use another $RUNTIME_DIRECTORY",
                   path);
      return FALSE;
    }
  unlink (path);
  return TRUE;
}

static gboolean
server_listen_local (Server *server, GError **error)
{
  const Config *config = agent_get_config (server->agent);
  g_autoptr (GSocketAddress) address = NULL;
  struct group *group = getgrnam (config->group);
  mode_t old_umask;
  gboolean bound;

  server->path = g_build_filename (config->runtime_dir, "control", NULL);
  if (!server_clear_stale_socket (server->path, error))
    return FALSE;
  server->local
      = g_socket_new (G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, error);
  if (!server->local)
    return FALSE;
  address = g_unix_socket_address_new (server->path);
  old_umask = umask (0177);
  bound = g_socket_bind (server->local, address, FALSE, error)
          && g_socket_listen (server->local, error);
  umask (old_umask);
  if (!bound)
    {
      g_prefix_error (error, "%s: ", server->path);
      return FALSE;
    }
  if (!group)
    g_message ("there is no group %s: only root may use %s", config->group, server->path);
  else if (chown (server->path, -1, group->gr_gid) < 0 || chmod (server->path, 0660) < 0)
    g_warning ("cannot give %s to the group %s: %s", server->path, config->group,
               g_strerror (errno));
  g_socket_set_blocking (server->local, FALSE);
  server->local_source = server_watch (server, server->local, server_on_local);
  return TRUE;
}

static gboolean
server_listen_remote (Server *server, GError **error)
{
  const Config *config = agent_get_config (server->agent);
  g_autoptr (GSocketAddress) address
      = g_inet_socket_address_new_from_string (config->listen_address, config->listen_port);

  if (!address)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "listen=%s: not an IP address",
                   config->listen_address);
      return FALSE;
    }
  server->remote = g_socket_new (g_socket_address_get_family (address), G_SOCKET_TYPE_STREAM,
                                 G_SOCKET_PROTOCOL_TCP, error);
  if (server->remote)
    g_socket_set_listen_backlog (server->remote, BACKLOG);
  if (!server->remote || !g_socket_bind (server->remote, address, TRUE, error)
      || !g_socket_listen (server->remote, error))
    {
      g_prefix_error (error, "cannot listen on %s port %u: ", config->listen_address,
                      config->listen_port);
      return FALSE;
    }
  g_socket_set_blocking (server->remote, FALSE);
  server->remote_source = server_watch (server, server->remote, server_on_remote);
  return TRUE;
}

Server *
server_new (Agent *agent, GError **error)
{
  g_autoptr (Server) server = g_new0 (Server, 1);

  server->refs = 1;
  server->agent = agent;
  server->connections = g_ptr_array_new_with_free_func ((GDestroyNotify)connection_unref);
  if (!server_listen_local (server, error) || !server_listen_remote (server, error))
    return NULL;
  server->tick = g_timeout_add_seconds (1, server_on_tick, server);
  return g_steal_pointer (&server);
}

static void
server_stop_listening (GSocket **socket, GSource **source)
{
  if (*source)
    {
      g_source_destroy (*source);
      g_clear_pointer (source, g_source_unref);
    }
  g_clear_object (socket);
}

void
server_free (Server *server)
{
  if (!server)
    return;
  server->stopped = TRUE;
  if (server->local_source)
    unlink (server->path);
  server_stop_listening (&server->local, &server->local_source);
  server_stop_listening (&server->remote, &server->remote_source);
  g_clear_handle_id (&server->tick, g_source_remove);
  for (guint i = 0; i < server->connections->len; i++)
    connection_abandon (g_ptr_array_index (server->connections, i));
  server_unref (server);
}

void
server_emit (Server *server, struct Job *job, const char *event, JsonObject *data)
{
  for (guint i = 0; i < server->connections->len; i++)
    {
      Connection *connection = g_ptr_array_index (server->connections, i);
      if (connection_follows (connection, job))
        connection_send_event (connection, event, json_object_ref (data));
    }
  json_object_unref (data);
}
