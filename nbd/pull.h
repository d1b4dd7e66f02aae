/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/dialer.h"
#include "nbd/mirror-pass.h"
#include "nbd/work-list.h"

/* Copies what a work list holds over one connection or several, each in a thread of its own, and
 * makes lost ones anew. */

/* Pieces begin and end at multiples of it (or with the export), or of the server's minimum block
 * where that is larger; so must the ranges of the work list. */
#define PULL_BLOCK 4096

/* Bytes that are asked for and not answered, of all connections (up to 16) together. */
#define PULL_MAX_IN_FLIGHT (32u * 1024 * 1024)

typedef struct
{
  const NbdDialer *dialer;
  /* Where target->is_zero, it is taken to be zero wherever the work list goes. */
  NbdTarget *target;
  WorkList *work;
  RateLimit *limit;   /* may be NULL */
  MirrorState *state; /* size, todo, done, read_bytes and zero_bytes grow from what they are */
  const char *bitmap; /* its name; NULL: everything that is allocated */
  guint n_connections;
  gint64 timeout_ms; /* without progress of any connection */
  /* admit and stored are called from several threads at the same time; `settled` isn't used.  No
   * byte is stored twice, not even when a connection is lost. */
  const MirrorObserver *observer; /* may be NULL */
  /* A connection was made anew: is it still the same export?  May be NULL.  From any thread; an
   * error that nbd_error_is_lost () leads to another attempt. */
  gboolean (*prove) (gpointer user_data, NbdClient *client, GError **error);
  /* A connection was lost (another attempt is made), or one beyond the first could not be made (the
   * others go on).  May be NULL.  From any thread. */
  void (*lost) (gpointer user_data, const GError *error);
  gpointer user_data;
  /* Set before pull_run () fails because the target did: data that it had taken may be lost,
   * whatever a flush says then.  May be NULL. */
  _Atomic gboolean *target_failed;
  GCancellable *cancellable; /* may be NULL */
} PullSpec;

/* The contexts that pull_run () needs a client to have asked for; NULL-terminated, free with
 * g_strfreev. */
char **pull_get_contexts (const char *bitmap);
/* NBD_ERROR_NO_CONTEXT where `bitmap` was asked for and the server does not have it. */
gboolean pull_check_bitmap (NbdClient *client, const char *bitmap, GError **error);

/* Blocks until all is with the target (not flushed), or the first error that can't be mended within
 * `timeout_ms`.  `first` is a connection that has asked for pull_get_contexts (); taken over.  Uses
 * one connection where the server does not say that several see the same (CAN_MULTI_CONN). */
gboolean pull_run (const PullSpec *spec, NbdClient *first, GError **error);
