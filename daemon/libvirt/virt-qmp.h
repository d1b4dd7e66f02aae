/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/libvirt/virt-domain.h"
#include "qmp/executor.h"

/* The monitor of a running domain's QEMU, through libvirt (virDomainQemuMonitorCommandWithFiles,
 * which needs a local connection).  libvirt marks the domain as tainted by it. */

/* Checks, as qmp_socket_open (), that this QEMU has what vmferry needs, and finds its process. */
QmpExecutor *virt_qmp_open (const char *uri, const char *name, const VirtHandlers *handlers,
                            gpointer user_data, Deadline deadline, GError **error);
/* Borrowed. */
VirtDomain *virt_qmp_get_domain (QmpExecutor *executor);
/* That very process: proven by a descriptor that was passed to it. */
pid_t virt_qmp_get_pid (QmpExecutor *executor);
