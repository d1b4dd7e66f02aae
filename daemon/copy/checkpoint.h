/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/copy/checkpoint-state.h"
#include "nbd/digest.h"

/* What an interrupted copy must know to go on, in its journal (daemon/journal.h): which copy it is,
 * which ranges are left, samples of the data that is durable, and the digests of --verify.  Belongs
 * to one thread; what it takes samples and digests from may be used by others meanwhile. */
typedef struct Checkpoint Checkpoint;

/* A new journal, with its header durable.  `dir` and `path` as journal_create_at () has them;
 * `samples` and `digest` (NULL: none) are borrowed. */
Checkpoint *checkpoint_create (int dir, const char *path, const CheckpointHeader *header,
                               CopySamples *samples, NbdDigest *digest, GError **error);
/* An earlier run's.  G_IO_ERROR_NOT_FOUND where there is none, G_IO_ERROR_INVALID_DATA where it is
 * damaged, G_IO_ERROR_PERMISSION_DENIED where it isn't ours: the text says how. */
Checkpoint *checkpoint_open (int dir, const char *path, CheckpointState **ret_state,
                             GError **error);
void checkpoint_free (Checkpoint *checkpoint);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Checkpoint, checkpoint_free)

/* Goes on with one that was opened: from now on as if checkpoint_create () had made it. */
void checkpoint_resume (Checkpoint *checkpoint, const CheckpointHeader *header,
                        CopySamples *samples, NbdDigest *digest);

/* Moves the ends of ranges apart, to multiples of `unit` (a power of two) or `size`. */
void checkpoint_align_left (GArray *left, guint64 unit, guint64 size);
/* Gives the recorded digests of segments that nothing is left of to `digest`, of the same size. */
void checkpoint_restore_digest (const CheckpointState *state, NbdDigest *digest);

/* Records that all but `left` (WorkRange) is durable: the caller has flushed after it took `left`.
 * Written anew when it has grown a lot, so that it stays small. */
gboolean checkpoint_append (Checkpoint *checkpoint, const GArray *left, GError **error);
gboolean checkpoint_remove (Checkpoint *checkpoint, GError **error);
