/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/tool.h"

#define DEADLINE deadline_in (20000, NULL)

static gboolean
run_shell (const char *script, char **ret_output, GError **error)
{
  const char *const argv[] = { "sh", "-c", script, NULL };
  const ToolSpec spec = { .argv = argv };

  return tool_run (&spec, DEADLINE, ret_output, error);
}

static Tool *
spawn_shell (const char *script)
{
  const char *const argv[] = { "sh", "-c", script, NULL };
  const ToolSpec spec = { .argv = argv };
  Tool *tool = tool_spawn (&spec, NULL);

  assert_non_null (tool);
  return tool;
}

static void
test_output (void **state)
{
  g_autofree char *output = NULL;

  assert_true (run_shell ("echo one; echo noise >&2; echo two", &output, NULL));
  assert_string_equal (output, "one\ntwo\n");
}

static void
assert_fails (const char *script, const char *message)
{
  g_autoptr (GError) error = NULL;
  char *output = NULL;

  assert_false (run_shell (script, &output, &error));
  assert_null (output);
  assert_int_equal (error->code, G_IO_ERROR_FAILED);
  assert_string_equal (error->message, message);
}

static void
test_failures (void **state)
{
  assert_fails ("echo 'qemu-img: no' >&2; exit 3", "qemu-img: no");
  assert_fails ("printf 'a\\033[1m\\nb\\n' >&2; exit 3", "a\\u001b[1m;b");
  assert_fails ("exit 3", "sh ended with status 3");
  assert_fails ("kill -9 $$", "sh was ended by signal 9 (Killed)");
}

static void
test_not_installed (void **state)
{
  const char *const argv[] = { "vmferry-no-such-program", NULL };
  const ToolSpec spec = { .argv = argv };
  g_autoptr (GError) error = NULL;

  assert_null (tool_spawn (&spec, &error));
  assert_int_equal (error->code, G_IO_ERROR_NOT_FOUND);
  assert_string_equal (error->message, "vmferry-no-such-program is not installed on this host");
}

static void
test_not_executable (void **state)
{
  g_autofree char *path = NULL;
  const char *argv[] = { NULL, NULL };
  const ToolSpec spec = { .argv = argv };
  g_autoptr (GError) error = NULL;
  int fd = g_file_open_tmp ("vmferry-XXXXXX", &path, NULL);

  assert_int_equal (write (fd, "\177ELF", 4), 4);
  fchmod (fd, 0700);
  close (fd);
  argv[0] = path;
  assert_null (tool_spawn (&spec, &error));
  assert_non_null (strstr (error->message, "Exec format error"));
  unlink (path);
}

/* Too much output neither stops the child nor fills our memory. */
static void
test_too_much (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *output = NULL;

  assert_false (run_shell ("yes | head -c 3000000; exit 0", &output, &error));
  assert_int_equal (error->code, G_IO_ERROR_MESSAGE_TOO_LARGE);
  g_clear_error (&error);
  assert_false (run_shell ("yes | head -c 3000000 >&2; exit 1", &output, &error));
  assert_int_equal (error->code, G_IO_ERROR_FAILED);
  assert_in_range (strlen (error->message), 1, 1100);
}

/* What a terminal sends to the group of its foreground reaches us alone. */
static void
test_session (void **state)
{
  g_autoptr (Tool) tool = spawn_shell ("exec sleep 1000");

  assert_int_equal (getsid (tool_get_pid (tool)), tool_get_pid (tool));
  assert_int_equal (getpgid (tool_get_pid (tool)), tool_get_pid (tool));
}

static void
test_deadline (void **state)
{
  g_autoptr (Tool) tool = spawn_shell ("exec sleep 1000");
  g_autoptr (GError) error = NULL;
  pid_t pid = tool_get_pid (tool);

  assert_false (tool_wait (tool, deadline_in (20, NULL), &error));
  assert_int_equal (error->code, G_IO_ERROR_TIMED_OUT);
  assert_string_equal (error->message, "sh doesn't end: timed out");
  assert_int_equal (kill (pid, 0), 0);
  g_clear_pointer (&tool, tool_free);
  assert_int_equal (kill (pid, 0), -1);
}

