/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <poll.h>

/* When an operation ends at the latest, and what may end it earlier.  One deadline bounds a whole
 * operation, however many system calls it takes.  Passed by value; borrows the cancellable. */
typedef struct
{
  gint64 at;                 /* g_get_monotonic_time () in microseconds; G_MAXINT64: never */
  GCancellable *cancellable; /* NULL: nothing */
} Deadline;

#define DEADLINE_NEVER ((Deadline){ .at = G_MAXINT64 })

/* `ms` milliseconds from now; ms < 0: never. */
Deadline deadline_in (gint64 ms, GCancellable *cancellable);

/* The same deadline, or `ms` milliseconds from now if that is earlier. */
Deadline deadline_sooner (Deadline deadline, gint64 ms);

/* Milliseconds that are left, rounded up and never negative; -1 for never, as poll(2) has it. */
int deadline_left_ms (Deadline deadline);

/* FALSE with G_IO_ERROR_CANCELLED or G_IO_ERROR_TIMED_OUT once it has passed; the messages are just
 * "cancelled" and "timed out": the caller says of what. */
gboolean deadline_check (Deadline deadline, GError **error);

/* poll(2) on one descriptor until one of `events` (POLLIN, POLLOUT) or an error condition of it
 * is there (TRUE; the next read or write tells which), or the deadline ends it (FALSE, errors as
 * deadline_check).  The cancellable wakes it at once, from any thread.  With
 * fd -1 it just waits. */
gboolean deadline_poll (Deadline deadline, int fd, short events, GError **error);
