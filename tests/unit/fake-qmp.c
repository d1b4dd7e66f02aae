/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/fake-qmp.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "qmp/json-args.h"
#include "qmp/json-framer.h"
#include "tests/unit/schema-check.h"

#define GREETING                                                                                   \
  "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "               \
  "\"package\": \"Debian 1:7.2+dfsg-7\"}, \"capabilities\": [%s]}}\r\n"

struct FakeQmp
{
  FakeQmpGreeting greeting;
  FakeQmpHandler handler;
  gpointer data;
  JsonArray *schema;
  char *dir;
  char *path;
  GThread *thread;
  int listener;
  int stop; /* eventfd: readable once the fake is to end */
  int fd;   /* that came last */

  GMutex lock;
  int client; /* -1: none */
  GPtrArray *commands;
  char *violation;
};

/* Told from real values by their addresses. */
static JsonNode *
sentinel (guint i)
{
  static JsonNode *nodes[2];
  static gsize ready;

  if (g_once_init_enter (&ready))
    {
      nodes[0] = json_node_new (JSON_NODE_NULL);
      nodes[1] = json_node_new (JSON_NODE_NULL);
      g_once_init_leave (&ready, 1);
    }
  return nodes[i];
}

JsonNode *
fake_qmp_hang (void)
{
  return sentinel (0);
}

JsonNode *
fake_qmp_crash (void)
{
  return sentinel (1);
}

JsonNode *
fake_qmp_json (const char *text)
{
  g_autoptr (GError) error = NULL;
  JsonNode *node = json_from_string (text, &error);

  if (node == NULL)
    g_error ("fake-qmp: %s: %s", text, error != NULL ? error->message : "empty");
  return node;
}

JsonNode *
fake_qmp_string (const char *text)
{
  return json_node_init_string (json_node_alloc (), text);
}

/* Carried to the thread as an object that no QMP command returns. */
JsonNode *
fake_qmp_error (const char *klass, const char *desc)
{
  JsonNode *node = json_node_new (JSON_NODE_OBJECT);

  json_node_take_object (
      node,
      json_args ("x-error", "o", json_args ("class", "s", klass, "desc", "s", desc, NULL), NULL));
  return node;
}

JsonArray *
fake_qmp_load_schema (void)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) error = NULL;

  if (!json_parser_load_from_file (parser, TEST_DATA_DIR "/qmp-schema.json", &error))
    g_error ("fake-qmp: %s", error->message);
  return json_node_dup_array (json_parser_get_root (parser));
}

void
fake_qmp_send_raw (FakeQmp *fake, const char *bytes)
{
  gsize len = strlen (bytes);

  g_mutex_lock (&fake->lock);
  while (len > 0 && fake->client >= 0)
    {
      ssize_t n = send (fake->client, bytes, len, MSG_NOSIGNAL);

      if (n <= 0)
        break;
      bytes += n;
      len -= (gsize)n;
    }
  g_mutex_unlock (&fake->lock);
}

/* Takes `message` over; QEMU ends its lines with \r\n. */
static void
send_message (FakeQmp *fake, JsonObject *message)
{
  gsize len;
  g_autofree char *line = json_framer_encode (message, &len);
  g_autofree char *crlf = NULL;

  line[len - 1] = '\0';
  crlf = g_strconcat (line, "\r\n", NULL);
  fake_qmp_send_raw (fake, crlf);
  json_object_unref (message);
}

void
fake_qmp_send_event (FakeQmp *fake, const char *event, JsonObject *data)
{
  JsonObject *timestamp
      = json_args ("seconds", "i", (gint64)1700000000, "microseconds", "i", (gint64)1, NULL);

  send_message (
      fake, json_args ("timestamp", "o", timestamp, "event", "s", event, "data", "o", data, NULL));
}

int
fake_qmp_take_fd (FakeQmp *fake)
{
  int fd = fake->fd;

  fake->fd = -1;
  return fd;
}

static JsonNode *
default_answer (FakeQmp *fake, const char *command)
{
  const char *shape = schema_check_returns (fake->schema, command);

  return fake_qmp_json (strcmp (shape, "array") == 0 ? "[]" : "{}");
}

