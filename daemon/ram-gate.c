/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ram-gate.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/listener.h"
#include "daemon/ram-relay.h"

/* Connections that may wait until the source's agent has named one. */
#define MAX_PENDING 16
#define PORT_TRIES 64
/* As the kernel's default: a relay needs no more. */
#define SEND_BUFFER (256 * 1024)
/* The wake-up, and the listener or both ends of the relay. */
#define POLLED 3

typedef enum
{
  GATE_WAITING, /* for the stream */
  GATE_HOLDING,
  GATE_OPEN,
  GATE_CLOSED
} GateState;

typedef struct
{
  int fd;
  guint16 port; /* of the other end */
} Pending;

struct RamGate
{
  Listener *listener;
  char *behind;
  int wake; /* eventfd */
  GThread *thread;
  /* Of the thread alone. */
  GArray *pending; /* Pending */
  RamRelay *relay;

  GMutex lock;
  GateState state;
  guint16 admitted;
  gint64 until_us; /* monotonic; 0: for ever */
  GError *reason;  /* why it is closed */
};

static gboolean
fail_errno (const char *what, GError **error)
{
  int code = errno;

  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (code), "%s: %s", what, g_strerror (code));
  return FALSE;
}

/* A socket at or to that address; -1 with an error. */
static int
make_socket (const char *address, guint16 port, gboolean connects, GError **error)
{
  g_autoptr (GSocketAddress) parsed = g_inet_socket_address_new_from_string (address, port);
  struct sockaddr_storage native;
  gssize size = parsed ? g_socket_address_get_native_size (parsed) : -1;
  int on = 1;
  int fd;

  if (!parsed || !g_socket_address_to_native (parsed, &native, sizeof native, error))
    return -1;
  fd = socket (native.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0
      && (connects
              ? connect (fd, (struct sockaddr *)&native, size) == 0
              : setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0
                    && bind (fd, (struct sockaddr *)&native, size) == 0 && listen (fd, 1) == 0))
    return fd;
  fail_errno (connects ? "the QEMU behind the gate" : "a port behind the gate", error);
  if (fd >= 0)
    close (fd);
  return -1;
}

static void
gate_wake (RamGate *gate)
{
  guint64 one = 1;

  if (write (gate->wake, &one, sizeof one) < 0)
    g_assert (errno == EAGAIN);
}

static void
close_locked (RamGate *gate, GError *reason)
{
  if (gate->state != GATE_CLOSED)
    gate->reason = reason;
  else
    g_clear_error (&reason);
  gate->state = GATE_CLOSED;
}

static void
gate_fail (RamGate *gate, GError *reason)
{
  g_mutex_lock (&gate->lock);
  close_locked (gate, reason);
  g_mutex_unlock (&gate->lock);
}

/* The state, once more after what a deadline does to it. */
static GateState
look (RamGate *gate, int *ret_timeout_ms, guint16 *ret_admitted)
{
  gint64 left_us;
  GateState state;

  g_mutex_lock (&gate->lock);
  left_us = gate->until_us - g_get_monotonic_time ();
  *ret_timeout_ms = -1;
  if (gate->until_us > 0 && gate->state < GATE_OPEN)
    {
      if (left_us <= 0)
        close_locked (gate,
                      g_error_new (G_IO_ERROR, G_IO_ERROR_TIMED_OUT, "nobody let go in time"));
      else
        *ret_timeout_ms = left_us / 1000 + 1;
    }
  state = gate->state;
  *ret_admitted = gate->admitted;
  g_mutex_unlock (&gate->lock);
  return state;
}

static guint16
port_of (const struct sockaddr_storage *address)
{
  g_autoptr (GSocketAddress) parsed
      = g_socket_address_new_from_native ((gpointer)address, sizeof *address);

  return G_IS_INET_SOCKET_ADDRESS (parsed)
             ? g_inet_socket_address_get_port (G_INET_SOCKET_ADDRESS (parsed))
             : 0;
}

