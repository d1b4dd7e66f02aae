/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/config.h"
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

/* Opens or creates the target beneath one of the peer's target-dirs: openat2 with RESOLVE_BENEATH and
 * RESOLVE_NO_SYMLINKS|NO_MAGICLINKS; a device path that target-dirs lists literally may be a symbolic link.  A file that is absent is created with O_EXCL
 * (0600 owner of the directory's... libvirt's rules come later: 0600 root), raw by ftruncate (+fallocate), other formats by `qemu-img create`; one
 * that is there is used when it is provably empty (raw: size matches and no allocated data; other formats: right format, right virtual size, nothing
 * allocated in `qemu-img map`, no backing file, no data-file, no encryption) or spec->overwrite (raw: afterwards every byte will be written or zeroed; other formats: it is created anew
 * in place, keeping the inode). A block device must have exactly `size` bytes.  The format of an existing file is never probed: it is opened as spec->format.
 * Errors name the path, expected and actual, and what to do ("… has data: --overwrite to replace it", "… is 1 GiB, the disk is 2 GiB",
 * "… is not beneath a target-dir of [peer hostA]: …", space: statvfs too small for a prealloc). */
Image *image_open (const ConfigPeer *peer, const ImageSpec *spec, GError **error);
gboolean image_was_created (const Image *image);
const char *image_get_path (const Image *image);
const char *image_get_format (const Image *image);
/* Device and inode, as stat tells them. */
void image_get_identity (const Image *image, guint64 *ret_device, guint64 *ret_inode);

/* The writer: raw files and devices directly, other formats through a `qemu-nbd` of our own on a UNIX socket in `runtime_dir` (mode 0600 dir), its process a child
 * that dies with the agent (PR_SET_PDEATHSIG) .  Owned by the image.  tool arguments are never a bare string that could be read as json: or nbd: (--image-opts driver=…,file.driver=file,file.filename=…, commas doubled). */
NbdTarget *image_open_writer (Image *image, const char *runtime_dir, gint64 timeout_ms,
                              GCancellable *cancellable, GError **error);
/* Flushes, closes the writer, ends its qemu-nbd and waits for it: afterwards no lock is held. Also tells qemu-nbd's own error text on failure. */
gboolean image_close_writer (Image *image, GError **error);

/* Removes the file if (and only if) image_open () created it and it still is that very file (device, inode).
 * Closes the writer first. */
gboolean image_discard (Image *image, GError **error);
/* The same after a restart, from what the journal tells. */
gboolean image_discard_path (const char *path, guint64 device, guint64 inode, GError **error);
/* Closes without removing. */
void image_free (Image *image);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Image, image_free)
