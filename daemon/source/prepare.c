/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/source/private.h"
#include "nbd/mirror.h"

#define PREPARE_TIMEOUT_MS (5 * 60 * 1000)
/* The mirror keeps to MIRROR_MAX_IN_FLIGHT, so QEMU never waits for the network while it is sent.
 */
#define SEND_BUFFER (4 * MIRROR_MAX_IN_FLIGHT)

static JsonArray *
describe_disks (SourceJob *job, gboolean for_peer)
{
  JsonArray *disks = json_array_new ();

  for (guint i = 0; i < job->disks->len; i++)
    {
      const SourceDisk *disk = source_disk (job, i);
      json_array_add_object_element (
          disks, for_peer ? json_args ("disk", "s", disk->name, "device", "s", disk->qdev, "size",
                                       "i", (gint64)disk->size, "path", "s", disk->path, "format",
                                       "s", disk->format, "prealloc", "s", disk->prealloc, NULL)
                          : json_args ("disk", "s", disk->name, "qdev", "s", disk->qdev, "node",
                                       "s", disk->node, "file", "s", disk->file, "locked", "b",
                                       disk->locked, NULL));
    }
  return disks;
}

static gboolean
record_begin (SourceJob *job, GError **error)
{
  Job *base = &job->base;
  g_autofree char *process = vm_describe_process (job->vm);

  base->journal = journal_create (agent_get_config (base->agent)->state_dir, base->uuid, error);
  return base->journal
         && job_record (base,
                        json_args ("record", "s", "begin", "role", "s", "source", "args", "o",
                                   json_object_ref (base->command), "ran", "b", job->ran, "process",
                                   "s", process, "domain", "s",
                                   source_is_domain (job) ? job->libvirt.domain->uuid : NULL,
                                   "disks", "a", describe_disks (job, FALSE), NULL),
                        error);
}

static gboolean
prepare_peer (SourceJob *job, GError **error)
{
  Job *base = &job->base;
  g_autofree char *machine
      = qmp_query_machine_type (vm_get_executor (job->vm), job_cancellable (base), error);
  g_autoptr (JsonNode) answer = NULL;
  JsonArray *messages;

  if (!machine)
    return FALSE;
  job_set_message (base, "making the targets at %s", base->peer);
  if (!peer_link_call (job->link, "prepare",
                       json_args ("job", "s", base->uuid, "guest", "s", base->guest, "dest-qmp",
                                  "s", job->dest_qmp, "domain", "s",
                                  source_is_domain (job) ? job->libvirt.domain->uuid : NULL,
                                  "machine", "s", machine, "timeout", "i", job->timeout_ms / 1000,
                                  "rate", "i", (gint64)job->rate, "disks", "a",
                                  describe_disks (job, TRUE), "overwrite", "b", job->overwrite,
                                  "full-speed", "b", job->full_speed, NULL),
                       deadline_in (PREPARE_TIMEOUT_MS, job_cancellable (base)), &answer, error))
    return FALSE;
  if (JSON_NODE_HOLDS_OBJECT (answer)
      && json_get_array (json_node_get_object (answer), "messages", &messages))
    for (guint i = 0; i < MIN (json_array_get_length (messages), 100); i++)
      {
        JsonNode *node = json_array_get_element (messages, i);
        if (json_node_get_value_type (node) == G_TYPE_STRING)
          job_notice (base, FALSE, "%s: %.1000s", base->peer, json_node_get_string (node));
      }
  return TRUE;
}

static gboolean
make_listener (SourceJob *job, GError **error)
{
  const Config *config = agent_get_config (job->base.agent);
  gsize send_buffer;

  job->listener
      = listener_new (peer_link_get_local_address (job->link), config->port_min, config->port_max,
                      peer_link_get_remote_address (job->link), SEND_BUFFER, &send_buffer, error);
  if (!job->listener)
    return FALSE;
  if (send_buffer < SEND_BUFFER)
    job_notice (&job->base, TRUE,
                "the send buffer is %" G_GSIZE_FORMAT " bytes and can't be forced to %d "
                "(CAP_NET_ADMIN): the guest may have to wait for a peer that doesn't read",
                send_buffer, SEND_BUFFER);
  return job_record (&job->base,
                     json_args ("record", "s", "listener", "port", "i",
                                (gint64)listener_get_port (job->listener), NULL),
                     error);
}

/* The bitmaps record before anything is read: what the guest writes from here on is in one. */
static gboolean
add_bitmaps (SourceJob *job, GError **error)
{
  g_autofree char *name = source_bitmap_id (job, job->serial);
  g_autofree QmpBitmapRef *refs = g_new0 (QmpBitmapRef, job->disks->len);

  if (job->disks->len == 0)
    return TRUE;
  for (guint i = 0; i < job->disks->len; i++)
    refs[i] = (QmpBitmapRef){ source_disk (job, i)->node, name, source_disk (job, i)->granularity };
  job->bitmaps = TRUE;
  return qmp_bitmaps_add (vm_get_executor (job->vm), refs, job->disks->len,
                          job_cancellable (&job->base), error);
}

static gboolean
start_server (SourceJob *job, GError **error)
{
  QmpExecutor *qmp = vm_get_executor (job->vm);
  GCancellable *cancellable = job_cancellable (&job->base);
  g_autofree char *tls = source_id (job, "nbd");
  g_autofree char *authz = source_id (job, "authz");
  g_autofree char *fd = source_id (job, "listener");
  g_autoptr (GError) failed = NULL;

  if (!qmp_tls_creds_add (qmp, tls, agent_get_qemu_tls_dir (job->base.agent), "server", cancellable,
                          error)
      || !qmp_authz_add (qmp, authz, peer_link_get_client_dn (job->link), cancellable, error)
      || !qmp_getfd (qmp, fd, listener_get_fd (job->listener), cancellable, error))
    return FALSE;
  job->server
      = qmp_nbd_server_start_fd (qmp, fd, tls, authz, job->disks->len + 1, cancellable, &failed);
  if (job->server)
    return TRUE;
  /* A refusal may mean that somebody else's runs.  Without any answer it may be ours that does. */
  job->server = !g_error_matches (failed, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_REPLY);
  g_propagate_error (error, g_steal_pointer (&failed));
  return FALSE;
}

JobEvent
source_prepare (Job *base, GError **error)
{
  SourceJob *job = (SourceJob *)base;

  if (!record_begin (job, error) || !prepare_peer (job, error) || !make_listener (job, error)
      || !add_bitmaps (job, error) || !start_server (job, error))
    return JOB_EVENT_FAILED;
  source_start_guard (job);
  return JOB_EVENT_DONE;
}
