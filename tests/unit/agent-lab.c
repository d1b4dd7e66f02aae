/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/agent-lab.h"

#include <arpa/inet.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qmp/json-args.h"
#include "tests/unit/pki.h"
#include "tls/tls-channel.h"

#define PATIENCE_MS 20000

typedef struct
{
  AgentLab lab;
  GMainLoop *loop;
  GThread *thread;
  GMutex suspended;
} FullLab;

typedef struct
{
  void (*func) (gpointer data);
  gpointer data;
  gboolean done;
  GMutex lock;
  GCond cond;
} Invocation;

static const char *const dirs[]
    = { "state", "runtime", "target", "qmp", "tls", "tls-a", "tls-c", "tls-s" };
static const char *const peer_dirs[] = { "tls-a", "tls-c", "tls-s" };

static Deadline
soon (void)
{
  return deadline_in (PATIENCE_MS, NULL);
}

static guint16
free_port (void)
{
  struct sockaddr_in address = { .sin_family = AF_INET };
  socklen_t len = sizeof address;
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  address.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
  if (fd < 0 || bind (fd, (struct sockaddr *)&address, sizeof address) < 0
      || getsockname (fd, (struct sockaddr *)&address, &len) < 0)
    g_error ("no free port: %s", g_strerror (errno));
  close (fd);
  return ntohs (address.sin_port);
}

static void
make_certificates (const char *dir)
{
  static const char *const names[] = { "hostB", "hostA", "hostC", "hostX" };
  static const char *const where[] = { "tls", "tls-a", "tls-c", "tls-s" };
  g_autoptr (PkiPair) ca = pki_new_ca ("vmferry test CA");

  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      const PkiRequest request = { .cn = names[i], .dns = { names[i] }, .ips = { "127.0.0.1" } };
      g_autoptr (PkiPair) pair = pki_issue (ca, &request);
      g_autofree char *path = g_build_filename (dir, where[i], NULL);

      pki_fill_dir (path, ca, pair, pair);
    }
}

static char *
write_config (const AgentLab *lab)
{
  char *path = g_build_filename (lab->dir, "conf", NULL);
  g_autofree char *text
      = g_strdup_printf ("[agent]\nlisten=127.0.0.1:%u\ntls-dir=%s/tls\n"
                         "[peer hostA]\ndn=O=vmferry,CN=hostA\ntarget-dirs=%s\nqmp-dirs=%s\n"
                         "[peer hostC]\ndn=O=vmferry,CN=hostC\n",
                         lab->port, lab->dir, lab->target, lab->qmp);

  if (!g_file_set_contents (path, text, -1, NULL))
    g_error ("cannot write %s", path);
  return path;
}

static gpointer
lab_thread (gpointer data)
{
  g_main_loop_run (data);
  return NULL;
}

/* Another process can take the port between the look and the agent's bind. */
static Agent *
start_agent (AgentLab *lab)
{
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < 10; i++)
    {
      g_autofree char *config = NULL;
      Agent *agent;

      lab->port = free_port ();
      config = write_config (lab);
      g_clear_error (&error);
      if ((agent = agent_new (config, &error)))
        return agent;
    }
  g_error ("%s", error->message);
}

AgentLab *
agent_lab_new (void)
{
  FullLab *full = g_new0 (FullLab, 1);
  AgentLab *lab = &full->lab;
  g_autofree char *state = NULL;
  g_autofree char *runtime = NULL;

  lab->dir = g_dir_make_tmp ("vmferry-lab-XXXXXX", NULL);
  for (guint i = 0; i < G_N_ELEMENTS (dirs); i++)
    {
      g_autofree char *path = g_build_filename (lab->dir, dirs[i], NULL);
      if (g_mkdir (path, 0700) < 0)
        g_error ("cannot make %s", path);
    }
  state = g_build_filename (lab->dir, "state", NULL);
  runtime = g_build_filename (lab->dir, "runtime", NULL);
  g_setenv ("STATE_DIRECTORY", state, TRUE);
  g_setenv ("RUNTIME_DIRECTORY", runtime, TRUE);
  lab->target = g_build_filename (lab->dir, "target", NULL);
  lab->qmp = g_build_filename (lab->dir, "qmp", NULL);
  lab->socket = g_build_filename (runtime, "control", NULL);
  make_certificates (lab->dir);
  lab->agent = start_agent (lab);
  g_mutex_init (&full->suspended);
  full->loop = g_main_loop_new (NULL, FALSE);
  full->thread = g_thread_new ("main loop", lab_thread, full->loop);
  return lab;
}

