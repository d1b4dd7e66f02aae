/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/config.h"
#include "daemon/image-trace.h"
#include "nbd/target.h"

/* The target of one disk at the destination: created or taken over, then opened as an NbdTarget. */
typedef struct Image Image;

typedef enum
{
  IMAGE_PREALLOC_OFF,
  IMAGE_PREALLOC_FALLOC
} ImagePrealloc;

typedef struct
{
  const char *path;   /* absolute */
  const char *format; /* "raw", "qcow2", or another that qemu-img can create and qemu-nbd write */
  guint64 size;       /* virtual size, bytes */
  ImagePrealloc prealloc;
  gboolean overwrite;
} ImageSpec;

/* Opens or creates the target beneath one of the peer's target-dirs (daemon/beneath.h).
 * A file that is absent is created (O_EXCL, 0600), raw by ftruncate and fallocate, other formats by
 * qemu-img.  A file that is there is never probed: it is what spec->format says.  It is used when
 * it is provably empty (raw: of that size, without allocated data; qcow2: of that virtual size,
 * nothing allocated, no backing file, data file, encryption or snapshot; other formats: never), or
 * when spec->overwrite is set: raw is then brought to the size and its data is left for the writer
 * to replace; another format is made anew in place, keeping the inode.  A block device must have
 * exactly `size` bytes and the format raw; it can't be proven empty, so it needs spec->overwrite.
 * Refused also: an image that another program writes to (G_IO_ERROR_BUSY), a device that is
 * mounted. On failure nothing that was created is left.  Blocks, while qemu-img runs. Errors name
 * the path, expected and actual, and what to do. */
Image *image_open (const ConfigPeer *peer, const ImageSpec *spec, GError **error);
const char *image_get_path (const Image *image);
const char *image_get_format (const Image *image);
/* Device and inode, as stat tells them. */
void image_get_identity (const Image *image, guint64 *ret_device, guint64 *ret_inode);
/* For the journal. The strings belong to the image. */
void image_get_trace (const Image *image, ImageTrace *ret_trace);

/* The writer, one at a time, owned by the image: raw files and devices directly, other formats
 * through a qemu-nbd of our own on a UNIX socket in `runtime_dir`, which dies with the agent.  It
 * holds QEMU's image locks.  `cancellable` (may be NULL) must live as long as the writer. */
NbdTarget *image_open_writer (Image *image, const char *runtime_dir, gint64 timeout_ms,
                              GCancellable *cancellable, GError **error);
/* Flushes, closes the writer, ends its qemu-nbd and waits for that: afterwards no lock is held,
 * also on failure, whose error has qemu-nbd's own words.  Without a writer it does nothing. */
gboolean image_close_writer (Image *image, GError **error);

/* Brings the target back to what it was (daemon/image-trace.h), as far as that can be: what was
 * overwritten stays as the writer left it.  Drops the writer first, without a flush. */
gboolean image_discard (Image *image, GError **error);
/* Closes without removing. */
void image_free (Image *image);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Image, image_free)
