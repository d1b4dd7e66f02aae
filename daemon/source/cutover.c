/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/source/private.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define POLL_MS 100
/* The rest of the allowed downtime is for the last pass and the handover. */
#define FIRST_RAM_SHARE 0.35
#define LAST_RAM_SHARE 0.8
#define RAM_SHARE_STEP 0.1
#define RAM_PATIENCE_US (2 * G_USEC_PER_SEC)
/* In bytes per second; QEMU's default of 128 MiB/s is for its own TCP migrations of old. */
#define UNLIMITED_BANDWIDTH (G_GINT64_CONSTANT (1) << 40)
#define INCOMING_EXTRA_MS 15000

gint64
source_ram_bandwidth (const SourceJob *job)
{
  return job->rate > 0 ? MAX ((gint64)(job->rate / 4 * 3), 1) : UNLIMITED_BANDWIDTH;
}

static gboolean
open_incoming (SourceJob *job, guint16 *ret_port, GError **error)
{
  Job *base = &job->base;
  g_autoptr (JsonNode) answer = NULL;
  gint64 port = 0;

  job_set_message (base, "waiting for the QEMU at %s", base->peer);
  if (!peer_link_call (job->link, "incoming", json_args ("job", "s", base->uuid, NULL),
                       deadline_in (job->timeout_ms + INCOMING_EXTRA_MS, job_cancellable (base)),
                       &answer, error))
    return FALSE;
  if (!JSON_NODE_HOLDS_OBJECT (answer)
      || !json_get_int (json_node_get_object (answer), "port", &port) || port < 1 || port > 65535)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "%s: malformed answer to incoming",
                   base->peer);
      return FALSE;
    }
  *ret_port = port;
  return TRUE;
}

/* What we change is put back when the migration is undone. */
static gboolean
keep_parameters (SourceJob *job, GError **error)
{
  static const char *const names[] = { "max-bandwidth", "downtime-limit" };
  g_autoptr (JsonObject) now = qmp_query_migrate_parameters (vm_get_executor (job->vm),
                                                             job_cancellable (&job->base), error);
  gint64 value;

  if (!now)
    return FALSE;
  job->old_parameters = json_args ("tls-creds", "s", "", "tls-hostname", "s", "", NULL);
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    if (json_get_int (now, names[i], &value))
      json_object_set_int_member (job->old_parameters, names[i], value);
  return TRUE;
}

/* A plain stream must be impossible: QEMU begins to send before it notices that the other side
 * wants TLS, so its own word is taken for the parameters before `migrate`. */
static gboolean
secure_stream (SourceJob *job, GError **error)
{
  static const char *const capabilities[] = { "events", "pause-before-switchover", NULL };
  QmpExecutor *qmp = vm_get_executor (job->vm);
  GCancellable *cancellable = job_cancellable (&job->base);
  const char *name = peer_link_get_name (job->link);
  g_autofree char *tls = source_id (job, "ram");

  return keep_parameters (job, error)
         && qmp_tls_creds_add (qmp, tls, agent_get_qemu_tls_dir (job->base.agent), "client",
                               cancellable, error)
         && qmp_migrate_set_capabilities (qmp, capabilities, TRUE, cancellable, error)
         && qmp_migrate_ensure_parameters (
             qmp,
             json_args ("tls-creds", "s", tls, "tls-hostname", "s", name, "max-bandwidth", "i",
                        source_ram_bandwidth (job), "downtime-limit", "i",
                        (gint64)MAX (job->max_downtime_ms * FIRST_RAM_SHARE, 1), NULL),
             cancellable, error);
}

/* The disks leave the rest of the rate to the memory. */
static gboolean
share_rate (SourceJob *job, GError **error)
{
  if (job->rate == 0)
    return TRUE;
  return peer_link_call (
      job->link, "pace",
      json_args ("job", "s", job->base.uuid, "rate", "i", (gint64)MAX (job->rate / 4, 1), NULL),
      deadline_in (job->timeout_ms, job_cancellable (&job->base)), NULL, error);
}

