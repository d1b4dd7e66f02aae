/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/libvirt/virt-domain.h"

#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>

#include "qmp/json-scan.h"

#define MAX_EVENT_DEPTH 64

G_DEFINE_QUARK (vmferry - virt - error, virt_error)

/* Whom events are for; outlives the domain's handle, because libvirt has it too. */
typedef struct
{
  GMutex lock;
  const VirtHandlers *handlers; /* NULL: nobody any more */
  gpointer user_data;
} Sink;

struct VirtDomain /* a g_atomic_rc_box */
{
  char *uri, *name;
  Sink *sink;

  GMutex lock;
  gboolean was_connected;
  virConnectPtr connection;
  virDomainPtr domain;
  int monitor_id, lifecycle_id; /* callbacks, -1: none */
};

/* Shared by the caller and the thread: a g_atomic_rc_box. */
struct VirtCall
{
  VirtDomain *domain;
  VirtFunc func;
  gpointer data;
  GDestroyNotify clear;

  GMutex lock;
  GCond cond;
  gboolean ended, ok;
  GError *error;
};

void
virt_set_error (const char *what, GError **error)
{
  const virError *last = virGetLastError ();

  g_set_error (error, VIRT_ERROR, last ? last->code : VIR_ERR_INTERNAL_ERROR, "%s: %s", what,
               last && last->message ? last->message : "libvirt doesn't say why");
}

void
virt_set_domain_error (virDomainPtr domain, GError **error)
{
  g_autoptr (GError) failed = NULL;

  /* Even a look at the name makes libvirt forget its error. */
  virt_set_error ("", &failed);
  g_set_error (error, failed->domain, failed->code, "%s%s", virDomainGetName (domain),
               failed->message);
}

/* ------------------------------------------------------------------ events */

static void
sink_clear (gpointer data)
{
  g_mutex_clear (&((Sink *)data)->lock);
}

static void
sink_unref (gpointer data)
{
  g_atomic_rc_box_release_full (data, sink_clear);
}

static void
on_monitor_event (virConnectPtr connection, virDomainPtr domain, const char *event,
                  long long seconds, unsigned int micros, const char *details, void *opaque)
{
  Sink *sink = opaque;
  g_autoptr (JsonNode) node = NULL;

  if (details && json_scan (details, strlen (details), MAX_EVENT_DEPTH, NULL))
    node = json_from_string (details, NULL);
  g_mutex_lock (&sink->lock);
  if (sink->handlers)
    sink->handlers->monitor_event (
        event, node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL,
        sink->user_data);
  g_mutex_unlock (&sink->lock);
}

static int
on_lifecycle (virConnectPtr connection, virDomainPtr domain, int event, int detail, void *opaque)
{
  Sink *sink = opaque;

  if (event != VIR_DOMAIN_EVENT_STOPPED || detail != VIR_DOMAIN_EVENT_STOPPED_MIGRATED)
    return 0;
  g_mutex_lock (&sink->lock);
  if (sink->handlers)
    sink->handlers->migrated (sink->user_data);
  g_mutex_unlock (&sink->lock);
  return 0;
}

static void
tell_gap (Sink *sink)
{
  g_mutex_lock (&sink->lock);
  if (sink->handlers)
    sink->handlers->gap (sink->user_data);
  g_mutex_unlock (&sink->lock);
}

static void
on_close (virConnectPtr connection, int reason, void *opaque)
{
  tell_gap (opaque);
}

/* -------------------------------------------------------------- connection */

static void
ignore_error (void *data, virErrorPtr error)
{
}

static gpointer
init_libvirt (gpointer data)
{
  virSetErrorFunc (NULL, ignore_error);
  virInitialize ();
  virEventRegisterDefaultImpl ();
  return NULL;
}

/* Called with the lock, or by the last owner. */
static void
disconnect (VirtDomain *domain)
{
  if (!domain->connection)
    return;
  if (domain->monitor_id >= 0)
    virConnectDomainQemuMonitorEventDeregister (domain->connection, domain->monitor_id);
  if (domain->lifecycle_id >= 0)
    virConnectDomainEventDeregisterAny (domain->connection, domain->lifecycle_id);
  virConnectUnregisterCloseCallback (domain->connection, on_close);
  if (domain->domain)
    virDomainFree (domain->domain);
  virConnectClose (domain->connection);
  domain->connection = NULL;
  domain->domain = NULL;
}

