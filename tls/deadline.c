/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/deadline.h"

#include <errno.h>

/* Without a descriptor for the cancellable (the process has no more of them) it is looked at this
 * often. */
#define CANCEL_SLICE_MS 50

Deadline
deadline_in (gint64 ms, GCancellable *cancellable)
{
  gint64 now = g_get_monotonic_time ();
  gint64 at = G_MAXINT64;

  if (ms >= 0 && ms < (G_MAXINT64 - now) / 1000)
    at = now + ms * 1000;
  return (Deadline){ .at = at, .cancellable = cancellable };
}

Deadline
deadline_sooner (Deadline deadline, gint64 ms)
{
  Deadline sooner = deadline_in (ms, deadline.cancellable);

  return sooner.at < deadline.at ? sooner : deadline;
}

int
deadline_left_ms (Deadline deadline)
{
  if (deadline.at == G_MAXINT64)
    return -1;
  gint64 left = deadline.at - g_get_monotonic_time ();
  if (left <= 0)
    return 0;
  return (int)MIN ((left + 999) / 1000, G_MAXINT);
}

gboolean
deadline_check (Deadline deadline, GError **error)
{
  if (deadline.cancellable != NULL && g_cancellable_is_cancelled (deadline.cancellable))
    {
      g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_CANCELLED, "cancelled");
      return FALSE;
    }
  if (deadline_left_ms (deadline) == 0)
    {
      g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT, "timed out");
      return FALSE;
    }
  return TRUE;
}

static gboolean
poll_until (Deadline deadline, struct pollfd fds[2], GError **error)
{
  while (deadline_check (deadline, error))
    {
      int wait_ms = deadline_left_ms (deadline);
      if (deadline.cancellable != NULL && fds[1].fd < 0)
        wait_ms = wait_ms < 0 ? CANCEL_SLICE_MS : MIN (wait_ms, CANCEL_SLICE_MS);

      int n = poll (fds, 2, wait_ms);
      if (n < 0 && errno != EINTR)
        {
          int saved = errno;
          g_set_error (error, G_IO_ERROR, g_io_error_from_errno (saved), "poll: %s",
                       g_strerror (saved));
          return FALSE;
        }
      if (n > 0 && fds[0].revents != 0)
        return TRUE;
    }
  return FALSE;
}

gboolean
deadline_poll (Deadline deadline, int fd, short events, GError **error)
{
  /* -1 where there is no cancellable: poll skips it */
  struct pollfd fds[2] = {
    { .fd = fd, .events = events },
    { .fd = g_cancellable_get_fd (deadline.cancellable), .events = POLLIN },
  };
  gboolean ok = poll_until (deadline, fds, error);

  if (fds[1].fd >= 0)
    g_cancellable_release_fd (deadline.cancellable);
  return ok;
}