static void
remove_tree (const char *path)
{
  g_autoptr (GDir) dir
      = g_file_test (path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open (path, 0, NULL);

  for (const char *name; dir && (name = g_dir_read_name (dir));)
    {
      g_autofree char *child = g_build_filename (path, name, NULL);
      remove_tree (child);
    }
  g_remove (path);
}

static void
on_stopped (gpointer data)
{
  g_main_loop_quit (((FullLab *)data)->loop);
}

static void
stop_agent (gpointer data)
{
  agent_stop (((AgentLab *)data)->agent, on_stopped, data);
}

void
agent_lab_free (AgentLab *lab)
{
  FullLab *full = (FullLab *)lab;

  if (!lab)
    return;
  agent_lab_invoke (lab, stop_agent, lab);
  g_thread_join (full->thread);
  while (g_main_context_iteration (NULL, FALSE))
    ;
  agent_free (lab->agent);
  /* What was on its way to the main thread, and the ends of the connections. */
  for (gint64 until = g_get_monotonic_time () + 100 * 1000; g_get_monotonic_time () < until;)
    if (!g_main_context_iteration (NULL, FALSE))
      g_usleep (1000);
  g_main_loop_unref (full->loop);
  g_mutex_clear (&full->suspended);
  remove_tree (lab->dir);
  g_free (lab->dir);
  g_free (lab->socket);
  g_free (lab->target);
  g_free (lab->qmp);
  g_free (full);
}

static gboolean
on_invoke (gpointer data)
{
  Invocation *invocation = data;

  invocation->func (invocation->data);
  g_mutex_lock (&invocation->lock);
  invocation->done = TRUE;
  g_cond_signal (&invocation->cond);
  g_mutex_unlock (&invocation->lock);
  return G_SOURCE_REMOVE;
}

void
agent_lab_invoke (AgentLab *lab, void (*func) (gpointer data), gpointer data)
{
  Invocation invocation = { .func = func, .data = data };

  g_mutex_init (&invocation.lock);
  g_cond_init (&invocation.cond);
  g_idle_add_full (G_PRIORITY_DEFAULT, on_invoke, &invocation, NULL);
  g_mutex_lock (&invocation.lock);
  while (!invocation.done)
    g_cond_wait (&invocation.cond, &invocation.lock);
  g_mutex_unlock (&invocation.lock);
  g_mutex_clear (&invocation.lock);
  g_cond_clear (&invocation.cond);
}

static gboolean
on_suspended (gpointer data)
{
  FullLab *full = data;

  g_mutex_lock (&full->suspended);
  g_mutex_unlock (&full->suspended);
  return G_SOURCE_REMOVE;
}

void
agent_lab_suspend (AgentLab *lab)
{
  FullLab *full = (FullLab *)lab;

  g_mutex_lock (&full->suspended);
  g_idle_add_full (G_PRIORITY_HIGH, on_suspended, full, NULL);
}

void
agent_lab_resume (AgentLab *lab)
{
  g_mutex_unlock (&((FullLab *)lab)->suspended);
}

Channel *
agent_lab_connect_local (AgentLab *lab)
{
  g_autoptr (GError) error = NULL;
  Channel *channel = channel_connect_unix (lab->socket, soon (), &error);

  if (!channel)
    g_error ("%s", error->message);
  return channel;
}

static Credentials *
load_credentials (AgentLab *lab, AgentLabPeer peer)
{
  g_autofree char *dir = g_build_filename (lab->dir, peer_dirs[peer], NULL);
  g_autoptr (GError) error = NULL;
  Credentials *credentials = credentials_load (dir, CREDENTIALS_CLIENT, &error);

  if (!credentials)
    g_error ("%s", error->message);
  return credentials;
}

Channel *
agent_lab_connect (AgentLab *lab, AgentLabPeer peer)
{
  g_autoptr (Credentials) credentials = load_credentials (lab, peer);
  g_autoptr (GError) error = NULL;
  Channel *channel = channel_connect_tcp ("127.0.0.1", lab->port, soon (), &error);

  if (channel)
    channel = tls_channel_connect (channel, credentials, "hostB", soon (), &error);
  if (!channel)
    g_error ("%s", error->message);
  return channel;
}

static JsonClient *
open_client (Channel *channel)
{
  static const JsonPumpLimits limits
      = { .max_line = 16 * 1024 * 1024, .max_depth = 64, .max_queued = 16 * 1024 * 1024 };
  g_autoptr (GError) error = NULL;
  JsonClient *client
      = json_client_new (channel, &limits, "vmferry", NULL, NULL, NULL, soon (), &error);

  if (!client)
    g_error ("%s", error->message);
  return client;
}

JsonClient *
agent_lab_open_local (AgentLab *lab)
{
  return open_client (agent_lab_connect_local (lab));
}

JsonClient *
agent_lab_open (AgentLab *lab, AgentLabPeer peer)
{
  g_autoptr (Credentials) credentials = load_credentials (lab, peer);
  JsonClient *client = open_client (agent_lab_connect (lab, peer));
  const char *dn = credentials_get_identity (credentials);

  if (peer != LAB_STRANGER
      && *agent_lab_call (client, "hello",
                          json_args ("protocol", "i", (gint64)1, "host", "s", "hostB", "client-dn",
                                     "s", dn, "server-dn", "s", dn, NULL),
                          NULL)
             != '\0')
    g_error ("hello was refused");
  return client;
}

const char *
agent_lab_call (JsonClient *client, const char *command, JsonObject *args, char **ret_desc)
{
  g_autoptr (GError) error = NULL;

  if (json_client_call (client, "execute", command, args, -1, soon (), NULL, &error))
    return "";
  if (ret_desc)
    *ret_desc = g_strdup (error->message);
  return g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_REPLY)
             ? json_client_error_class (error)
             : "lost";
}

JsonObject *
agent_lab_json (const char *text)
{
  g_autoptr (JsonNode) node = json_from_string (text, NULL);

  if (!node || !JSON_NODE_HOLDS_OBJECT (node))
    g_error ("%s", text);
  return json_object_ref (json_node_get_object (node));
}
