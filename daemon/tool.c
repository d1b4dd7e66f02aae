/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/tool-spawn.h"
#include "qmp/printable.h"

#define MAX_OUTPUT (1024 * 1024)
#define MAX_ERRORS (64 * 1024)
#define MAX_MESSAGE 1024

struct Tool
{
  char *name;
  pid_t pid;
  int pidfd;
  int output; /* memory files that can't grow: the child never waits for us to read */
  int errors;
  gboolean reaped;
  int status; /* wait(2), once reaped */
};

static int
open_capture (const char *name, off_t size)
{
  int fd = memfd_create (name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

  if (fd >= 0
      && (ftruncate (fd, size) < 0 || fcntl (fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0))
    {
      int code = errno;

      close (fd);
      errno = code;
      return -1;
    }
  return fd;
}

/* What was written so far: the child moved the offset that we share. */
static char *
read_capture (int fd)
{
  off_t len = lseek (fd, 0, SEEK_CUR);
  char *text = g_malloc0 (MAX (len, 0) + 1);

  if (len > 0 && pread (fd, text, len, 0) != len)
    text[0] = '\0';
  return text;
}

/* English messages, and nothing that systemd told us about ourselves. */
static char **
make_environment (gboolean socket_activation, char **ret_listen_pid)
{
  g_auto (GStrv) envp = g_get_environ ();
  guint n;

  envp = g_environ_unsetenv (envp, "LISTEN_FDNAMES");
  envp = g_environ_unsetenv (envp, "LISTEN_FDS");
  envp = g_environ_unsetenv (envp, "LISTEN_PID");
  envp = g_environ_unsetenv (envp, "NOTIFY_SOCKET");
  envp = g_environ_setenv (envp, "LC_ALL", "C", TRUE);
  *ret_listen_pid = NULL;
  if (socket_activation)
    {
      envp = g_environ_setenv (envp, "LISTEN_FDS", "1", TRUE);
      n = g_strv_length (envp);
      envp = g_renew (char *, envp, n + 2);
      envp[n] = *ret_listen_pid
          = g_strdup_printf (TOOL_SPAWN_LISTEN_PID "%0*d", TOOL_SPAWN_PID_LEN, 0);
      envp[n + 1] = NULL;
    }
  return g_steal_pointer (&envp);
}

static gboolean
start_child (Tool *tool, const char *path, const ToolSpec *spec)
{
  g_auto (GStrv) envp = NULL;
  int fds[3 + TOOL_MAX_FDS];
  ToolSpawn spawn
      = { .path = path, .argv = (char *const *)spec->argv, .fds = fds, .n_fds = 3 + spec->n_fds };
  int null = open ("/dev/null", O_RDONLY | O_CLOEXEC);

  if (null < 0)
    return FALSE;
  fds[0] = null;
  fds[1] = tool->output;
  fds[2] = tool->errors;
  for (guint i = 0; i < spec->n_fds; i++)
    fds[3 + i] = spec->fds[i];
  envp = make_environment (spec->socket_activation, &spawn.listen_pid);
  spawn.envp = envp;
  tool->pid = tool_spawn_child (&spawn);
  close (null);
  if (tool->pid < 0)
    return FALSE;
  tool->reaped = FALSE;
  tool->pidfd = (int)syscall (SYS_pidfd_open, tool->pid, 0);
  return tool->pidfd >= 0;
}

static gboolean
fail_errno (const char *name, GError **error)
{
  int code = errno;

  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (code), "cannot run %s: %s", name,
               g_strerror (code));
  return FALSE;
}

Tool *
tool_spawn (const ToolSpec *spec, GError **error)
{
  g_autofree char *path = g_find_program_in_path (spec->argv[0]);
  g_autoptr (Tool) tool = NULL;

  g_return_val_if_fail (spec->n_fds <= TOOL_MAX_FDS, NULL);
  if (path == NULL)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "%s is not installed on this host",
                   spec->argv[0]);
      return NULL;
    }
  tool = g_new0 (Tool, 1);
  tool->name = g_path_get_basename (spec->argv[0]);
  tool->reaped = TRUE;
  tool->pidfd = -1;
  tool->output = open_capture (tool->name, MAX_OUTPUT);
  tool->errors = open_capture (tool->name, MAX_ERRORS);
  if (tool->output < 0 || tool->errors < 0 || !start_child (tool, path, spec))
    {
      fail_errno (tool->name, error);
      return NULL;
    }
  return g_steal_pointer (&tool);
}

pid_t
tool_get_pid (const Tool *tool)
{
  return tool->pid;
}

static void
reap (Tool *tool)
{
  while (waitpid (tool->pid, &tool->status, 0) < 0 && errno == EINTR)
    ;
  tool->reaped = TRUE;
}

static gboolean
check_status (Tool *tool, GError **error)
{
  g_autofree char *text = NULL;
  g_autofree char *shown = NULL;

  if (WIFEXITED (tool->status) && WEXITSTATUS (tool->status) == 0)
    return TRUE;
  text = read_capture (tool->errors);
  shown = printable (g_strdelimit (g_strstrip (text), "\n", ';'), MAX_MESSAGE);
  if (*shown != '\0')
    g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_FAILED, shown);
  else if (WIFSIGNALED (tool->status))
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s was ended by signal %d (%s)", tool->name,
                 WTERMSIG (tool->status), strsignal (WTERMSIG (tool->status)));
  else
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s ended with status %d", tool->name,
                 WEXITSTATUS (tool->status));
  return FALSE;
}

gboolean
tool_wait (Tool *tool, Deadline deadline, GError **error)
{
  if (!tool->reaped)
    {
      if (!deadline_poll (deadline, tool->pidfd, POLLIN, error))
        {
          g_prefix_error (error, "%s doesn't end: ", tool->name);
          return FALSE;
        }
      reap (tool);
    }
  return check_status (tool, error);
}

int
tool_get_signal (const Tool *tool)
{
  return WIFSIGNALED (tool->status) ? WTERMSIG (tool->status) : 0;
}

void
tool_stop (Tool *tool, gint64 grace_ms)
{
  if (tool->reaped)
    return;
  kill (tool->pid, SIGTERM);
  if (!deadline_poll (deadline_in (grace_ms, NULL), tool->pidfd, POLLIN, NULL))
    kill (tool->pid, SIGKILL);
  reap (tool);
}

void
tool_free (Tool *tool)
{
  if (tool == NULL)
    return;
  if (!tool->reaped)
    {
      kill (tool->pid, SIGKILL);
      reap (tool);
    }
  for (guint i = 0; i < 3; i++)
    {
      int fd = ((const int[]){ tool->pidfd, tool->output, tool->errors })[i];

      if (fd >= 0)
        close (fd);
    }
  g_free (tool->name);
  g_free (tool);
}

gboolean
tool_run (const ToolSpec *spec, Deadline deadline, char **ret_output, GError **error)
{
  g_autoptr (Tool) tool = tool_spawn (spec, error);

  if (tool == NULL)
    return FALSE;
  if (!tool_wait (tool, deadline, error))
    return FALSE;
  if (lseek (tool->output, 0, SEEK_CUR) >= MAX_OUTPUT)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_MESSAGE_TOO_LARGE,
                   "%s wrote more than is believed of it (%d bytes)", tool->name, MAX_OUTPUT);
      return FALSE;
    }
  if (ret_output != NULL)
    *ret_output = read_capture (tool->output);
  return TRUE;
}