static gboolean
watch (VirtDomain *domain, GError **error)
{
  if (!domain->sink)
    return TRUE;
  domain->monitor_id = virConnectDomainQemuMonitorEventRegister (
      domain->connection, domain->domain, NULL, on_monitor_event,
      g_atomic_rc_box_acquire (domain->sink), sink_unref, 0);
  if (domain->monitor_id < 0)
    {
      sink_unref (domain->sink);
      virt_set_error (domain->uri, error);
      return FALSE;
    }
  domain->lifecycle_id = virConnectDomainEventRegisterAny (
      domain->connection, domain->domain, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
      VIR_DOMAIN_EVENT_CALLBACK (on_lifecycle), g_atomic_rc_box_acquire (domain->sink), sink_unref);
  if (domain->lifecycle_id >= 0)
    return TRUE;
  sink_unref (domain->sink);
  virt_set_error (domain->uri, error);
  return FALSE;
}

static gboolean
connect_to_libvirtd (VirtDomain *domain, GError **error)
{
  if (domain->connection && virConnectIsAlive (domain->connection) == 1)
    return TRUE;
  disconnect (domain);
  domain->monitor_id = domain->lifecycle_id = -1;
  domain->connection = virConnectOpen (domain->uri);
  if (!domain->connection)
    {
      virt_set_error (domain->uri, error);
      return FALSE;
    }
  if (domain->sink && domain->was_connected)
    tell_gap (domain->sink);
  domain->was_connected = TRUE;
  if (domain->sink
      && virConnectRegisterCloseCallback (domain->connection, on_close,
                                          g_atomic_rc_box_acquire (domain->sink), sink_unref)
             < 0)
    sink_unref (domain->sink);
  return TRUE;
}

/* Another domain may get the name later. */
static void
keep_uuid (VirtDomain *domain)
{
  char uuid[VIR_UUID_STRING_BUFLEN];

  if (virDomainGetUUIDString (domain->domain, uuid) < 0)
    return;
  g_free (domain->name);
  domain->name = g_strdup (uuid);
}

/* A new reference. */
static virDomainPtr
take_domain (VirtDomain *domain, GError **error)
{
  virDomainPtr found = NULL;

  g_mutex_lock (&domain->lock);
  if (connect_to_libvirtd (domain, error) && !domain->domain)
    {
      domain->domain = g_uuid_string_is_valid (domain->name)
                           ? virDomainLookupByUUIDString (domain->connection, domain->name)
                           : virDomainLookupByName (domain->connection, domain->name);
      if (!domain->domain)
        virt_set_error (domain->uri, error);
      else if (!watch (domain, error))
        disconnect (domain);
    }
  if (domain->domain && virDomainRef (domain->domain) == 0)
    {
      keep_uuid (domain);
      found = domain->domain;
    }
  g_mutex_unlock (&domain->lock);
  return found;
}

static void
domain_clear (gpointer data)
{
  VirtDomain *domain = data;

  disconnect (domain);
  g_clear_pointer (&domain->sink, sink_unref);
  g_mutex_clear (&domain->lock);
  g_free (domain->uri);
  g_free (domain->name);
}

VirtDomain *
virt_domain_new (const char *uri, const char *name, const VirtHandlers *handlers,
                 gpointer user_data)
{
  static GOnce once = G_ONCE_INIT;
  VirtDomain *domain = g_atomic_rc_box_new0 (VirtDomain);

  g_once (&once, init_libvirt, NULL);
  domain->uri = g_strdup (uri);
  domain->name = g_strdup (name);
  domain->monitor_id = domain->lifecycle_id = -1;
  g_mutex_init (&domain->lock);
  if (!handlers)
    return domain;
  domain->sink = g_atomic_rc_box_new0 (Sink);
  g_mutex_init (&domain->sink->lock);
  domain->sink->handlers = handlers;
  domain->sink->user_data = user_data;
  return domain;
}

/* ------------------------------------------------------------------- calls */

