/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/destination/private.h"
#include "qmp/printable.h"

/* This host's own. */
#define LIBVIRT_URI "qemu:///system"
#define MAX_DISKS 64
/* A client that is well pings at least so often. */
#define PING_MS 1000
#define MAX_NAME 1024
/* Of all names and paths of a job: many jobs must fit one answer to query-jobs. */
#define MAX_TEXT (32 * 1024)
#define FIRST_IN_FLIGHT (256 * 1024)

static const JobActionFunc destination_actions[JOB_N_ACTIONS] = {
  [JOB_ACTION_PREPARE] = destination_prepare,
  [JOB_ACTION_COPY] = destination_copy,
  [JOB_ACTION_LISTEN] = destination_listen,
  [JOB_ACTION_RELEASE] = destination_release,
  [JOB_ACTION_START] = destination_start,
  [JOB_ACTION_FINISH] = destination_finish,
  [JOB_ACTION_ASK] = destination_ask,
  [JOB_ACTION_UNDO] = destination_undo,
  [JOB_ACTION_RECOVER] = destination_recover_action,
};

DestinationDisk *
destination_disk (DestinationJob *job, guint i)
{
  return g_ptr_array_index (job->disks, i);
}

static void
disk_free (DestinationDisk *disk)
{
  mirror_free (disk->mirror);
  image_free (disk->image);
  g_free (disk->name);
  g_free (disk->device);
  g_free (disk->path);
  g_free (disk->format);
  g_free (disk);
}

static void
destination_job_free (Job *base)
{
  DestinationJob *job = (DestinationJob *)base;

  connection_unref (job->connection);
  vm_free (job->vm);
  ram_gate_free (job->gate);
  virt_domain_free (job->domain);
  g_free (job->domain_uuid);
  g_ptr_array_unref (job->disks);
  rate_limit_free (job->limit);
  g_object_unref (job->writers);
  g_free (job->machine);
  g_free (job->source_dn);
  g_free (job->source_address);
  g_free (job->local_address);
  g_free (job->tls_id);
  g_free (job->authz_id);
  job_clear (base);
  g_free (job);
}

static void
destination_tick (Job *base)
{
  DestinationJob *job = (DestinationJob *)base;
  JsonArray *disks;

  if (base->state != JOB_COPYING && base->state != JOB_CATCHING_UP)
    return;
  destination_update_view (job);
  if (!job->connection)
    return;
  disks = json_array_new ();
  g_mutex_lock (&base->lock);
  for (guint i = 0; i < base->view.disks->len; i++)
    {
      const JobDisk *disk = &g_array_index (base->view.disks, JobDisk, i);
      json_array_add_object_element (
          disks, json_args ("disk", "s", disk->disk, "todo", "i", (gint64)disk->todo, "done", "i",
                            (gint64)disk->done, "read", "i", (gint64)disk->read, "zero", "i",
                            (gint64)disk->zero, NULL));
    }
  g_mutex_unlock (&base->lock);
  connection_send_event (job->connection, "COPY_PROGRESS",
                         json_args ("job", "s", base->uuid, "disks", "a", disks, NULL));
}

static const JobClass destination_class = {
  .actions = destination_actions,
  .tick = destination_tick,
  .free = destination_job_free,
};

/* A name or a path of the peer's, which people will read: bounded, and plain text.  `budget` is
 * what may come after it. */
static gboolean
take_text (JsonObject *object, const char *name, gsize *budget, const char **ret_text)
{
  g_autofree char *plain = NULL;
  const char *text;
  gsize len;

  if (!json_get_string (object, name, &text))
    return FALSE;
  len = strlen (text);
  plain = printable (text, MAX_NAME);
  if (len == 0 || len > *budget || !g_str_equal (plain, text))
    return FALSE;
  *budget -= len;
  *ret_text = text;
  return TRUE;
}

/* Either a monitor's socket, or a domain by its UUID. */
static gboolean
take_driver (JsonObject *args, gsize *budget)
{
  const char *text;

  if (json_object_has_member (args, "dest-qmp") == json_object_has_member (args, "domain"))
    return FALSE;
  if (json_object_has_member (args, "dest-qmp"))
    return take_text (args, "dest-qmp", budget, &text);
  return take_text (args, "domain", budget, &text) && g_uuid_string_is_valid (text);
}

