/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/executor.h"

/* Called once when the monitor's connection has ended (QEMU quit, crashed or was killed). */
typedef void (*QmpClosedHandler) (const GError *error, gpointer user_data);

/* Connects to the monitor at `path`, reads the greeting, negotiates capabilities (oob where it is
 * offered), and checks with query-qmp-schema that this QEMU has every command and argument that
 * vmferry needs (qmp/schema.h); errors say which are missing.  A monitor that another client holds
 * never greets: "PATH: no greeting within 3 s: the monitor is in use by another client". */
QmpExecutor *qmp_socket_open (const char *path, QmpEventHandler on_event,
                              QmpClosedHandler on_closed, gpointer user_data, Deadline deadline,
                              GError **error);

/* As the greeting told: 70222 for 7.2.22. */
guint qmp_socket_get_version (QmpExecutor *executor);
/* The process at the other end (SO_PEERCRED): QEMU itself, for a listening monitor. */
pid_t qmp_socket_get_pid (QmpExecutor *executor);
