/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/options-private.h"

#include <string.h>

/* QEMU takes no limit of the downtime above 2000 s. */
#define MAX_DOWNTIME_MS 2000000

static void
add_later_entries (GOptionContext *context)
{
  const int flags = G_OPTION_FLAG_HIDDEN | G_OPTION_FLAG_OPTIONAL_ARG;
  static const char *const names[] = { "hold", "at", "throttle", "verify" };
  GOptionEntry entries[G_N_ELEMENTS (names) + 1] = { 0 };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    entries[i] = (GOptionEntry){ .long_name = names[i],
                                 .flags = flags,
                                 .arg = G_OPTION_ARG_CALLBACK,
                                 .arg_data = (gpointer)(guintptr)cli_options_fail_later };
  g_option_context_add_main_entries (context, entries, NULL);
}

void
cli_options_add_migrate (GOptionContext *context, CliRaw *raw)
{
  const GOptionEntry entries[]
      = { { "qmp", 0, 0, G_OPTION_ARG_FILENAME, &raw->qmp,
            "Monitor socket of the guest's QEMU here, without libvirt", "SOCKET" },
          { "dest-qmp", 0, 0, G_OPTION_ARG_FILENAME, &raw->dest_qmp,
            "Monitor socket of the QEMU at HOST that takes the guest over", "SOCKET" },
          { "disk", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &raw->disks,
            "Where disk NAME goes at HOST: ,format=F ,prealloc=off|falloc (repeatable)",
            "NAME=/PATH[,...]" },
          { "overwrite", 0, 0, G_OPTION_ARG_NONE, &raw->overwrite,
            "Replace what is in target images that have data", NULL },
          { "max-downtime", 0, 0, G_OPTION_ARG_FILENAME, &raw->max_downtime,
            "How long the guest may stand still, milliseconds (default: 300)", "MS" },
          { "rate", 0, 0, G_OPTION_ARG_FILENAME, &raw->rate,
            "Limit of the whole job, bytes per second, with K, M or G (default: none)", "BYTES" },
          { "full-speed", 0, 0, G_OPTION_ARG_NONE, &raw->full_speed,
            "Don't slow the copy down for the guest's own disk I/O", NULL },
          { "timeout", 0, 0, G_OPTION_ARG_FILENAME, &raw->timeout,
            "Give up after so many seconds without progress (default: 30)", "S" },
          { "detach", 0, 0, G_OPTION_ARG_NONE, &raw->detach,
            "Print the job's UUID and return; the job goes on", NULL },
          { NULL } };
  g_option_context_add_main_entries (context, entries, NULL);
  cli_options_add_virsh (context, raw);
  add_later_entries (context);
}

static gboolean
take_sockets (CliOptions *options, const CliRaw *raw, GError **error)
{
  if (raw->qmp == NULL && raw->dest_qmp == NULL)
    return TRUE;
  if (raw->qmp == NULL || raw->dest_qmp == NULL)
    return cli_options_fail (error, "--qmp and --dest-qmp are both needed for a QEMU without "
                                    "libvirt");
  if (!cli_value_check_text ("--qmp", raw->qmp, error)
      || !cli_value_check_text ("--dest-qmp", raw->dest_qmp, error))
    return FALSE;
  if (!g_path_is_absolute (raw->dest_qmp))
    return cli_options_fail (error, "--dest-qmp must be an absolute path, at the destination");
  /* The agent has another working directory. */
  options->qmp = g_canonicalize_filename (raw->qmp, NULL);
  options->dest_qmp = g_strdup (raw->dest_qmp);
  return TRUE;
}

static gboolean
is_repeated (const CliOptions *options, const CliDisk *disk, GError **error)
{
  for (guint i = 0; i < options->disks->len; i++)
    {
      const CliDisk *other = g_ptr_array_index (options->disks, i);
      gboolean same_name = strcmp (other->name, disk->name) == 0;
      if (!same_name && strcmp (other->path, disk->path) != 0)
        continue;
      g_set_error (error, CLI_ERROR, CLI_ERROR_USAGE, "--disk names %s twice",
                   same_name ? disk->name : disk->path);
      return TRUE;
    }
  return FALSE;
}

static gboolean
take_disks (CliOptions *options, const CliRaw *raw, GError **error)
{
  for (char **text = raw->disks; text != NULL && *text != NULL; text++)
    {
      g_autoptr (CliDisk) disk = cli_disk_parse (*text, error);
      if (disk == NULL || is_repeated (options, disk, error))
        return FALSE;
      g_ptr_array_add (options->disks, g_steal_pointer (&disk));
    }
  return TRUE;
}

gboolean
cli_options_finish_migrate (CliOptions *options, const CliRaw *raw, char **words, GError **error)
{
  if (!cli_value_check_text ("GUEST", words[0], error)
      || !cli_value_check_text ("HOST", words[1], error))
    return FALSE;
  options->guest = g_strdup (words[0]);
  options->host = g_strdup (words[1]);
  options->overwrite = raw->overwrite;
  options->full_speed = raw->full_speed;
  options->detach = raw->detach;
  if (raw->max_downtime != NULL
      && !cli_value_parse_number ("--max-downtime", raw->max_downtime, "milliseconds", 1,
                                  MAX_DOWNTIME_MS, &options->max_downtime_ms, error))
    return FALSE;
  return take_sockets (options, raw, error) && cli_options_take_virsh (options, raw, error)
         && take_disks (options, raw, error) && cli_options_take_limits (options, raw, error);
}
