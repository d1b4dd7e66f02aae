/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/libvirt/domain-xml.h"
#include "daemon/listener.h"
#include "daemon/pace.h"
#include "daemon/peer-link.h"
#include "daemon/source/source.h"
#include "daemon/vm.h"

/* Shared by the files of the source's side only. */

/* While the guest stands still nothing else may, for longer. */
#define SWITCHOVER_TIMEOUT_MS 5000

/* What --disk says of one disk. */
typedef struct
{
  char *disk;     /* node name, block backend's name or device id */
  char *path;     /* NULL: as at the source */
  char *format;   /* NULL: as at the source */
  char *prealloc; /* "off", "falloc" */
  gboolean matched;
} SourceWish;

typedef struct
{
  char *name; /* what people call it: node name where it has one, else its device's id */
  char *qdev; /* of query-block: id, or QOM path */
  char *node; /* that the guest writes to, and that carries our bitmaps */
  char *file; /* at the source; NULL where it is no plain file */
  char *path, *format, *prealloc; /* of the target */
  guint64 size;                   /* bytes */
  guint32 granularity;
  gboolean locked; /* QEMU holds image locks on the file: the fence can hold it by them */
} SourceDisk;

/* Of a guest that is a domain of libvirt. */
typedef struct
{
  char *uri; /* NULL: a bare QEMU */
  char *desturi, *dname, *tls_destination;
  gboolean persistent, undefine_source, suspend, auto_converge;
  gint64 bandwidth; /* MiB/s; 0: any */

  DomainXml *domain; /* NULL until it was looked at */
  VirtCall *move;    /* libvirt's migration of the memory */
  gboolean autostart_taken;
  guint16 gate_port; /* of the gate that the memory goes to; 0: none */
} SourceLibvirt;

typedef struct
{
  Job base;
  /* what was asked for */
  char *host, *dest_qmp;
  GPtrArray *wishes; /* SourceWish */
  gboolean overwrite, full_speed;
  gint64 timeout_ms, max_downtime_ms;
  guint64 rate; /* bytes per second, 0: any */
  SourceLibvirt libvirt;

  Vm *vm;
  gboolean ran; /* the guest was not paused when its memory began to move */
  PeerLink *link;
  GPtrArray *disks; /* SourceDisk */
  guint n_writable; /* devices with a writable medium: none may come or go */
  Listener *listener;
  JsonObject *old_parameters; /* of the migration, to be put back */
  int stream_fd;              /* a duplicate of the socket that the memory goes over; -1 */

  guint serial;     /* of the bitmap that records now */
  gboolean bitmaps; /* there is one that records */
  gboolean server;  /* QEMU's NBD server is ours and runs */
  double copy_rate; /* bytes per second, of the last pass that was long enough to tell */
  guint resumes;    /* RESUME events that had been seen at the release */
  guint gaps;       /* VmEvents.gaps, then */
  gboolean fenced;  /* the journal says so */
  /* The destination may hold the guest's other half: it must be told how the job ends. */
  gboolean release_asked;

  GThread *guard, *pacer;
  GCancellable *guard_stop; /* ends whatever it does: it must not hold up the cutover */

  gint64 rate_us; /* for the rate that is shown: main thread */
  guint64 rate_bytes;
} SourceJob;

SourceDisk *source_disk (SourceJob *job, guint i);

/* Names of what is made in QEMU; they tell whose it is after a restart.  Free with g_free. */
char *source_id (const SourceJob *job, const char *what);
char *source_bitmap_id (const SourceJob *job, guint serial);
char *source_export_id (const SourceJob *job, guint disk, guint serial);

/* Actions; see job-table.c. */
JobEvent source_check (Job *base, GError **error);
JobEvent source_prepare (Job *base, GError **error);
JobEvent source_seed (Job *base, GError **error);
JobEvent source_converge (Job *base, GError **error);
JobEvent source_cutover (Job *base, GError **error);
JobEvent source_last_pass (Job *base, GError **error);
JobEvent source_release (Job *base, GError **error);
JobEvent source_fence (Job *base, GError **error);
JobEvent source_start (Job *base, GError **error);
JobEvent source_finish (Job *base, GError **error);
JobEvent source_unfence (Job *base, GError **error);
JobEvent source_undo (Job *base, GError **error);
JobEvent source_ask (Job *base, GError **error);
JobEvent source_tell (Job *base, GError **error);
JobEvent source_recover_action (Job *base, GError **error);

/* disks.c: finds the disks to move, refuses what can't be moved. */
gboolean source_find_disks (SourceJob *job, GError **error);
/* Each disk is still the one that we began with, the guest writes to the node that carries our
 * recording bitmap.  `ret_dirty` (may be NULL) gets the bytes that are marked there, of each disk.
 */
