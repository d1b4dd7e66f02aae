/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/libvirt/virt-domain.h"

/* libvirt's own migration of the memory, peer to peer and over TLS; the guest stays paused at the
 * destination, and the disks are none of its business (VIR_MIGRATE_UNSAFE: it believes us). */
typedef struct
{
  const char *desturi;         /* of the destination's libvirtd, for the source's */
  const char *migrate_uri;     /* "tcp:HOST:PORT": the gate */
  const char *listen_address;  /* where the destination's QEMU listens, behind it */
  const char *tls_destination; /* the name that the destination's certificate must have */
  const char *xml, *persistent_xml;
  const char *name;        /* its new one, or NULL */
  guint64 bandwidth_mib_s; /* 0: any */
  gboolean persistent, auto_converge;
} VirtMove;

/* Returns at once; the call goes on until the memory has been moved or not, or for as long as
 * libvirt waits for a dead network. Copies `move`.
 * It has a connection of its own: of two threads that wait on one of libvirt's (9.0), the second
 * may fail to wake the first, and its command then stays unsent until the first has its answer.
 * With a call that lasts for the whole migration that could be at the fence, for seconds. */
VirtCall *virt_move_begin (const char *uri, const char *uuid, const VirtMove *move);