static JsonNode *
answer (FakeQmp *fake, const char *command, JsonObject *args)
{
  g_autofree char *violation = schema_check_command (fake->schema, command, args);
  JsonNode *node = NULL;

  g_mutex_lock (&fake->lock);
  g_ptr_array_add (fake->commands, g_strdup (command));
  if (fake->violation == NULL)
    fake->violation = g_strdup (violation);
  g_mutex_unlock (&fake->lock);
  if (violation != NULL)
    return fake_qmp_error ("GenericError", violation);
  if (strcmp (command, "qmp_capabilities") == 0)
    return args != NULL && fake->greeting == FAKE_QMP_WITHOUT_OOB
               ? fake_qmp_error ("GenericError", "Capability 'oob' isn't available")
               : default_answer (fake, command);
  if (strcmp (command, "query-qmp-schema") == 0)
    return json_node_init_array (json_node_alloc (), fake->schema);
  if (fake->handler != NULL)
    node = fake->handler (fake, command, args, fake->data);
  return node != NULL ? node : default_answer (fake, command);
}

/* FALSE: the connection ends. */
static gboolean
serve_command (FakeQmp *fake, JsonObject *message)
{
  JsonObject *args = NULL, *error, *reply;
  const char *command = "";
  JsonNode *node;

  json_get_object (message, "arguments", &args);
  if (!json_get_string (message, "execute", &command))
    json_get_string (message, "exec-oob", &command);
  node = answer (fake, command, args);
  if (node == fake_qmp_hang ())
    return TRUE;
  if (node == fake_qmp_crash ())
    return FALSE;
  reply = json_object_new ();
  if (JSON_NODE_HOLDS_OBJECT (node)
      && json_get_object (json_node_get_object (node), "x-error", &error))
    json_object_set_object_member (reply, "error", json_object_ref (error));
  else
    json_object_set_member (reply, "return", json_node_copy (node));
  json_node_unref (node);
  if (json_object_has_member (message, "id"))
    json_object_set_member (reply, "id", json_object_dup_member (message, "id"));
  send_message (fake, reply);
  return strcmp (command, "quit") != 0;
}

/* Receives bytes and, like QEMU, keeps only the newest descriptor. */
static ssize_t
receive (FakeQmp *fake, void *buf, gsize len)
{
  union
  {
    struct cmsghdr align;
    char bytes[CMSG_SPACE (16 * sizeof (int))];
  } control;
  struct iovec iov = { buf, len };
  struct msghdr msg = {
    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
  };
  ssize_t n = recvmsg (fake->client, &msg, MSG_CMSG_CLOEXEC);

  for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR (&msg) : NULL; c != NULL;
       c = CMSG_NXTHDR (&msg, c))
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
      {
        if (fake->fd >= 0)
          close (fake->fd);
        memcpy (&fake->fd, CMSG_DATA (c), sizeof (int));
      }
  return n;
}

/* Until `fd` can be read (TRUE), or the fake is to end. */
static gboolean
wait_readable (FakeQmp *fake, int fd)
{
  struct pollfd fds[2] = { { .fd = fake->stop, .events = POLLIN }, { .fd = fd, .events = POLLIN } };

  while (poll (fds, 2, -1) < 0 && errno == EINTR)
    ;
  return fds[0].revents == 0;
}

static void
greet (FakeQmp *fake)
{
  g_autofree char *greeting
      = g_strdup_printf (GREETING, fake->greeting == FAKE_QMP_WITHOUT_OOB ? "" : "\"oob\"");

  if (fake->greeting == FAKE_QMP_GREETS || fake->greeting == FAKE_QMP_WITHOUT_OOB)
    fake_qmp_send_raw (fake, greeting);
  else if (fake->greeting == FAKE_QMP_GARBAGE)
    fake_qmp_send_raw (fake, "SSH-2.0-OpenSSH_9.2p1\r\n");
  else if (fake->greeting == FAKE_QMP_ANOTHER)
    fake_qmp_send_raw (fake, "{\"hello\": \"world\"}\r\n");
}