gboolean source_check_disks (SourceJob *job, guint64 *ret_dirty, GError **error);

/* link.c */
gboolean source_open_link (SourceJob *job, Deadline deadline, GError **error);
/* What COPY_PROGRESS and the answer to `copy` tell of each disk; from any thread. */
void source_show_disks (SourceJob *job, JsonArray *disks);
/* Asks the destination to start the guest, once.  DONE, NEVER, or UNKNOWN with an error. */
JobEvent source_tell_start (SourceJob *job, GError **error);

/* The link, or a new one, answers. */
gboolean source_link_is_up (SourceJob *job, GError **error);

/* handover.c: what became of a released stream; one that is on its way still after
 * `patience_ms` is cancelled.  DONE: all of it was sent, to be fenced; FENCED: by its QEMU's death;
 * FAILED: the guest is back; UNKNOWN: QEMU doesn't say. */
JobEvent source_end_stream (SourceJob *job, gint64 patience_ms, GError **error);

/* undo.c: gives the stream up, QEMU's or libvirt's way. */
void source_cancel_stream (SourceJob *job);

/* libvirt.c: what is different for a domain of libvirt. */
/* Opens the guest's QEMU, whichever way it is driven. */
Vm *source_open_vm (SourceJob *job, gint64 timeout_ms, GError **error);
gboolean source_is_domain (const SourceJob *job);
/* Reads the domain's XML, refuses what can't be moved, says what stays. */
gboolean source_check_domain (SourceJob *job, GError **error);
/* Makes libvirt move the memory to the gate at `port`; returns when the gate knows the stream. */
gboolean source_begin_move (SourceJob *job, guint16 port, GError **error);
/* `cont`, the way that whoever drives the guest knows of it. */
gboolean source_run_guest (SourceJob *job, GError **error);
/* The gate lets go of the stream. */
gboolean source_let_go (SourceJob *job, GError **error);
/* FALSE with libvirt's words once its migration has failed. */
gboolean source_check_move (SourceJob *job, GError **error);
/* The QEMU is gone: TRUE where that was libvirt's end of a migration that has succeeded, and the
 * guest has not run here since the release. */
gboolean source_was_migrated (SourceJob *job);
/* Ends the fenced QEMU, unless libvirt has done so. */
void source_finish_domain (SourceJob *job);
/* Removes the stale definition, where that was asked for. */
void source_undefine_domain (SourceJob *job);
/* Breaks the connection to the gate off, from outside: QEMU may stand still over it. */
void source_break_move (SourceJob *job);
/* Aborts libvirt's migration and waits for its end. */
void source_end_move (SourceJob *job);
/* That libvirt answers again, where it has to be started first. */
void source_await_libvirt (SourceJob *job);
/* After the end of a migration that was given up: that the guest runs. */
void source_restore_domain (SourceJob *job, GError **error);
/* The domain's autostart, where it was taken away. */
void source_restore_autostart (SourceJob *job);
void source_libvirt_clear (SourceLibvirt *libvirt);

/* settle.c: says "finish" or "abort" to the destination, once.  `error` is set unless the
 * answer is DONE, and may be then. */
typedef enum
{
  SOURCE_ANSWER_DONE,  /* it knows, or has forgotten the job */
  SOURCE_ANSWER_OWNED, /* too late for an abort: the guest runs there */
  SOURCE_ANSWER_NEVER, /* nothing to finish: the guest was never started there */
  SOURCE_ANSWER_BUSY,  /* not now */
  SOURCE_ANSWER_NONE
} SourceAnswer;
SourceAnswer source_send_end (SourceJob *job, const char *command, gint64 timeout_ms,
                              GError **error);

/* cutover.c: breaks the stream off, from outside: while QEMU waits for a socket in
 * mid-switchover its monitor doesn't answer.  Takes any state, closes our duplicate. */
void source_break_stream (SourceJob *job);
/* cutover.c: bytes per second that the memory may take, of the job's rate. */
gint64 source_ram_bandwidth (const SourceJob *job);
/* cutover.c: brings the view of the memory up to date. */
void source_show_ram (SourceJob *job, const QmpMigration *migration);

/* copy.c: one pass.  `last`: the guest stands still. */
gboolean source_run_pass (SourceJob *job, gboolean last, guint64 *ret_bytes, GError **error);

/* guard.c: a thread that watches the guest's latency and the peer's connections. */
void source_start_guard (SourceJob *job);
void source_stop_guard (SourceJob *job);

/* undo.c: steps that the finish needs too; they take whatever state things are in. */
void source_stop_server (SourceJob *job, GError **error);
