/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/source/private.h"

#define RECONNECT_TIMEOUT_MS 5000

/* Bytes: a peer's figures are added up. */
#define MAX_SHOWN (G_GINT64_CONSTANT (1) << 54)

static JobDisk *
find_shown_disk (JobView *view, const char *name)
{
  for (guint i = 0; i < view->disks->len; i++)
    if (g_str_equal (g_array_index (view->disks, JobDisk, i).disk, name))
      return &g_array_index (view->disks, JobDisk, i);
  return NULL;
}

static void
show_disk (JobView *view, JsonObject *object)
{
  const char *name;
  gint64 todo = 0, done = 0, read_bytes = 0, zero = 0;
  JobDisk *disk;

  if (!object || !json_get_string (object, "disk", &name) || !(disk = find_shown_disk (view, name)))
    return;
  json_get_int (object, "todo", &todo);
  json_get_int (object, "done", &done);
  json_get_int (object, "read", &read_bytes);
  json_get_int (object, "zero", &zero);
  disk->todo = CLAMP (todo, 0, MAX_SHOWN);
  disk->done = CLAMP (done, 0, MAX_SHOWN);
  disk->read = CLAMP (read_bytes, 0, MAX_SHOWN);
  disk->zero = CLAMP (zero, 0, MAX_SHOWN);
}

void
source_show_disks (SourceJob *job, JsonArray *disks)
{
  Job *base = &job->base;

  g_mutex_lock (&base->lock);
  for (guint i = 0; i < json_array_get_length (disks); i++)
    show_disk (&base->view, json_array_get_object_or_null (disks, i));
  base->view_changed = TRUE;
  g_mutex_unlock (&base->lock);
}

static void
link_on_event (const char *event, JsonObject *data, gpointer user_data)
{
  JsonArray *disks;

  if (g_str_equal (event, "COPY_PROGRESS") && data && json_get_array (data, "disks", &disks))
    source_show_disks (user_data, disks);
}

static void
link_on_lost (const GError *error, gpointer user_data)
{
  Job *base = user_data;
  g_autoptr (GError) reason = g_error_new (
      JOB_ERROR, JOB_ERROR_FAILED, "the agent of %s is lost: %s", base->peer, error->message);

  job_post (base, JOB_EVENT_PEER_LOST, reason);
}

gboolean
source_open_link (SourceJob *job, Deadline deadline, GError **error)
{
  static const PeerLinkHandlers handlers = { .event = link_on_event, .lost = link_on_lost };
  Agent *agent = job->base.agent;
  g_autoptr (Credentials) client = agent_get_credentials (agent, CREDENTIALS_CLIENT);
  g_autoptr (Credentials) server = agent_get_credentials (agent, CREDENTIALS_SERVER);
  const PeerLinkSetup setup = {
    .config = agent_get_config (agent),
    .credentials = client,
    .server_dn = credentials_get_identity (server),
  };

  /* What was said on the old one and hasn't left this host must not arrive any more. */
  g_clear_pointer (&job->link, peer_link_abort);
  job->link = peer_link_open (&setup, job->host, &handlers, &job->base, deadline, error);
  if (job->link)
    peer_link_set_timeout (job->link, job->timeout_ms);
  return job->link != NULL;
}

gboolean
source_link_is_up (SourceJob *job, GError **error)
{
  GCancellable *cancellable = job_cancellable (&job->base);

  return (job->link
          && peer_link_call (job->link, "ping", NULL,
                             deadline_in (RECONNECT_TIMEOUT_MS, cancellable), NULL, NULL))
         || source_open_link (job, deadline_in (RECONNECT_TIMEOUT_MS, cancellable), error);
}

JobEvent
source_tell_start (SourceJob *job, GError **error)
{
  Job *base = &job->base;
  g_autoptr (GError) failed = NULL;
  VmEvents events = { 0 };
  gboolean told = peer_link_call (
      job->link, "start",
      json_args ("job", "s", base->uuid, "paused", "b", !job->ran || job->libvirt.suspend, NULL),
      deadline_in (job->timeout_ms, job_cancellable (base)), NULL, &failed);

  if (!told && g_strcmp0 (json_client_error_class (failed), "Never") == 0)
    {
      g_propagate_error (error, g_steal_pointer (&failed));
      return JOB_EVENT_NEVER;
    }
  if (!told)
    {
      g_propagate_error (error, g_steal_pointer (&failed));
      return JOB_EVENT_UNKNOWN;
    }
  if (job->vm)
    vm_get_events (job->vm, &events);
  g_mutex_lock (&base->lock);
  if (job->ran && events.stopped_us > 0)
    base->view.downtime_us = g_get_monotonic_time () - events.stopped_us;
  g_mutex_unlock (&base->lock);
  job_set_owner (base, JOB_OWNED_BY_DESTINATION);
  job_record (base, json_args ("record", "s", "owner", NULL), NULL);
  return JOB_EVENT_DONE;
}
