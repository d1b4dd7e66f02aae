/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "qmp/qmp-machine.h"
#include "qmp/qmp-socket.h"
#include "tests/interop/vm.h"

#define DEADLINE_MS 60000

static int
listen_on (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  assert_int_equal (bind (fd, (struct sockaddr *)&address, sizeof address), 0);
  assert_int_equal (listen (fd, 1), 0);
  return fd;
}

static Tool *
spawn (int monitor, const char *const *args)
{
  static const char *const basic[] = { "qemu-system-x86_64",
                                       "-nodefaults",
                                       "-no-user-config",
                                       "-machine",
                                       "q35,accel=tcg",
                                       "-m",
                                       "16",
                                       "-display",
                                       "none",
                                       "-chardev",
                                       "socket,id=monitor,fd=3,server=on,wait=off",
                                       "-mon",
                                       "chardev=monitor,mode=control" };
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  ToolSpec spec = { .fds = &monitor, .n_fds = 1 };

  for (guint i = 0; i < G_N_ELEMENTS (basic); i++)
    g_ptr_array_add (argv, (gpointer)basic[i]);
  for (guint i = 0; args[i] != NULL; i++)
    g_ptr_array_add (argv, (gpointer)args[i]);
  g_ptr_array_add (argv, NULL);
  spec.argv = (const char *const *)argv->pdata;
  return tool_spawn (&spec, NULL);
}

Vm *
vm_start (const char *dir, const char *const *args)
{
  static guint count;
  g_autofree char *path = g_strdup_printf ("%s/qmp%u", dir, count++);
  g_autoptr (GError) error = NULL;
  g_autoptr (Vm) vm = g_new0 (Vm, 1);
  int monitor = listen_on (path);

  vm->tool = spawn (monitor, args);
  close (monitor);
  if (vm->tool == NULL)
    return NULL;
  vm->executor = qmp_socket_open (path, NULL, NULL, NULL, deadline_in (DEADLINE_MS, NULL), &error);
  unlink (path);
  if (vm->executor == NULL)
    {
      g_autoptr (GError) words = NULL;

      tool_wait (vm->tool, deadline_in (1000, NULL), &words);
      fail_msg ("%s; %s", error->message, words != NULL ? words->message : "");
    }
  return g_steal_pointer (&vm);
}

void
vm_free (Vm *vm)
{
  if (vm == NULL)
    return;
  qmp_executor_free (vm->executor);
  tool_free (vm->tool);
  g_free (vm);
}

char *
vm_try (Vm *vm, const char *command, JsonObject *args)
{
  g_autoptr (GError) error = NULL;

  if (qmp_call (vm->executor, command, args, -1, NULL, NULL, &error))
    return NULL;
  return g_strdup (error->message);
}

void
vm_do (Vm *vm, const char *command, JsonObject *args)
{
  g_autofree char *message = vm_try (vm, command, args);

  if (message != NULL)
    fail_msg ("%s", message);
}

void
vm_wait_status (Vm *vm, const char *status)
{
  Deadline deadline = deadline_in (DEADLINE_MS, NULL);
  g_autofree char *found = NULL;

  while (g_strcmp0 (found, status) != 0)
    {
      assert_true (deadline_check (deadline, NULL));
      g_clear_pointer (&found, g_free);
      assert_true (qmp_query_status (vm->executor, NULL, &found, NULL, NULL));
    }
}
