/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/source/private.h"

#define RATE_WINDOW_US (G_USEC_PER_SEC)

static const JobActionFunc source_actions[JOB_N_ACTIONS] = {
  [JOB_ACTION_CHECK] = source_check,     [JOB_ACTION_PREPARE] = source_prepare,
  [JOB_ACTION_SEED] = source_seed,       [JOB_ACTION_CONVERGE] = source_converge,
  [JOB_ACTION_CUTOVER] = source_cutover, [JOB_ACTION_LAST_PASS] = source_last_pass,
  [JOB_ACTION_RELEASE] = source_release, [JOB_ACTION_FENCE] = source_fence,
  [JOB_ACTION_START] = source_start,     [JOB_ACTION_FINISH] = source_finish,
  [JOB_ACTION_UNFENCE] = source_unfence, [JOB_ACTION_UNDO] = source_undo,
  [JOB_ACTION_ASK] = source_ask,         [JOB_ACTION_RECOVER] = source_recover_action,
  [JOB_ACTION_TELL] = source_tell,
};

SourceDisk *
source_disk (SourceJob *job, guint i)
{
  return g_ptr_array_index (job->disks, i);
}

char *
source_id (const SourceJob *job, const char *what)
{
  return g_strdup_printf ("vmferry-%.8s-%s", job->base.uuid, what);
}

char *
source_bitmap_id (const SourceJob *job, guint serial)
{
  return g_strdup_printf ("vmferry-%.8s-bm%u", job->base.uuid, serial);
}

char *
source_export_id (const SourceJob *job, guint disk, guint serial)
{
  return g_strdup_printf ("vmferry-%.8s-%u-%u", job->base.uuid, disk, serial);
}

static void
wish_free (SourceWish *wish)
{
  g_free (wish->disk);
  g_free (wish->path);
  g_free (wish->format);
  g_free (wish->prealloc);
  g_free (wish);
}

static void
disk_free (SourceDisk *disk)
{
  g_free (disk->name);
  g_free (disk->qdev);
  g_free (disk->node);
  g_free (disk->file);
  g_free (disk->path);
  g_free (disk->format);
  g_free (disk->prealloc);
  g_free (disk);
}

static void
source_job_free (Job *base)
{
  SourceJob *job = (SourceJob *)base;

  source_stop_guard (job);
  peer_link_free (job->link);
  vm_free (job->vm);
  listener_free (job->listener);
  source_break_stream (job);
  g_clear_pointer (&job->old_parameters, json_object_unref);
  g_ptr_array_unref (job->wishes);
  g_ptr_array_unref (job->disks);
  g_free (job->host);
  g_free (job->dest_qmp);
  source_libvirt_clear (&job->libvirt);
  job_clear (base);
  g_free (job);
}

/* The rate that people see: what has come over in the last second, disks and RAM. */
static void
source_tick (Job *base)
{
  SourceJob *job = (SourceJob *)base;
  gint64 now = g_get_monotonic_time ();
  guint64 bytes, left;

  if (now - job->rate_us < RATE_WINDOW_US)
    return;
  g_mutex_lock (&base->lock);
  bytes = base->view.ram_sent;
  left = base->view.ram_left;
  for (guint i = 0; i < base->view.disks->len; i++)
    {
      const JobDisk *disk = &g_array_index (base->view.disks, JobDisk, i);
      bytes += disk->read;
      left += disk->todo - MIN (disk->done, disk->todo);
    }
  if (job->rate_us > 0 && bytes >= job->rate_bytes)
    base->view.rate = (bytes - job->rate_bytes) * G_USEC_PER_SEC / (now - job->rate_us);
  base->view.left_s = base->view.rate > 0 ? (double)left / base->view.rate : -1;
  base->view_changed = TRUE;
  g_mutex_unlock (&base->lock);
  job->rate_us = now;
  job->rate_bytes = bytes;
}

static const JobClass source_class = {
  .actions = source_actions,
  .tick = source_tick,
  .free = source_job_free,
};

static gboolean
parse_wish (SourceJob *job, JsonObject *object, GError **error)
{
  const char *disk = "", *path = NULL, *format = NULL, *prealloc = "off";
  SourceWish *wish;

  if (object)
    {
      json_get_string (object, "disk", &disk);
      json_get_string (object, "path", &path);
      json_get_string (object, "format", &format);
      json_get_string (object, "prealloc", &prealloc);
    }
  if (*disk == '\0' || (!g_str_equal (prealloc, "off") && !g_str_equal (prealloc, "falloc")))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE, "argument \"disks\" is malformed");
      return FALSE;
    }
  wish = g_new0 (SourceWish, 1);
  wish->disk = g_strdup (disk);
  wish->path = g_strdup (path);
  wish->format = g_strdup (format);
  wish->prealloc = g_strdup (prealloc);
  g_ptr_array_add (job->wishes, wish);
  return TRUE;
}

static gboolean
parse_number (JsonObject *args, const char *name, gint64 fallback, gint64 min, gint64 max,
              gint64 *ret_value, GError **error)
{
  gint64 value = fallback;

  json_get_int (args, name, &value);
  if (value < min || value > max)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE,
                   "%s is %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT ", not %" G_GINT64_FORMAT,
                   name, min, max, value);
      return FALSE;
    }
  *ret_value = value;
  return TRUE;
}

/* A URI can name a program to run, at either end: only those that can't are taken. */
static gboolean
check_uris (const char *uri, const char *desturi, GError **error)
{
  if (uri && !g_str_equal (uri, "qemu:///system"))
    g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE,
                 "connect is qemu:///system, this host's own libvirtd, not %s", uri);
  else if (desturi && (!g_str_has_prefix (desturi, "qemu+tls://") || strchr (desturi, '?')))
    g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE,
                 "desturi is qemu+tls://HOST/system, without parameters, not %s", desturi);
  else
    return TRUE;
  return FALSE;
}

