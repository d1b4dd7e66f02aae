/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/vm.h"
#include "daemon/libvirt/virt-qmp.h"
#include "qmp/qmp-socket.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long a cancelled wait may go on. */
#define WAIT_SLICE_US (20 * 1000)

struct Vm
{
  QmpExecutor *executor;
  pid_t pid;
  int pidfd;          /* -1 where the process can't be had */
  VirtDomain *domain; /* NULL: a bare QEMU */
  GThread *watcher;   /* of a domain's process */
  int stop_watcher;   /* eventfd */

  GMutex lock;
  GCond cond;
  VmLostFunc on_lost;
  gpointer data;
  VmEvents events;
};

static void
vm_on_event (const char *event, JsonObject *data, gpointer user_data)
{
  Vm *vm = user_data;
  VmEvents *events = &vm->events;
  const char *status = "";

  g_mutex_lock (&vm->lock);
  events->sequence++;
  if (g_str_equal (event, "STOP"))
    {
      events->stops++;
      events->stopped_us = g_get_monotonic_time ();
    }
  else if (g_str_equal (event, "RESUME"))
    {
      events->resumes++;
      events->resumed_us = g_get_monotonic_time ();
    }
  else if (g_str_equal (event, "RESET"))
    events->resets++;
  else if (g_str_equal (event, "SHUTDOWN"))
    events->powered_off = TRUE;
  else if (g_str_equal (event, "DEVICE_DELETED"))
    events->unplugged = TRUE;
  else if (g_str_equal (event, "MIGRATION") && data && json_get_string (data, "status", &status))
    g_strlcpy (events->migration, status, sizeof events->migration);
  g_cond_broadcast (&vm->cond);
  g_mutex_unlock (&vm->lock);
}

static void
vm_tell_lost (Vm *vm, VmLostFunc on_lost, gpointer data)
{
  g_autoptr (GError) gone
      = g_error_new (G_IO_ERROR, G_IO_ERROR_CLOSED, "%s: QEMU is gone", vm->executor->name);

  on_lost (gone, data);
}

static void
vm_on_closed (const GError *error, gpointer user_data)
{
  Vm *vm = user_data;
  VmLostFunc on_lost;
  gpointer data;

  g_mutex_lock (&vm->lock);
  vm->events.closed = TRUE;
  vm->events.sequence++;
  on_lost = vm->on_lost;
  vm->on_lost = NULL;
  data = vm->data;
  g_cond_broadcast (&vm->cond);
  g_mutex_unlock (&vm->lock);
  if (on_lost)
    vm_tell_lost (vm, on_lost, data);
}

void
vm_set_lost_handler (Vm *vm, VmLostFunc on_lost, gpointer data)
{
  gboolean closed;

  g_mutex_lock (&vm->lock);
  closed = vm->events.closed;
  vm->on_lost = closed ? NULL : on_lost;
  vm->data = data;
  g_mutex_unlock (&vm->lock);
  if (closed && on_lost)
    vm_tell_lost (vm, on_lost, data);
}

static Vm *
vm_alloc (void)
{
  Vm *vm = g_new0 (Vm, 1);

  vm->pidfd = vm->stop_watcher = -1;
  g_mutex_init (&vm->lock);
  g_cond_init (&vm->cond);
  return vm;
}

Vm *
vm_open (const char *path, Deadline deadline, GError **error)
{
  g_autoptr (Vm) vm = vm_alloc ();

  vm->executor = qmp_socket_open (path, vm_on_event, vm_on_closed, vm, deadline, error);
  if (!vm->executor)
    return NULL;
  vm->pid = qmp_socket_get_pid (vm->executor);
  vm->pidfd = syscall (SYS_pidfd_open, vm->pid, 0);
  return g_steal_pointer (&vm);
}

static void
vm_on_migrated (gpointer data)
{
  Vm *vm = data;

  g_mutex_lock (&vm->lock);
  vm->events.migrated = TRUE;
  vm->events.sequence++;
  g_cond_broadcast (&vm->cond);
  g_mutex_unlock (&vm->lock);
}

static void
vm_on_gap (gpointer data)
{
  Vm *vm = data;

  g_mutex_lock (&vm->lock);
  vm->events.gaps++;
  vm->events.sequence++;
  g_cond_broadcast (&vm->cond);
  g_mutex_unlock (&vm->lock);
}

/* libvirt's connection says nothing reliable about the end of the process; its pidfd does. */
static gpointer
vm_watch_process (gpointer data)
{
  Vm *vm = data;
  struct pollfd fds[]
      = { { .fd = vm->pidfd, .events = POLLIN }, { .fd = vm->stop_watcher, .events = POLLIN } };

  while (poll (fds, G_N_ELEMENTS (fds), -1) < 0 && errno == EINTR)
    ;
  if (!fds[1].revents)
    vm_on_closed (NULL, vm);
  return NULL;
}

