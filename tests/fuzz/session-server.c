/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/session-server.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/fuzz/session-limits.h"
#include "tests/fuzz/virtual-time.h"

#define BACKLOG 64

typedef struct
{
  SessionServer *server;
  guint index;
  int fd;
  HonestNbd *honest;
  FuzzInput script;
  Mutator *mutator;
  Oracle *oracle;  /* NULL before the transmission */
  GByteArray *out; /* to send, from out_start on */
  gsize out_start;
  gboolean ends;         /* behind it */
  GByteArray *handshake; /* sent; of the first client */
  GByteArray *told;      /* sent, and not with the oracle yet */
  guint64 n_emitted, n_sent;
  SessionLimits *limits;
} Client;

struct SessionServer
{
  const SessionVisit *visits;
  guint n_visits;
  const HonestSpec *usual;
  guint64 seed;
  int listener;
  GPtrArray *clients;
};

/* The address */

static char *dir;

static void
remove_dir (void)
{
  g_unlink (session_server_get_path ());
  g_rmdir (dir);
}

const char *
session_server_get_path (void)
{
  static char *path;

  if (path == NULL)
    {
      dir = g_dir_make_tmp ("fuzz-session-XXXXXX", NULL);
      FUZZ_REQUIRE (dir != NULL);
      path = g_build_filename (dir, "socket", NULL);
      atexit (remove_dir);
    }
  return path;
}

/* One for all sessions. */
static int
get_listener (void)
{
  static int fd = -1;
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  if (fd >= 0)
    return fd;
  g_strlcpy (address.sun_path, session_server_get_path (), sizeof address.sun_path);
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  FUZZ_REQUIRE (fd >= 0 && bind (fd, (struct sockaddr *)&address, sizeof address) == 0);
  FUZZ_REQUIRE (listen (fd, BACKLOG) == 0);
  return fd;
}

/* What the honest server says and hears */

static gboolean
is_broken_by_script (const Client *client, HonestKind kind)
{
  return kind != HONEST_HANDSHAKE || client->index == 0;
}

static void
on_emit (gpointer user_data, const HonestFrame *frame)
{
  Client *client = user_data;
  guint before = client->out->len;

  if (client->ends)
    return;
  if (is_broken_by_script (client, frame->kind))
    client->ends = !mutator_put (client->mutator, frame, client->out);
  else
    g_byte_array_append (client->out, frame->bytes->data, frame->bytes->len);
  client->n_emitted += client->out->len - before;
  virtual_time_pass (mutator_take_delay (client->mutator));
}

/* As the client sees it: the contexts in the order in which it asked for them. */
static NbdExport
get_export (const Client *client)
{
  NbdExport export = *honest_nbd_get_export (client->honest);

  if (export.has_context[1] && !export.has_context[0])
    {
      export.has_context[0] = TRUE;
      export.has_context[1] = FALSE;
      export.context_id[0] = export.context_id[1];
    }
  return export;
}

static void
on_request (gpointer user_data, const WireRequest *request)
{
  Client *client = user_data;

  session_limits_end_answer (client->limits, client->n_emitted);
  session_limits_add_request (client->limits, request, client->n_sent,
                              mutator_get_truth (client->mutator) == MUTATOR_HONEST);
  if (client->oracle == NULL)
    {
      NbdExport export = get_export (client);

      client->oracle = oracle_new (&export);
    }
  oracle_add_request (client->oracle, request);
}

static const HonestHandlers handlers = { on_emit, on_request };

/* Connections */

static Client *
client_new (SessionServer *server, int fd)
{
  Client *client = g_new0 (Client, 1);
  guint index = server->clients->len;
  gboolean is_visit = index < server->n_visits;

  client->server = server;
  client->index = index;
  client->fd = fd;
  client->script = is_visit ? server->visits[index].script : (FuzzInput){ 0 };
  client->mutator = mutator_new (&client->script);
  client->honest
      = honest_nbd_new (is_visit ? &server->visits[index].spec : server->usual, &handlers, client);
  client->out = g_byte_array_new ();
  client->handshake = g_byte_array_new ();
  client->told = g_byte_array_new ();
  client->limits = session_limits_new ();
  honest_nbd_feed (client->honest, NULL, 0);
  return client;
}

static void
client_close (Client *client)
{
  if (client->fd >= 0)
    close (client->fd);
  client->fd = -1;
}

static void
client_free (Client *client)
{
  client_close (client);
  honest_nbd_free (client->honest);
  mutator_free (client->mutator);
  oracle_free (client->oracle);
  g_byte_array_unref (client->out);
  g_byte_array_unref (client->handshake);
  g_byte_array_unref (client->told);
  session_limits_free (client->limits);
  g_free (client);
}

/* The oracle hears a turn later what the client may have read: an answer may come before its
 * request, where the script guesses the cookie, and be read after that was sent. */
