/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/options.h"

#include "daemon/cli/help.h"
#include "daemon/cli/text.h"

#include <string.h>

#define DEFAULT_SOCKET "/run/vmferry/control"

/* Bounds that make sense of a value; QEMU takes no limit of the downtime above 2000 s. */
#define MAX_DOWNTIME_MS 2000000
#define MAX_TIMEOUT_S 86400
#define MIN_RATE (64 * 1024)
#define MAX_RATE (G_GUINT64_CONSTANT (1024) * 1024 * 1024 * 1024)

/* What GOption stores before it is judged. */
typedef struct
{
  gboolean help;
  gboolean version;
  gboolean json;
  gboolean overwrite;
  gboolean full_speed;
  gboolean detach;
  char *socket;
  char *qmp;
  char *dest_qmp;
  char **disks;
  char *max_downtime;
  char *rate;
  char *timeout;
  char *owner;
} Raw;

static void
raw_free (Raw *raw)
{
  g_free (raw->socket);
  g_free (raw->qmp);
  g_free (raw->dest_qmp);
  g_strfreev (raw->disks);
  g_free (raw->max_downtime);
  g_free (raw->rate);
  g_free (raw->timeout);
  g_free (raw->owner);
  g_free (raw);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Raw, raw_free)

typedef gboolean (*FinishFunc) (CliOptions *options, const Raw *raw, char **words, GError **error);

typedef struct
{
  const char *name;
  CliCommand command;
  guint min_words, max_words;
  FinishFunc finish; /* takes over what is the command's own */
} CommandInfo;

static gboolean
fail_later (const char *name, const char *value, gpointer data, GError **error)
{
  g_set_error (error, CLI_ERROR, CLI_ERROR_USAGE, "%s: not in this version yet", name);
  return FALSE;
}

static void
add_common_entries (GOptionContext *context, Raw *raw)
{
  const GOptionEntry entries[]
      = { { "socket", 0, 0, G_OPTION_ARG_FILENAME, &raw->socket,
            "The local agent's socket (default: " DEFAULT_SOCKET ")", "PATH" },
          { "json", 0, 0, G_OPTION_ARG_NONE, &raw->json,
            "Print one JSON object a line; the last is the result", NULL },
          { "help", 'h', 0, G_OPTION_ARG_NONE, &raw->help, "Print this help", NULL },
          { "version", 0, 0, G_OPTION_ARG_NONE, &raw->version, "Print the version", NULL },
          { NULL } };
  g_option_context_add_main_entries (context, entries, NULL);
}

