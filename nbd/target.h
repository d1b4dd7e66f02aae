/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tls/deadline.h"

/* What a disk is copied to.  Offsets and lengths are bytes.  Several threads may use one at the
 * same time, on ranges of their own. Errors name the target and the range. */
typedef struct NbdTarget NbdTarget;

typedef struct
{
  /* The data may still be on its way when this returns (NBD target): an error can come from a
   * later call, at the latest from flush. */
  gboolean (*write) (NbdTarget *target, const void *buf, gsize len, guint64 offset, GError **error);
  /* Makes the range read as zeroes, as a hole where that is possible. */
  gboolean (*zero) (NbdTarget *target, guint64 offset, guint64 len, GError **error);
  /* Exactly `len` bytes, of what was written before the last flush.  NULL where nothing can be read
   * back. */
  gboolean (*read) (NbdTarget *target, void *buf, gsize len, guint64 offset, GError **error);
  /* The first range at or behind `offset` that may hold something else than zeroes; an empty one at
   * `size` where there is none.  NULL: anything may be anywhere. */
  gboolean (*find_data) (NbdTarget *target, guint64 offset, guint64 *ret_start, guint64 *ret_end,
                         GError **error);
  /* Everything written so far is on stable storage when this returns. */
  gboolean (*flush) (NbdTarget *target, GError **error);
  void (*free) (NbdTarget *target);
} NbdTargetClass;

struct NbdTarget
{
  const NbdTargetClass *klass;
  char *name;       /* for errors */
  guint64 size;     /* bytes */
  gboolean is_zero; /* reads as zeroes until the first write: zero () needs no I/O before it */
};

/* A raw file or block device that is open for reading and writing; takes over `fd`.  Holds QEMU's
 * image locks for a writer (OFD, docs/devel in QEMU: lock bytes 100 and 200) while it is open:
 * fails with G_IO_ERROR_BUSY where somebody else writes.  `is_zero` as nbd_target_file_is_zero ()
 * says; a block device never is.  The page cache is not flooded (sync_file_range,
 * POSIX_FADV_DONTNEED). */
NbdTarget *nbd_target_new_raw (int fd, const char *name, GError **error);

/* Whether a regular file provably reads as zeroes: nothing is allocated, or little is and that is
 * zeroes (`qemu-img create` allocates the first block of a raw image). */
gboolean nbd_target_file_is_zero (int fd);

/* A local NBD server on a UNIX socket, qemu-nbd for other formats. `cancellable` (may be NULL) ends
 * any wait on it. Writes are pipelined. `timeout_ms`: without any progress. */
NbdTarget *nbd_target_new_socket (const char *path, const char *export_name, const char *name,
                                  gboolean is_zero, gint64 timeout_ms, GCancellable *cancellable,
                                  GError **error);

/* The file that the server of nbd_target_new_socket () writes: its page cache isn't flooded either.
 * `fd` is opened anew, so that no lock of it lives longer. */
void nbd_target_set_file (NbdTarget *target, int fd);

/* Any NBD server, after the handshake; takes over `client`, which should have asked for
 * base:allocation alone, for find_data.  The rest as nbd_target_new_socket (). */
struct NbdClient;
NbdTarget *nbd_target_new_client (struct NbdClient *client, const char *name, gboolean is_zero,
                                  gint64 timeout_ms, GCancellable *cancellable, GError **error);

/* Takes everything and keeps nothing. */
NbdTarget *nbd_target_new_null (guint64 size);

/* Flush first: free only closes. */
void nbd_target_free (NbdTarget *target);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (NbdTarget, nbd_target_free)
