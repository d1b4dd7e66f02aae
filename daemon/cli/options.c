/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/options-private.h"

#include "daemon/cli/help.h"
#include "daemon/cli/text.h"

#include <string.h>

#define DEFAULT_SOCKET "/run/vmferry/control"

/* Bounds that make sense of a value. */
#define MAX_TIMEOUT_S 86400
#define MIN_RATE (64 * 1024)
#define MAX_RATE (G_GUINT64_CONSTANT (1024) * 1024 * 1024 * 1024)

static void
raw_free (CliRaw *raw)
{
  g_free (raw->socket);
  g_free (raw->qmp);
  g_free (raw->dest_qmp);
  g_free (raw->connect);
  g_free (raw->desturi);
  g_free (raw->dname);
  g_free (raw->tls_destination);
  g_free (raw->bandwidth);
  g_strfreev (raw->disks);
  g_free (raw->max_downtime);
  g_free (raw->rate);
  g_free (raw->timeout);
  g_free (raw->owner);
  g_free (raw->target_format);
  g_free (raw->connections);
  g_free (raw->bitmap);
  g_free (raw);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CliRaw, raw_free)

typedef struct
{
  const char *name;
  CliCommand command;
  guint min_words, max_words;
  gboolean alone;    /* it needs no agent */
  CliOptionsAdd add; /* NULL: it has no options of its own */
  CliOptionsFinish finish;
} CommandInfo;

gboolean
cli_options_fail_later (const char *name, const char *value, gpointer data, GError **error)
{
  g_set_error (error, CLI_ERROR, CLI_ERROR_USAGE, "%s: not in this version yet", name);
  return FALSE;
}

static void
add_common_entries (GOptionContext *context, CliRaw *raw, gboolean alone)
{
  const GOptionEntry agent[]
      = { { "socket", 0, 0, G_OPTION_ARG_FILENAME, &raw->socket,
            "The local agent's socket (default: " DEFAULT_SOCKET ")", "PATH" },
          { NULL } };
  const GOptionEntry entries[]
      = { { "json", 0, 0, G_OPTION_ARG_NONE, &raw->json,
            "Print one JSON object a line; the last is the result", NULL },
          { "help", 'h', 0, G_OPTION_ARG_NONE, &raw->help, "Print this help", NULL },
          { "version", 0, 0, G_OPTION_ARG_NONE, &raw->version, "Print the version", NULL },
          { NULL } };
  if (!alone)
    g_option_context_add_main_entries (context, agent, NULL);
  g_option_context_add_main_entries (context, entries, NULL);
}

static void
add_resolve_entries (GOptionContext *context, CliRaw *raw)
{
  const GOptionEntry entries[]
      = { { "owner", 0, 0, G_OPTION_ARG_FILENAME, &raw->owner,
            "Who owns the guest from now on: source or destination", "source|destination" },
          { NULL } };
  g_option_context_add_main_entries (context, entries, NULL);
}

gboolean
cli_options_fail (GError **error, const char *text)
{
  g_set_error_literal (error, CLI_ERROR, CLI_ERROR_USAGE, text);
  return FALSE;
}

gboolean
cli_options_take_limits (CliOptions *options, const CliRaw *raw, GError **error)
{
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
finish_job (CliOptions *options, const CliRaw *raw, char **words, GError **error)
{
  if (words[0] == NULL)
    return TRUE;
  if (!cli_value_check_text ("JOB", words[0], error))
    return FALSE;
  options->job = g_strdup (words[0]);
  return TRUE;
}

static gboolean
finish_resolve (CliOptions *options, const CliRaw *raw, char **words, GError **error)
{
  if (raw->owner == NULL)
    return cli_options_fail (error, "--owner is needed: source or destination");
  if (strcmp (raw->owner, "source") != 0 && strcmp (raw->owner, "destination") != 0)
    return cli_options_fail (error, "--owner is either source or destination");
  options->owner = g_strdup (raw->owner);
  return finish_job (options, raw, words, error);
}

static const CommandInfo commands[] = {
  { "migrate", CLI_COMMAND_MIGRATE, 2, 2, FALSE, cli_options_add_migrate,
    cli_options_finish_migrate },
  { "jobs", CLI_COMMAND_JOBS, 0, 0, FALSE, NULL, finish_job },
  { "status", CLI_COMMAND_STATUS, 0, 1, FALSE, NULL, finish_job },
  { "watch", CLI_COMMAND_WATCH, 0, 1, FALSE, NULL, finish_job },
  { "cancel", CLI_COMMAND_CANCEL, 1, 1, FALSE, NULL, finish_job },
  { "resolve", CLI_COMMAND_RESOLVE, 1, 1, FALSE, add_resolve_entries, finish_resolve },
  { "copy", CLI_COMMAND_COPY, 2, 2, TRUE, cli_options_add_copy, cli_options_finish_copy },
};

static GOptionContext *
new_context (const CommandInfo *info, CliRaw *raw)
{
  GOptionContext *context = g_option_context_new (cli_help_get_words (info->name));
  g_option_context_set_help_enabled (context, FALSE);
  g_option_context_set_summary (context, cli_help_get_summary (info->name));
  g_option_context_set_description (context, cli_help_get_description (info->name));
  if (info->add != NULL)
    info->add (context, raw);
  add_common_entries (context, raw, info->alone);
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
finish_options (CliOptions *options, const CommandInfo *info, const CliRaw *raw, char **words,
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
  g_autoptr (CliRaw) raw = g_new0 (CliRaw, 1);
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
    return cli_options_fail (error, "a command is missing");
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
    return cli_options_fail_later (word, NULL, NULL, error);
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
  g_free (options->connect);
  g_free (options->desturi);
  g_free (options->dname);
  g_free (options->tls_destination);
  g_ptr_array_unref (options->disks);
  g_free (options->job);
  g_free (options->owner);
  g_free (options->uri);
  g_free (options->target);
  g_free (options->target_format);
  g_free (options->bitmap);
  g_free (options);
}
