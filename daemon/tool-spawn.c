/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/tool-spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Above all descriptors that the child is to have. */
#define PARKED_FD 64

typedef struct
{
  const ToolSpawn *spawn;
  pid_t pid;
  int code;
  gboolean done;
} Order;

static GMutex lock;
static GCond changed;
static GAsyncQueue *orders;

/* In the child.  Padded with zeroes in front, which a decimal reader skips. */
static void
write_listen_pid (char *text)
{
  char *digit = text + strlen (TOOL_SPAWN_LISTEN_PID) + TOOL_SPAWN_PID_LEN;

  for (pid_t pid = getpid (); pid > 0; pid /= 10)
    *--digit = '0' + pid % 10;
}

/* In the child.  First everything moves out of the way of what is to come. */
static gboolean
arrange_fds (const ToolSpawn *spawn, int *failure_fd)
{
  int parked[TOOL_SPAWN_MAX_FDS];

  *failure_fd = fcntl (*failure_fd, F_DUPFD_CLOEXEC, PARKED_FD);
  if (*failure_fd < 0)
    return FALSE;
  for (guint i = 0; i < spawn->n_fds; i++)
    if ((parked[i] = fcntl (spawn->fds[i], F_DUPFD_CLOEXEC, PARKED_FD)) < 0)
      return FALSE;
  for (guint i = 0; i < spawn->n_fds; i++)
    if (dup2 (parked[i], (int)i) < 0)
      return FALSE;
  return close_range (spawn->n_fds, ~0U, CLOSE_RANGE_CLOEXEC) == 0;
}

/* In the child. */
static void
run_child (const ToolSpawn *spawn, pid_t parent, int failure_fd)
{
  const struct rlimit none = { 0, 0 };
  sigset_t empty;
  int code;

  sigemptyset (&empty);
  sigprocmask (SIG_SETMASK, &empty, NULL);
  signal (SIGPIPE, SIG_DFL);
  setrlimit (RLIMIT_CORE, &none);
  prctl (PR_SET_PDEATHSIG, SIGKILL);
  /* Ctrl-C and the end of a terminal are for us to judge: a writer that died of them with us would
   * leave its image half done. */
  setsid ();
  /* It may have died before that call. */
  if (getppid () == parent && arrange_fds (spawn, &failure_fd) && chdir ("/") == 0)
    {
      if (spawn->listen_pid != NULL)
        write_listen_pid (spawn->listen_pid);
      execve (spawn->path, spawn->argv, spawn->envp);
    }
  code = errno;
  if (write (failure_fd, &code, sizeof code) < 0)
    _exit (126);
  _exit (127);
}

static pid_t
fork_and_exec (const ToolSpawn *spawn)
{
  pid_t parent = getpid ();
  int failure[2];
  int code = 0;
  gssize n;
  pid_t pid;

  if (pipe2 (failure, O_CLOEXEC) < 0)
    return -1;
  pid = fork ();
  if (pid == 0)
    run_child (spawn, parent, failure[1]);
  if (pid < 0)
    code = errno;
  close (failure[1]);
  /* Closed by a successful exec. */
  while ((n = pid > 0 ? read (failure[0], &code, sizeof code) : 0) < 0 && errno == EINTR)
    ;
  close (failure[0]);
  if (n == sizeof code)
    waitpid (pid, NULL, 0);
  if (code == 0)
    return pid;
  errno = code;
  return -1;
}

static gpointer
serve (gpointer data)
{
  for (;;)
    {
      Order *order = g_async_queue_pop (orders);
      pid_t pid = fork_and_exec (order->spawn);
      int code = errno;

      g_mutex_lock (&lock);
      order->pid = pid;
      order->code = code;
      order->done = TRUE;
      g_cond_broadcast (&changed);
      g_mutex_unlock (&lock);
    }
  return NULL;
}

static gpointer
start_server (gpointer data)
{
  orders = g_async_queue_new ();
  return g_thread_new ("spawn", serve, NULL);
}

pid_t
tool_spawn_child (const ToolSpawn *spawn)
{
  static GOnce once = G_ONCE_INIT;
  Order order = { .spawn = spawn };

  g_once (&once, start_server, NULL);
  g_async_queue_push (orders, &order);
  g_mutex_lock (&lock);
  while (!order.done)
    g_cond_wait (&changed, &lock);
  g_mutex_unlock (&lock);
  errno = order.code;
  return order.pid;
}
