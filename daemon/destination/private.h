/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/destination/destination.h"
#include "daemon/image.h"
#include "daemon/ram-gate.h"
#include "daemon/vm.h"
#include "nbd/mirror.h"

/* Shared by the files of the destination's side only. */

/* At the cutover, and until the guest runs again, nothing may stand still for longer. */
#define SWITCHOVER_TIMEOUT_MS 5000

typedef struct
{
  char *name;   /* what people call it */
  char *device; /* qdev id or path, the same at both ends */
  char *path, *format;
  guint64 size; /* bytes */
  ImagePrealloc prealloc;

  Image *image;      /* NULL: not opened yet */
  NbdTarget *target; /* of the image's writer; NULL once it is closed */
  Mirror *mirror;    /* guarded by Job.lock, the main thread looks at it */
} DestinationDisk;

typedef struct
{
  Job base;
  Connection *connection; /* main thread; NULL: the source is lost */
  char *machine;          /* machine type */
  char *source_dn;        /* of the client certificate that the source's QEMU shows */
  char *source_address, *local_address;
  gint64 timeout_ms;
  gboolean overwrite;
  GPtrArray *disks; /* DestinationDisk */
  RateLimit *limit;
  GCancellable *writers; /* ends every wait of the mirrors and the targets; the job is over then */
  gsize in_flight;       /* guarded by Job.lock */

  /* Of a domain of libvirt */
  char *domain_uuid;    /* NULL: a bare QEMU */
  VirtDomain *domain;   /* at this host */
  gboolean was_defined; /* before the job */
  guint domain_id;      /* of the start that came through the gate; known from the release on */
  RamGate *gate;        /* guarded by Job.lock */

  Vm *vm;                /* of a bare QEMU; NULL: not connected */
  gboolean listening;    /* QEMU was told migrate-incoming, or the gate was opened for libvirt */
  gboolean paused;       /* the guest was, and is to stay so; known from the release on */
  gboolean released;     /* the writers are closed and the source knows or may know it */
  gboolean may_have_run; /* the guest, here: it can't be said any more that it never will */
  char *tls_id, *authz_id;
} DestinationJob;

DestinationDisk *destination_disk (DestinationJob *job, guint i);

/* Actions; see job-table.c. */
JobEvent destination_prepare (Job *base, GError **error);
JobEvent destination_copy (Job *base, GError **error);
JobEvent destination_listen (Job *base, GError **error);
JobEvent destination_release (Job *base, GError **error);
JobEvent destination_start (Job *base, GError **error);
JobEvent destination_finish (Job *base, GError **error);
JobEvent destination_ask (Job *base, GError **error);
JobEvent destination_undo (Job *base, GError **error);
JobEvent destination_recover_action (Job *base, GError **error);

/* Connects to the QEMU at the job's socket, which must be beneath a qmp-dir of the peer. */
Vm *destination_open_vm (DestinationJob *job, GError **error);
/* That this is the QEMU that the guest can move into: inmigrate, same machine type, every disk
 * there, with the format and the very file that is being filled. */
gboolean destination_check_vm (DestinationJob *job, Vm *vm, GError **error);
/* Its end is JOB_EVENT_QEMU_LOST from here on. */
void destination_watch_vm (DestinationJob *job);
/* Removes what we made in it. */
void destination_clean_vm (DestinationJob *job);
/* Closes every writer, durably; the first error is told, all are closed. */
gboolean destination_close_writers (DestinationJob *job, GError **error);
/* domain.c: the same for a domain of libvirt. */
gboolean destination_is_domain (const DestinationJob *job);
/* Nobody uses the domain here; journals whether it is defined. */
gboolean destination_check_domain (DestinationJob *job, GError **error);
/* That the stream which is held is the domain's. */
gboolean destination_know_domain (DestinationJob *job, GError **error);
JobEvent destination_open_gate (DestinationJob *job, GError **error);
JobEvent destination_start_domain (DestinationJob *job, GError **error);
void destination_finish_domain (DestinationJob *job);
/* NEVER: it doesn't run here, and nothing of it is left. */
JobEvent destination_undo_domain (DestinationJob *job, GError **error);
JobEvent destination_recover_domain (DestinationJob *job, GError **error);
JobEvent destination_wait_domain (DestinationJob *job, GError **error);
/* Brings Job.view up to date with the mirrors. */
void destination_update_view (DestinationJob *job);
