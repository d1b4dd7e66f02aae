/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/json-client.h"

#include <string.h>

#include "qmp/json-args.h"
#include "qmp/printable.h"

#define MAX_PEER_TEXT 512
#define MAX_CLASSES 256

typedef struct
{
  const char *klass; /* interned */
} JsonClientErrorPrivate;

static void
json_client_error_private_init (JsonClientErrorPrivate *priv)
{
  priv->klass = "";
}

static void
json_client_error_private_copy (const JsonClientErrorPrivate *from, JsonClientErrorPrivate *to)
{
  to->klass = from->klass;
}

static void
json_client_error_private_clear (JsonClientErrorPrivate *priv)
{
}

G_DEFINE_EXTENDED_ERROR (JsonClientError, json_client_error)

typedef enum
{
  STATE_GREETING, /* nothing has come yet */
  STATE_OPEN,
  STATE_CLOSED
} State;

/* On the stack of the caller; in `pending` until it is answered or given up. */
typedef struct
{
  gint64 id;
  gboolean done;
  JsonNode *value;
  GError *error;
} Call;

struct JsonClient
{
  gatomicrefcount refs; /* the user's and the pump's */
  char *peer;
  char *greeting_name;
  JsonPump *pump;
  JsonClientEvent on_event;
  JsonClientClosed on_closed;
  gpointer user_data;

  GMutex lock;
  GCond changed;
  State state;
  gboolean silenced; /* no callback any more */
  JsonObject *greeting;
  GError *failure;     /* why the connection ended, if not in order */
  GHashTable *pending; /* gint64 id -> Call */
  gint64 last_id;
  gint64 fd_id; /* the command with a descriptor that QEMU has not answered; 0: none */
};

static void
client_unref (JsonClient *client)
{
  if (!g_atomic_ref_count_dec (&client->refs))
    return;
  g_clear_pointer (&client->greeting, json_object_unref);
  g_clear_error (&client->failure);
  g_hash_table_unref (client->pending);
  g_cond_clear (&client->changed);
  g_mutex_clear (&client->lock);
  g_free (client->greeting_name);
  g_free (client->peer);
  g_free (client);
}

static char *
describe_message (JsonObject *message)
{
  gsize len;
  g_autofree char *line = json_framer_encode (message, &len);

  line[len - 1] = '\0';
  return printable (line, MAX_PEER_TEXT);
}

/* Ends a connection on which something came that doesn't belong there.  Called with the lock. */
static void
reject (JsonClient *client, int code, const char *expected, JsonObject *message)
{
  g_autofree char *text = describe_message (message);

  if (client->failure == NULL)
    g_set_error (&client->failure, JSON_CLIENT_ERROR, code, "%s: %s, got %s", client->peer,
                 expected, text);
  json_pump_close (client->pump, 0);
}

static void
handle_greeting (JsonClient *client, JsonObject *message)
{
  g_autofree char *expected = NULL;
  JsonObject *greeting;

  if (json_get_object (message, client->greeting_name, &greeting))
    {
      client->greeting = json_object_ref (greeting);
      client->state = STATE_OPEN;
      g_cond_broadcast (&client->changed);
      return;
    }
  expected = g_strdup_printf ("expected the greeting \"%s\"", client->greeting_name);
  reject (client, JSON_CLIENT_ERROR_GREETING, expected, message);
}

/* Interns the class that a peer gave, so that errors can be compared by it; a peer that invents
 * new ones without end gets "". */
static const char *
intern_class (const char *klass)
{
  static gint n_classes;
  gsize len = strlen (klass);

  if (g_quark_try_string (klass) != 0)
    return g_intern_string (klass);
  if (len == 0 || len > 64 || g_atomic_int_add (&n_classes, 1) >= MAX_CLASSES)
    return "";
  return g_intern_string (klass);
}

