/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

#include "daemon/copy/copy-target.h"
#include "daemon/copy/samples.h"
#include "nbd/work-list.h"

/* What the records of a copy's journal say.  Pure. */

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

typedef struct
{
  CheckpointHeader header;
  GArray *left; /* WorkRange, sorted, apart from each other, within the export */
  CopySamples *samples;
  /* Of --verify: by segment (nbd/digest.h); 0 where none is recorded.  Those of segments that are
   * not wholly outside of `left` mean nothing.  NULL without it. */
  guint64 *digests;
  guint n_digests;
} CheckpointState;

/* `records`: JsonObject, of a whole journal.  Errors: G_IO_ERROR_INVALID_DATA, which begins with
 * `name`. */
CheckpointState *checkpoint_state_decode (const char *name, const GPtrArray *records,
                                          GError **error);
void checkpoint_state_free (CheckpointState *state);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CheckpointState, checkpoint_state_free)

/* The other way round, as records.  Free with json_object_unref. */
JsonObject *checkpoint_encode_header (const CheckpointHeader *header);
/* `left`: WorkRange; of more of them than a record holds, the ones next to each other become one,
 * with what is between them.  `samples`: CopySample. */
JsonObject *checkpoint_encode_left (const GArray *left, const GArray *samples);
/* The digests of segments from `first` on, at most CHECKPOINT_MAX_DIGESTS. */
JsonObject *checkpoint_encode_digests (guint first, const guint64 *values, guint n);
#define CHECKPOINT_MAX_DIGESTS 32768
#define CHECKPOINT_MAX_RANGES 8192
