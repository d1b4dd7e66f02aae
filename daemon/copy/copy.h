/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/uri.h"

/* The mirror client as a program of its own: copies one export to one target, verifies it, and goes
 * on where it was interrupted. */
typedef struct Copy Copy;

/* All strings are copied. */
typedef struct
{
  const char *uri;
  const char *target;        /* path, NBD URI, or "null:" */
  const char *target_format; /* NULL: raw */
  const char *bitmap;        /* NULL: everything */
  guint n_connections;       /* 1 to 16; 0: as many as are usually best */
  guint64 rate;              /* bytes per second; 0: no limit */
  gint64 timeout_ms;         /* without progress */
  gboolean resume;
  gboolean verify;
  gboolean allow_plaintext;
} CopySpec;

typedef enum
{
  COPY_CONNECTING,
  COPY_PROVING, /* that an interrupted copy goes on with the same */
  COPY_COPYING,
  COPY_FLUSHING,
  COPY_VERIFYING,
  COPY_DONE
} CopyPhase;

/* Bytes, of the disk unless it says otherwise. */
typedef struct
{
  CopyPhase phase;
  guint64 size;           /* of the export; 0 before it is known */
  guint64 resumed_bytes;  /* that an earlier run has copied; 0: a new copy */
  guint64 done_bytes;     /* copied or known to be zero, by this run and earlier ones */
  guint64 read_bytes;     /* data that came over the network */
  guint64 zero_bytes;     /* told as zeroes: these never crossed it */
  guint64 verified_bytes; /* of `size` */
  guint n_reconnects;
} CopyProgress;

/* Checks what can be told without a connection.  Errors: G_IO_ERROR_INVALID_ARGUMENT for what was
 * typed (exit status 2); the others as copy_run (). */
Copy *copy_new (const CopySpec *spec, GError **error);
void copy_free (Copy *copy);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Copy, copy_free)

/* Blocks until it is done: the target is exactly the export, on stable storage, under its own name.
 * `note` is called from any thread, one line at a time, with what the user should know (why an
 * interrupted copy starts over, that a connection was lost and made anew).  On failure the
 * message says what is left, and whether --resume goes on with it.  Errors: NBD_ERROR, TLS_ERROR,
 * G_IO_ERROR (CANCELLED). */
gboolean copy_run (Copy *copy, void (*note) (gpointer user_data, const char *text),
                   gpointer user_data, GCancellable *cancellable, GError **error);

/* At any time, from any thread. */
void copy_get_progress (Copy *copy, CopyProgress *ret_progress);
