/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/rate-limit.h"
#include "nbd/target.h"
#include "tls/credentials.h"

/* Keeps one target equal to one disk that a QEMU exports: a seed (everything that is allocated),
 * then passes (everything that a dirty bitmap marks).  One connection at a time. */
typedef struct Mirror Mirror;

/* Where the export is.  Copied. */
typedef struct
{
  const char *host; /* address to connect to, without brackets */
  guint16 port;
  Credentials *credentials;
  const char *tls_name; /* that the server's certificate must have */
} MirrorServer;

/* All bytes of the disk, counted since mirror_new ().  May be read from any thread. */
typedef struct
{
  guint64 size; /* of the disk */
  guint64
      todo; /* of the pass that runs: bytes it will have read or zeroed; grows as extents arrive */
  guint64 done;       /* of it */
  guint64 read_bytes; /* data that came over the network, all passes */
  guint64 zero_bytes; /* that were zeroes or holes and so never did */
} MirrorProgress;

/* `target` and `limit` are borrowed; `limit` may be NULL. */
Mirror *mirror_new (NbdTarget *target, RateLimit *limit);
void mirror_free (Mirror *mirror);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Mirror, mirror_free)

/* Bytes that may be asked for and not answered, at most MIRROR_MAX_IN_FLIGHT; at any time, from any
 * thread, effective with the next request. At least one request (up to 256 KiB) is always allowed.
 * Never more reads than fit: the sum of their reply bytes, headers included, stays below it.  The
 * longest answers to block status queries count as well, but only against MIRROR_MAX_IN_FLIGHT. */
#define MIRROR_MAX_IN_FLIGHT (4 * 1024 * 1024)
void mirror_set_in_flight (Mirror *mirror, gsize bytes);

/* One pass, in the calling thread: connects, upgrades to TLS, reads the extents of `bitmap`
 * (qemu:dirty-bitmap:NAME), or those of base:allocation for NULL, of export `export_name`, and
 * copies what they say.  Zeroes become holes and never cross the wire when the server tells; a
 * hole that isn't zero is read.  Seeding writes no zeroes where target->is_zero.  Ends with
 * NBD_CMD_DISC; the target is not flushed.
 * Fails with G_IO_ERROR_TIMED_OUT after `timeout_ms` without progress, G_IO_ERROR_CANCELLED by
 * `cancellable`, NBD_ERROR, TLS_ERROR; the message names host, port, export, range.
 * `ret_bytes` (may be NULL): the bytes that were marked in the bitmap / allocated. */
gboolean mirror_run_pass (Mirror *mirror, const MirrorServer *server, const char *export_name,
                          const char *bitmap, gint64 timeout_ms, GCancellable *cancellable,
                          guint64 *ret_bytes, GError **error);

void mirror_get_progress (Mirror *mirror, MirrorProgress *ret_progress);