static void
test_stop (void **state)
{
  g_autoptr (Tool) polite = spawn_shell ("exec sleep 1000");
  g_autoptr (Tool) stubborn = NULL;

  tool_stop (polite, 10000);
  assert_false (tool_wait (polite, DEADLINE, NULL));
  assert_int_equal (tool_get_signal (polite), SIGTERM);
  stubborn = spawn_shell ("trap '' TERM; while :; do sleep 1000; done");
  tool_stop (stubborn, 0);
  assert_false (tool_wait (stubborn, DEADLINE, NULL));
  assert_true (tool_get_signal (stubborn) == SIGKILL || tool_get_signal (stubborn) == SIGTERM);
}

/* Descriptors 3 and up are those that were named, whatever their numbers were, and no others. */
static void
test_descriptors (void **state)
{
  const char *const argv[] = { "sh", "-c", "cat <&3; cat <&4; ls /proc/self/fd | wc -l", NULL };
  int fds[2];
  const ToolSpec spec = { .argv = argv, .fds = fds, .n_fds = 2 };
  g_autofree char *output = NULL;
  int pipes[2][2];
  int leak = dup (0); /* without O_CLOEXEC */

  for (guint i = 0; i < 2; i++)
    {
      assert_int_equal (pipe (pipes[i]), 0);
      assert_int_equal (write (pipes[i][1], i == 0 ? "first " : "second ", 6 + i), 6 + i);
      close (pipes[i][1]);
      fds[i] = pipes[i][0];
    }
  assert_true (tool_run (&spec, DEADLINE, &output, NULL));
  /* 0, 1, 2, 3, 4 and the one that ls reads the directory by. */
  assert_string_equal (output, "first second 6\n");
  close (leak);
  close (pipes[0][0]);
  close (pipes[1][0]);
}

static void
test_socket_activation (void **state)
{
  const char *const argv[]
      = { "sh", "-c", "echo $LISTEN_FDS ${LISTEN_PID#${LISTEN_PID%$$}} $$", NULL };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const ToolSpec spec = { .argv = argv, .fds = &fd, .n_fds = 1, .socket_activation = TRUE };
  g_autofree char *output = NULL;
  g_auto (GStrv) words = NULL;

  assert_true (tool_run (&spec, DEADLINE, &output, NULL));
  words = g_strsplit (g_strstrip (output), " ", -1);
  assert_int_equal (g_strv_length (words), 3);
  assert_string_equal (words[0], "1");
  assert_string_equal (words[1], words[2]);
  close (fd);
}

static gpointer
spawn_in_thread (gpointer data)
{
  return spawn_shell ("exec sleep 1000");
}

/* The kernel's parent is the thread that forked: the end of the one that asked must not matter. */
static void
test_outlives_thread (void **state)
{
  g_autoptr (Tool) tool = g_thread_join (g_thread_new ("short", spawn_in_thread, NULL));
  g_autoptr (GError) error = NULL;

  assert_false (tool_wait (tool, deadline_in (50, NULL), &error));
  assert_int_equal (error->code, G_IO_ERROR_TIMED_OUT);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_output),
    cmocka_unit_test (test_failures),
    cmocka_unit_test (test_not_installed),
    cmocka_unit_test (test_not_executable),
    cmocka_unit_test (test_too_much),
    cmocka_unit_test (test_session),
    cmocka_unit_test (test_deadline),
    cmocka_unit_test (test_stop),
    cmocka_unit_test (test_descriptors),
    cmocka_unit_test (test_socket_activation),
    cmocka_unit_test (test_outlives_thread),
  };

  return cmocka_run_group_tests_name ("tool", tests, NULL, NULL);
}
