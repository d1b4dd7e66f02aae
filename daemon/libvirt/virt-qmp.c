/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/libvirt/virt-qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <libvirt/libvirt-qemu.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "qmp/json-client.h"
#include "qmp/json-framer.h"
#include "qmp/json-scan.h"
#include "qmp/qmp-object.h"

#define MAX_DEPTH 64
/* Where libvirt's QEMU driver keeps the number of a domain's process. */
#define PID_FILE "/run/libvirt/qemu/%s.pid"

typedef struct
{
  QmpExecutor parent;
  VirtDomain *domain;
  pid_t pid;
} VirtQmp;

typedef struct
{
  char *command; /* one JSON object */
  int fd;        /* a duplicate, or -1 */
  char *reply;
  char *name; /* of the domain */
} MonitorCall;

static void
monitor_call_clear (gpointer data)
{
  MonitorCall *call = data;

  g_free (call->command);
  free (call->reply);
  g_free (call->name);
  if (call->fd >= 0)
    close (call->fd);
}

static gboolean
run_monitor_call (virDomainPtr domain, gpointer data, GError **error)
{
  MonitorCall *call = data;
  int rc = virDomainQemuMonitorCommandWithFiles (domain, call->command, call->fd >= 0 ? 1 : 0,
                                                 call->fd >= 0 ? &call->fd : NULL, NULL, NULL,
                                                 &call->reply, 0);

  if (rc == 0)
    return TRUE;
  virt_set_domain_error (domain, error);
  return FALSE;
}

static char *
make_command (const char *command, JsonObject *args)
{
  g_autoptr (JsonObject) object = json_args ("execute", "s", command, "arguments", "o", args, NULL);
  gsize len;
  char *line = json_framer_encode (object, &len);

  line[len - 1] = '\0';
  return line;
}

