/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/json-framer.h"
#include "tls/channel.h"

/* One thread that owns a channel and moves JSON lines over it in both directions.  What arrives is
 * handed to the callbacks in the pump's own thread, in order; messages are sent from any thread.
 * Both ends of each protocol (QMP client, agents' client, agents' server) are built on it. */
typedef struct JsonPump JsonPump;

typedef struct
{
  gsize max_line;   /* bytes of one received line */
  guint max_depth;  /* of a received message */
  gsize max_queued; /* bytes waiting to be sent: a peer that doesn't read is cut off beyond it */
} JsonPumpLimits;

typedef struct
{
  /* Takes over `message`. */
  void (*message) (JsonObject *message, gpointer data);
  /* Exactly once, the last call: an orderly end or json_pump_close () (error NULL), or a failure.
   * The channel is closed by then. */
  void (*closed) (const GError *error, gpointer data);
} JsonPumpHandlers;

/* Takes over `channel`.  `limits` and `handlers` are copied; `data` is borrowed until `closed`. */
JsonPump *json_pump_new (Channel *channel, const JsonPumpLimits *limits,
                         const JsonPumpHandlers *handlers, gpointer data);

/* Queues one message; doesn't take `message` over.  `fd` (or -1) is duplicated and goes along by
 * SCM_RIGHTS, on a plain UNIX socket only.  FALSE with G_IO_ERROR_CLOSED once the channel is gone.
 */
gboolean json_pump_send (JsonPump *pump, JsonObject *message, int fd, GError **error);

/* Sends what is queued and lets the other side read it (for at most `linger_ms`), closes the
 * channel, and makes `closed` come.  No message is delivered any more.  From any thread, also from
 * a handler.  Returns at once. */
void json_pump_close (JsonPump *pump, gint64 linger_ms);
/* Closes (without lingering, unless json_pump_close () was called before), waits for the thread
 * (not from a handler: there it detaches, and `closed` still comes), frees. */
void json_pump_free (JsonPump *pump);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (JsonPump, json_pump_free)
