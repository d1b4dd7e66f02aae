/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/qmp-socket.h"

#include <errno.h>
#include <sys/socket.h>

#include "qmp/json-client.h"

#define GREETING_TIMEOUT_MS 3000

/* query-qmp-schema of QEMU 10 is the longest line, some 300 KiB. */
static const JsonPumpLimits limits
    = { .max_line = 8 << 20, .max_depth = 64, .max_queued = 1 << 20 };

typedef struct
{
  QmpExecutor parent;
  JsonClient *client;
  guint version;
  pid_t pid;
  QmpEventHandler on_event;
  QmpClosedHandler on_closed;
  gpointer user_data;

  GMutex lock;
  gboolean ready;  /* qmp_socket_open () has succeeded */
  gboolean closed; /* the connection has ended */
} QmpSocket;

static gboolean
socket_call (QmpExecutor *executor, const char *command, JsonObject *args, int fd,
             Deadline deadline, JsonNode **ret_value, GError **error)
{
  QmpSocket *self = (QmpSocket *)executor;

  return json_client_call (self->client, "execute", command, args, fd, deadline, ret_value, error);
}

static void
socket_free (QmpExecutor *executor)
{
  QmpSocket *self = (QmpSocket *)executor;

  json_client_free (self->client);
  qmp_executor_clear (executor);
  g_mutex_clear (&self->lock);
  g_free (self);
}

static const QmpExecutorClass socket_class = { .call = socket_call, .free = socket_free };

static void
handle_event (const char *event, JsonObject *data, gpointer user_data)
{
  QmpSocket *self = user_data;

  if (self->on_event != NULL)
    self->on_event (event, data, self->user_data);
}

/* Before qmp_socket_open () has succeeded it tells of the end by failing. */
static void
handle_closed (const GError *error, gpointer user_data)
{
  QmpSocket *self = user_data;
  gboolean notify;

  g_mutex_lock (&self->lock);
  self->closed = TRUE;
  notify = self->ready && self->on_closed != NULL;
  g_mutex_unlock (&self->lock);
  if (notify)
    self->on_closed (error, self->user_data);
}

static gboolean
set_ready (QmpSocket *self, GError **error)
{
  g_mutex_lock (&self->lock);
  self->ready = !self->closed;
  g_mutex_unlock (&self->lock);
  if (!self->ready)
    g_set_error (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_LOST,
                 "%s: the monitor closed the connection", self->parent.name);
  return self->ready;
}

static gboolean
read_peer_pid (QmpSocket *self, int fd, GError **error)
{
  struct ucred cred;
  socklen_t len = sizeof cred;

  if (getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
    {
      int code = errno;

      g_set_error (error, G_IO_ERROR, (gint)g_io_error_from_errno (code), "%s: SO_PEERCRED: %s",
                   self->parent.name, g_strerror (code));
      return FALSE;
    }
  self->pid = cred.pid;
  return TRUE;
}

static gboolean
greet (QmpSocket *self, const char *path, Deadline deadline, GError **error)
{
  g_autoptr (GError) local = NULL;
  g_autoptr (Channel) channel = channel_connect_unix (path, deadline, error);

  if (channel == NULL || !read_peer_pid (self, channel_get_fd (channel), error))
    return FALSE;
  self->client
      = json_client_new (g_steal_pointer (&channel), &limits, "QMP", handle_event, handle_closed,
                         self, deadline_sooner (deadline, GREETING_TIMEOUT_MS), &local);
  if (self->client != NULL)
    return TRUE;
  if (g_error_matches (local, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_BUSY))
    g_set_error (error, local->domain, local->code, "%s: the monitor is in use by another client",
                 local->message);
  else if (g_error_matches (local, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    g_propagate_prefixed_error (error, g_steal_pointer (&local), "%s: ", path);
  else
    g_set_error (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_GREETING,
                 "%s (is this the QMP monitor of a QEMU?)", local->message);
  return FALSE;
}

static gboolean
read_version (QmpSocket *self, GError **error)
{
  JsonObject *version, *qemu;
  gint64 major, minor, micro;

  if (json_get_object (json_client_get_greeting (self->client), "version", &version)
      && json_get_object (version, "qemu", &qemu) && json_get_int (qemu, "major", &major)
      && json_get_int (qemu, "minor", &minor) && json_get_int (qemu, "micro", &micro) && major >= 0
      && major < 1000 && minor >= 0 && minor < 100 && micro >= 0 && micro < 100)
    {
      self->version = (guint)(major * 10000 + minor * 100 + micro);
      return TRUE;
    }
  g_set_error (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_GREETING,
               "%s: the greeting tells no version of QEMU", self->parent.name);
  return FALSE;
}

static gboolean
offers_oob (QmpSocket *self)
{
  JsonArray *offered;

  if (!json_get_array (json_client_get_greeting (self->client), "capabilities", &offered))
    return FALSE;
  for (guint i = 0; i < json_array_get_length (offered); i++)
    if (g_strcmp0 (json_array_get_string_or_null (offered, i), "oob") == 0)
      return TRUE;
  return FALSE;
}

static gboolean
negotiate (QmpSocket *self, Deadline deadline, GError **error)
{
  JsonObject *args = NULL;

  if (offers_oob (self))
    {
      JsonArray *enable = json_array_new ();

      json_array_add_string_element (enable, "oob");
      args = json_args ("enable", "a", enable, NULL);
    }
  return json_client_call (self->client, "execute", "qmp_capabilities", args, -1, deadline, NULL,
                           error);
}

static gboolean
check_schema (QmpSocket *self, Deadline deadline, GError **error)
{
  g_autofree char *whose = g_strdup_printf ("QEMU %u.%u.%u", self->version / 10000,
                                            self->version / 100 % 100, self->version % 100);

  return qmp_executor_learn_schema (&self->parent, whose, deadline, error);
}

QmpExecutor *
qmp_socket_open (const char *path, QmpEventHandler on_event, QmpClosedHandler on_closed,
                 gpointer user_data, Deadline deadline, GError **error)
{
  QmpSocket *self = g_new0 (QmpSocket, 1);
  g_autoptr (QmpExecutor) executor = &self->parent;

  executor->klass = &socket_class;
  executor->name = g_strdup (path);
  executor->call_timeout_ms = QMP_CALL_TIMEOUT_MS;
  self->on_event = on_event;
  self->on_closed = on_closed;
  self->user_data = user_data;
  g_mutex_init (&self->lock);
  if (!greet (self, path, deadline, error) || !read_version (self, error)
      || !negotiate (self, deadline, error) || !check_schema (self, deadline, error)
      || !set_ready (self, error))
    return NULL;
  return g_steal_pointer (&executor);
}

guint
qmp_socket_get_version (QmpExecutor *executor)
{
  return ((QmpSocket *)executor)->version;
}

pid_t
qmp_socket_get_pid (QmpExecutor *executor)
{
  return ((QmpSocket *)executor)->pid;
}
