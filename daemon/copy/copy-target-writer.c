/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/copy/copy-target-private.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "daemon/fail.h"
#include "nbd/client.h"
#include "nbd/dialer.h"

/* What a format may add to the size of a disk, to make it whole units. */
#define MAX_ROUNDING (1024 * 1024 - 1)

static NbdTarget *
open_server (CopyTarget *target, GError **error)
{
  static const char *const contexts[] = { "base:allocation", NULL };
  g_autoptr (NbdUri) uri = nbd_uri_parse (target->text, error);
  g_autoptr (NbdDialer) dialer
      = uri != NULL ? nbd_dialer_new (uri, target->allow_plaintext, error) : NULL;
  NbdClient *client;

  if (dialer == NULL)
    return NULL;
  client = nbd_dialer_connect (dialer, contexts,
                               deadline_in (target->timeout_ms, target->cancellable), error);
  return client != NULL ? nbd_target_new_client (client, uri->text, FALSE, target->timeout_ms,
                                                 target->cancellable, error)
                        : NULL;
}

/* Whoever else may write there could put a socket of his in the place of qemu-nbd's, and be given
 * the data: sudo leaves the variable as the other user had it. */
static gboolean
is_private_dir (const char *path)
{
  struct stat info;

  return path != NULL && lstat (path, &info) == 0 && S_ISDIR (info.st_mode)
         && info.st_uid == geteuid () && (info.st_mode & 0022) == 0 && access (path, W_OK) == 0;
}

static gboolean
start_qemu_nbd (CopyTarget *target, const char *path, GError **error)
{
  const char *runtime = g_getenv ("XDG_RUNTIME_DIR");
  g_autofree char *private = NULL;

  if (!is_private_dir (runtime))
    runtime = private = g_dir_make_tmp ("vmferry-copy-XXXXXX", error);
  if (runtime == NULL)
    return FALSE;
  /* Without the cancellable: a cancelled copy still makes durable what was written, so that
   * --resume goes on with it.  The time-out bounds that. */
  target->server = qemu_nbd_start (target->fd, path, target->format, runtime, target->made,
                                   target->timeout_ms, NULL, &target->writer, error);
  if (private != NULL)
    g_rmdir (private);
  return target->server != NULL;
}

/* The writer has an open file of its own, so that its locks end with it. */
static gboolean
start_raw (CopyTarget *target, const char *path, GError **error)
{
  g_autofree char *link = g_strdup_printf ("/proc/self/fd/%d", target->fd);
  gboolean device = target->kind == TARGET_DEVICE;
  int fd = device ? fcntl (target->fd, F_DUPFD_CLOEXEC, 0) : open (link, O_RDWR | O_CLOEXEC);

  if (fd < 0)
    return fail_errno (path, "cannot open it for writing", error);
  target->writer = nbd_target_new_raw (fd, path, error);
  return target->writer != NULL;
}

gboolean
target_start_writer (CopyTarget *target, GError **error)
{
  const char *path = target->kind == TARGET_FILE ? target->part_path : target->text;

  if (target->kind == TARGET_NULL)
    target->writer = nbd_target_new_null (target->size);
  else if (target->kind == TARGET_SERVER)
    target->writer = open_server (target, error);
  else if (!(g_str_equal (target->format, "raw") ? start_raw (target, path, error)
                                                 : start_qemu_nbd (target, path, error)))
    return FALSE;
  if (target->writer == NULL)
    return FALSE;
  if (target->kind == TARGET_IN_PLACE
      && !target_check_in_place_size (target, target->writer->size, MAX_ROUNDING, error))
    return FALSE;
  if (target->writer->size < target->size)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_NO_SPACE,
                   "%s holds %" G_GUINT64_FORMAT " bytes, the export %" G_GUINT64_FORMAT
                   ": nothing was written",
                   path, target->writer->size, target->size);
      g_clear_pointer (&target->writer, nbd_target_free);
      return FALSE;
    }
  /* What is beyond it (a larger device, a size rounded up) is not the copy's. */
  target->writer->size = target->size;
  return TRUE;
}
