/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/libvirt/virt-domain.h"
#include "qmp/qmp-commands.h"

/* One QEMU: its monitor, its process, and what its events have told since we watch it. */
typedef struct Vm Vm;

/* Counted and dated (monotonic, microseconds; 0: not seen) when the event arrived. */
typedef struct
{
  guint sequence; /* of events of any kind */
  guint stops, resumes;
  gint64 stopped_us, resumed_us;
  guint resets;
  gboolean powered_off; /* the guest shut itself down */
  gboolean unplugged;   /* a device was removed */
  gboolean closed;      /* the monitor is gone; no event after that is known */
  guint gaps;           /* so often was libvirtd lost: events may be missing */
  gboolean migrated;    /* libvirt has ended QEMU because its migration has succeeded */
  char migration[24];   /* status of the last MIGRATION event, "" before */
} VmEvents;

/* Connects to the monitor at `path`, as qmp_socket_open (). */
Vm *vm_open (const char *path, Deadline deadline, GError **error);
/* The QEMU of a running domain, as virt_qmp_open ().  It is closed when its process has ended, and
 * stays open while libvirtd is away. */
Vm *vm_open_domain (const char *uri, const char *name, Deadline deadline, GError **error);
/* NULL for a bare QEMU. */
VirtDomain *vm_get_domain (const Vm *vm);
void vm_free (Vm *vm);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Vm, vm_free)

/* Called once, in another thread, when the monitor goes away, or at once where it has gone already;
 * never by vm_free ().  NULL: nobody is told any more. */
typedef void (*VmLostFunc) (const GError *error, gpointer data);
void vm_set_lost_handler (Vm *vm, VmLostFunc on_lost, gpointer data);

QmpExecutor *vm_get_executor (Vm *vm);
pid_t vm_get_pid (const Vm *vm);
/* What tells this process from every other one, past and to come, also after a restart of the host:
 * boot, number and start time (proc(5)).  Free with g_free; NULL if it is gone. */
char *vm_describe_process (const Vm *vm);
/* That process, as it was described, runs still. */
gboolean vm_process_exists (const char *description);
void vm_get_events (Vm *vm, VmEvents *ret_events);

/* Waits until an event came after those in `seen`, for at most `ms` or until `cancellable`, and
 * tells all that is known then. */
void vm_wait_event (Vm *vm, const VmEvents *seen, gint64 ms, GCancellable *cancellable,
                    VmEvents *ret_events);
/* Waits for the process to end (pidfd).  FALSE: it is still there. */
gboolean vm_wait_exit (Vm *vm, gint64 ms);
/* SIGTERM to that very process, never to another one that got its number; QEMU ends by it. */
void vm_terminate (Vm *vm);
