/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tls/deadline.h"

/* A program that runs as a child: qemu-img, qemu-nbd, QEMU.  No shell, no descriptors but those
 * that are named, no core file.  It is killed when the agent dies.  One thread at a time. */
typedef struct Tool Tool;

#define TOOL_MAX_FDS 4

typedef struct
{
  const char *const *argv;    /* argv[0] is looked up in $PATH unless it is a path */
  const int *fds;             /* become the descriptors 3, 4, ... of the child; borrowed */
  guint n_fds;                /* at most TOOL_MAX_FDS */
  gboolean socket_activation; /* descriptor 3 is told as LISTEN_FDS (sd_listen_fds(3)) */
} ToolSpec;

/* Returns once the program has been executed.  Errors name it; G_IO_ERROR_NOT_FOUND where it isn't
 * installed. */
Tool *tool_spawn (const ToolSpec *spec, GError **error);
pid_t tool_get_pid (const Tool *tool);

/* Waits for its end.  FALSE when it didn't end with status 0 (G_IO_ERROR_FAILED; the message is
 * what it wrote to standard error, one line, bounded), or when the deadline passed: then it still
 * runs. */
gboolean tool_wait (Tool *tool, Deadline deadline, GError **error);
/* After tool_wait (): the signal that ended it, 0 where none did. */
int tool_get_signal (const Tool *tool);

/* SIGTERM, and SIGKILL after `grace_ms`.  It is gone when this returns. */
void tool_stop (Tool *tool, gint64 grace_ms);
/* Kills it at once if it still runs. */
void tool_free (Tool *tool);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Tool, tool_free)

/* Runs it to its end; it doesn't outlive the call.  `ret_output` (may be NULL) gets what it wrote
 * to standard output; from 1 MiB on that is G_IO_ERROR_MESSAGE_TOO_LARGE. */
gboolean tool_run (const ToolSpec *spec, Deadline deadline, char **ret_output, GError **error);
