/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/job.h"

#include "daemon/cli/text.h"
#include "qmp/json-args.h"

#include <math.h>
#include <string.h>

static char *
dup_text (JsonObject *object, const char *name)
{
  const char *text = NULL;
  json_get_string (object, name, &text);
  return cli_text_escape (text);
}

static guint64
read_count (JsonObject *object, const char *name)
{
  gint64 value = 0;
  json_get_int (object, name, &value);
  return value > 0 ? (guint64)value : 0;
}

/* JSON has one kind of number: 2 may stand where 2.5 could.  -1 for null. */
static double
read_double (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);
  if (node == NULL || !JSON_NODE_HOLDS_VALUE (node))
    return -1;
  GType type = json_node_get_value_type (node);
  if (type != G_TYPE_INT64 && type != G_TYPE_DOUBLE)
    return -1;
  double value = json_node_get_double (node);
  return isfinite (value) && value >= 0 ? value : -1;
}

static void
disk_free (CliJobDisk *disk)
{
  g_free (disk->name);
  g_free (disk->source);
  g_free (disk->target);
  g_free (disk->format);
  g_free (disk);
}

static CliJobDisk *
disk_new (JsonObject *object)
{
  CliJobDisk *disk = g_new0 (CliJobDisk, 1);
  disk->name = dup_text (object, "disk");
  disk->source = dup_text (object, "source");
  disk->target = dup_text (object, "target");
  disk->format = dup_text (object, "format");
  disk->size = read_count (object, "size");
  disk->todo = read_count (object, "todo");
  disk->done = MIN (read_count (object, "done"), disk->todo);
  disk->pass = (gint64)read_count (object, "pass");
  return disk;
}

static void
read_disks (CliJob *job, JsonObject *object)
{
  job->disks = g_ptr_array_new_with_free_func ((GDestroyNotify)disk_free);
  JsonArray *disks = NULL;
  if (!json_get_array (object, "disks", &disks))
    return;
  for (guint i = 0; i < json_array_get_length (disks); i++)
    {
      JsonObject *disk = json_array_get_object_or_null (disks, i);
      if (disk != NULL)
        g_ptr_array_add (job->disks, disk_new (disk));
    }
}

static void
read_numbers (CliJob *job, JsonObject *object)
{
  JsonObject *ram = NULL;
  gint64 status = -1;
  job->total_s = MAX (read_double (object, "total_s"), 0);
  job->downtime_ms = read_double (object, "downtime_ms");
  job->left_s = read_double (object, "left_s");
  job->sent_bytes = read_count (object, "sent_bytes");
  job->zero_bytes = read_count (object, "zero_bytes");
  job->rate = read_count (object, "rate");
  job->passes = (gint64)read_count (object, "passes");
  job->exit = json_get_int (object, "exit", &status) ? (int)CLAMP (status, 0, 255) : -1;
  if (!json_get_object (object, "ram", &ram))
    return;
  job->ram_total = read_count (ram, "total");
  job->ram_sent = read_count (ram, "sent");
  job->ram_left = MIN (read_count (ram, "left"), job->ram_total);
}

CliJob *
cli_job_new (JsonObject *object)
{
  CliJob *job = g_new0 (CliJob, 1);
  const char *text = NULL;
  job->id = dup_text (object, "job");
  job->guest = dup_text (object, "guest");
  job->role = dup_text (object, "role");
  job->peer = dup_text (object, "peer");
  job->state = dup_text (object, "state");
  job->owner = dup_text (object, "owner");
  job->message = dup_text (object, "message");
  job->error = json_get_string (object, "error", &text) ? cli_text_escape (text) : NULL;
  read_numbers (job, object);
  read_disks (job, object);
  return job;
}

void
cli_job_free (CliJob *job)
{
  if (job == NULL)
    return;
  g_free (job->id);
  g_free (job->guest);
  g_free (job->role);
  g_free (job->peer);
  g_free (job->state);
  g_free (job->owner);
  g_free (job->message);
  g_free (job->error);
  g_ptr_array_unref (job->disks);
  g_free (job);
}

gboolean
cli_job_has_ended (const CliJob *job)
{
  return strcmp (job->state, "done") == 0 || strcmp (job->state, "failed") == 0
         || strcmp (job->state, "cancelled") == 0;
}

gboolean
cli_job_needs_operator (const CliJob *job)
{
  return strcmp (job->state, "needs-operator") == 0;
}

int
cli_job_exit_status (const CliJob *job)
{
  if (cli_job_needs_operator (job))
    return 3;
  if (job->exit == 0 || job->exit == 3 || job->exit == 130)
    return job->exit;
  return 1;
}

const char *
cli_job_get_source_host (const CliJob *job, const char *local_host)
{
  return strcmp (job->role, "destination") == 0 ? job->peer : local_host;
}

const char *
cli_job_get_destination_host (const CliJob *job, const char *local_host)
{
  return strcmp (job->role, "destination") == 0 ? local_host : job->peer;
}
