/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/beneath.h"
#include "daemon/destination/private.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

/* Beneath a directory that the peer may use, through no link, and a socket. */
static gboolean
check_socket (DestinationJob *job, GError **error)
{
  const char *path = job->base.qmp_path;
  const ConfigPeer *peer = config_find_peer (agent_get_config (job->base.agent), job->base.peer);
  g_auto (Beneath) place = { .parent = -1 };
  struct stat st;
  int fd;

  if (!peer)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_DENIED, "there is no [peer %s] here any more",
                   job->base.peer);
      return FALSE;
    }
  if (!beneath_find ((const char *const *)peer->qmp_dirs, path, "qmp-dirs", peer->name, &place,
                     error))
    return FALSE;
  fd = beneath_open_path (&place);
  if (fd < 0 || fstat (fd, &st) < 0)
    {
      g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno), "%s: %s", path,
                   g_strerror (errno));
      return FALSE;
    }
  close (fd);
  if (S_ISSOCK (st.st_mode))
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
               "%s: not a socket: give QEMU -qmp unix:%s,server=on,wait=off", path, path);
  return FALSE;
}

Vm *
destination_open_vm (DestinationJob *job, GError **error)
{
  if (!check_socket (job, error))
    return NULL;
  return vm_open (job->base.qmp_path, deadline_in (10000, job_cancellable (&job->base)), error);
}

/* What is no file ("json:{...}", "nbd://...") isn't the one that is being filled. */
static gboolean
is_same_file (Vm *vm, const char *file, Image *image)
{
  g_autofree char *through_qemu = g_strdup_printf (
      g_path_is_absolute (file) ? "/proc/%d/root%s" : "/proc/%d/cwd/%s", vm_get_pid (vm), file);
  guint64 device, inode;
  struct stat st;

  image_get_identity (image, &device, &inode);
  if (stat (through_qemu, &st) < 0 && stat (file, &st) < 0)
    return FALSE;
  return st.st_dev == device && st.st_ino == inode;
}

/* A file or device may be opened without a format on top of its protocol: that is raw. */
static gboolean
is_opened_as (const QmpBlockDevice *device, const char *format)
{
  return g_strcmp0 (device->driver, format) == 0
         || (g_str_equal (format, "raw")
             && (g_strcmp0 (device->driver, "file") == 0
                 || g_strcmp0 (device->driver, "host_device") == 0));
}

static gboolean
check_disk (DestinationJob *job, Vm *vm, GPtrArray *devices, const DestinationDisk *disk,
            GError **error)
{
  const char *where = job->base.qmp_path;
  const QmpBlockDevice *device = qmp_block_find_qdev (devices, disk->device);

  if (!device)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "%s: this QEMU has no disk device %s (%s at the source): start it with the same "
                   "devices and ids",
                   where, disk->device, disk->name);
      return FALSE;
    }
  if (!device->inserted || !device->file || !is_same_file (vm, device->file, disk->image))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "%s: disk %s is on %s in this QEMU, but %s is being filled: start it with that",
                   where, disk->device,
                   device->inserted && device->file ? device->file : "no medium", disk->path);
      return FALSE;
    }
  if (!is_opened_as (device, disk->format))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "%s: disk %s is opened as %s in this QEMU, the target %s is %s", where,
                   disk->device, device->driver, disk->path, disk->format);
      return FALSE;
    }
  return TRUE;
}

gboolean
destination_check_vm (DestinationJob *job, Vm *vm, GError **error)
{
  QmpExecutor *qmp = vm_get_executor (vm);
  GCancellable *cancellable = job_cancellable (&job->base);
  g_autofree char *status = NULL;
  g_autofree char *machine = NULL;
  g_autoptr (GPtrArray) devices = NULL;

  if (!qmp_query_status (qmp, cancellable, &status, NULL, error))
    return FALSE;
  if (!g_str_equal (status, "inmigrate"))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "%s: this QEMU doesn't wait for a migration (it is %s): start it with "
                   "-incoming defer",
                   job->base.qmp_path, status);
      return FALSE;
    }
  machine = qmp_query_machine_type (qmp, cancellable, error);
  if (!machine)
    return FALSE;
  if (!g_str_equal (machine, job->machine))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "%s: this QEMU has the machine type %s, the guest has %s: start it with "
                   "-machine %s",
                   job->base.qmp_path, machine, job->machine, job->machine);
      return FALSE;
    }
  devices = qmp_query_block (qmp, cancellable, error);
  if (!devices)
    return FALSE;
  for (guint i = 0; i < job->disks->len; i++)
    if (!check_disk (job, vm, devices, destination_disk (job, i), error))
      return FALSE;
  return TRUE;
}

void
destination_clean_vm (DestinationJob *job)
{
  static const char *const capabilities[] = { "events", "late-block-activate", NULL };
  QmpExecutor *qmp;

  if (!job->vm)
    return;
  qmp = vm_get_executor (job->vm);
  qmp_migrate_set_capabilities (qmp, capabilities, FALSE, NULL, NULL);
  qmp_migrate_set_parameters (qmp, json_args ("tls-creds", "s", "", "tls-authz", "s", "", NULL),
                              NULL, NULL);
  qmp_object_del (qmp, job->authz_id, NULL, NULL);
  qmp_object_del (qmp, job->tls_id, NULL, NULL);
  g_clear_pointer (&job->vm, vm_free);
}

static void
on_vm_lost (const GError *error, gpointer data)
{
  Job *base = data;
  g_autoptr (GError) reason
      = g_error_new (JOB_ERROR, JOB_ERROR_FAILED, "the QEMU at %s is gone", base->qmp_path);

  job_post_lost (base, JOB_EVENT_QEMU_LOST, reason);
}

void
destination_watch_vm (DestinationJob *job)
{
  vm_set_lost_handler (job->vm, on_vm_lost, &job->base);
}
