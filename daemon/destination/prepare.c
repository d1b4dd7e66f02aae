/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/destination/private.h"

static gboolean
record_begin (DestinationJob *job, GError **error)
{
  Job *base = &job->base;

  base->journal = journal_create (agent_get_config (base->agent)->state_dir, base->uuid, error);
  return base->journal
         && job_record (base,
                        json_args ("record", "s", "begin", "role", "s", "destination", "peer", "s",
                                   base->peer, "args", "o", json_object_ref (base->command), NULL),
                        error);
}

static gboolean
record_image (DestinationJob *job, const DestinationDisk *disk, GError **error)
{
  ImageTrace trace;

  image_get_trace (disk->image, &trace);
  return job_record (&job->base,
                     json_args ("record", "s", "image", "disk", "s", disk->name, "path", "s",
                                trace.path, "format", "s", trace.format, "size", "i",
                                (gint64)trace.size, "created", "b", trace.created, "was-empty", "b",
                                trace.was_empty, "device", "i", (gint64)trace.device, "inode", "i",
                                (gint64)trace.inode, NULL),
                     error);
}

static gboolean
prepare_disk (DestinationJob *job, DestinationDisk *disk, GError **error)
{
  const Config *config = agent_get_config (job->base.agent);
  const ImageSpec spec = {
    .path = disk->path,
    .format = disk->format,
    .size = disk->size,
    .prealloc = disk->prealloc,
    .overwrite = job->overwrite,
  };

  disk->image = image_open (config_find_peer (config, job->base.peer), &spec, error);
  if (!disk->image || !record_image (job, disk, error))
    return FALSE;
  disk->target
      = image_open_writer (disk->image, config->runtime_dir, job->timeout_ms, job->writers, error);
  if (!disk->target)
    return FALSE;
  g_mutex_lock (&job->base.lock);
  disk->mirror = mirror_new (disk->target, job->limit);
  mirror_set_in_flight (disk->mirror, job->in_flight);
  g_mutex_unlock (&job->base.lock);
  return TRUE;
}

/* A QEMU that is there already is looked at now, so that what doesn't fit is said before anything
 * is copied; it is left alone until the cutover. */
static gboolean
look_at_vm (DestinationJob *job, gboolean *ret_ready, GError **error)
{
  g_autoptr (GError) absent = NULL;
  g_autoptr (Vm) vm = destination_open_vm (job, &absent);

  if (!vm
      && (g_error_matches (absent, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)
          || g_error_matches (absent, G_IO_ERROR, G_IO_ERROR_CONNECTION_REFUSED)))
    {
      *ret_ready = FALSE;
      return TRUE;
    }
  if (!vm)
    {
      g_propagate_error (error, g_steal_pointer (&absent));
      return FALSE;
    }
  *ret_ready = TRUE;
  return destination_check_vm (job, vm, error);
}

JobEvent
destination_prepare (Job *base, GError **error)
{
  DestinationJob *job = (DestinationJob *)base;
  JsonArray *messages;
  gboolean ready = TRUE;

  job_set_message (base, "making the targets");
  if (!record_begin (job, error)
      || (destination_is_domain (job) && !destination_check_domain (job, error)))
    return JOB_EVENT_FAILED;
  for (guint i = 0; i < job->disks->len; i++)
    if (!prepare_disk (job, destination_disk (job, i), error))
      return JOB_EVENT_FAILED;
  if (!destination_is_domain (job) && !look_at_vm (job, &ready, error))
    return JOB_EVENT_FAILED;

  messages = json_array_new ();
  if (!ready)
    {
      g_autofree char *text = g_strdup_printf (
          "no QEMU at %s yet: it must be there, with -incoming defer, at the cutover",
          base->qmp_path);
      json_array_add_string_element (messages, text);
    }
  base->answer = json_node_alloc ();
  json_node_init (base->answer, JSON_NODE_OBJECT);
  json_node_take_object (base->answer, json_args ("qemu", "s", ready ? "ready" : "absent",
                                                  "messages", "a", messages, NULL));
  job_set_message (base, "ready for the disks");
  return JOB_EVENT_DONE;
}
