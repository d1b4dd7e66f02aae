/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/canary.h"
#include "daemon/fail.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "daemon/tool.h"
#include "nbd/target.h"
#include "qmp/json-client.h"
#include "qmp/qmp-machine.h"
#include "qmp/qmp-socket.h"

#define RETRY_US 5000
#define LAST_WORDS_MS 1000

typedef struct
{
  char *dir;
  char *monitor; /* paths of its two sockets */
  char *nbd;
  Tool *qemu;
  QmpExecutor *executor;
  Deadline deadline;
} Canary;

static void
canary_clear (Canary *canary)
{
  g_clear_pointer (&canary->executor, qmp_executor_free);
  g_clear_pointer (&canary->qemu, tool_free);
  if (canary->monitor != NULL)
    g_unlink (canary->monitor);
  if (canary->nbd != NULL)
    g_unlink (canary->nbd);
  if (canary->dir != NULL)
    g_rmdir (canary->dir);
  g_free (canary->monitor);
  g_free (canary->nbd);
  g_free (canary->dir);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Canary, canary_clear)

static gboolean
make_dir (Canary *canary, const char *runtime_dir, GError **error)
{
  g_autofree char *template = g_build_filename (runtime_dir, "canary-XXXXXX", NULL);

  if (g_mkdtemp (template) == NULL)
    return fail_errno (template, "cannot create the directory", error);
  canary->dir = g_steal_pointer (&template);
  canary->monitor = g_build_filename (canary->dir, "qmp", NULL);
  canary->nbd = g_build_filename (canary->dir, "nbd", NULL);
  return TRUE;
}

/* The monitor's socket is there before QEMU is, so there is nothing to wait for. */
static int
listen_for_monitor (const char *path, GError **error)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  if (fd >= 0 && bind (fd, (const struct sockaddr *)&address, sizeof address) == 0
      && listen (fd, 1) == 0)
    return fd;
  fail_errno (path, "cannot make the socket", error);
  if (fd >= 0)
    close (fd);
  return -1;
}

static gboolean
start_qemu (Canary *canary, pid_t pid, GError **error)
{
  g_autofree char *binary = g_strdup_printf ("/proc/%d/exe", pid);
  const char *const argv[] = { binary,
                               "-nodefaults",
                               "-no-user-config",
                               "-machine",
                               "none",
                               "-display",
                               "none",
                               "-S",
                               "-object",
                               "iothread,id=canary",
                               "-blockdev",
                               "driver=null-co,node-name=canary,size=1048576,read-zeroes=on",
                               "-chardev",
                               "socket,id=monitor,fd=3,server=on,wait=off",
                               "-mon",
                               "chardev=monitor,mode=control",
                               NULL };
  int listener = listen_for_monitor (canary->monitor, error);
  const ToolSpec spec = { .argv = argv, .fds = &listener, .n_fds = 1 };

  if (listener < 0)
    return FALSE;
  canary->qemu = tool_spawn (&spec, error);
  close (listener);
  if (canary->qemu == NULL)
    return FALSE;
  canary->executor = qmp_socket_open (canary->monitor, NULL, NULL, NULL, canary->deadline, error);
  return canary->executor != NULL;
}

static gboolean
call (Canary *canary, const char *command, JsonObject *args, GError **error)
{
  return qmp_call (canary->executor, command, args, -1, canary->deadline.cancellable, NULL, error);
}

static gboolean
export_disk (Canary *canary, GError **error)
{
  JsonObject *address = json_args ("type", "s", "unix", "data", "o",
                                   json_args ("path", "s", canary->nbd, NULL), NULL);

  return call (canary, "nbd-server-start", json_args ("addr", "o", address, NULL), error)
         && call (canary, "block-export-add",
                  json_args ("type", "s", "nbd", "id", "s", "canary", "node-name", "s", "canary",
                             "writable", "b", TRUE, "iothread", "s", "canary", NULL),
                  error);
}

static gboolean
connect_and_disconnect (Canary *canary, GError **error)
{
  NbdTarget *client = nbd_target_new_socket (canary->nbd, "canary", "canary", FALSE,
                                             deadline_left_ms (canary->deadline),
                                             canary->deadline.cancellable, error);

  if (client == NULL)
    return FALSE;
  nbd_target_free (client);
  return TRUE;
}

/* A safe deletion is refused while QEMU still has the client; so when it succeeds the moment of
 * danger is over.  Whatever fails here, the process tells why. */
static void
wait_for_disconnect (Canary *canary)
{
  g_autoptr (GError) error = NULL;

  while (!call (canary, "block-export-del",
                json_args ("id", "s", "canary", "mode", "s", "safe", NULL), &error))
    {
      if (!g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_REPLY)
          || !deadline_check (canary->deadline, NULL))
        return;
      g_clear_error (&error);
      g_usleep (RETRY_US);
    }
  qmp_quit (canary->executor, canary->deadline.cancellable, NULL);
}

static gboolean
run (Canary *canary, pid_t pid, CanaryVerdict *ret_verdict, GError **error)
{
  if (!start_qemu (canary, pid, error) || !export_disk (canary, error)
      || !connect_and_disconnect (canary, error))
    return FALSE;
  wait_for_disconnect (canary);
  if (tool_wait (canary->qemu, canary->deadline, error))
    {
      *ret_verdict = CANARY_SAFE;
      return TRUE;
    }
  if (tool_get_signal (canary->qemu) != SIGABRT)
    return FALSE;
  g_clear_error (error);
  *ret_verdict = CANARY_AFFECTED;
  return TRUE;
}

/* QEMU's own words tell more than the end of its monitor. */
static void
explain (Canary *canary, pid_t pid, GError **error)
{
  g_autoptr (GError) words = NULL;

  if (canary->qemu != NULL && error != NULL
      && !tool_wait (canary->qemu, deadline_in (LAST_WORDS_MS, NULL), &words)
      && !g_error_matches (words, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
    {
      g_clear_error (error);
      g_propagate_error (error, g_steal_pointer (&words));
    }
  g_prefix_error (error, "cannot try out the QEMU of process %d: ", pid);
}

gboolean
canary_run (pid_t pid, const char *runtime_dir, Deadline deadline, CanaryVerdict *ret_verdict,
            GError **error)
{
  g_auto (Canary) canary = { .deadline = deadline };

  if (make_dir (&canary, runtime_dir, error) && run (&canary, pid, ret_verdict, error))
    return TRUE;
  explain (&canary, pid, error);
  return FALSE;
}
