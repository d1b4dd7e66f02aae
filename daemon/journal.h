/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <json-glib/json-glib.h>

/* What one job must not forget: append-only JSON lines, each with a checksum, in one file a job
 * (STATE_DIR/jobs/UUID.journal, 0600).  A record counts once journal_append () has returned: it is
 * on disk. A torn last record (cut short, or with zeroes where data was never written) is
 * recognised and dropped; any other damage is an error.  An append that fails leaves nothing
 * behind.  Thread-safe. */
typedef struct Journal Journal;

/* Creates it (O_EXCL) and makes the directory entry durable. */
Journal *journal_create (const char *state_dir, const char *job, GError **error);
/* Opens an existing one and reads all records: `ret_records` gets JsonObject pointers, oldest first
 * (unref'ed with the array). */
Journal *journal_open (const char *state_dir, const char *job, GPtrArray **ret_records,
                       GError **error);
void journal_free (Journal *journal);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Journal, journal_free)

/* Appends `record` (an object with at least "record": NAME; not taken over) and fsyncs. */
gboolean journal_append (Journal *journal, JsonObject *record, GError **error);
/* Removes the file durably: the job is over and nothing is left to remember. */
gboolean journal_remove (Journal *journal, GError **error);

/* The UUIDs of all jobs with a journal; NULL-terminated, may be empty. */
char **journal_list (const char *state_dir, GError **error);
