/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <json-glib/json-glib.h>

/* What must not be forgotten: append-only JSON lines, each with a checksum (daemon/journal-text.h),
 * in one file (0600).  A record counts once journal_append () has returned: it is on disk. A torn
 * last record (cut short, or with zeroes where data was never written) is recognised and dropped;
 * any other damage is an error.  An append that fails leaves nothing behind.  Thread-safe. */
typedef struct Journal Journal;

/* Creates it (O_EXCL) and makes the directory entry durable.  `dir` is the directory of `path` (may
 * be O_PATH; borrowed), however that may be reached later; -1: as `path` says now. */
Journal *journal_create_at (int dir, const char *path, GError **error);
/* Opens an existing one and reads all records: `ret_records` gets JsonObject pointers, oldest first
 * (unref'ed with the array).  It must be a regular file of this user or of root, with no other
 * name: G_IO_ERROR_PERMISSION_DENIED.  Damage is G_IO_ERROR_INVALID_DATA. */
Journal *journal_open_at (int dir, const char *path, GPtrArray **ret_records, GError **error);
void journal_free (Journal *journal);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Journal, journal_free)

/* Appends `record` (an object with at least "record": NAME; not taken over) and fsyncs. */
gboolean journal_append (Journal *journal, JsonObject *record, GError **error);
/* Puts `records` (JsonObject) in the place of all that it holds: after a crash it holds either.
 * So it does after a failure; appending goes on. */
gboolean journal_rewrite (Journal *journal, const GPtrArray *records, GError **error);
/* Bytes of the file. */
guint64 journal_get_size (Journal *journal);
/* Removes the file durably: nothing is left to remember. */
gboolean journal_remove (Journal *journal, GError **error);
/* Makes the entry of `path` in its directory durable. */
gboolean journal_sync_parent (const char *path, GError **error);

/* The journals of jobs, STATE_DIR/jobs/UUID.journal. */
Journal *journal_create (const char *state_dir, const char *job, GError **error);
Journal *journal_open (const char *state_dir, const char *job, GPtrArray **ret_records,
                       GError **error);
/* The UUIDs of all jobs with a journal; NULL-terminated, may be empty. */
char **journal_list (const char *state_dir, GError **error);
