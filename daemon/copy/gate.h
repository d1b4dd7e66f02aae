/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/work-list.h"

/* Keeps what a crash would make a copy read again small: no more is asked for than may be beyond
 * the last durable checkpoint, data that is under way included.  Thread-safe. */
typedef struct CopyGate CopyGate;

/* `window`: bytes that may be read beyond a checkpoint; beside them, what is under way when it is
 * taken.  `due`: after so many of them the next checkpoint is due. */
CopyGate *copy_gate_new (guint64 window, guint64 due);
void copy_gate_free (CopyGate *gate);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CopyGate, copy_gate_free)

/* As MirrorObserver's admit and stored. */
gint64 copy_gate_admit (CopyGate *gate, guint64 bytes);
void copy_gate_stored (CopyGate *gate, gsize len, guint64 offset);

/* Blocks until a checkpoint is due, or copy_gate_end () was called, or the monotonic time `until`
 * (us) has come. */
void copy_gate_wait (CopyGate *gate, gint64 until);
/* The pull is over: copy_gate_wait () doesn't block any more. */
void copy_gate_end (CopyGate *gate);
gboolean copy_gate_has_ended (CopyGate *gate);

/* A checkpoint has begun: before its ranges are taken. */
void copy_gate_begin_checkpoint (CopyGate *gate);
/* It is durable, with these ranges left (WorkRange, sorted). */
void copy_gate_end_checkpoint (CopyGate *gate, const GArray *left);