static void
drop_pending (RamGate *gate, guint i)
{
  close (g_array_index (gate->pending, Pending, i).fd);
  g_array_remove_index (gate->pending, i);
}

/* The oldest of too many has to go: a stranger can't keep the stream out. */
static void
accept_one (RamGate *gate)
{
  struct sockaddr_storage address = { 0 };
  socklen_t len = sizeof address;
  Pending pending = { .fd = accept4 (listener_get_fd (gate->listener), (struct sockaddr *)&address,
                                     &len, SOCK_CLOEXEC) };

  if (pending.fd < 0)
    return;
  pending.port = port_of (&address);
  if (gate->pending->len >= MAX_PENDING)
    drop_pending (gate, 0);
  g_array_append_val (gate->pending, pending);
}

static void
begin_relay (RamGate *gate, int source_fd)
{
  GError *error = NULL;
  int fd = make_socket (gate->behind, ram_gate_get_port (gate), TRUE, &error);

  if (fd < 0)
    {
      gate_fail (gate, error);
      close (source_fd);
      return;
    }
  gate->relay = ram_relay_new (source_fd, fd);
  g_mutex_lock (&gate->lock);
  if (gate->state == GATE_WAITING)
    gate->state = GATE_HOLDING;
  g_mutex_unlock (&gate->lock);
}

static void
find_stream (RamGate *gate, guint16 admitted)
{
  for (guint i = 0; admitted > 0 && !gate->relay && i < gate->pending->len; i++)
    if (g_array_index (gate->pending, Pending, i).port == admitted)
      {
        int fd = g_array_index (gate->pending, Pending, i).fd;
        g_array_remove_index (gate->pending, i);
        while (gate->pending->len > 0)
          drop_pending (gate, 0);
        begin_relay (gate, fd);
        return;
      }
}

static gboolean
gate_is_open (RamGate *gate)
{
  gboolean open;

  g_mutex_lock (&gate->lock);
  open = gate->state == GATE_OPEN;
  g_mutex_unlock (&gate->lock);
  return open;
}

static void
step_relay (RamGate *gate, gboolean open)
{
  GError *error = NULL;

  switch (ram_relay_step (gate->relay, open, &error))
    {
    case RAM_RELAY_BROKEN:
      /* Let go a moment before the end came: the next step knows. */
      if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CLOSED) && !open && gate_is_open (gate))
        g_clear_error (&error);
      else
        gate_fail (gate, error);
      break;
    case RAM_RELAY_ENDED:
      gate_fail (gate, g_error_new (G_IO_ERROR, G_IO_ERROR_CLOSED, "the stream has ended"));
      break;
    default:
      break;
    }
}

static void
wait_for_work (RamGate *gate, GateState state, int timeout_ms)
{
  struct pollfd fds[POLLED] = { { .fd = gate->wake, .events = POLLIN } };
  guint64 count;

  if (gate->relay)
    ram_relay_prepare (gate->relay, state == GATE_OPEN, fds + 1);
  else
    {
      fds[1] = (struct pollfd){ .fd = listener_get_fd (gate->listener), .events = POLLIN };
      fds[2].fd = -1;
    }
  poll (fds, G_N_ELEMENTS (fds), timeout_ms);
  if (fds[0].revents && read (gate->wake, &count, sizeof count) < 0)
    g_assert (errno == EAGAIN);
  if (!gate->relay && fds[1].revents)
    accept_one (gate);
}

static gpointer
gate_thread (gpointer data)
{
  RamGate *gate = data;
  GateState state;
  guint16 admitted;
  int timeout_ms;

  while ((state = look (gate, &timeout_ms, &admitted)) != GATE_CLOSED)
    {
      if (gate->relay)
        step_relay (gate, state == GATE_OPEN);
      else
        find_stream (gate, admitted);
      if (look (gate, &timeout_ms, &admitted) == state)
        wait_for_work (gate, state, timeout_ms);
    }
  while (gate->pending->len > 0)
    drop_pending (gate, 0);
  g_clear_pointer (&gate->relay, ram_relay_free);
  listener_close_door (gate->listener, NULL);
  return NULL;
}

