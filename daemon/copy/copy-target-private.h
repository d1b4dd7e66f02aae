/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/stat.h>

#include "daemon/copy/copy-target.h"
#include "daemon/qemu-nbd.h"

typedef enum
{
  TARGET_FILE,     /* by way of a part file */
  TARGET_IN_PLACE, /* an existing file */
  TARGET_DEVICE,
  TARGET_SERVER,
  TARGET_NULL
} TargetKind;

struct CopyTarget
{
  TargetKind kind;
  char *text;
  char *format;
  guint64 size; /* of the export */
  gboolean allow_plaintext;
  gint64 timeout_ms;
  GCancellable *cancellable;
  int dir; /* O_PATH: holds `name` and `part_name` */
  char *name;
  char *part_name;
  char *part_path; /* for messages */
  char *journal;
  int fd;           /* what is written, locked; -1: nothing is there yet */
  gboolean made;    /* by this run */
  gboolean proven;  /* made by the run that is gone on with */
  gboolean has_old; /* a file is to be replaced */
  struct stat old;
  guint64 device_size;
  NbdTarget *writer;
  QemuNbd *server;
};

/* Files of a copy target (copy-target-file.c). */

/* What is there, opened and locked; nothing is written. */
gboolean target_find_file (CopyTarget *target, GError **error);
gboolean target_find_in_place (CopyTarget *target, GError **error);
/* Whether the file that is there is as large as the export, but for what its format may add. */
gboolean target_check_in_place_size (CopyTarget *target, guint64 size, guint64 rounding,
                                     GError **error);
/* Makes the part file anew. It appears under its name whole: locked and marked with `uuid`. */
gboolean target_make_part (CopyTarget *target, const char *uuid, GError **error);
/* What an earlier copy left of it. */
gboolean target_remove_journal (CopyTarget *target, GError **error);
/* Nobody but this copy writes to the file that is to be replaced. */
gboolean target_check_old (CopyTarget *target, GError **error);
gboolean target_rename (CopyTarget *target, GError **error);

/* Opens what is written, found or made before (copy-target-writer.c). */
gboolean target_start_writer (CopyTarget *target, GError **error);

/* Who it is.  Where the file system has no attributes, it has no mark. */
gboolean target_mark (int fd, const char *path, const char *uuid, GError **error);
void target_unmark (int fd);
gboolean target_identify (CopyTarget *target, CopyIdentity *identity, GError **error);
gboolean target_compare (CopyTarget *target, const CopyIdentity *identity, GError **error);
