/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/agent.h"
#include "daemon/standard-fds.h"
#include "qmp/printable.h"

#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef HAVE_LIBSYSTEMD
#include <systemd/sd-daemon.h>
#define NOTIFY(state) sd_notify (0, state)
#else
#define NOTIFY(state) ((void)0)
#endif

#define DEFAULT_CONFIG "/etc/vmferry/vmferryd.conf"
#define MAX_LOG_LINE 4000

typedef struct
{
  Agent *agent;
  GMainLoop *loop;
  gboolean stopping;
} Daemon;

static void
daemon_on_stopped (gpointer data)
{
  g_main_loop_quit (((Daemon *)data)->loop);
}

/* The first signal ends what can be ended in order; a second one ends the process. */
static gboolean
daemon_on_terminate (gpointer data)
{
  Daemon *daemon = data;

  if (daemon->stopping)
    {
      g_main_loop_quit (daemon->loop);
      return G_SOURCE_CONTINUE;
    }
  daemon->stopping = TRUE;
  NOTIFY ("STOPPING=1");
  agent_stop (daemon->agent, daemon_on_stopped, daemon);
  return G_SOURCE_CONTINUE;
}

static gboolean
daemon_on_hangup (gpointer data)
{
  Daemon *daemon = data;
  g_autoptr (GError) error = NULL;

  if (agent_reload (daemon->agent, &error))
    g_message ("certificates and keys were read again");
  else
    g_warning ("the old certificates stay in use: %s", error->message);
  return G_SOURCE_CONTINUE;
}

/* Messages quote what peers said: each becomes one line without control characters. */
static GLogWriterOutput
log_to_stderr (GLogLevelFlags level, const GLogField *fields, gsize n_fields, gpointer data)
{
  g_autofree GLogField *clean = g_memdup2 (fields, n_fields * sizeof *fields);
  g_autofree char *text = NULL;

  if (level & (G_LOG_LEVEL_DEBUG | G_LOG_LEVEL_INFO))
    return G_LOG_WRITER_HANDLED;
  for (gsize i = 0; i < n_fields && !text; i++)
    if (g_str_equal (fields[i].key, "MESSAGE") && fields[i].length < 0)
      {
        text = printable (fields[i].value, MAX_LOG_LINE);
        clean[i].value = text;
      }
  if (g_log_writer_is_journald (STDERR_FILENO))
    return g_log_writer_journald (level, clean, n_fields, data);
  fprintf (stderr, "vmferryd: %s%s\n", level & G_LOG_LEVEL_WARNING ? "warning: " : "",
           text ? text : "");
  return G_LOG_WRITER_HANDLED;
}

static gboolean
parse_options (int *argc, char ***argv, char **ret_config)
{
  g_autofree char *config = NULL;
  gboolean version = FALSE;
  const GOptionEntry entries[]
      = { { "config", 0, 0, G_OPTION_ARG_FILENAME, &config, "Configuration (" DEFAULT_CONFIG ")",
            "FILE" },
          { "version", 0, 0, G_OPTION_ARG_NONE, &version, "Print the version and exit", NULL },
          { NULL } };
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GError) error = NULL;

  g_option_context_set_summary (context, "The agent that migrates running QEMU virtual machines "
                                         "with their disks.  Stays in the foreground.");
  g_option_context_set_description (context, "See vmferryd(8) and vmferryd.conf(5).");
  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, argc, argv, &error) || *argc > 1)
    {
      fprintf (stderr, "vmferryd: %s: try --help\n",
               error ? error->message : "there are no arguments");
      exit (2);
    }
  if (version)
    {
      printf ("vmferryd %s\n", VMFERRY_VERSION);
      exit (0);
    }
  *ret_config = config ? g_steal_pointer (&config) : g_strdup (DEFAULT_CONFIG);
  return TRUE;
}

int
main (int argc, char **argv)
{
  g_autofree char *config = NULL;
  g_autoptr (GError) error = NULL;
  g_autoptr (GMainLoop) loop = g_main_loop_new (NULL, FALSE);
  Daemon daemon = { .loop = loop };

  standard_fds_fill ();
  parse_options (&argc, &argv, &config);
  signal (SIGPIPE, SIG_IGN);
  g_log_set_writer_func (log_to_stderr, NULL, NULL);
  daemon.agent = agent_new (config, &error);
  if (!daemon.agent)
    {
      g_warning ("%s", error->message);
      return 1;
    }
  g_unix_signal_add (SIGTERM, daemon_on_terminate, &daemon);
  g_unix_signal_add (SIGINT, daemon_on_terminate, &daemon);
  g_unix_signal_add (SIGHUP, daemon_on_hangup, &daemon);
  g_message ("ready on %s", agent_get_host (daemon.agent));
  NOTIFY ("READY=1");
  g_main_loop_run (loop);
  agent_free (daemon.agent);
  return 0;
}
