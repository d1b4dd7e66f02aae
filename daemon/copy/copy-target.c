/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/copy/copy-target-private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "daemon/copy/trusted-path.h"
#include "daemon/fail.h"
#include "daemon/qemu-img.h"
#include "nbd/uri.h"

#define PART ".vmferry-part"
#define JOURNAL ".vmferry-journal"

static gboolean
is_raw (const CopyTarget *target)
{
  return g_str_equal (target->format, "raw");
}

static gboolean
fail_argument (const char *text, const char *what, GError **error)
{
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "target %s: %s", text, what);
  return FALSE;
}

gboolean
copy_target_check (const char *text, const char *format, gboolean in_place, GError **error)
{
  gboolean null = g_str_equal (text, "null:"), raw = g_str_equal (format, "raw");

  if (*text == '\0')
    return fail_argument ("\"\"", "give a file, a block device, an NBD URI or null:", error);
  if (!raw && !qemu_img_knows_format (format))
    {
      g_autofree char *shown = g_strescape (format, NULL);

      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                   "a target can't have the format \"%s\"", shown);
      return FALSE;
    }
  if (!raw && (null || nbd_uri_is_uri (text)))
    return fail_argument (text, "only files have a format: leave --target-format out", error);
  if (in_place && null)
    return fail_argument (text, "--bitmap brings an existing copy up to date", error);
  if (nbd_uri_is_uri (text))
    {
      g_autoptr (NbdUri) uri = nbd_uri_parse (text, error);

      return uri != NULL;
    }
  return null || !g_str_has_suffix (text, "/") || fail_argument (text, "is a directory", error);
}

/* ---- finding ---- */

static char *
get_device_journal (dev_t number)
{
  const char *state = g_getenv ("STATE_DIRECTORY");
  g_autofree char *own = g_build_filename (g_get_user_state_dir (), "vmferry", NULL);
  g_autofree char *name = g_strdup_printf ("device-%u-%u" JOURNAL, major (number), minor (number));

  if (state == NULL)
    state = geteuid () == 0 ? "/var/lib/vmferry" : own;
  return g_build_filename (state, "copies", name, NULL);
}

static gboolean
check_device (CopyTarget *target, GError **error)
{
  if (!is_raw (target))
    return fail_argument (target->text, "the format on a block device must be raw", error);
  if (ioctl (target->fd, BLKGETSIZE64, &target->device_size) < 0)
    return fail_errno (target->text, "cannot ask for its size", error);
  if (target->device_size >= target->size)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_NO_SPACE,
               "%s has %" G_GUINT64_FORMAT " bytes, the export %" G_GUINT64_FORMAT
               ": nothing was written",
               target->text, target->device_size, target->size);
  return FALSE;
}

/* O_EXCL: not a device that is mounted, part of another one, or the target of another copy. */
static gboolean
find_device (CopyTarget *target, int found, const struct stat *info, GError **error)
{
  g_autofree char *path = g_strdup_printf ("/proc/self/fd/%d", found);

  target->kind = TARGET_DEVICE;
  target->journal = get_device_journal (info->st_rdev);
  target->fd = open (path, O_RDWR | O_EXCL | O_CLOEXEC);
  if (target->fd >= 0)
    return check_device (target, error);
  if (errno != EBUSY)
    return fail_errno (target->text, "cannot open it for writing", error);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_BUSY,
               "%s is in use: mounted, part of another device, or the target of another copy",
               target->text);
  return FALSE;
}

/* TRUE with target->fd where `text` leads to a block device. */
static gboolean
try_device (CopyTarget *target, GError **error)
{
  g_autoptr (GError) local = NULL;
  int found = trusted_path_open (target->text, &local);
  struct stat info;
  gboolean good = TRUE;

  if (found < 0 && g_error_matches (local, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED))
    {
      g_propagate_error (error, g_steal_pointer (&local));
      return FALSE;
    }
  if (found < 0)
    return TRUE;
  if (fstat (found, &info) == 0 && S_ISBLK (info.st_mode))
    good = find_device (target, found, &info, error);
  close (found);
  return good;
}

static gboolean
find_path (CopyTarget *target, gboolean in_place, GError **error)
{
  if (!try_device (target, error))
    return FALSE;
  if (target->kind == TARGET_DEVICE)
    return TRUE;
  target->kind = in_place ? TARGET_IN_PLACE : TARGET_FILE;
  target->dir = trusted_path_open_parent (target->text, &target->name, error);
  if (target->dir < 0)
    return FALSE;
  target->part_name = g_strconcat (target->name, PART, NULL);
  target->part_path = g_strconcat (target->text, PART, NULL);
  target->journal = g_strconcat (target->text, JOURNAL, NULL);
  return in_place ? target_find_in_place (target, error) : target_find_file (target, error);
}

