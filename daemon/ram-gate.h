/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* The gate at the destination: libvirt moves the memory from QEMU to QEMU by itself and asks nobody
 * before it ends, so the stream goes through here, where its end is kept back (daemon/ram-relay.h)
 * until the last pass over the disks is durable.  Opening the gate is the release of the guest;
 * closing it instead makes libvirt bring the guest back at the source.
 *
 * Whoever holds a certificate of the right authority could feed the QEMU behind it: so only the
 * connection that the source's agent names is let through, and a stranger who comes first is
 * no hindrance.  A thread of its own; functions from any thread. */
typedef struct RamGate RamGate;

/* Listens on `address` at a port of [port_min, port_max] that is free at `behind`, too: there, on
 * the same port, the QEMU will listen.  Only `peer_address` can connect. */
RamGate *ram_gate_new (const char *address, const char *behind, guint16 port_min, guint16 port_max,
                       const char *peer_address, GError **error);
/* Closes it first. */
void ram_gate_free (RamGate *gate);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (RamGate, ram_gate_free)

guint16 ram_gate_get_port (const RamGate *gate);

/* The connection that comes, or has come, from this port of the peer is the stream.  Once. */
void ram_gate_admit (RamGate *gate, guint16 source_port);
/* The stream has come, and its end is kept back. */
gboolean ram_gate_is_holding (RamGate *gate);
/* Unless it is opened within `ms`, it closes. */
void ram_gate_set_patience (RamGate *gate, gint64 ms);
/* Lets go.  FALSE where no stream is held (G_IO_ERROR_CLOSED, with the reason where it was closed
 * or broke off): then it never will be.  Once TRUE, TRUE again. */
gboolean ram_gate_open (RamGate *gate, GError **error);
/* Nothing passes any more. */
void ram_gate_close (RamGate *gate);