/* A listener whose port is free behind the gate, too. */
static Listener *
find_listener (const char *address, const char *behind, guint16 port_min, guint16 port_max,
               const char *peer_address, GError **error)
{
  gsize send_buffer;
  int fd;

  for (guint i = 0; i < PORT_TRIES; i++)
    {
      g_autoptr (Listener) listener = listener_new (address, port_min, port_max, peer_address,
                                                    SEND_BUFFER, &send_buffer, error);
      if (!listener)
        return NULL;
      fd = make_socket (behind, listener_get_port (listener), FALSE, NULL);
      if (fd < 0)
        continue;
      close (fd);
      return g_steal_pointer (&listener);
    }
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_ADDRESS_IN_USE,
               "no port of %u-%u is free both on %s and on %s", port_min, port_max, address,
               behind);
  return NULL;
}

RamGate *
ram_gate_new (const char *address, const char *behind, guint16 port_min, guint16 port_max,
              const char *peer_address, GError **error)
{
  Listener *listener = find_listener (address, behind, port_min, port_max, peer_address, error);
  RamGate *gate;
  int fd;

  if (!listener)
    return NULL;
  gate = g_new0 (RamGate, 1);
  gate->listener = listener;
  gate->behind = g_strdup (behind);
  gate->pending = g_array_new (FALSE, FALSE, sizeof (Pending));
  gate->wake = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  g_mutex_init (&gate->lock);
  fd = listener_get_fd (listener);
  if (gate->wake < 0 || fcntl (fd, F_SETFL, fcntl (fd, F_GETFL) | O_NONBLOCK) < 0)
    {
      fail_errno ("the gate", error);
      ram_gate_free (gate);
      return NULL;
    }
  gate->thread = g_thread_new ("gate", gate_thread, gate);
  return gate;
}

void
ram_gate_free (RamGate *gate)
{
  if (!gate)
    return;
  if (gate->thread)
    ram_gate_close (gate);
  g_clear_pointer (&gate->thread, g_thread_join);
  if (gate->wake >= 0)
    close (gate->wake);
  listener_free (gate->listener);
  g_array_unref (gate->pending);
  g_clear_error (&gate->reason);
  g_mutex_clear (&gate->lock);
  g_free (gate->behind);
  g_free (gate);
}

guint16
ram_gate_get_port (const RamGate *gate)
{
  return listener_get_port (gate->listener);
}

void
ram_gate_admit (RamGate *gate, guint16 source_port)
{
  g_mutex_lock (&gate->lock);
  if (gate->admitted == 0)
    gate->admitted = source_port;
  g_mutex_unlock (&gate->lock);
  gate_wake (gate);
}

gboolean
ram_gate_is_holding (RamGate *gate)
{
  gboolean holding;

  g_mutex_lock (&gate->lock);
  holding = gate->state == GATE_HOLDING;
  g_mutex_unlock (&gate->lock);
  return holding;
}

void
ram_gate_set_patience (RamGate *gate, gint64 ms)
{
  g_mutex_lock (&gate->lock);
  gate->until_us = g_get_monotonic_time () + ms * 1000;
  g_mutex_unlock (&gate->lock);
  gate_wake (gate);
}

gboolean
ram_gate_open (RamGate *gate, GError **error)
{
  gboolean open;

  g_mutex_lock (&gate->lock);
  if (gate->state == GATE_HOLDING)
    gate->state = GATE_OPEN;
  open = gate->state == GATE_OPEN;
  if (!open)
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_CLOSED, "the guest's memory can't be let go: %s",
                 gate->reason ? gate->reason->message : "no stream has come");
  g_mutex_unlock (&gate->lock);
  gate_wake (gate);
  return open;
}

void
ram_gate_close (RamGate *gate)
{
  g_mutex_lock (&gate->lock);
  close_locked (gate, g_error_new (G_IO_ERROR, G_IO_ERROR_CANCELLED, "it was given up"));
  g_mutex_unlock (&gate->lock);
  gate_wake (gate);
}
