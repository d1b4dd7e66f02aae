/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/copy/copy-target.h"
#include "nbd/digest.h"
#include "nbd/client.h"
#include "nbd/work-list.h"

/* What an interrupted copy must know to go on, in its journal (daemon/journal.h): which copy it is,
 * which ranges are left, samples of the data that is durable, and the digests of --verify. */
typedef struct Checkpoint Checkpoint;

/* At most 64 MiB are read again to prove that a copy goes on with the same. */
#define CHECKPOINT_MAX_SAMPLES 256

/* What makes a copy this copy. */
typedef struct
{
  CopyIdentity identity;
  char *source; /* the URI's export name, host and port or socket: not its credentials */
  char *target_format;
  char *bitmap;    /* NULL: none */
  guint64 size;    /* of the export, bytes */
  gboolean verify; /* digests are kept */
} CheckpointHeader;

void checkpoint_header_clear (CheckpointHeader *header);

/* A new journal, with its header durable.  `digest` may be NULL; borrowed. */
Checkpoint *checkpoint_create (const char *path, const CheckpointHeader *header, NbdDigest *digest,
                               GError **error);
/* An earlier run's.  `ret_left`: WorkRange.  G_IO_ERROR_NOT_FOUND where there is none,
 * G_IO_ERROR_INVALID_DATA where it is damaged: the text says how. */
Checkpoint *checkpoint_open (const char *path, CheckpointHeader *ret_header, GArray **ret_left,
                             GError **error);
void checkpoint_free (Checkpoint *checkpoint);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Checkpoint, checkpoint_free)

/* Gives the digests of the finished ranges to `digest`, which is kept up from then on. */
gboolean checkpoint_restore_digest (Checkpoint *checkpoint, NbdDigest *digest, GError **error);

/* Data that was stored: some of it is kept as samples (hashed, evenly spread).  From any thread. */
void checkpoint_sample (Checkpoint *checkpoint, const guint8 *data, gsize len, guint64 offset);

/* Records that all but `left` is durable (the caller has flushed after it took `left`). */
gboolean checkpoint_append (Checkpoint *checkpoint, const GArray *left, GError **error);
/* Reads samples of finished ranges again, at most `max_bytes`, and compares; `target` or `client`
 * may be NULL.  NBD_ERROR_IO-free: a difference is G_IO_ERROR_INVALID_DATA, naming the side and
 * the range. */
gboolean checkpoint_prove (Checkpoint *checkpoint, NbdClient *client, NbdTarget *target,
                           guint64 max_bytes, gint64 timeout_ms, GCancellable *cancellable,
                           GError **error);
gboolean checkpoint_remove (Checkpoint *checkpoint, GError **error);
