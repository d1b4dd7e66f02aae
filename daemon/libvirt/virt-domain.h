/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>
#include <libvirt/libvirt.h>

#include "tls/deadline.h"

/* One domain of one libvirtd.  A libvirt call can't be cancelled: each runs in a thread of a pool,
 * and a deadline ends our waiting, not the call.  A connection that was lost is made again by the
 * next call.  Events come while the default main context runs.  Thread-safe. */
typedef struct VirtDomain VirtDomain;

/* libvirt's own errors: the code is a virErrorNumber. */
#define VIRT_ERROR (virt_error_quark ())
GQuark virt_error_quark (void);
/* "WHAT: " and what libvirt says. */
void virt_set_error (const char *what, GError **error);
/* The same, with the domain's name. */
void virt_set_domain_error (virDomainPtr domain, GError **error);

typedef struct
{
  /* A QMP event of its QEMU; `data` may be NULL. */
  void (*monitor_event) (const char *event, JsonObject *data, gpointer user_data);
  /* libvirt has ended the source's QEMU because the migration has succeeded; in order with the
   * events of the QEMU. */
  void (*migrated) (gpointer user_data);
  /* The connection to libvirtd was lost: an event may be missing. */
  void (*gap) (gpointer user_data);
} VirtHandlers;

/* By name or UUID; nothing is asked yet. `handlers` may be NULL; called in the main thread. */
VirtDomain *virt_domain_new (const char *uri, const char *name, const VirtHandlers *handlers,
                             gpointer user_data);
/* No handler runs any more afterwards. */
void virt_domain_free (VirtDomain *domain);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (VirtDomain, virt_domain_free)

/* In a thread of the pool. `domain` is borrowed. */
typedef gboolean (*VirtFunc) (virDomainPtr domain, gpointer data, GError **error);
/* Runs it and waits for its end, until `deadline` (G_IO_ERROR_TIMED_OUT, _CANCELLED).  `data` (may
 * be NULL) is a g_atomic_rc_box; `clear` (may be NULL) is for its last reference, which a late call
 * may have.  A domain that isn't there: VIR_ERR_NO_DOMAIN. */
gboolean virt_domain_run (VirtDomain *domain, VirtFunc func, gpointer data, GDestroyNotify clear,
                          Deadline deadline, GError **error);

/* The same, without waiting: a call that goes on. */
typedef struct VirtCall VirtCall;
VirtCall *virt_domain_begin (VirtDomain *domain, VirtFunc func, gpointer data,
                             GDestroyNotify clear);
gboolean virt_call_has_ended (VirtCall *call);
/* As virt_domain_run (); may be called again. */
gboolean virt_call_wait (VirtCall *call, Deadline deadline, GError **error);
/* The call goes on. Takes NULL. */
void virt_call_unref (VirtCall *call);
