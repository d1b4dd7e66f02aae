/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/target.h"

/* Where a copy goes: found, made, and given its name at the end.  A file is written as
 * PATH.vmferry-part and renamed when it is whole; block devices, NBD servers and files of a bitmap
 * copy are written in place. */
typedef struct CopyTarget CopyTarget;

typedef struct
{
  const char *text;   /* path, NBD URI, or "null:" */
  const char *format; /* "raw", or one that qemu-img and qemu-nbd write */
  guint64 size;       /* of the export, bytes */
  gboolean in_place;  /* an existing file (--bitmap) */
  gboolean allow_plaintext;
  gint64 timeout_ms;
  GCancellable *cancellable; /* of waits on NBD servers; may be NULL, outlives the target */
} CopyTargetSpec;

/* What proves that a target is the one that an earlier run wrote to.  For a file: device, inode,
 * birth time, size and the copy's UUID in an extended attribute; for a block device its number
 * and size. */
typedef struct
{
  char *uuid; /* of the copy */
  guint64 device;
  guint64 inode;
  gint64 birth_ns; /* 0: the file system doesn't tell */
  guint64 size;    /* virtual, bytes */
  gboolean has_xattr;
} CopyIdentity;

void copy_identity_clear (CopyIdentity *identity);

/* Pure, before any connection: can this be a target at all?  G_IO_ERROR_INVALID_ARGUMENT. */
gboolean copy_target_check (const char *text, const char *format, gboolean in_place,
                            GError **error);

/* Finds the place: the directory, what has that name now, what an earlier run left; takes the lock
 * that keeps other copies away (G_IO_ERROR_BUSY).  Writes nothing.  No symbolic link is followed
 * that somebody else than root or this user made, and none at all at the end of a file's path. */
CopyTarget *copy_target_find (const CopyTargetSpec *spec, GError **error);
void copy_target_free (CopyTarget *target);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CopyTarget, copy_target_free)

/* The path of its journal, or NULL where a copy can't be resumed (NBD server, null:).  `ret_dir`
 * gets its directory as it was found, for journal_create_at (). */
const char *copy_target_get_journal (const CopyTarget *target, int *ret_dir);

/* Begins anew: removes what an earlier run of ours left, makes the part file (O_EXCL, mode and
 * owner of the file that it will replace, or 0666 & ~umask), or opens what is written in place.
 * `ret_identity`: what to journal, with a new UUID; clear with copy_identity_clear (). */
NbdTarget *copy_target_create (CopyTarget *target, CopyIdentity *ret_identity, GError **error);
/* Goes on: opens what is there, if it is what `identity` says.  The error says what differs;
 * G_IO_ERROR_NOT_FOUND and G_IO_ERROR_INVALID_DATA mean that there is nothing to go on with, any
 * other that it can't be written now. */
NbdTarget *copy_target_reopen (CopyTarget *target, const CopyIdentity *identity, GError **error);

/* After a flush: closes the writer, waits for qemu-nbd, makes the file as long as the export,
 * durable, and gives it its name; the NbdTarget is gone afterwards. */
gboolean copy_target_finish (CopyTarget *target, GError **error);
/* Removes what copy_target_create () made, the mark on what is written in place, too: nothing in it
 * is worth keeping. */
void copy_target_discard (CopyTarget *target);