static gboolean
parse_disk (DestinationJob *job, JsonObject *object, gsize *budget, GError **error)
{
  DestinationDisk *disk = g_new0 (DestinationDisk, 1);
  const char *name, *device, *path, *format, *prealloc;
  gint64 size;
  JobDisk shown = { 0 };

  g_ptr_array_add (job->disks, disk);
  if (!object || !take_text (object, "disk", budget, &name)
      || !take_text (object, "device", budget, &device)
      || !take_text (object, "path", budget, &path)
      || !take_text (object, "format", budget, &format)
      || !json_get_string (object, "prealloc", &prealloc) || !json_get_int (object, "size", &size)
      || size < 0)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE, "argument \"disks\" is malformed");
      return FALSE;
    }
  disk->name = g_strdup (name);
  disk->device = g_strdup (device);
  disk->path = g_strdup (path);
  disk->format = g_strdup (format);
  disk->size = size;
  disk->prealloc = g_str_equal (prealloc, "falloc") ? IMAGE_PREALLOC_FALLOC : IMAGE_PREALLOC_OFF;

  shown.disk = g_strdup (name);
  shown.target = g_strdup (path);
  shown.format = g_strdup (format);
  shown.size = size;
  g_array_append_val (job->base.view.disks, shown);
  return TRUE;
}

static gboolean
parse_disks (DestinationJob *job, JsonArray *disks, GError **error)
{
  guint n = json_array_get_length (disks);
  gsize budget = MAX_TEXT;

  if (n > MAX_DISKS)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE, "%u disks, at most %u can be moved", n,
                   MAX_DISKS);
      return FALSE;
    }
  for (guint i = 0; i < n; i++)
    if (!parse_disk (job, json_array_get_object_or_null (disks, i), &budget, error))
      return FALSE;
  return TRUE;
}

static DestinationJob *
destination_alloc (Agent *agent, const char *uuid, const char *guest, const char *peer,
                   JsonObject *args)
{
  DestinationJob *job = g_new0 (DestinationJob, 1);
  const char *qmp_path = NULL, *domain = NULL;

  if (args)
    {
      json_get_string (args, "dest-qmp", &qmp_path);
      json_get_string (args, "domain", &domain);
    }

  job_init (&job->base, &destination_class, agent, JOB_DESTINATION, uuid, guest, peer);
  job->base.qmp_path
      = qmp_path ? g_strdup (qmp_path) : g_strdup_printf ("libvirt's domain %s", domain);
  if (domain)
    {
      job->domain_uuid = g_strdup (domain);
      job->domain = virt_domain_new (LIBVIRT_URI, domain, NULL, NULL);
    }
  job->disks = g_ptr_array_new_with_free_func ((GDestroyNotify)disk_free);
  job->tls_id = g_strdup_printf ("vmferry-%.8s-tls", uuid);
  job->authz_id = g_strdup_printf ("vmferry-%.8s-authz", uuid);
  job->in_flight = FIRST_IN_FLIGHT;
  job->writers = g_cancellable_new ();
  return job;
}

/* `args` is kept in the journal as the job's first record, so one parser serves both. */
static gboolean
destination_parse (DestinationJob *job, JsonObject *args, GError **error)
{
  const char *machine = "";
  JsonArray *disks = NULL;
  gint64 timeout = 30, rate = 0;

  json_get_string (args, "machine", &machine);
  json_get_int (args, "timeout", &timeout);
  json_get_int (args, "rate", &rate);
  json_get_bool (args, "overwrite", &job->overwrite);
  if (timeout < 1 || timeout > 86400)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE,
                   "timeout is 1 to 86400 s, not %" G_GINT64_FORMAT, timeout);
      return FALSE;
    }
  job->machine = g_strdup (machine);
  job->timeout_ms = timeout * 1000;
  job->limit = rate_limit_new (rate);
  return !json_get_array (args, "disks", &disks) || parse_disks (job, disks, error);
}