/* QEMU's own stop at the switchover is no pause of the guest's: only what comes before it counts.
 */
static gboolean
note_run_state (SourceJob *job, GError **error)
{
  g_autofree char *status = NULL;

  if (!qmp_query_status (vm_get_executor (job->vm), job_cancellable (&job->base), &status, NULL,
                         error))
    return FALSE;
  if (g_str_equal (status, "running"))
    job->ran = TRUE;
  else if (g_str_equal (status, "paused"))
    job->ran = FALSE;
  return TRUE;
}

/* The agent connects, not QEMU: a connect of QEMU's can't be given up, and says less when it fails.
 * The socket stays non-blocking, so that no handshake holds up QEMU's main loop. */
static gboolean
pass_stream (SourceJob *job, guint16 port, const char *fd_name, GError **error)
{
  GCancellable *cancellable = job_cancellable (&job->base);
  g_autoptr (Channel) channel
      = channel_connect_tcp (peer_link_get_remote_address (job->link), port,
                             deadline_in (job->timeout_ms, cancellable), error);

  if (!channel)
    {
      g_prefix_error (error, "the memory can't be sent to %s: ", job->base.peer);
      return FALSE;
    }
  job->stream_fd = fcntl (channel_get_fd (channel), F_DUPFD_CLOEXEC, 3);
  peer_link_tune_socket (channel_get_fd (channel), job->timeout_ms);
  return qmp_getfd (vm_get_executor (job->vm), fd_name, channel_get_fd (channel), cancellable,
                    error);
}

void
source_break_stream (SourceJob *job)
{
  source_break_move (job);
  if (job->stream_fd < 0)
    return;
  shutdown (job->stream_fd, SHUT_RDWR);
  close (job->stream_fd);
  job->stream_fd = -1;
}

static gboolean
start_stream (SourceJob *job, guint16 port, GError **error)
{
  g_autofree char *fd_name = source_id (job, "stream");
  g_autofree char *uri = g_strdup_printf ("fd:%s", fd_name);

  return pass_stream (job, port, fd_name, error) && note_run_state (job, error)
         && qmp_migrate (vm_get_executor (job->vm), uri, job_cancellable (&job->base), error);
}

typedef struct
{
  double ram_share;
  gint64 patience_us; /* when the RAM gets a larger share of the downtime */
  gint64 sent;        /* bytes at the last look that showed progress */
  gint64 moved_us;
} Stream;

static gboolean
stream_failed (SourceJob *job, const QmpMigration *migration, GError **error)
{
  g_autofree char *why = migration->error_desc ? g_strescape (migration->error_desc, "\"") : NULL;

  g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "the migration of the memory to %s %s: %.500s",
               job->base.peer, migration->status, why ? why : "QEMU doesn't say why");
  return FALSE;
}

/* Memory that changes faster than it fits its share of the downtime gets a larger one. */
static gboolean
give_ram_more_time (SourceJob *job, Stream *stream, GError **error)
{
  gint64 now = g_get_monotonic_time ();

  if (now < stream->patience_us || stream->ram_share >= LAST_RAM_SHARE)
    return TRUE;
  stream->patience_us = now + RAM_PATIENCE_US;
  stream->ram_share = MIN (stream->ram_share + RAM_SHARE_STEP, LAST_RAM_SHARE);
  return qmp_migrate_set_parameters (
      vm_get_executor (job->vm),
      json_args ("downtime-limit", "i", (gint64)MAX (job->max_downtime_ms * stream->ram_share, 1),
                 NULL),
      job_cancellable (&job->base), error);
}

void
source_show_ram (SourceJob *job, const QmpMigration *migration)
{
  g_mutex_lock (&job->base.lock);
  job->base.view.ram_total = MAX (migration->ram_total, 0);
  job->base.view.ram_sent = MAX (migration->ram_transferred, 0);
  job->base.view.ram_left = MAX (migration->ram_remaining, 0);
  job->base.view_changed = TRUE;
  g_mutex_unlock (&job->base.lock);
}

