/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/copy.h"

#include "daemon/cli/copy-view.h"
#include "daemon/cli/status.h"
#include "daemon/cli/text.h"

#include <glib-unix.h>
#include <signal.h>

#define TICK_MS 100
/* Without a terminal: an event for --json each so many ticks. */
#define EVENT_TICKS 5
#define DEFAULT_TIMEOUT_S 30

typedef struct
{
  const CliOptions *options;
  const CliEnvironment *environment;
  CliTerminal *terminal;
  Copy *copy;
  GCancellable *cancellable;
  GMainLoop *loop;
  GAsyncQueue *notes; /* char * */
  CliMeter meter;
  CopyPhase shown; /* the phase that was last told in a line of its own */
  guint tick;
  gboolean good;
  GError *error;
} Run;

static gboolean
on_signal (gpointer data)
{
  Run *run = data;
  g_cancellable_cancel (run->cancellable);
  return G_SOURCE_CONTINUE;
}

static void
on_note (gpointer data, const char *text)
{
  Run *run = data;
  g_async_queue_push (run->notes, cli_text_escape (text));
}

static void
print_notes (Run *run)
{
  char *text;
  while ((text = g_async_queue_try_pop (run->notes)) != NULL)
    {
      cli_terminal_print (run->terminal, text);
      g_free (text);
    }
}

static void
measure (Run *run, const CopyProgress *progress)
{
  guint64 done, todo;
  cli_copy_get_done (progress, &done, &todo);
  cli_meter_update (&run->meter, done, progress->phase, g_get_monotonic_time ());
}

static void
print_event (Run *run, const CopyProgress *progress)
{
  g_autofree char *line = cli_copy_format_event (progress, run->meter.rate);
  fputs (line, run->environment->out);
  fflush (run->environment->out);
}

static void
show_progress (Run *run, const CopyProgress *progress)
{
  guint columns, rows;
  if (cli_terminal_is_live (run->terminal))
    {
      cli_terminal_get_size (run->terminal, &columns, &rows);
      cli_terminal_show (run->terminal,
                         cli_copy_render (run->options, progress, &run->meter, columns));
    }
  else if (progress->phase != run->shown)
    {
      cli_terminal_print (run->terminal, cli_copy_get_phase (progress->phase));
      run->shown = progress->phase;
    }
  if (run->options->json && run->tick++ % EVENT_TICKS == 0)
    print_event (run, progress);
}

static gboolean
on_tick (gpointer data)
{
  Run *run = data;
  CopyProgress progress;
  copy_get_progress (run->copy, &progress);
  print_notes (run);
  measure (run, &progress);
  show_progress (run, &progress);
  return G_SOURCE_CONTINUE;
}

static gboolean
on_end (gpointer data)
{
  Run *run = data;
  g_main_loop_quit (run->loop);
  return G_SOURCE_REMOVE;
}

static gpointer
work (gpointer data)
{
  Run *run = data;
  run->good = copy_run (run->copy, on_note, run, run->cancellable, &run->error);
  g_idle_add (on_end, run);
  return NULL;
}

static int
get_status (const GError *error)
{
  if (error == NULL)
    return CLI_EXIT_DONE;
  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT))
    return CLI_EXIT_USAGE;
  return g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED) ? CLI_EXIT_CANCELLED
                                                                   : CLI_EXIT_FAILED;
}

/* Who can't read how it ended must not take it for a success. */
static gboolean
write_out (const Run *run)
{
  if (fflush (run->environment->out) == 0 && !ferror (run->environment->out))
    return TRUE;
  cli_terminal_print (run->terminal, "the result can't be written to the standard output");
  return FALSE;
}

/* `progress` is all zeroes where nothing began. */
static int
report (const Run *run, const CopyProgress *progress, double total_s, const GError *error)
{
  int status = get_status (error);
  const CliCopyResult result = { .options = run->options,
                                 .progress = progress,
                                 .state = error == NULL                  ? "done"
                                          : status == CLI_EXIT_CANCELLED ? "cancelled"
                                                                         : "failed",
                                 .total_s = total_s,
                                 .error = error != NULL ? error->message : NULL };
  g_autofree char *message = cli_text_escape (result.error);
  g_autofree char *text = NULL;
  if (error != NULL)
    cli_terminal_print (run->terminal, message);
  if (run->options->json)
    text = cli_copy_format_result (&result);
  else if (error == NULL)
    text = cli_copy_report (&result);
  if (text != NULL)
    fputs (text, run->environment->out);
  return write_out (run) || status != CLI_EXIT_DONE ? status : CLI_EXIT_FAILED;
}

/* Whoever started us may want it to be ignored: nohup, or a shell's job in the background. */
static gboolean
is_ignored (int signal)
{
  struct sigaction action;
  return sigaction (signal, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

static void
follow (Run *run)
{
  const int signals[] = { SIGINT, SIGTERM, SIGHUP };
  guint sources[G_N_ELEMENTS (signals)] = { 0 };
  guint tick = g_timeout_add (TICK_MS, on_tick, run);
  for (guint i = 0; i < G_N_ELEMENTS (signals); i++)
    if (!is_ignored (signals[i]))
      sources[i] = g_unix_signal_add (signals[i], on_signal, run);
  GThread *thread = g_thread_new ("copy", work, run);
  g_main_loop_run (run->loop);
  g_thread_join (thread);
  for (guint i = 0; i < G_N_ELEMENTS (signals); i++)
    if (sources[i] > 0)
      g_source_remove (sources[i]);
  g_source_remove (tick);
  print_notes (run);
  cli_terminal_show (run->terminal, NULL);
}

static int
run_copy (Run *run)
{
  gint64 begin = g_get_monotonic_time ();
  CopyProgress progress;
  run->cancellable = g_cancellable_new ();
  run->loop = g_main_loop_new (NULL, FALSE);
  run->notes = g_async_queue_new_full (g_free);
  follow (run);
  copy_get_progress (run->copy, &progress);
  int status = report (run, &progress, (double)(g_get_monotonic_time () - begin) / G_USEC_PER_SEC,
                       run->error);
  g_clear_error (&run->error);
  g_async_queue_unref (run->notes);
  g_main_loop_unref (run->loop);
  g_object_unref (run->cancellable);
  return status;
}

int
cli_copy_run (const CliOptions *options, const CliEnvironment *environment, CliTerminal *terminal)
{
  const CopySpec spec
      = { .uri = options->uri,
          .target = options->target,
          .target_format = options->target_format,
          .bitmap = options->bitmap,
          .n_connections = options->n_connections,
          .rate = options->rate,
          .timeout_ms = (options->timeout_s > 0 ? options->timeout_s : DEFAULT_TIMEOUT_S) * 1000,
          .resume = options->resume,
          .verify = options->verify,
          .allow_plaintext = options->allow_plaintext };
  const CopyProgress nothing = { 0 };
  g_autoptr (GError) error = NULL;
  g_autoptr (Copy) copy = copy_new (&spec, &error);
  Run run = { .options = options,
              .environment = environment,
              .terminal = terminal,
              .copy = copy,
              .shown = COPY_DONE };
  return copy != NULL ? run_copy (&run) : report (&run, &nothing, 0, error);
}