/* FALSE: the fake has "crashed" or is to end. */
static gboolean
serve_client (FakeQmp *fake)
{
  g_autoptr (JsonFramer) framer = json_framer_new (1 << 20, 64);

  greet (fake);
  while (fake->greeting != FAKE_QMP_CLOSES)
    {
      char buf[4096];
      ssize_t n;
      JsonObject *message;

      if (!wait_readable (fake, fake->client))
        return FALSE;
      n = receive (fake, buf, sizeof buf);
      if (n <= 0)
        return TRUE;
      if (!json_framer_push (framer, buf, (gsize)n, NULL))
        g_error ("fake-qmp: a line is too long");
      while ((message = json_framer_pop (framer, NULL)) != NULL)
        {
          g_autoptr (JsonObject) owned = message;

          if (!serve_command (fake, owned))
            return FALSE;
        }
    }
  return TRUE;
}

static void
set_client (FakeQmp *fake, int client)
{
  int old;

  g_mutex_lock (&fake->lock);
  old = fake->client;
  fake->client = client;
  g_mutex_unlock (&fake->lock);
  if (old >= 0)
    close (old);
}

static gpointer
fake_thread (gpointer data)
{
  FakeQmp *fake = data;
  gboolean alive = TRUE;

  while (alive && wait_readable (fake, fake->listener))
    {
      int client = accept4 (fake->listener, NULL, NULL, SOCK_CLOEXEC);

      if (client < 0)
        continue;
      set_client (fake, client);
      alive = serve_client (fake);
      set_client (fake, -1);
    }
  /* A QEMU that is gone refuses connections. */
  close (fake->listener);
  return NULL;
}

static int
listen_at (const char *path)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_strlcpy (addr.sun_path, path, sizeof addr.sun_path);
  if (fd < 0 || bind (fd, (struct sockaddr *)&addr, sizeof addr) < 0 || listen (fd, 8) < 0)
    g_error ("fake-qmp: %s: %s", path, g_strerror (errno));
  return fd;
}

FakeQmp *
fake_qmp_new (FakeQmpGreeting greeting, FakeQmpHandler handler, gpointer data)
{
  FakeQmp *fake = g_new0 (FakeQmp, 1);

  fake->greeting = greeting;
  fake->handler = handler;
  fake->data = data;
  fake->fd = fake->client = -1;
  fake->schema = fake_qmp_load_schema ();
  fake->commands = g_ptr_array_new_with_free_func (g_free);
  g_mutex_init (&fake->lock);
  fake->dir = g_dir_make_tmp ("fake-qmp-XXXXXX", NULL);
  fake->path = g_build_filename (fake->dir, "qmp.sock", NULL);
  fake->listener = listen_at (fake->path);
  fake->stop = eventfd (0, EFD_CLOEXEC);
  fake->thread = g_thread_new ("fake-qmp", fake_thread, fake);
  return fake;
}

void
fake_qmp_free (FakeQmp *fake)
{
  guint64 one = 1;

  if (fake == NULL)
    return;
  if (write (fake->stop, &one, sizeof one) < 0)
    g_error ("fake-qmp: eventfd: %s", g_strerror (errno));
  g_thread_join (fake->thread);
  if (fake->violation != NULL)
    g_error ("fake-qmp: the schema of QEMU refuses a command: %s", fake->violation);
  if (fake->fd >= 0)
    close (fake->fd);
  close (fake->stop);
  g_unlink (fake->path);
  g_rmdir (fake->dir);
  g_mutex_clear (&fake->lock);
  g_ptr_array_unref (fake->commands);
  json_array_unref (fake->schema);
  g_free (fake->path);
  g_free (fake->dir);
  g_free (fake);
}

const char *
fake_qmp_get_path (FakeQmp *fake)
{
  return fake->path;
}

guint
fake_qmp_count (FakeQmp *fake, const char *command)
{
  guint n = 0;

  g_mutex_lock (&fake->lock);
  for (guint i = 0; i < fake->commands->len; i++)
    {
      const char *came = g_ptr_array_index (fake->commands, i);

      if (command != NULL
              ? strcmp (came, command) == 0
              : strcmp (came, "qmp_capabilities") != 0 && strcmp (came, "query-qmp-schema") != 0)
        n++;
    }
  g_mutex_unlock (&fake->lock);
  return n;
}

char *
fake_qmp_take_violation (FakeQmp *fake)
{
  char *violation;

  g_mutex_lock (&fake->lock);
  violation = g_steal_pointer (&fake->violation);
  g_mutex_unlock (&fake->lock);
  return violation;
}

JsonArray *
fake_qmp_get_schema (FakeQmp *fake)
{
  return fake->schema;
}