/* libvirt goes past pre-switchover by itself: the gate holds the stream, and QEMU in `device`. */
static gboolean
is_switchover (SourceJob *job, const char *status)
{
  return g_str_equal (status, "pre-switchover")
         || (source_is_domain (job) && g_str_equal (status, "device"));
}

static gboolean
look_at_stream (SourceJob *job, Stream *stream, gboolean *ret_switchover, GError **error)
{
  g_autoptr (QmpMigration) migration
      = qmp_query_migrate (vm_get_executor (job->vm), job_cancellable (&job->base), error);
  gint64 now = g_get_monotonic_time ();

  if (!migration)
    return FALSE;
  source_show_ram (job, migration);
  *ret_switchover = is_switchover (job, migration->status);
  if (!source_check_move (job, error))
    return FALSE;
  if (g_str_equal (migration->status, "failed") || g_str_equal (migration->status, "cancelled")
      || g_str_equal (migration->status, "cancelling"))
    return stream_failed (job, migration, error);
  if (stream->sent != migration->ram_transferred || *ret_switchover)
    {
      stream->sent = migration->ram_transferred;
      stream->moved_us = now;
    }
  if (now - stream->moved_us <= job->timeout_ms * 1000)
    return give_ram_more_time (job, stream, error);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
               "the migration of the memory to %s made no progress for %" G_GINT64_FORMAT " s",
               job->base.peer, job->timeout_ms / 1000);
  return FALSE;
}

/* Passes go on beside the memory, so that little is left for the last one. */
static gboolean
follow_stream (SourceJob *job, GError **error)
{
  gint64 now = g_get_monotonic_time ();
  Stream stream = { FIRST_RAM_SHARE, now + 2 * RAM_PATIENCE_US, -1, now };
  VmEvents events;

  vm_get_events (job->vm, &events);
  for (;;)
    {
      gboolean switchover;
      guint64 bytes;

      if (!look_at_stream (job, &stream, &switchover, error))
        return FALSE;
      if (switchover)
        return TRUE;
      if (!note_run_state (job, error))
        return FALSE;
      if (!is_switchover (job, events.migration) && !source_run_pass (job, FALSE, &bytes, error))
        return FALSE;
      vm_wait_event (job->vm, &events, POLL_MS, job_cancellable (&job->base), &events);
      if (g_cancellable_set_error_if_cancelled (job_cancellable (&job->base), error))
        return FALSE;
    }
}

static gboolean
begin_stream (SourceJob *job, guint16 port, GError **error)
{
  if (source_is_domain (job))
    return note_run_state (job, error) && source_begin_move (job, port, error);
  return secure_stream (job, error) && start_stream (job, port, error);
}

JobEvent
source_cutover (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  guint16 port;

  if (!job_record (base, json_args ("record", "s", "cutover", NULL), error)
      || !open_incoming (job, &port, error) || !share_rate (job, error)
      || !begin_stream (job, port, error))
    return JOB_EVENT_FAILED;
  job_set_message (base, "moving the memory");
  if (!follow_stream (job, error))
    return JOB_EVENT_FAILED;
  return JOB_EVENT_DONE;
}

/* The guest stands still: from here to its start every millisecond counts. */
JobEvent
source_last_pass (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;
  guint64 bytes;

  job_set_message (base, "last pass");
  source_stop_guard (job);
  peer_link_set_timeout (job->link, SWITCHOVER_TIMEOUT_MS);
  if (job->stream_fd >= 0)
    peer_link_tune_socket (job->stream_fd, SWITCHOVER_TIMEOUT_MS);
  job->release_asked = TRUE;
  if (!source_run_pass (job, TRUE, &bytes, error)
      || !peer_link_call (job->link, "release",
                          json_args ("job", "s", base->uuid, "paused", "b",
                                     !job->ran || job->libvirt.suspend, NULL),
                          deadline_in (SWITCHOVER_TIMEOUT_MS, job_cancellable (base)), NULL, error))
    return JOB_EVENT_FAILED;
  return JOB_EVENT_DONE;
}