static gboolean
parse_libvirt (SourceJob *job, JsonObject *args, GError **error)
{
  SourceLibvirt *libvirt = &job->libvirt;
  const char *uri = NULL, *desturi = NULL, *dname = NULL, *tls_destination = NULL;

  json_get_string (args, "connect", &uri);
  json_get_string (args, "desturi", &desturi);
  json_get_string (args, "dname", &dname);
  json_get_string (args, "tls-destination", &tls_destination);
  json_get_bool (args, "persistent", &libvirt->persistent);
  json_get_bool (args, "undefinesource", &libvirt->undefine_source);
  json_get_bool (args, "suspend", &libvirt->suspend);
  json_get_bool (args, "auto-converge", &libvirt->auto_converge);
  if (!check_uris (uri, desturi, error)
      || !parse_number (args, "bandwidth", 0, 0, G_MAXINT32, &libvirt->bandwidth, error))
    return FALSE;
  libvirt->uri = g_strdup (uri);
  libvirt->desturi = desturi
                         ? g_strdup (desturi)
                         : g_strdup_printf (strchr (job->base.peer, ':') ? "qemu+tls://[%s]/system"
                                                                         : "qemu+tls://%s/system",
                                            job->base.peer);
  libvirt->dname = g_strdup (dname);
  libvirt->tls_destination = g_strdup (tls_destination);
  return TRUE;
}

/* Either the monitors of two bare QEMUs, or libvirt. */
static gboolean
parse_driver (SourceJob *job, JsonObject *args, GError **error)
{
  const char *qmp = NULL, *dest_qmp = NULL, *connect = NULL;

  json_get_string (args, "qmp", &qmp);
  json_get_string (args, "dest-qmp", &dest_qmp);
  json_get_string (args, "connect", &connect);
  if ((qmp == NULL) != (dest_qmp == NULL) || (qmp == NULL) == (connect == NULL))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE,
                   "either qmp and dest-qmp, or connect, must be given");
      return FALSE;
    }
  job->dest_qmp = g_strdup (dest_qmp);
  return parse_libvirt (job, args, error);
}

/* `args` is kept in the journal as the job's first record, so one parser serves both. */
static gboolean
source_parse (SourceJob *job, JsonObject *args, GError **error)
{
  gint64 timeout, rate;
  JsonArray *disks = NULL;

  if (!parse_driver (job, args, error))
    return FALSE;
  json_get_bool (args, "overwrite", &job->overwrite);
  json_get_bool (args, "full-speed", &job->full_speed);
  if (!parse_number (args, "timeout", 30, 1, 86400, &timeout, error)
      || !parse_number (args, "max-downtime", 300, 1, 2000 * 1000, &job->max_downtime_ms, error)
      || !parse_number (args, "rate", 0, 0, G_MAXINT64, &rate, error))
    return FALSE;
  job->timeout_ms = timeout * 1000;
  job->rate = rate;
  json_get_array (args, "disks", &disks);
  for (guint i = 0; disks && i < json_array_get_length (disks); i++)
    if (!parse_wish (job, json_array_get_object_or_null (disks, i), error))
      return FALSE;
  return TRUE;
}

static SourceJob *
source_alloc (Agent *agent, const char *uuid, JsonObject *args, GError **error)
{
  g_autofree char *name = NULL;
  const char *guest = "", *host = "", *qmp = "";
  SourceJob *job;
  guint16 port;

  json_get_string (args, "guest", &guest);
  json_get_string (args, "host", &host);
  json_get_string (args, "qmp", &qmp);
  if (!config_split_host (host, &name, &port, error))
    return NULL;
  job = g_new0 (SourceJob, 1);
  job_init (&job->base, &source_class, agent, JOB_SOURCE, uuid, guest, name);
  if (*qmp != '\0')
    job->base.qmp_path = g_strdup (qmp);
  else
    job->base.qmp_path = g_strdup_printf ("libvirt's domain %s", guest);
  job->host = g_strdup (host);
  job->stream_fd = -1;
  job->wishes = g_ptr_array_new_with_free_func ((GDestroyNotify)wish_free);
  job->disks = g_ptr_array_new_with_free_func ((GDestroyNotify)disk_free);
  if (source_parse (job, args, error))
    return job;
  source_job_free (&job->base);
  return NULL;
}

Job *
source_new (Agent *agent, JsonObject *args, GError **error)
{
  g_autofree char *uuid = g_uuid_string_random ();
  SourceJob *job = source_alloc (agent, uuid, args, error);

  if (!job)
    return NULL;
  job->base.command = json_object_ref (args);
  return &job->base;
}

gboolean
source_recover (Agent *agent, const char *uuid, Journal *journal, GPtrArray *records,
                GError **error)
{
  g_autoptr (Journal) owned = journal;
  JsonObject *args = NULL;
  SourceJob *job;

  if (!json_get_object (records->pdata[0], "args", &args))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "its journal has no arguments");
      return FALSE;
    }
  job = source_alloc (agent, uuid, args, error);
  if (!job)
    return FALSE;
  job->base.journal = g_steal_pointer (&owned);
  job->base.records = g_ptr_array_ref (records);
  job->base.command = json_object_ref (args);
  if (!agent_add_job (agent, &job->base, error))
    {
      source_job_free (&job->base);
      return FALSE;
    }
  job_begin (&job->base, JOB_RECOVERING, JOB_ACTION_RECOVER);
  return TRUE;
}