static void
client_tell_oracle (Client *client)
{
  if (client->oracle == NULL)
    return;
  oracle_feed (client->oracle, client->told->data, client->told->len);
  g_byte_array_set_size (client->told, 0);
}

static void
note_sent (Client *client, const guint8 *data, gsize n)
{
  client->n_sent += n;
  if (client->oracle != NULL)
    g_byte_array_append (client->told, data, (guint)n);
  else if (client->index == 0)
    g_byte_array_append (client->handshake, data, (guint)n);
}

static void
client_read (Client *client)
{
  guint8 buf[16 * 1024];
  gssize n;

  do
    {
      n = recv (client->fd, buf, sizeof buf, MSG_DONTWAIT);
      if (n > 0)
        honest_nbd_feed (client->honest, buf, (gsize)n);
    }
  while (n == sizeof buf);
  session_limits_end_answer (client->limits, client->n_emitted);
  if (n == 0 || (n < 0 && errno != EAGAIN))
    client_close (client);
}

/* Mostly all of it: each portion costs the client a turn. */
static gsize
choose_portion (SessionServer *server, gsize len)
{
  guint64 value;

  if (server->seed == 0)
    return len;
  value = fuzz_random (&server->seed);
  switch (value % 8)
    {
    case 0:
      return 1 + (value >> 8) % MIN (len, 64);
    case 1:
      return 1 + (value >> 8) % len;
    default:
      return len;
    }
}

static void
client_write (Client *client)
{
  gsize len = client->out->len - client->out_start;
  const guint8 *data = len > 0 ? client->out->data + client->out_start : NULL;
  gssize n = 0;

  if (len > 0)
    n = send (client->fd, data, choose_portion (client->server, len), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n < 0 && errno == EAGAIN)
    return;
  if (n > 0)
    note_sent (client, data, (gsize)n);
  client->out_start += (gsize)MAX (n, 0);
  if (client->out_start == client->out->len)
    {
      g_byte_array_set_size (client->out, 0);
      client->out_start = 0;
    }
  if (n < 0 || (client->out->len == 0 && client->ends))
    client_close (client);
}

static void
client_serve (Client *client)
{
  if (client->fd < 0)
    return;
  client_read (client);
  if (!client->ends)
    mutator_flush (client->mutator, client->out);
  client_tell_oracle (client);
  if (client->fd >= 0)
    client_write (client);
}

/* The server */

void
session_server_serve (SessionServer *server)
{
  int fd;

  while ((fd = accept4 (server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
    g_ptr_array_add (server->clients, client_new (server, fd));
  for (guint i = 0; i < server->clients->len; i++)
    client_serve (g_ptr_array_index (server->clients, i));
}

void
session_server_begin (SessionServer *server, const NbdExport *export, int fd)
{
  Client *client = g_ptr_array_index (server->clients, 0);
  int unread = 0;

  client->oracle = oracle_new (export);
  /* What came behind the handshake is an answer. */
  FUZZ_REQUIRE (ioctl (fd, FIONREAD, &unread) == 0);
  FUZZ_REQUIRE (unread >= 0 && (guint)unread <= client->handshake->len);
  g_byte_array_append (client->told,
                       client->handshake->data + client->handshake->len - (guint)unread,
                       (guint)unread);
}

SessionServer *
session_server_new (const SessionVisit *visits, guint n_visits, const HonestSpec *usual,
                    guint64 seed)
{
  SessionServer *server = g_new0 (SessionServer, 1);

  server->visits = visits;
  server->n_visits = n_visits;
  server->usual = usual;
  server->seed = seed;
  server->listener = get_listener ();
  server->clients = g_ptr_array_new_with_free_func ((GDestroyNotify)client_free);
  return server;
}

void
session_server_free (SessionServer *server)
{
  if (server == NULL)
    return;
  /* Who connected and was not served must not be the first one of the next session. */
  session_server_serve (server);
  g_ptr_array_unref (server->clients);
  g_free (server);
}

void
session_server_end (SessionServer *server)
{
  for (guint i = 0; i < server->clients->len; i++)
    client_tell_oracle (g_ptr_array_index (server->clients, i));
}

MutatorTruth
session_server_get_truth (const SessionServer *server)
{
  MutatorTruth truth = MUTATOR_HONEST;

  for (guint i = 0; i < server->clients->len; i++)
    {
      const Client *client = g_ptr_array_index (server->clients, i);

      truth = MAX (truth, mutator_get_truth (client->mutator));
    }
  return truth;
}

guint
session_server_get_n_invalid (const SessionServer *server)
{
  guint n = 0;

  for (guint i = 0; i < server->clients->len; i++)
    n += honest_nbd_get_n_invalid (
        ((const Client *)g_ptr_array_index (server->clients, i))->honest);
  return n;
}

guint
session_server_get_n_clients (const SessionServer *server)
{
  return server->clients->len;
}

const Oracle *
session_server_get_oracle (const SessionServer *server, guint client)
{
  return ((const Client *)g_ptr_array_index (server->clients, client))->oracle;
}