static GError *
error_of_peer (JsonObject *error)
{
  const char *klass = "", *desc = "no description";
  g_autofree char *text = NULL;
  GError *result;

  json_get_string (error, "class", &klass);
  json_get_string (error, "desc", &desc);
  text = printable (desc, MAX_PEER_TEXT);
  result = g_error_new_literal (JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_REPLY, text);
  json_client_error_get_private (result)->klass = intern_class (klass);
  return result;
}

void
json_client_set_reply_error (const char *name, const char *command, JsonObject *object,
                             GError **error)
{
  g_propagate_prefixed_error (error, error_of_peer (object), "%s: %s: ", name, command);
}

static void
handle_reply (JsonClient *client, JsonObject *message)
{
  JsonObject *error = NULL;
  gint64 id;
  Call *call;

  if (!json_get_int (message, "id", &id)
      || (!json_object_has_member (message, "return")
          && !json_get_object (message, "error", &error)))
    {
      reject (client, JSON_CLIENT_ERROR_UNEXPECTED, "expected a reply or an event", message);
      return;
    }
  if (id == client->fd_id)
    client->fd_id = 0;
  call = g_hash_table_lookup (client->pending, &id);
  if (call != NULL)
    {
      g_hash_table_remove (client->pending, &id);
      call->done = TRUE;
      if (error != NULL)
        call->error = error_of_peer (error);
      else
        call->value = json_node_copy (json_object_get_member (message, "return"));
    }
  g_cond_broadcast (&client->changed);
}

static void
handle_event (JsonClient *client, const char *event, JsonObject *message)
{
  JsonObject *data = NULL;
  gboolean silenced;

  json_get_object (message, "data", &data);
  g_mutex_lock (&client->lock);
  silenced = client->silenced;
  g_mutex_unlock (&client->lock);
  if (client->on_event != NULL && !silenced)
    client->on_event (event, data, client->user_data);
}

static void
on_message (JsonObject *taken, gpointer data)
{
  g_autoptr (JsonObject) message = taken;
  JsonClient *client = data;
  const char *event;

  g_mutex_lock (&client->lock);
  if (client->state == STATE_OPEN && json_get_string (message, "event", &event))
    {
      g_mutex_unlock (&client->lock);
      handle_event (client, event, message);
      return;
    }
  if (client->state == STATE_GREETING)
    handle_greeting (client, message);
  else
    handle_reply (client, message);
  g_mutex_unlock (&client->lock);
}

static void
on_closed (const GError *error, gpointer data)
{
  JsonClient *client = data;
  gboolean notify;

  g_mutex_lock (&client->lock);
  notify = client->state == STATE_OPEN && !client->silenced && client->on_closed != NULL;
  client->state = STATE_CLOSED;
  if (client->failure == NULL && error != NULL)
    client->failure = g_error_copy (error);
  g_hash_table_remove_all (client->pending);
  g_cond_broadcast (&client->changed);
  g_mutex_unlock (&client->lock);
  /* Nobody changes `failure` any more. */
  if (notify)
    client->on_closed (client->failure, client->user_data);
  client_unref (client);
}

static void
on_cancelled (GCancellable *cancellable, gpointer data)
{
  JsonClient *client = data;

  g_mutex_lock (&client->lock);
  g_cond_broadcast (&client->changed);
  g_mutex_unlock (&client->lock);
}

static gulong
watch_cancellable (JsonClient *client, Deadline deadline)
{
  if (deadline.cancellable == NULL)
    return 0;
  return g_cancellable_connect (deadline.cancellable, G_CALLBACK (on_cancelled), client, NULL);
}

/* One wait; FALSE once the deadline has passed.  The lock is held; the cancellable is watched. */
static gboolean
wait_changed (JsonClient *client, Deadline deadline, GError **error)
{
  if (!deadline_check (deadline, error))
    return FALSE;
  if (deadline.at == G_MAXINT64)
    g_cond_wait (&client->changed, &client->lock);
  else
    g_cond_wait_until (&client->changed, &client->lock, deadline.at);
  return TRUE;
}

/* The time that an operation has which begins now, for people: rounded up, because a little of it
 * has passed since the caller set it. */
