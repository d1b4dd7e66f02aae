/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/destination/private.h"

/* One disk's part of a pass, in a thread of its own. */
typedef struct
{
  const MirrorServer *server;
  DestinationDisk *disk;
  char *export_name, *bitmap;
  gint64 timeout_ms;
  GCancellable *cancellable; /* of all writers: the first failure ends the job */
  guint64 bytes;
  gboolean ok;
  GError *error;
} DiskPass;

static void
disk_pass_free (DiskPass *pass)
{
  g_free (pass->export_name);
  g_free (pass->bitmap);
  g_clear_error (&pass->error);
  g_free (pass);
}

static gpointer
disk_pass_thread (gpointer data)
{
  DiskPass *pass = data;

  pass->ok = mirror_run_pass (pass->disk->mirror, pass->server, pass->export_name, pass->bitmap,
                              pass->timeout_ms, pass->cancellable, &pass->bytes, &pass->error)
             && pass->disk->target->klass->flush (pass->disk->target, &pass->error);
  if (!pass->ok)
    g_cancellable_cancel (pass->cancellable);
  return NULL;
}

static DestinationDisk *
find_disk (DestinationJob *job, const char *name)
{
  for (guint i = 0; i < job->disks->len; i++)
    if (g_str_equal (destination_disk (job, i)->name, name))
      return destination_disk (job, i);
  return NULL;
}

static GPtrArray *
parse_passes (DestinationJob *job, JsonArray *disks, GError **error)
{
  g_autoptr (GPtrArray) passes = g_ptr_array_new_with_free_func ((GDestroyNotify)disk_pass_free);
  g_autoptr (GHashTable) seen = g_hash_table_new (NULL, NULL);

  for (guint i = 0; i < json_array_get_length (disks); i++)
    {
      JsonObject *object = json_array_get_object_or_null (disks, i);
      const char *name, *export_name, *bitmap = NULL;
      DestinationDisk *disk;
      DiskPass *pass;

      if (!object || !json_get_string (object, "disk", &name)
          || !json_get_string (object, "export", &export_name) || !(disk = find_disk (job, name))
          || !disk->mirror || !g_hash_table_add (seen, disk))
        {
          g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE, "argument \"disks\" is malformed");
          return NULL;
        }
      json_get_string (object, "bitmap", &bitmap);
      pass = g_new0 (DiskPass, 1);
      pass->disk = disk;
      pass->export_name = g_strdup (export_name);
      pass->bitmap = g_strdup (bitmap);
      g_ptr_array_add (passes, pass);
    }
  return g_steal_pointer (&passes);
}

/* The error that ended the pass, not those of the disks that it took along. */
static gboolean
collect_errors (GPtrArray *passes, GError **error)
{
  GError *cancelled = NULL;

  for (guint i = 0; i < passes->len; i++)
    {
      DiskPass *pass = g_ptr_array_index (passes, i);
      if (pass->ok)
        continue;
      if (!g_error_matches (pass->error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        {
          g_propagate_prefixed_error (error, g_steal_pointer (&pass->error),
                                      "disk %s: ", pass->disk->name);
          return FALSE;
        }
      cancelled = pass->error;
    }
  if (!cancelled)
    return TRUE;
  g_propagate_error (error, g_error_copy (cancelled));
  return FALSE;
}

static gboolean
run_passes (DestinationJob *job, GPtrArray *passes, const MirrorServer *server, gint64 timeout_ms,
            GError **error)
{
  GCancellable *outer = job_cancellable (&job->base);
  g_autoptr (GPtrArray) threads = g_ptr_array_new ();
  gulong link = g_signal_connect_swapped (outer, "cancelled", G_CALLBACK (g_cancellable_cancel),
                                          job->writers);

  if (g_cancellable_is_cancelled (outer))
    g_cancellable_cancel (job->writers);
  for (guint i = 0; i < passes->len; i++)
    {
      DiskPass *pass = g_ptr_array_index (passes, i);
      pass->server = server;
      pass->timeout_ms = timeout_ms;
      pass->cancellable = job->writers;
      g_ptr_array_add (threads, g_thread_new ("mirror", disk_pass_thread, pass));
    }
  for (guint i = 0; i < threads->len; i++)
    g_thread_join (g_ptr_array_index (threads, i));
  g_cancellable_disconnect (outer, link);
  return collect_errors (passes, error);
}

static JsonNode *
describe_passes (GPtrArray *passes)
{
  JsonNode *node = json_node_alloc ();
  JsonArray *disks = json_array_new ();

  for (guint i = 0; i < passes->len; i++)
    {
      const DiskPass *pass = g_ptr_array_index (passes, i);
      MirrorProgress progress;

      mirror_get_progress (pass->disk->mirror, &progress);
      json_array_add_object_element (
          disks,
          json_args ("disk", "s", pass->disk->name, "bytes", "i", (gint64)pass->bytes, "todo", "i",
                     (gint64)progress.todo, "done", "i", (gint64)progress.done, "read", "i",
                     (gint64)progress.read_bytes, "zero", "i", (gint64)progress.zero_bytes, NULL));
    }
  json_node_init (node, JSON_NODE_OBJECT);
  json_node_take_object (node, json_args ("disks", "a", disks, NULL));
  return node;
}

JobEvent
destination_copy (Job *base, GError **error)
{
  DestinationJob *job = (DestinationJob *)base;
  g_autoptr (Credentials) credentials = agent_get_credentials (base->agent, CREDENTIALS_CLIENT);
  g_autoptr (GPtrArray) passes = NULL;
  gint64 port = 0;
  gboolean last = FALSE;
  JsonArray *disks = NULL;
  MirrorServer server = {
    .host = job->source_address,
    .credentials = credentials,
    .tls_name = base->peer,
  };

  json_get_int (base->command, "port", &port);
  json_get_bool (base->command, "last", &last);
  json_get_array (base->command, "disks", &disks);
  if (port < 1 || port > 65535)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_USAGE, "argument \"port\" is malformed");
      return JOB_EVENT_FAILED;
    }
  server.port = port;
  passes = parse_passes (job, disks, error);
  if (!passes)
    return JOB_EVENT_FAILED;
  job_set_message (base, last ? "last pass" : "copying");
  if (!run_passes (job, passes, &server, last ? SWITCHOVER_TIMEOUT_MS : job->timeout_ms, error))
    return JOB_EVENT_FAILED;
  destination_update_view (job);
  base->answer = describe_passes (passes);
  return JOB_EVENT_DONE;
}
