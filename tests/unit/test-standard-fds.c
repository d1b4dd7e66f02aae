/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/standard-fds.h"

/* In a process of its own: its status tells whether the three are there and nothing else is. */
static int
run_without (unsigned closed)
{
  pid_t pid = fork ();
  int status;

  assert_true (pid >= 0);
  if (pid == 0)
    {
      int next = fcntl (STDERR_FILENO, F_DUPFD, 3);
      unsigned missing = 0;

      close (next);
      for (int fd = 0; fd < 3; fd++)
        if (closed & 1u << fd)
          close (fd);
      standard_fds_fill ();
      for (int fd = 0; fd < 3; fd++)
        missing += fcntl (fd, F_GETFD) < 0;
      _exit ((int)missing + (fcntl (next, F_GETFD) < 0 ? 0 : 10));
    }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFEXITED (status));
  return WEXITSTATUS (status);
}

static void
test_fill (void **state)
{
  for (unsigned closed = 0; closed < 8; closed++)
    assert_int_equal (run_without (closed), 0);
}

int
main (void)
{
  const struct CMUnitTest tests[] = { cmocka_unit_test (test_fill) };

  return cmocka_run_group_tests_name ("standard-fds", tests, NULL, NULL);
}