static char *
format_patience (Deadline deadline)
{
  gint64 ms = MAX (deadline.at - g_get_monotonic_time (), 0) / 1000 + 1;
  gint64 tenths = (ms + 99) / 100;

  if (ms < 1000)
    return g_strdup_printf ("%" G_GINT64_FORMAT " ms", (ms + 9) / 10 * 10);
  if (tenths % 10 == 0)
    return g_strdup_printf ("%" G_GINT64_FORMAT " s", tenths / 10);
  return g_strdup_printf ("%.1f s", (double)tenths / 10);
}

/* The words of an error of the connection, without the peer that begins them. */
static const char *
without_peer (JsonClient *client, const GError *error)
{
  gsize len = strlen (client->peer);

  if (g_str_has_prefix (error->message, client->peer)
      && g_str_has_prefix (error->message + len, ": "))
    return error->message + len + 2;
  return error->message;
}

/* Takes `reason` over. */
static void
set_greeting_error (JsonClient *client, GError *reason, const char *patience, GError **error)
{
  if (reason != NULL && g_error_matches (reason, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
    g_set_error (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_BUSY, "%s: no greeting within %s",
                 client->peer, patience);
  else if (reason != NULL && reason->domain == JSON_FRAMER_ERROR)
    g_set_error (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_GREETING,
                 "%s: expected the greeting \"%s\": %s", client->peer, client->greeting_name,
                 without_peer (client, reason));
  else if (reason != NULL)
    {
      g_propagate_error (error, reason);
      return;
    }
  else
    g_set_error (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_GREETING,
                 "%s: closed the connection instead of greeting with \"%s\"", client->peer,
                 client->greeting_name);
  g_clear_error (&reason);
}

static gboolean
wait_greeting (JsonClient *client, Deadline deadline, GError **error)
{
  g_autofree char *patience = format_patience (deadline);
  gulong watch = watch_cancellable (client, deadline);
  GError *reason = NULL;
  gboolean greeted;

  g_mutex_lock (&client->lock);
  while (client->state == STATE_GREETING && wait_changed (client, deadline, &reason))
    ;
  /* A connection that ended right after its greeting is told by the first call. */
  greeted = client->greeting != NULL;
  if (!greeted && reason == NULL && client->failure != NULL)
    reason = g_error_copy (client->failure);
  if (!greeted)
    client->silenced = TRUE;
  g_mutex_unlock (&client->lock);
  if (watch != 0)
    g_cancellable_disconnect (deadline.cancellable, watch);
  if (greeted)
    g_clear_error (&reason);
  else
    set_greeting_error (client, reason, patience, error);
  return greeted;
}

JsonClient *
json_client_new (Channel *channel, const JsonPumpLimits *limits, const char *greeting,
                 JsonClientEvent on_event, JsonClientClosed on_client_closed, gpointer user_data,
                 Deadline deadline, GError **error)
{
  JsonPumpHandlers handlers = { .message = on_message, .closed = on_closed };
  g_autoptr (JsonClient) client = g_new0 (JsonClient, 1);

  g_atomic_ref_count_init (&client->refs);
  g_atomic_ref_count_inc (&client->refs);
  client->peer = g_strdup (channel_get_peer (channel));
  client->greeting_name = g_strdup (greeting);
  client->on_event = on_event;
  client->on_closed = on_client_closed;
  client->user_data = user_data;
  g_mutex_init (&client->lock);
  g_cond_init (&client->changed);
  client->pending = g_hash_table_new (g_int64_hash, g_int64_equal);
  /* With the lock, so that the first message finds `pump` set. */
  g_mutex_lock (&client->lock);
  client->pump = json_pump_new (channel, limits, &handlers, client);
  g_mutex_unlock (&client->lock);
  if (!wait_greeting (client, deadline, error))
    return NULL;
  return g_steal_pointer (&client);
}

void
json_client_free (JsonClient *client)
{
  if (client == NULL)
    return;
  g_mutex_lock (&client->lock);
  client->silenced = TRUE;
  g_mutex_unlock (&client->lock);
  json_pump_free (client->pump);
  client_unref (client);
}

JsonObject *
json_client_get_greeting (JsonClient *client)
{
  return client->greeting;
}

static gboolean
send_call (JsonClient *client, Call *call, const char *exec, const char *command, JsonObject *args,
           int fd, GError **error)
{
  g_autoptr (JsonObject) message
      = json_args (exec, "s", command, "id", "i", call->id, "arguments", "o",
                   args != NULL ? json_object_ref (args) : NULL, NULL);

  if (!json_pump_send (client->pump, message, fd, error))
    return FALSE;
  g_hash_table_insert (client->pending, &call->id, call);
  if (fd >= 0)
    client->fd_id = call->id;
  return TRUE;
}

/* The words for a connection that ended during a call. */
static GError *
error_of_loss (JsonClient *client)
{
  return g_error_new (JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_LOST, "the connection was lost: %s",
                      client->failure != NULL ? without_peer (client, client->failure)
                                              : "the other side closed it");
}

/* With the lock held.  Errors don't name the command yet. */
static gboolean
perform_call (JsonClient *client, Call *call, const char *exec, const char *command,
              JsonObject *args, int fd, Deadline deadline, GError **error)
{
  g_autoptr (GError) unsent = NULL;
  gboolean in_time = TRUE;

  while (in_time && fd >= 0 && client->fd_id != 0 && client->state == STATE_OPEN)
    in_time = wait_changed (client, deadline, error);
  /* A time-out that is over already still sends: whoever set it so short wants it tried. */
  if (!in_time || !deadline_check ((Deadline){ G_MAXINT64, deadline.cancellable }, error))
    return FALSE;
  call->id = ++client->last_id;
  if (client->state == STATE_OPEN && !send_call (client, call, exec, command, args, fd, &unsent)
      && !g_error_matches (unsent, G_IO_ERROR, G_IO_ERROR_CLOSED))
    {
      g_propagate_error (error, g_steal_pointer (&unsent));
      return FALSE;
    }
  /* What couldn't be sent on a closed connection waits to learn why it was closed. */
  while (in_time && !call->done && client->state == STATE_OPEN)
    in_time = wait_changed (client, deadline, error);
  g_hash_table_remove (client->pending, &call->id);
  if (call->error != NULL)
    g_propagate_error (error, g_steal_pointer (&call->error));
  else if (!call->done && in_time)
    g_propagate_error (error, error_of_loss (client));
  return call->value != NULL;
}

/* Takes `reason` over and says it as "PEER: COMMAND: ...". */
static void
set_call_error (JsonClient *client, const char *command, GError *reason, const char *patience,
                GError **error)
{
  if (!g_error_matches (reason, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
    {
      g_propagate_prefixed_error (error, reason, "%s: %s: ", client->peer, command);
      return;
    }
  g_set_error (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_TIMEOUT, "%s: %s: no answer within %s",
               client->peer, command, patience);
  g_error_free (reason);
}

gboolean
json_client_call (JsonClient *client, const char *exec, const char *command, JsonObject *args,
                  int fd, Deadline deadline, JsonNode **ret_value, GError **error)
{
  g_autoptr (JsonObject) owned = args;
  g_autofree char *patience = format_patience (deadline);
  gulong watch = watch_cancellable (client, deadline);
  GError *reason = NULL;
  Call call = { 0 };
  gboolean ok;

  g_mutex_lock (&client->lock);
  ok = perform_call (client, &call, exec, command, owned, fd, deadline, &reason);
  g_mutex_unlock (&client->lock);
  if (watch != 0)
    g_cancellable_disconnect (deadline.cancellable, watch);
  if (!ok)
    set_call_error (client, command, reason, patience, error);
  else if (ret_value != NULL)
    *ret_value = call.value;
  else
    json_node_unref (call.value);
  return ok;
}

const char *
json_client_error_class (const GError *error)
{
  if (error == NULL || error->domain != JSON_CLIENT_ERROR)
    return "";
  return json_client_error_get_private (error)->klass;
}
