/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/fake-listener.h"

#include <glib-unix.h>
#include <stdio.h>
#include <string.h>

#include "nbd/protocol.h"

/* hostile-nbd --fault NAME ...: the fake server as a program, for tests of whole commands.  Prints
 * "ready" (with --tcp: "ready PORT") when it can be connected to; ends by SIGTERM. */

static char *fault_name = "honest";
static char *socket_path;
static char *tls_dir;
static char *source_path;
static int at, size = 1024 * 1024, honest_from = G_MAXINT, min_block, max_payload;
static gboolean tcp, list, simple, holes, no_status, multi_conn;

static const GOptionEntry entries[]
    = { { "fault", 0, 0, G_OPTION_ARG_STRING, &fault_name, "What it does wrong", "NAME" },
        { "list", 0, 0, G_OPTION_ARG_NONE, &list, "Prints all faults", NULL },
        { "at", 0, 0, G_OPTION_ARG_INT, &at, "From which request on", "N" },
        { "honest-from", 0, 0, G_OPTION_ARG_INT, &honest_from, "From which client on it is honest",
          "N" },
        { "size", 0, 0, G_OPTION_ARG_INT, &size, "Of the export", "BYTES" },
        { "source", 0, 0, G_OPTION_ARG_STRING, &source_path, "Where to write the export", "FILE" },
        { "socket", 0, 0, G_OPTION_ARG_STRING, &socket_path, "Listens there", "PATH" },
        { "tcp", 0, 0, G_OPTION_ARG_NONE, &tcp, "Listens on 127.0.0.1", NULL },
        { "tls", 0, 0, G_OPTION_ARG_STRING, &tls_dir, "Credentials of a server", "DIR" },
        { "simple", 0, 0, G_OPTION_ARG_NONE, &simple, "No structured replies", NULL },
        { "holes", 0, 0, G_OPTION_ARG_NONE, &holes, "Sends holes, the last chunk first", NULL },
        { "no-status", 0, 0, G_OPTION_ARG_NONE, &no_status, "Without base:allocation", NULL },
        { "multi-conn", 0, 0, G_OPTION_ARG_NONE, &multi_conn, "CAN_MULTI_CONN", NULL },
        { "min-block", 0, 0, G_OPTION_ARG_INT, &min_block, "Minimum block size", "BYTES" },
        { "max-payload", 0, 0, G_OPTION_ARG_INT, &max_payload, "Maximum block size", "BYTES" },
        { NULL } };

static void
print_list (void)
{
  for (FakeFault fault = FAKE_HONEST; fault < FAKE_N_FAULTS; fault++)
    printf ("%s\n", fake_fault_get_name (fault));
}

static FakeFault
find_fault (void)
{
  FakeFault fault = FAKE_HONEST;

  while (fault < FAKE_N_FAULTS && !g_str_equal (fake_fault_get_name (fault), fault_name))
    fault++;
  return fault;
}

/* Every third block is a hole, the others tell where they are. */
static void
fill (guint8 *data, guint8 *state)
{
  for (int i = 0; i < size; i++)
    if (i / FAKE_BLOCK % 3 == 2)
      state[i / FAKE_BLOCK] = NBD_STATE_HOLE | NBD_STATE_ZERO;
    else
      data[i] = (guint8)(i % 251 + i / FAKE_BLOCK);
}

static void
plan (gpointer user_data, guint n, FakeNbdSpec *spec)
{
  if (n >= (guint)honest_from)
    spec->fault = FAKE_HONEST;
}

static gboolean
on_term (gpointer loop)
{
  g_main_loop_quit (loop);
  return G_SOURCE_REMOVE;
}

static void
serve (const FakeNbdSpec *spec)
{
  guint16 port = 0;
  int fd = tcp ? fake_listener_open_tcp (&port) : fake_listener_open_unix (socket_path);
  g_autoptr (FakeListener) listener = fake_listener_new (fd, spec, plan, NULL);
  GMainLoop *loop = g_main_loop_new (NULL, FALSE);

  g_unix_signal_add (SIGTERM, on_term, loop);
  printf ("ready %d\n", port);
  fflush (stdout);
  g_main_loop_run (loop);
  g_main_loop_unref (loop);
}

static Credentials *
load_credentials (GError **error)
{
  return tls_dir != NULL ? credentials_load (tls_dir, CREDENTIALS_SERVER, error) : NULL;
}

static gboolean
run (GError **error)
{
  g_autofree guint8 *data = g_malloc0 ((gsize)size + 1);
  g_autofree guint8 *state = g_malloc0 ((gsize)size / FAKE_BLOCK + 1);
  g_autoptr (Credentials) credentials = load_credentials (error);
  const FakeNbdSpec spec = { .size = (guint64)size,
                             .data = data,
                             .state = no_status ? NULL : state,
                             .min_block = (guint32)min_block,
                             .max_payload = (guint32)max_payload,
                             .multi_conn = multi_conn,
                             .simple = simple,
                             .holes = holes,
                             .read_only = TRUE,
                             .credentials = credentials,
                             .fault = find_fault (),
                             .at = (guint)at };

  if (tls_dir != NULL && credentials == NULL)
    return FALSE;
  fill (data, state);
  if (source_path != NULL && !g_file_set_contents (source_path, (char *)data, size, error))
    return FALSE;
  serve (&spec);
  return TRUE;
}

int
main (int argc, char **argv)
{
  g_autoptr (GOptionContext) context = g_option_context_new ("- an NBD server that misbehaves");
  g_autoptr (GError) error = NULL;

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error))
    g_printerr ("%s\n", error->message);
  else if (list)
    print_list ();
  else if (find_fault () == FAKE_N_FAULTS || (socket_path == NULL) == !tcp || size < 0)
    g_printerr ("hostile-nbd: one of --socket and --tcp, and a --fault of --list\n");
  else if (!run (&error))
    g_printerr ("%s\n", error->message);
  else
    return 0;
  return list && error == NULL ? 0 : 2;
}
