/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/copy/checkpoint.h"
#include "daemon/copy/copy-target.h"
#include "daemon/copy/copy.h"
#include "daemon/copy/gate.h"
#include "nbd/pull.h"

/* What the files of a copy share: copy.c has the phases, copy-begin.c finds out where to begin,
 * copy-pull.c has the data copied and makes the checkpoints. */

struct Copy
{
  char *target;
  char *target_format;
  char *bitmap; /* NULL: none */
  guint n_connections;
  guint64 rate;
  gint64 timeout_ms;
  gboolean resume;
  gboolean verify;
  gboolean allow_plaintext;

  char *source; /* for the journal: where the export is, without credentials */
  NbdDialer *dialer;

  _Atomic CopyPhase phase;
  MirrorState state;
  _Atomic guint64 size;
  _Atomic guint64 resumed;
  _Atomic guint64 verified;
  _Atomic guint n_reconnects;
  GMutex lock;
  WorkList *work; /* under `lock`, which is not held while it is used by others; NULL: not yet */
};

typedef struct
{
  Copy *copy;
  void (*note) (gpointer user_data, const char *text);
  gpointer user_data;
  GMutex note_lock;
  GCancellable *cancellable; /* may be NULL */

  NbdClient *client; /* the first connection; NULL: handed over */
  guint32 block;     /* pieces are multiples of it */
  CopyTarget *place;
  NbdTarget *target;      /* of `place` */
  Checkpoint *checkpoint; /* NULL: what this target gets can't be resumed */
  CopySamples *samples;
  NbdDigest *digest; /* NULL: not to be verified */
  GArray *left;      /* WorkRange: where to begin, and then of the last durable checkpoint */
  char *target_name;
  gboolean made;    /* the target is of this run */
  gboolean spoiled; /* it read back as something else */
} CopyRun;

/* Tells the user; printf-like. */
void copy_run_note (CopyRun *run, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* Of WorkRange. */
guint64 copy_run_count_bytes (const GArray *ranges);

/* Connects, and finds or makes the target and its journal: everything up to `left` is set. */
gboolean copy_run_begin (CopyRun *run, GError **error);
/* Copies what is left, and flushes; a failure leaves a last checkpoint. */
gboolean copy_run_pull (CopyRun *run, GError **error);
