/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* The fork and exec of daemon/tool.h.  Everything is prepared before the fork: in the child of a
 * process with threads only async-signal-safe calls may be made. */
typedef struct
{
  const char *path;
  char *const *argv;
  char *const *envp;
  char *listen_pid; /* in envp, where the child writes its own number; NULL: nowhere */
  const int *fds;   /* become 0, 1, 2, ...; borrowed */
  guint n_fds;      /* at most TOOL_SPAWN_MAX_FDS */
} ToolSpawn;

#define TOOL_SPAWN_MAX_FDS 8
#define TOOL_SPAWN_LISTEN_PID "LISTEN_PID="
/* Digits of a process number. */
#define TOOL_SPAWN_PID_LEN 10

/* The child's number, or -1 with errno, which is execve's where that failed.  The parent-death
 * signal (SIGKILL) is bound to the thread that forks: so one thread, which never ends, forks for
 * all others. */
pid_t tool_spawn_child (const ToolSpawn *spawn);
