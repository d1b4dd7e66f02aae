/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/target.h"

/* A digest of a disk, made from pieces as they come: for each segment the sum of the XXH3 hashes
 * (seeded with their offset) of its 4 KiB blocks that are not zero.  So neither the order of the
 * pieces matters nor how they were cut, and zeroes, told or read, cost nothing.  It finds
 * accidents, not forgeries.  Thread-safe. */
typedef struct NbdDigest NbdDigest;

#define NBD_DIGEST_BLOCK 4096
#define NBD_DIGEST_MAX_SEGMENTS (1024 * 1024)

NbdDigest *nbd_digest_new (guint64 size);
void nbd_digest_free (NbdDigest *digest);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (NbdDigest, nbd_digest_free)

/* A piece begins at a block and ends at one, or with the disk.  No block comes twice. */
void nbd_digest_add (NbdDigest *digest, const guint8 *data, gsize len, guint64 offset);

/* Bytes of a segment: 1 MiB, or more for disks of over 1 TiB; a power of two. */
guint64 nbd_digest_get_segment_size (const NbdDigest *digest);
guint64 nbd_digest_segment_size_for (guint64 size);
guint nbd_digest_get_n_segments (const NbdDigest *digest);
guint64 nbd_digest_get_segment (const NbdDigest *digest, guint index);
void nbd_digest_set_segment (NbdDigest *digest, guint index, guint64 value);

/* Reads `target` back, where it has data, and compares.  `progress` (may be NULL) is set to the
 * bytes that are behind it.  Errors: NBD_ERROR_IO names the first segment that differs: offset,
 * length, both digests; G_IO_ERROR_NOT_SUPPORTED where nothing can be read back. */
gboolean nbd_digest_verify (NbdDigest *digest, NbdTarget *target, _Atomic guint64 *progress,
                            GCancellable *cancellable, GError **error);