Job *
destination_new (Agent *agent, Connection *connection, JsonObject *args, GError **error)
{
  const ConnectionOrigin *origin = connection_get_origin (connection);
  const char *uuid = "", *guest = "", *machine = "";
  gboolean full_speed = FALSE;
  gsize budget = MAX_TEXT;
  DestinationJob *job;

  json_get_string (args, "job", &uuid);
  json_get_bool (args, "full-speed", &full_speed);
  if (!g_uuid_string_is_valid (uuid))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE, "argument \"job\" is no UUID");
      return NULL;
    }
  if (!take_text (args, "guest", &budget, &guest) || !take_driver (args, &budget)
      || !take_text (args, "machine", &budget, &machine))
    {
      g_set_error (
          error, JOB_ERROR, JOB_ERROR_USAGE,
          "argument \"guest\", \"dest-qmp\", \"domain\" or \"machine\" is empty, too long or no "
          "plain text");
      return NULL;
    }
  job = destination_alloc (agent, uuid, guest, origin->peer->name, args);
  job->source_dn = g_strdup (connection_get_client_dn (connection));
  job->source_address = g_strdup (origin->remote_address);
  job->local_address = g_strdup (origin->local_address);
  if (full_speed)
    job->in_flight = MIRROR_MAX_IN_FLIGHT;
  if (!destination_parse (job, args, error))
    {
      destination_job_free (&job->base);
      return NULL;
    }
  job->base.command = json_object_ref (args);
  destination_bind (&job->base, connection);
  return &job->base;
}

gboolean
destination_recover (Agent *agent, const char *uuid, Journal *journal, GPtrArray *records,
                     GError **error)
{
  JsonObject *begin = g_ptr_array_index (records, 0), *args = NULL;
  const char *guest = "", *peer = "";
  DestinationJob *job;

  json_get_object (begin, "args", &args);
  json_get_string (begin, "peer", &peer);
  if (args)
    json_get_string (args, "guest", &guest);
  job = destination_alloc (agent, uuid, guest, peer, args);
  job->base.journal = journal;
  job->base.records = g_ptr_array_ref (records);
  if (!args || !destination_parse (job, args, error) || !agent_add_job (agent, &job->base, error))
    {
      if (error && !*error)
        g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "its journal has no arguments");
      destination_job_free (&job->base);
      return FALSE;
    }
  job_begin (&job->base, JOB_RECOVERING, JOB_ACTION_RECOVER);
  return TRUE;
}

void
destination_bind (Job *base, Connection *connection)
{
  DestinationJob *job = (DestinationJob *)base;

  if (job->connection == connection)
    return;
  connection_unref (job->connection);
  job->connection = connection_ref (connection);
  connection_set_timeout (connection, job->timeout_ms + PING_MS);
  job_forget_lost (base, JOB_EVENT_PEER_LOST);
}

void
destination_unbind (Job *base, Connection *connection)
{
  DestinationJob *job = (DestinationJob *)base;
  g_autoptr (GError) reason = NULL;

  if (job->connection != connection)
    return;
  g_clear_pointer (&job->connection, connection_unref);
  reason = g_error_new (JOB_ERROR, JOB_ERROR_FAILED, "the connection to the agent of %s is lost",
                        base->peer);
  job_post_lost (base, JOB_EVENT_PEER_LOST, reason);
}

void
destination_set_in_flight (Job *base, gint64 bytes)
{
  DestinationJob *job = (DestinationJob *)base;

  g_mutex_lock (&base->lock);
  job->in_flight = CLAMP (bytes, 0, MIRROR_MAX_IN_FLIGHT);
  base->view.in_flight = job->in_flight;
  for (guint i = 0; i < job->disks->len; i++)
    if (destination_disk (job, i)->mirror)
      mirror_set_in_flight (destination_disk (job, i)->mirror, job->in_flight);
  g_mutex_unlock (&base->lock);
}

void
destination_set_rate (Job *base, gint64 bytes_per_s)
{
  rate_limit_set (((DestinationJob *)base)->limit, bytes_per_s);
}

void
destination_update_view (DestinationJob *job)
{
  Job *base = &job->base;

  g_mutex_lock (&base->lock);
  for (guint i = 0; i < job->disks->len; i++)
    {
      JobDisk *shown = &g_array_index (base->view.disks, JobDisk, i);
      MirrorProgress progress;

      if (!destination_disk (job, i)->mirror)
        continue;
      mirror_get_progress (destination_disk (job, i)->mirror, &progress);
      shown->todo = progress.todo;
      shown->done = progress.done;
      shown->read = progress.read_bytes;
      shown->zero = progress.zero_bytes;
    }
  base->view_changed = TRUE;
  g_mutex_unlock (&base->lock);
}