static void
add_migrate_entries (GOptionContext *context, Raw *raw)
{
  const GOptionEntry entries[]
      = { { "qmp", 0, 0, G_OPTION_ARG_FILENAME, &raw->qmp,
            "Monitor socket of the guest's QEMU here", "SOCKET" },
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
}

static void
add_later_entries (GOptionContext *context)
{
  const int flags = G_OPTION_FLAG_HIDDEN | G_OPTION_FLAG_OPTIONAL_ARG;
  static const char *const names[] = { "connect", "desturi", "hold", "at", "throttle", "verify" };
  GOptionEntry entries[G_N_ELEMENTS (names) + 1] = { 0 };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    entries[i] = (GOptionEntry){ .long_name = names[i],
                                 .flags = flags,
                                 .arg = G_OPTION_ARG_CALLBACK,
                                 .arg_data = (gpointer)(guintptr)fail_later };
  g_option_context_add_main_entries (context, entries, NULL);
}

static void
add_resolve_entries (GOptionContext *context, Raw *raw)
{
  const GOptionEntry entries[]
      = { { "owner", 0, 0, G_OPTION_ARG_FILENAME, &raw->owner,
            "Who owns the guest from now on: source or destination", "source|destination" },
          { NULL } };
  g_option_context_add_main_entries (context, entries, NULL);
}

static gboolean
fail_usage (GError **error, const char *text)
{
  g_set_error_literal (error, CLI_ERROR, CLI_ERROR_USAGE, text);
  return FALSE;
}

static gboolean
take_sockets (CliOptions *options, const Raw *raw, GError **error)
{
  if (raw->qmp == NULL || raw->dest_qmp == NULL)
    return fail_usage (error, "--qmp and --dest-qmp are both needed: "
                              "this version drives QEMU directly, libvirt comes later");
  if (!cli_value_check_text ("--qmp", raw->qmp, error)
      || !cli_value_check_text ("--dest-qmp", raw->dest_qmp, error))
    return FALSE;
  if (!g_path_is_absolute (raw->dest_qmp))
    return fail_usage (error, "--dest-qmp must be an absolute path, at the destination");
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
take_disks (CliOptions *options, const Raw *raw, GError **error)
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

static gboolean
take_limits (CliOptions *options, const Raw *raw, GError **error)
{
  if (raw->max_downtime != NULL
      && !cli_value_parse_number ("--max-downtime", raw->max_downtime, "milliseconds", 1,
                                  MAX_DOWNTIME_MS, &options->max_downtime_ms, error))
    return FALSE;
  if (raw->timeout != NULL
      && !cli_value_parse_number ("--timeout", raw->timeout, "seconds", 1, MAX_TIMEOUT_S,
                                  &options->timeout_s, error))
    return FALSE;
  if (raw->rate != NULL
      && !cli_value_parse_size ("--rate", raw->rate, MIN_RATE, MAX_RATE, &options->rate, error))
    return FALSE;
  return TRUE;
}

static gboolean
finish_migrate (CliOptions *options, const Raw *raw, char **words, GError **error)
{
  if (!cli_value_check_text ("GUEST", words[0], error)
      || !cli_value_check_text ("HOST", words[1], error))
    return FALSE;
  options->guest = g_strdup (words[0]);
  options->host = g_strdup (words[1]);
  options->overwrite = raw->overwrite;
  options->full_speed = raw->full_speed;
  options->detach = raw->detach;
  return take_sockets (options, raw, error) && take_disks (options, raw, error)
         && take_limits (options, raw, error);
}

static gboolean
finish_job (CliOptions *options, const Raw *raw, char **words, GError **error)
{
  if (words[0] == NULL)
    return TRUE;
  if (!cli_value_check_text ("JOB", words[0], error))
    return FALSE;
  options->job = g_strdup (words[0]);
  return TRUE;
}

static gboolean
finish_resolve (CliOptions *options, const Raw *raw, char **words, GError **error)
{
  if (raw->owner == NULL)
    return fail_usage (error, "--owner is needed: source or destination");
  if (strcmp (raw->owner, "source") != 0 && strcmp (raw->owner, "destination") != 0)
    return fail_usage (error, "--owner is either source or destination");
  options->owner = g_strdup (raw->owner);
  return finish_job (options, raw, words, error);
}

static const CommandInfo commands[] = {
  { "migrate", CLI_COMMAND_MIGRATE, 2, 2, finish_migrate },
  { "jobs", CLI_COMMAND_JOBS, 0, 0, finish_job },
  { "status", CLI_COMMAND_STATUS, 0, 1, finish_job },
  { "watch", CLI_COMMAND_WATCH, 0, 1, finish_job },
  { "cancel", CLI_COMMAND_CANCEL, 1, 1, finish_job },
  { "resolve", CLI_COMMAND_RESOLVE, 1, 1, finish_resolve },
};

static GOptionContext *
new_context (const CommandInfo *info, Raw *raw)
{
  GOptionContext *context = g_option_context_new (cli_help_get_words (info->name));
  g_option_context_set_help_enabled (context, FALSE);
  g_option_context_set_summary (context, cli_help_get_summary (info->name));
  if (info->command == CLI_COMMAND_MIGRATE)
    {
      add_migrate_entries (context, raw);
      add_later_entries (context);
    }
  if (info->command == CLI_COMMAND_RESOLVE)
    add_resolve_entries (context, raw);
  add_common_entries (context, raw);
  return context;
}

/* The command's words, without the program, the command and "--". */
static gboolean
check_words (const CommandInfo *info, char **words, GError **error)
{
  guint n = g_strv_length (words);
  if (n >= info->min_words && n <= info->max_words)
    return TRUE;
  const char *expected = cli_help_get_words (info->name);
  if (n > info->max_words)
    g_set_error (error, CLI_ERROR, CLI_ERROR_USAGE, "one argument too many: '%s'",
                 words[info->max_words]);
  else
    g_set_error (error, CLI_ERROR, CLI_ERROR_USAGE, "an argument is missing: %s", expected);
  return FALSE;
}

static char *
version_text (void)
{
  return g_strdup ("vmferry " VMFERRY_VERSION "\n");
}

static gboolean
finish_options (CliOptions *options, const CommandInfo *info, const Raw *raw, char **words,
                GError **error)
{
  if (raw->version)
    {
      options->info = version_text ();
      return TRUE;
    }
  if (!check_words (info, words, error))
    return FALSE;
  if (raw->socket != NULL && !cli_value_check_text ("--socket", raw->socket, error))
    return FALSE;
  options->socket = g_strdup (raw->socket != NULL ? raw->socket : DEFAULT_SOCKET);
  options->json = raw->json;
  options->command = info->command;
  return info->finish (options, raw, words, error);
}

static gboolean
parse_command (CliOptions *options, const CommandInfo *info, const char *const *args,
               GError **error)
{
  g_autoptr (Raw) raw = g_new0 (Raw, 1);
  g_autoptr (GOptionContext) context = new_context (info, raw);
  /* GOption takes the first word for the program's name. */
  g_auto (GStrv) words = g_strdupv ((char **)args);
  g_free (words[0]);
  words[0] = g_strdup_printf ("vmferry %s", info->name);
  g_set_prgname (words[0]);
  if (!g_option_context_parse_strv (context, &words, error))
    return FALSE;
  if (raw->help)
    {
      g_autofree char *help = g_option_context_get_help (context, TRUE, NULL);
      options->info = g_strdup (help);
      return TRUE;
    }
  char **rest = words + 1;
  if (*rest != NULL && strcmp (*rest, "--") == 0)
    rest++;
  return finish_options (options, info, raw, rest, error);
}

static gboolean
parse_program (CliOptions *options, const char *const *argv, GError **error)
{
  const char *word = argv[0] != NULL ? argv[1] : NULL;
  if (word == NULL)
    return fail_usage (error, "a command is missing");
  if (strcmp (word, "--help") == 0 || strcmp (word, "-h") == 0 || strcmp (word, "help") == 0)
    options->info = cli_help_get_program ();
  else if (strcmp (word, "--version") == 0)
    options->info = version_text ();
  if (options->info != NULL)
    return TRUE;
  for (guint i = 0; i < G_N_ELEMENTS (commands); i++)
    if (strcmp (word, commands[i].name) == 0)
      return parse_command (options, &commands[i], argv + 1, error);
  if (cli_help_is_later (word))
    return fail_later (word, NULL, NULL, error);
  g_set_error (error, CLI_ERROR, CLI_ERROR_USAGE, "there is no command '%s'", word);
  return FALSE;
}

/* GOption's own errors, and ours, as one line that is safe to print. */
static void
wrap_error (GError **error, const GError *cause, const char *command)
{
  g_autofree char *text = cli_text_escape (cause->message);
  gboolean known = cli_help_get_summary (command) != NULL;
  g_set_error (error, CLI_ERROR, CLI_ERROR_USAGE, "%s (see 'vmferry %s%s--help')", text,
               known ? command : "", known ? " " : "");
}

CliOptions *
cli_options_parse (const char *const *argv, GError **error)
{
  g_autoptr (CliOptions) options = g_new0 (CliOptions, 1);
  options->disks = g_ptr_array_new_with_free_func ((GDestroyNotify)cli_disk_free);
  g_autoptr (GError) cause = NULL;
  if (parse_program (options, argv, &cause))
    return g_steal_pointer (&options);
  wrap_error (error, cause, argv[0] != NULL ? argv[1] : NULL);
  return NULL;
}

void
cli_options_free (CliOptions *options)
{
  if (options == NULL)
    return;
  g_free (options->info);
  g_free (options->socket);
  g_free (options->guest);
  g_free (options->host);
  g_free (options->qmp);
  g_free (options->dest_qmp);
  g_ptr_array_unref (options->disks);
  g_free (options->job);
  g_free (options->owner);
  g_free (options);
}
