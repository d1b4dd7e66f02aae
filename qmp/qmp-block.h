/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "qmp/executor.h"

/* The guest's disks as QEMU tells of them. */

/* BlockDirtyInfo */
typedef struct
{
  char *name;
  gint64 dirty;       /* bytes that are marked */
  gint64 granularity; /* bytes */
  gboolean recording;
  gboolean busy; /* an export or a job uses it */
  gboolean persistent;
} QmpBitmap;

/* One guest device of query-block (BlockInfo).  Strings may be NULL where QEMU tells nothing. */
typedef struct
{
  char *qdev;   /* id, or QOM path "/machine/peripheral/vd0/virtio-backend" */
  char *device; /* the name of the block backend (-drive id=), "" without one */
  gboolean removable;
  gboolean inserted; /* with a medium; without one nothing below is set */

  char *node_name;
  char *driver;        /* "raw", "qcow2", ... */
  char *file;          /* a path, or "json:{...}", "nbd://..." where it is no plain file */
  char *backing_file;  /* NULL: no backing chain */
  gint64 virtual_size; /* bytes */
  gboolean read_only;
  gboolean encrypted;            /* LUKS, or encryption of qcow2 */
  gboolean has_data_file;        /* an external qcow2 data file */
  guint n_snapshots;             /* internal ones, of this layer */
  GPtrArray *persistent_bitmaps; /* char *: names, in the image or loaded */
  GPtrArray *bitmaps;            /* QmpBitmap *: those in memory */
} QmpBlockDevice;

void qmp_block_device_free (QmpBlockDevice *device);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QmpBlockDevice, qmp_block_device_free)

/* query-block: an array of QmpBlockDevice, free with g_ptr_array_unref. */
GPtrArray *qmp_query_block (QmpExecutor *executor, GCancellable *cancellable, GError **error);
/* Borrowed; NULL where there is none. */
QmpBlockDevice *qmp_block_find_qdev (GPtrArray *devices, const char *qdev);
QmpBlockDevice *qmp_block_find_node (GPtrArray *devices, const char *node_name);
QmpBitmap *qmp_block_find_bitmap (const QmpBlockDevice *device, const char *name);

/* query-block-jobs: their ids (char *). */
GPtrArray *qmp_query_block_jobs (QmpExecutor *executor, GCancellable *cancellable, GError **error);

/* BlockStats of a guest device, since QEMU started.  Strings may be NULL. */
typedef struct
{
  char *qdev;
  char *device;
  char *node_name;
  gint64 rd_operations;
  gint64 rd_bytes;
  gint64 rd_total_time_ns;
  gint64 wr_operations;
  gint64 wr_bytes;
  gint64 wr_total_time_ns;
  gint64 flush_operations;
  gint64 flush_total_time_ns;
} QmpBlockStats;

void qmp_block_stats_free (QmpBlockStats *stats);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (QmpBlockStats, qmp_block_stats_free)

/* query-blockstats: an array of QmpBlockStats, free with g_ptr_array_unref. */
GPtrArray *qmp_query_blockstats (QmpExecutor *executor, GCancellable *cancellable, GError **error);
