/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/client.h"
#include "nbd/target.h"

/* Hashes (XXH3) of some of the data that a copy has stored, evenly spread over it: read again at
 * either end they show that a copy goes on with the same.  Thread-safe. */
typedef struct CopySamples CopySamples;

#define COPY_SAMPLES_MAX 256
#define COPY_SAMPLE_SIZE (256 * 1024) /* at most */

typedef struct
{
  guint64 offset;
  guint64 hash;
  guint32 length;    /* 1 to COPY_SAMPLE_SIZE */
  gboolean recorded; /* for whoever keeps a record of them */
} CopySample;

CopySamples *copy_samples_new (void);
void copy_samples_free (CopySamples *samples);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CopySamples, copy_samples_free)

/* Data that was stored; kept where there is none near it. */
void copy_samples_add (CopySamples *samples, const guint8 *data, gsize len, guint64 offset);
/* One from a record. */
void copy_samples_insert (CopySamples *samples, const CopySample *sample);

/* Those that lie wholly outside of `left` (WorkRange, sorted; NULL: nothing is left); CopySample,
 * by offset, free with g_array_unref. */
GArray *copy_samples_get (CopySamples *samples, const GArray *left);
/* Those that copy_samples_get () gives and that are not recorded yet; they are from now on. */
GArray *copy_samples_record (CopySamples *samples, const GArray *left);

/* Reads `samples`, or as many of them, evenly spread, as make up `max_bytes` at most, from
 * `client` and from `target`, either of which may be NULL.  A difference is
 * G_IO_ERROR_INVALID_DATA, naming the side and the range. */
gboolean copy_samples_prove (const GArray *samples, NbdClient *client, NbdTarget *target,
                             guint64 max_bytes, gint64 timeout_ms, GCancellable *cancellable,
                             GError **error);