CopyTarget *
copy_target_find (const CopyTargetSpec *spec, GError **error)
{
  g_autoptr (CopyTarget) target = g_new0 (CopyTarget, 1);

  target->text = g_strdup (spec->text);
  target->format = g_strdup (spec->format);
  target->size = spec->size;
  target->allow_plaintext = spec->allow_plaintext;
  target->timeout_ms = spec->timeout_ms;
  target->cancellable = spec->cancellable;
  target->dir = target->fd = -1;
  if (g_str_equal (spec->text, "null:"))
    target->kind = TARGET_NULL;
  else if (nbd_uri_is_uri (spec->text))
    target->kind = TARGET_SERVER;
  else if (!find_path (target, spec->in_place, error))
    return NULL;
  return g_steal_pointer (&target);
}

void
copy_target_free (CopyTarget *target)
{
  if (target == NULL)
    return;
  nbd_target_free (target->writer);
  /* It closes the image once the connection has ended. */
  if (target->server != NULL)
    qemu_nbd_finish (target->server, target->timeout_ms, NULL);
  qemu_nbd_free (target->server);
  if (target->fd >= 0)
    close (target->fd);
  if (target->dir >= 0)
    close (target->dir);
  g_free (target->name);
  g_free (target->part_name);
  g_free (target->part_path);
  g_free (target->journal);
  g_free (target->format);
  g_free (target->text);
  g_free (target);
}

const char *
copy_target_get_journal (const CopyTarget *target, int *ret_dir)
{
  *ret_dir = target->dir;
  return target->journal;
}

/* ---- writing ---- */

static gboolean
make_journal_dir (CopyTarget *target, GError **error)
{
  g_autofree char *dir = g_path_get_dirname (target->journal);

  return g_mkdir_with_parents (dir, 0700) == 0 || fail_errno (dir, "cannot make it", error);
}

static gboolean
prepare (CopyTarget *target, const char *uuid, GError **error)
{
  switch (target->kind)
    {
    case TARGET_FILE:
      return target_make_part (target, uuid, error);
    case TARGET_IN_PLACE:
      return target_mark (target->fd, target->text, uuid, error)
             && target_remove_journal (target, error);
    case TARGET_DEVICE:
      return make_journal_dir (target, error) && target_remove_journal (target, error);
    case TARGET_SERVER:
    case TARGET_NULL:
    default:
      return TRUE;
    }
}

NbdTarget *
copy_target_create (CopyTarget *target, CopyIdentity *ret_identity, GError **error)
{
  g_autofree char *uuid = g_uuid_string_random ();
  CopyIdentity identity = { .size = target->size };

  g_clear_pointer (&target->writer, nbd_target_free);
  g_clear_pointer (&target->server, qemu_nbd_free);
  if (!prepare (target, uuid, error) || !target_start_writer (target, error)
      || (target->fd >= 0 && !target_identify (target, &identity, error)))
    {
      copy_target_discard (target);
      return NULL;
    }
  if (identity.uuid == NULL)
    identity.uuid = g_steal_pointer (&uuid);
  *ret_identity = identity;
  return target->writer;
}

NbdTarget *
copy_target_reopen (CopyTarget *target, const CopyIdentity *identity, GError **error)
{
  g_autoptr (GError) local = NULL;

  if (target->fd < 0)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "%s: the earlier copy's file is gone",
                   target->part_path != NULL ? target->part_path : target->text);
      return NULL;
    }
  if (!target_compare (target, identity, error))
    return NULL;
  target->proven = TRUE;
  if (target_start_writer (target, &local))
    return target->writer;
  /* Whatever it is that is not there now (a tool, a directory): what was copied is. */
  if (!g_error_matches (local, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    {
      local->domain = G_IO_ERROR;
      local->code = G_IO_ERROR_FAILED;
    }
  g_propagate_error (error, g_steal_pointer (&local));
  return NULL;
}

/* ---- the end ---- */

static gboolean
stop_writer (CopyTarget *target, GError **error)
{
  gboolean good = TRUE;

  g_clear_pointer (&target->writer, nbd_target_free);
  if (target->server != NULL)
    good = qemu_nbd_finish (target->server, target->timeout_ms, error);
  g_clear_pointer (&target->server, qemu_nbd_free);
  return good;
}

gboolean
copy_target_finish (CopyTarget *target, GError **error)
{
  if (!stop_writer (target, error))
    return FALSE;
  if (target->kind == TARGET_FILE && !target_rename (target, error))
    return FALSE;
  if (target->kind == TARGET_IN_PLACE && fsync (target->fd) < 0)
    return fail_errno (target->text, "cannot make it durable", error);
  if (target->kind == TARGET_FILE || target->kind == TARGET_IN_PLACE)
    target_unmark (target->fd);
  return TRUE;
}

void
copy_target_discard (CopyTarget *target)
{
  g_clear_pointer (&target->writer, nbd_target_free);
  g_clear_pointer (&target->server, qemu_nbd_free);
  if (target->kind == TARGET_FILE && (target->made || target->proven))
    unlinkat (target->dir, target->part_name, 0);
  if (target->kind == TARGET_IN_PLACE)
    target_unmark (target->fd);
}
