/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/fake-listener.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 64

struct FakeListener
{
  FakeNbdSpec spec;
  FakeListenerPlan plan;
  gpointer user_data;
  int fd;
  GThread *thread;
  GCancellable *stop;
  GPtrArray *fakes; /* of the thread */
  gint n_clients;
};

static gpointer
listener_thread (gpointer data)
{
  FakeListener *listener = data;
  Deadline deadline = deadline_in (-1, listener->stop);

  while (deadline_poll (deadline, listener->fd, POLLIN, NULL))
    {
      FakeNbdSpec spec = listener->spec;
      int fd = accept (listener->fd, NULL, NULL);

      if (fd < 0)
        continue;
      if (listener->plan != NULL)
        listener->plan (listener->user_data, listener->fakes->len, &spec);
      g_ptr_array_add (listener->fakes, fake_nbd_new_fd (&spec, fd));
      g_atomic_int_inc (&listener->n_clients);
    }
  return NULL;
}

FakeListener *
fake_listener_new (int fd, const FakeNbdSpec *spec, FakeListenerPlan plan, gpointer user_data)
{
  FakeListener *listener = g_new0 (FakeListener, 1);

  listener->spec = *spec;
  listener->plan = plan;
  listener->user_data = user_data;
  listener->fd = fd;
  listener->stop = g_cancellable_new ();
  listener->fakes = g_ptr_array_new_with_free_func ((GDestroyNotify)fake_nbd_free);
  listener->thread = g_thread_new ("fake-listener", listener_thread, listener);
  return listener;
}

void
fake_listener_free (FakeListener *listener)
{
  if (listener == NULL)
    return;
  g_cancellable_cancel (listener->stop);
  g_thread_join (listener->thread);
  g_ptr_array_unref (listener->fakes);
  close (listener->fd);
  g_object_unref (listener->stop);
  g_free (listener);
}

static int
open_at (const struct sockaddr *address, socklen_t len)
{
  int fd = socket (address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

  g_assert_cmpint (bind (fd, address, len), ==, 0);
  g_assert_cmpint (listen (fd, BACKLOG), ==, 0);
  return fd;
}

int
fake_listener_open_unix (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  g_assert_cmpuint (g_strlcpy (address.sun_path, path, sizeof address.sun_path), <,
                    sizeof address.sun_path);
  return open_at ((struct sockaddr *)&address, sizeof address);
}

int
fake_listener_open_tcp (guint16 *ret_port)
{
  struct sockaddr_in address
      = { .sin_family = AF_INET, .sin_addr = { htonl (INADDR_LOOPBACK) }, .sin_port = 0 };
  socklen_t len = sizeof address;
  int fd = open_at ((struct sockaddr *)&address, len);

  g_assert_cmpint (getsockname (fd, (struct sockaddr *)&address, &len), ==, 0);
  *ret_port = ntohs (address.sin_port);
  return fd;
}

guint
fake_listener_get_n_clients (FakeListener *listener)
{
  return (guint)g_atomic_int_get (&listener->n_clients);
}
