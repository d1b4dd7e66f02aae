/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/virtual-time.h"

#include <poll.h>

#include "tests/fuzz/fuzz.h"

/* Any time but 0, which some take for "never". */
#define START_US (G_GINT64_CONSTANT (3600) * G_USEC_PER_SEC)
/* No session needs nearly as many, however its bytes are cut. */
#define MAX_POLLS 200000

static void (*serve_function) (gpointer user_data);
static gpointer serve_data;
static GMutex serve_lock;
static guint n_polls;
static _Thread_local gint64 passed_us;
static _Thread_local int polled_fd = -1;

gint64 __wrap_g_get_monotonic_time (void);
int __wrap_poll (struct pollfd *fds, nfds_t n, int timeout_ms);
int __real_poll (struct pollfd *fds, nfds_t n, int timeout_ms);

void
virtual_time_begin (void (*serve) (gpointer user_data), gpointer user_data)
{
  serve_function = serve;
  serve_data = user_data;
  n_polls = 0;
  passed_us = 0;
}

void
virtual_time_pass (gint64 us)
{
  passed_us += us;
}

int
virtual_time_get_polled_fd (void)
{
  return polled_fd;
}

gint64
__wrap_g_get_monotonic_time (void)
{
  return START_US + passed_us;
}

int
__wrap_poll (struct pollfd *fds, nfds_t n, int timeout_ms)
{
  int n_ready;

  polled_fd = fds[0].fd;
  g_mutex_lock (&serve_lock);
  FUZZ_REQUIRE (++n_polls < MAX_POLLS);
  serve_function (serve_data);
  g_mutex_unlock (&serve_lock);
  n_ready = __real_poll (fds, n, 0);
  if (n_ready != 0)
    return n_ready;
  FUZZ_REQUIRE (timeout_ms >= 0);
  virtual_time_pass (timeout_ms * G_GINT64_CONSTANT (1000));
  return 0;
}