static void
call_clear (gpointer data)
{
  VirtCall *call = data;

  g_atomic_rc_box_release_full (call->domain, domain_clear);
  if (call->data)
    g_atomic_rc_box_release_full (call->data, call->clear);
  g_clear_error (&call->error);
  g_mutex_clear (&call->lock);
  g_cond_clear (&call->cond);
}

static void
run_call (gpointer data, gpointer unused)
{
  VirtCall *call = data;
  GError *error = NULL;
  virDomainPtr domain = take_domain (call->domain, &error);
  gboolean ok = domain && call->func (domain, call->data, &error);

  if (domain)
    virDomainFree (domain);
  g_mutex_lock (&call->lock);
  call->ended = TRUE;
  call->ok = ok;
  call->error = error;
  g_cond_broadcast (&call->cond);
  g_mutex_unlock (&call->lock);
  g_atomic_rc_box_release_full (call, call_clear);
}

static void
push (VirtCall *call)
{
  static gsize once;
  static GThreadPool *pool;

  /* Without a limit: one that libvirtd doesn't answer must not hold up the others. */
  if (g_once_init_enter (&once))
    {
      pool = g_thread_pool_new (run_call, NULL, -1, FALSE, NULL);
      g_once_init_leave (&once, 1);
    }
  g_thread_pool_push (pool, g_atomic_rc_box_acquire (call), NULL);
}

static void
wake_call (GCancellable *cancellable, gpointer data)
{
  VirtCall *call = data;

  g_mutex_lock (&call->lock);
  g_cond_broadcast (&call->cond);
  g_mutex_unlock (&call->lock);
}

VirtCall *
virt_domain_begin (VirtDomain *domain, VirtFunc func, gpointer data, GDestroyNotify clear)
{
  VirtCall *call = g_atomic_rc_box_new0 (VirtCall);

  call->domain = g_atomic_rc_box_acquire (domain);
  call->func = func;
  call->data = data ? g_atomic_rc_box_acquire (data) : NULL;
  call->clear = clear;
  g_mutex_init (&call->lock);
  g_cond_init (&call->cond);
  push (call);
  return call;
}

gboolean
virt_call_has_ended (VirtCall *call)
{
  gboolean ended;

  g_mutex_lock (&call->lock);
  ended = call->ended;
  g_mutex_unlock (&call->lock);
  return ended;
}

gboolean
virt_call_wait (VirtCall *call, Deadline deadline, GError **error)
{
  gulong link = deadline.cancellable ? g_cancellable_connect (deadline.cancellable,
                                                              G_CALLBACK (wake_call), call, NULL)
                                     : 0;
  gboolean ended;

  g_mutex_lock (&call->lock);
  while (!call->ended && deadline_check (deadline, NULL))
    if (deadline.at == G_MAXINT64)
      g_cond_wait (&call->cond, &call->lock);
    else
      g_cond_wait_until (&call->cond, &call->lock, deadline.at);
  ended = call->ended;
  g_mutex_unlock (&call->lock);
  g_cancellable_disconnect (deadline.cancellable, link);
  if (!ended)
    return deadline_check (deadline, error);
  if (call->error)
    g_propagate_error (error, g_error_copy (call->error));
  return call->ok;
}

void
virt_call_unref (VirtCall *call)
{
  if (call)
    g_atomic_rc_box_release_full (call, call_clear);
}

gboolean
virt_domain_run (VirtDomain *domain, VirtFunc func, gpointer data, GDestroyNotify clear,
                 Deadline deadline, GError **error)
{
  VirtCall *call;
  gboolean ok;

  if (!deadline_check (deadline, error))
    return FALSE;
  call = virt_domain_begin (domain, func, data, clear);
  ok = virt_call_wait (call, deadline, error);
  virt_call_unref (call);
  return ok;
}

/* Closing a connection asks libvirtd, which may take its time. */
static gpointer
free_thread (gpointer data)
{
  g_atomic_rc_box_release_full (data, domain_clear);
  return NULL;
}

void
virt_domain_free (VirtDomain *domain)
{
  if (!domain)
    return;
  if (domain->sink)
    {
      g_mutex_lock (&domain->sink->lock);
      domain->sink->handlers = NULL;
      g_mutex_unlock (&domain->sink->lock);
    }
  g_thread_unref (g_thread_new ("virt-free", free_thread, domain));
}