/* What libvirt itself fails with, in the words of the other executor. */
static gboolean
fail_call (QmpExecutor *executor, const char *command, GError *failed, GError **error)
{
  g_autoptr (GError) owned = failed;

  if (g_error_matches (failed, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    g_propagate_error (error, g_steal_pointer (&owned));
  else
    g_set_error (error, JSON_CLIENT_ERROR,
                 g_error_matches (failed, G_IO_ERROR, G_IO_ERROR_TIMED_OUT)
                     ? JSON_CLIENT_ERROR_TIMEOUT
                     : JSON_CLIENT_ERROR_LOST,
                 "%s: %s: %s", executor->name, command, failed->message);
  return FALSE;
}

static gboolean
read_reply (QmpExecutor *executor, const char *command, const char *reply, JsonNode **ret_value,
            GError **error)
{
  g_autoptr (JsonNode) node
      = json_scan (reply, strlen (reply), MAX_DEPTH, NULL) ? json_from_string (reply, NULL) : NULL;
  JsonObject *object = node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
  JsonObject *refusal = NULL;

  if (object && json_get_object (object, "error", &refusal))
    {
      json_client_set_reply_error (executor->name, command, refusal, error);
      return FALSE;
    }
  if (!object || !json_object_has_member (object, "return"))
    {
      qmp_set_unexpected (executor, command, "no JSON object", error);
      return FALSE;
    }
  if (ret_value)
    *ret_value = json_object_dup_member (object, "return");
  return TRUE;
}

static gboolean
virt_call (QmpExecutor *executor, const char *command, JsonObject *args, int fd, Deadline deadline,
           JsonNode **ret_value, GError **error)
{
  VirtQmp *self = (VirtQmp *)executor;
  MonitorCall *call = g_atomic_rc_box_new0 (MonitorCall);
  GError *failed = NULL;
  gboolean ok;

  call->command = make_command (command, args);
  call->fd = fd >= 0 ? fcntl (fd, F_DUPFD_CLOEXEC, 3) : -1;
  ok = virt_domain_run (self->domain, run_monitor_call, call, monitor_call_clear, deadline, &failed)
           ? read_reply (executor, command, call->reply, ret_value, error)
           : fail_call (executor, command, failed, error);
  g_atomic_rc_box_release_full (call, monitor_call_clear);
  return ok;
}

static void
virt_free (QmpExecutor *executor)
{
  VirtQmp *self = (VirtQmp *)executor;

  virt_domain_free (self->domain);
  qmp_executor_clear (executor);
  g_free (self);
}

static const QmpExecutorClass virt_class = { .call = virt_call, .free = virt_free };

/* ------------------------------------------------------------- the process */

static gboolean
run_get_name (virDomainPtr domain, gpointer data, GError **error)
{
  ((MonitorCall *)data)->name = g_strdup (virDomainGetName (domain));
  return TRUE;
}

static pid_t
read_pid (VirtQmp *self, Deadline deadline, GError **error)
{
  MonitorCall *call = g_atomic_rc_box_new0 (MonitorCall);
  g_autofree char *path = NULL;
  g_autofree char *text = NULL;
  pid_t pid = 0;

  call->fd = -1;
  if (virt_domain_run (self->domain, run_get_name, call, monitor_call_clear, deadline, error))
    {
      path = g_strdup_printf (PID_FILE, call->name);
      if (g_file_get_contents (path, &text, NULL, error))
        pid = atoi (text);
    }
  g_atomic_rc_box_release_full (call, monitor_call_clear);
  return pid;
}

static gboolean
has_open (pid_t pid, const char *link)
{
  g_autofree char *path = g_strdup_printf ("/proc/%d/fd", pid);
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  const char *name;

  while (dir && (name = g_dir_read_name (dir)))
    {
      g_autofree char *file = g_build_filename (path, name, NULL);
      g_autofree char *target = g_file_read_link (file, NULL);

      if (g_strcmp0 (target, link) == 0)
        return TRUE;
    }
  return FALSE;
}

/* A number in a file may be out of date: the process must have what was passed to this domain. */
static gboolean
find_process (VirtQmp *self, Deadline deadline, GError **error)
{
  QmpExecutor *qmp = &self->parent;
  g_autofree char *uuid = g_uuid_string_random ();
  g_autofree char *link = g_strdup_printf ("/memfd:vmferry-%s (deleted)", uuid);
  g_autofree char *name = g_strdup_printf ("vmferry-%s", uuid);
  pid_t pid = read_pid (self, deadline, error);
  gboolean found;
  int fd;

  if (pid <= 0)
    return FALSE;
  fd = memfd_create (name, MFD_CLOEXEC);
  if (fd < 0 || !qmp_getfd (qmp, name, fd, deadline.cancellable, error))
    {
      if (fd >= 0)
        close (fd);
      else
        g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno), "memfd_create: %s",
                     g_strerror (errno));
      return FALSE;
    }
  close (fd);
  found = has_open (pid, link);
  qmp_closefd (qmp, name, NULL, NULL);
  self->pid = pid;
  if (!found)
    g_set_error (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_GREETING,
                 "%s: process %d isn't its QEMU, or can't be looked at", qmp->name, pid);
  return found;
}

QmpExecutor *
virt_qmp_open (const char *uri, const char *name, const VirtHandlers *handlers, gpointer user_data,
               Deadline deadline, GError **error)
{
  VirtQmp *self = g_new0 (VirtQmp, 1);
  g_autoptr (QmpExecutor) executor = &self->parent;

  executor->klass = &virt_class;
  executor->name = g_strdup_printf ("%s at %s", name, uri);
  executor->call_timeout_ms = QMP_CALL_TIMEOUT_MS;
  self->domain = virt_domain_new (uri, name, handlers, user_data);
  if (!qmp_executor_learn_schema (executor, "its QEMU", deadline, error)
      || !find_process (self, deadline, error))
    return NULL;
  return g_steal_pointer (&executor);
}

VirtDomain *
virt_qmp_get_domain (QmpExecutor *executor)
{
  return ((VirtQmp *)executor)->domain;
}

pid_t
virt_qmp_get_pid (QmpExecutor *executor)
{
  return ((VirtQmp *)executor)->pid;
}
