/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/resolve.h"

#include <netdb.h>
#include <sys/socket.h>

/* An address needs no name server, and getaddrinfo knows the zones of link-local ones, which
 * GInetAddress does not. */
static GPtrArray *
resolve_numeric (const char *host, guint16 port)
{
  const struct addrinfo hints
      = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
  g_autofree char *service = g_strdup_printf ("%u", port);
  struct addrinfo *found = NULL;

  if (getaddrinfo (host, service, &hints, &found) != 0)
    return NULL;
  GPtrArray *addresses = g_ptr_array_new_with_free_func (g_object_unref);
  g_ptr_array_add (addresses, g_socket_address_new_from_native (found->ai_addr, found->ai_addrlen));
  freeaddrinfo (found);
  return addresses;
}

typedef struct
{
  GList *addresses; /* of GInetAddress */
  gboolean done;
} Lookup;

static void
lookup_done (GObject *source, GAsyncResult *result, gpointer data)
{
  Lookup *lookup = data;

  lookup->addresses = g_resolver_lookup_by_name_finish (G_RESOLVER (source), result, NULL);
  lookup->done = TRUE;
}

static gboolean
lookup_expired (gpointer data)
{
  g_cancellable_cancel (data);
  return G_SOURCE_REMOVE;
}

static gboolean
lookup_cancelled (GCancellable *cancellable, gpointer data)
{
  g_cancellable_cancel (data);
  return G_SOURCE_REMOVE;
}

static void
attach (GSource *source, GSourceFunc func, gpointer data, GMainContext *context)
{
  g_source_set_callback (source, func, data, NULL);
  g_source_attach (source, context);
  g_source_unref (source);
}

/* A lookup that is given up goes on in GLib's thread, and nobody waits for it. */
static void
lookup_run (Lookup *lookup, const char *host, Deadline deadline)
{
  g_autoptr (GMainContext) context = g_main_context_new ();
  g_autoptr (GResolver) resolver = g_resolver_get_default ();
  g_autoptr (GCancellable) give_up = g_cancellable_new ();
  int left_ms = deadline_left_ms (deadline);

  g_main_context_push_thread_default (context);
  if (left_ms >= 0)
    attach (g_timeout_source_new ((guint)left_ms), lookup_expired, give_up, context);
  if (deadline.cancellable != NULL)
    attach (g_cancellable_source_new (deadline.cancellable), G_SOURCE_FUNC (lookup_cancelled),
            give_up, context);
  g_resolver_lookup_by_name_async (resolver, host, give_up, lookup_done, lookup);
  while (!lookup->done)
    g_main_context_iteration (context, TRUE);
  g_main_context_pop_thread_default (context);
}

static GPtrArray *
resolve_name (const char *host, guint16 port, Deadline deadline, GError **error)
{
  Lookup lookup = { 0 };

  lookup_run (&lookup, host, deadline);
  if (lookup.addresses == NULL)
    {
      if (!deadline_check (deadline, error))
        return NULL;
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_HOST_NOT_FOUND,
                   "the name is unknown: check it, or give the address of the host");
      return NULL;
    }

  GPtrArray *addresses = g_ptr_array_new_with_free_func (g_object_unref);
  for (GList *l = lookup.addresses; l != NULL && addresses->len < RESOLVE_MAX; l = l->next)
    g_ptr_array_add (addresses, g_inet_socket_address_new (l->data, port));
  g_resolver_free_addresses (lookup.addresses);
  return addresses;
}

GPtrArray *
resolve_host (const char *host, guint16 port, Deadline deadline, GError **error)
{
  if (!deadline_check (deadline, error))
    return NULL;
  GPtrArray *addresses = resolve_numeric (host, port);
  return addresses != NULL ? addresses : resolve_name (host, port, deadline, error);
}