Vm *
vm_open_domain (const char *uri, const char *name, Deadline deadline, GError **error)
{
  static const VirtHandlers handlers
      = { .monitor_event = vm_on_event, .migrated = vm_on_migrated, .gap = vm_on_gap };
  g_autoptr (Vm) vm = vm_alloc ();

  vm->executor = virt_qmp_open (uri, name, &handlers, vm, deadline, error);
  if (!vm->executor)
    return NULL;
  vm->domain = virt_qmp_get_domain (vm->executor);
  vm->pid = virt_qmp_get_pid (vm->executor);
  vm->pidfd = syscall (SYS_pidfd_open, vm->pid, 0);
  vm->stop_watcher = eventfd (0, EFD_CLOEXEC);
  if (vm->pidfd < 0 || vm->stop_watcher < 0)
    {
      g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno), "process %d of %s: %s",
                   vm->pid, name, g_strerror (errno));
      return NULL;
    }
  vm->watcher = g_thread_new ("vm-watcher", vm_watch_process, vm);
  return g_steal_pointer (&vm);
}

VirtDomain *
vm_get_domain (const Vm *vm)
{
  return vm->domain;
}

static void
vm_stop_watcher (Vm *vm)
{
  guint64 one = 1;

  if (vm->watcher && write (vm->stop_watcher, &one, sizeof one) == sizeof one)
    g_thread_join (vm->watcher);
  if (vm->stop_watcher >= 0)
    close (vm->stop_watcher);
}

void
vm_free (Vm *vm)
{
  if (!vm)
    return;
  g_mutex_lock (&vm->lock);
  vm->on_lost = NULL;
  g_mutex_unlock (&vm->lock);
  vm_stop_watcher (vm);
  qmp_executor_free (vm->executor);
  if (vm->pidfd >= 0)
    close (vm->pidfd);
  g_mutex_clear (&vm->lock);
  g_cond_clear (&vm->cond);
  g_free (vm);
}

void
vm_terminate (Vm *vm)
{
  if (vm->pidfd >= 0)
    syscall (SYS_pidfd_send_signal, vm->pidfd, SIGTERM, NULL, 0);
}

QmpExecutor *
vm_get_executor (Vm *vm)
{
  return vm->executor;
}

/* The 22nd field of /proc/PID/stat, which is the 20th behind the name and its brackets. */
static char *
read_start_time (pid_t pid)
{
  g_autofree char *path = g_strdup_printf ("/proc/%d/stat", pid);
  g_autofree char *text = NULL;
  g_auto (GStrv) fields = NULL;
  const char *rest;

  if (!g_file_get_contents (path, &text, NULL, NULL) || !(rest = strrchr (text, ')'))
      || strlen (rest) < 2)
    return NULL;
  fields = g_strsplit (rest + 2, " ", 21);
  return g_strv_length (fields) == 21 ? g_strdup (fields[19]) : NULL;
}

static char *
describe_process (pid_t pid)
{
  g_autofree char *start = read_start_time (pid);
  g_autofree char *boot = NULL;

  if (!start || !g_file_get_contents ("/proc/sys/kernel/random/boot_id", &boot, NULL, NULL))
    return NULL;
  return g_strdup_printf ("%s %d %s", g_strstrip (boot), pid, start);
}

char *
vm_describe_process (const Vm *vm)
{
  return describe_process (vm->pid);
}

gboolean
vm_process_exists (const char *description)
{
  const char *pid = strchr (description, ' ');
  g_autofree char *now = pid ? describe_process (atoi (pid)) : NULL;
  g_autofree char *exe = pid ? g_strdup_printf ("/proc/%d/exe", atoi (pid)) : NULL;
  g_autofree char *program = exe ? g_file_read_link (exe, NULL) : NULL;

  /* One that has ended, and whose parent hasn't looked yet, has a number and no program. */
  return program && g_strcmp0 (now, description) == 0;
}

pid_t
vm_get_pid (const Vm *vm)
{
  return vm->pid;
}

void
vm_get_events (Vm *vm, VmEvents *ret_events)
{
  g_mutex_lock (&vm->lock);
  *ret_events = vm->events;
  g_mutex_unlock (&vm->lock);
}

void
vm_wait_event (Vm *vm, const VmEvents *seen, gint64 ms, GCancellable *cancellable,
               VmEvents *ret_events)
{
  gint64 until = g_get_monotonic_time () + ms * 1000;
  guint sequence = seen->sequence;

  g_mutex_lock (&vm->lock);
  while (vm->events.sequence == sequence && g_get_monotonic_time () < until
         && !g_cancellable_is_cancelled (cancellable))
    g_cond_wait_until (&vm->cond, &vm->lock, MIN (until, g_get_monotonic_time () + WAIT_SLICE_US));
  *ret_events = vm->events;
  g_mutex_unlock (&vm->lock);
}

gboolean
vm_wait_exit (Vm *vm, gint64 ms)
{
  struct pollfd pollfd = { .fd = vm->pidfd, .events = POLLIN };
  int n;

  if (vm->pidfd < 0)
    return FALSE;
  do
    n = poll (&pollfd, 1, ms);
  while (n < 0 && errno == EINTR);
  return n > 0;
}
