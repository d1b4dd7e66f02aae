/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#include "nbd/mirror.h"
#include "nbd/nbd-error.h"
#include "tests/interop/nbd-servers.h"
#include "tests/unit/pki.h"

#define TIMEOUT_MS (30 * 1000)

/* Copies of real servers' exports, over TLS, into files of a directory of its own. */
typedef struct
{
  PkiDir *pki;
  Credentials *client;
  char *dir;
  char *tls; /* qemu's object */
} World;

static World world;

static int
make_world (void **state)
{
  world.pki = pki_dir_new_for ("src.test");
  world.client = credentials_load (world.pki, CREDENTIALS_CLIENT, NULL);
  world.dir = g_dir_make_tmp ("vmferry-XXXXXX", NULL);
  world.tls
      = g_strdup_printf ("tls-creds-x509,id=tls0,dir=%s,endpoint=server,verify-peer=on", world.pki);
  return world.client != NULL ? 0 : -1;
}

static int
drop_world (void **state)
{
  run_command ("rm -r '%s'", world.dir);
  credentials_unref (world.client);
  pki_dir_free (world.pki);
  g_free (world.dir);
  g_free (world.tls);
  return 0;
}

static void
need (const char *program)
{
  g_autofree char *path = g_find_program_in_path (program);

  if (path == NULL)
    {
      print_message ("%s is not installed\n", program);
      skip ();
    }
}

static char *
file_path (const char *name)
{
  return g_build_filename (world.dir, name, NULL);
}

/* 64 MiB with data, a hole, and zeroes that were written. */
static char *
make_source (const char *name, const char *format)
{
  char *path = file_path (name);

  run_command ("qemu-img create -q -f %s '%s' 64M; "
               "qemu-io -f %s -c 'write -P 7 0 5M' -c 'write -P 9 20M 68k' -c 'write -P 1 40M 4k' "
               "-c 'write -P 0 50M 1M' -c 'write -P 3 67104768 4k' '%s' >/dev/null",
               format, path, format, path);
  return path;
}

static NbdTarget *
make_raw_target (const char *path, guint64 size)
{
  int fd = g_open (path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  NbdTarget *target;

  assert_int_equal (ftruncate (fd, (off_t)size), 0);
  target = nbd_target_new_raw (fd, path, NULL);
  assert_non_null (target);
  return target;
}

static gboolean
copy (const NbdServer *server, const char *export_name, const char *bitmap, NbdTarget *target,
      MirrorProgress *ret_progress, GError **error)
{
  g_autoptr (Mirror) mirror = mirror_new (target, NULL);
  MirrorServer where = { .host = "127.0.0.1",
                         .port = nbd_server_get_port (server),
                         .credentials = world.client,
                         .tls_name = "src.test" };

  if (!mirror_run_pass (mirror, &where, export_name, bitmap, TIMEOUT_MS, NULL, NULL, error)
      || !target->klass->flush (target, error))
    return FALSE;
  mirror_get_progress (mirror, ret_progress);
  return TRUE;
}

static guint64
allocated (const char *path)
{
  struct stat info;

  assert_int_equal (stat (path, &info), 0);
  return (guint64)info.st_blocks * 512;
}

static NbdServer *
start_qemu_nbd (const char *path, const char *format, const char *bitmap)
{
  const char *argv[] = { "qemu-nbd",
                         "-t",
                         "-r",
                         "-f",
                         format,
                         "--object",
                         world.tls,
                         "--tls-creds",
                         "tls0",
                         "-x",
                         "data",
                         path,
                         bitmap != NULL ? "-B" : NULL,
                         bitmap,
                         NULL };

  return nbd_server_start (NULL, argv);
}

static void
check_seed (const char *format)
{
  g_autofree char *source_name = g_strdup_printf ("source.%s", format);
  g_autofree char *source = make_source (source_name, format);
  g_autofree char *path = file_path ("seed.raw");
  g_autoptr (NbdServer) server = start_qemu_nbd (source, format, NULL);
  g_autoptr (NbdTarget) target = make_raw_target (path, 64 << 20);
  g_autoptr (GError) error = NULL;
  MirrorProgress progress;

  copy (server, "data", NULL, target, &progress, &error);
  g_assert_no_error (error);
  assert_true (allocated (path) < 6 << 20);
  assert_true (progress.read_bytes < 8 << 20);
  assert_int_equal (progress.done, 64 << 20);
  g_clear_pointer (&target, nbd_target_free);
  run_command ("qemu-img compare -U -f %s -F raw '%s' '%s'", format, source, path);
  g_unlink (path);
}

static void
test_qemu_nbd_raw (void **state)
{
  need ("qemu-nbd");
  check_seed ("raw");
}

static void
test_qemu_nbd_qcow2 (void **state)
{
  need ("qemu-nbd");
  check_seed ("qcow2");
}

static void
test_bitmap (void **state)
{
  g_autofree char *path = file_path ("pass.raw");
  g_autofree char *source = NULL;
  g_autoptr (NbdServer) server = NULL;
  g_autoptr (NbdTarget) target = NULL;
  g_autoptr (GError) error = NULL;
  MirrorProgress progress;

  need ("qemu-nbd");
  source = make_source ("bitmap.qcow2", "qcow2");
  run_command ("qemu-img bitmap --add -g 4k '%s' bm0; qemu-img convert -O raw '%s' '%s'; "
               "qemu-io -f qcow2 -c 'write -P 5 1M 4k' -c 'write -z 2M 1M' -c 'write -P 6 30M 2M' "
               "'%s' >/dev/null; qemu-img bitmap --disable '%s' bm0",
               source, source, path, source, source);
  server = start_qemu_nbd (source, "qcow2", "bm0");
  target = make_raw_target (path, 64 << 20);
  copy (server, "data", "bm0", target, &progress, &error);
  g_assert_no_error (error);
  assert_int_equal (progress.todo, (3 << 20) + 4096);
  assert_int_equal (progress.read_bytes, (2 << 20) + 4096);
  assert_int_equal (progress.zero_bytes, 1 << 20);
  assert_false (copy (server, "data", "other", target, &progress, &error));
  assert_true (g_error_matches (error, NBD_ERROR, NBD_ERROR_NO_CONTEXT));
  g_clear_pointer (&target, nbd_target_free);
  run_command ("qemu-img compare -U -f qcow2 -F raw '%s' '%s'", source, path);
}

/* Into qcow2, through a second qemu-nbd, and a pass over that. */
static void
test_qcow2_target (void **state)
{
  g_autofree char *path = file_path ("target.qcow2");
  g_autofree char *socket = file_path ("target.sock");
  const char *argv[] = { "qemu-nbd", "-f", "qcow2", "--discard=unmap", path, NULL };
  g_autofree char *source = NULL;
  g_autoptr (NbdServer) server = NULL;
  g_autoptr (NbdServer) writer = NULL;
  g_autoptr (GError) error = NULL;
  NbdTarget *target;
  MirrorProgress progress;

  need ("qemu-nbd");
  source = make_source ("to-qcow2.qcow2", "qcow2");
  run_command ("qemu-img create -q -f qcow2 '%s' 64M", path);
  server = start_qemu_nbd (source, "qcow2", NULL);
  writer = nbd_server_start (socket, argv);
  target = nbd_target_new_socket (socket, "", path, TRUE, TIMEOUT_MS, NULL, &error);
  g_assert_no_error (error);
  copy (server, "data", NULL, target, &progress, &error);
  g_assert_no_error (error);
  copy (server, "data", NULL, target, &progress, &error);
  g_assert_no_error (error);
  nbd_target_free (target);
  g_clear_pointer (&writer, nbd_server_stop);
  run_command ("qemu-img compare -U -f qcow2 -F qcow2 '%s' '%s'", source, path);
  assert_true (allocated (path) < 8 << 20);
}

/* QEMU's own server, with an image that is no whole number of sectors. */
static void
test_storage_daemon_odd_size (void **state)
{
  g_autofree char *source = file_path ("odd.raw");
  g_autofree char *path = file_path ("odd-copy.raw");
  g_autofree char *blockdev
      = g_strdup_printf ("driver=file,node-name=d0,read-only=on,filename=%s", source);
  const char *argv[] = { "qemu-storage-daemon",
                         "--blockdev",
                         blockdev,
                         "--object",
                         world.tls,
                         "--nbd-server",
                         "addr.type=fd,addr.str=@FD@,tls-creds=tls0",
                         "--export",
                         "nbd,id=e0,node-name=d0,name=data",
                         NULL };
  g_autoptr (NbdServer) server = NULL;
  g_autoptr (NbdTarget) target = NULL;
  g_autoptr (GError) error = NULL;
  MirrorProgress progress;

  need ("qemu-storage-daemon");
  run_command ("yes vmferry | head -c 512300 > '%s'", source);
  server = nbd_server_start (NULL, argv);
  target = make_raw_target (path, 512300);
  copy (server, "data", NULL, target, &progress, &error);
  g_assert_no_error (error);
  run_command ("cmp '%s' '%s'", source, path);
}

static NbdServer *
start_nbdkit (const char *const *more)
{
  g_autofree char *certificates = g_strdup_printf ("--tls-certificates=%s", world.pki);
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();

  g_ptr_array_add (argv, (gpointer) "nbdkit");
  g_ptr_array_add (argv, (gpointer) "-f");
  g_ptr_array_add (argv, (gpointer) "--tls=require");
  g_ptr_array_add (argv, (gpointer) "--tls-verify-peer");
  g_ptr_array_add (argv, certificates);
  for (guint i = 0; more[i] != NULL; i++)
    g_ptr_array_add (argv, (gpointer)more[i]);
  g_ptr_array_add (argv, NULL);
  return nbd_server_start (NULL, (const char *const *)argv->pdata);
}

static void
test_nbdkit (void **state)
{
  g_autofree char *path = file_path ("nbdkit.raw");
  g_autofree char *source = NULL;
  g_autoptr (NbdServer) server = NULL;
  g_autoptr (NbdTarget) target = NULL;
  g_autoptr (GError) error = NULL;
  MirrorProgress progress;

  need ("nbdkit");
  source = make_source ("nbdkit-source.raw", "raw");
  server = start_nbdkit ((const char *const[]){ "file", source, NULL });
  target = make_raw_target (path, 64 << 20);
  copy (server, "", NULL, target, &progress, &error);
  g_assert_no_error (error);
  run_command ("cmp '%s' '%s'", source, path);
  assert_true (allocated (path) < 6 << 20);
}

static void
test_nbdkit_read_error (void **state)
{
  g_autofree char *path = file_path ("error.raw");
  g_autofree char *source = NULL;
  g_autoptr (NbdServer) server = NULL;
  g_autoptr (NbdTarget) target = NULL;
  g_autoptr (GError) error = NULL;
  MirrorProgress progress;

  need ("nbdkit");
  source = make_source ("error-source.raw", "raw");
  server = start_nbdkit ((const char *const[]){ "--filter=error", "file", source, "error=EIO",
                                                "error-pread-rate=1", NULL });
  target = make_raw_target (path, 64 << 20);
  assert_false (copy (server, "", NULL, target, &progress, &error));
  assert_true (g_error_matches (error, NBD_ERROR, NBD_ERROR_IO));
  assert_non_null (strstr (error->message, "bytes at offset"));
  assert_non_null (strstr (error->message, "Input/output error"));
}

static void
check_refused (const NbdServer *server, Credentials *credentials, const char *name, GError **error)
{
  g_autofree char *path = file_path ("refused.raw");
  g_autoptr (NbdTarget) target = make_raw_target (path, 64 << 20);
  g_autoptr (Mirror) mirror = mirror_new (target, NULL);
  MirrorServer where = { .host = "127.0.0.1",
                         .port = nbd_server_get_port (server),
                         .credentials = credentials,
                         .tls_name = name };

  assert_false (mirror_run_pass (mirror, &where, "data", NULL, TIMEOUT_MS, NULL, NULL, error));
  assert_int_equal (allocated (path), 0);
}

static void
test_wrong_name_and_ca (void **state)
{
  g_autoptr (PkiDir) other = pki_dir_new_for ("src.test");
  g_autoptr (Credentials) stranger = credentials_load (other, CREDENTIALS_CLIENT, NULL);
  g_autofree char *source = NULL;
  g_autoptr (NbdServer) server = NULL;
  g_autoptr (GError) error = NULL;

  need ("qemu-nbd");
  source = make_source ("refused-source.raw", "raw");
  server = start_qemu_nbd (source, "raw", NULL);
  check_refused (server, world.client, "other.test", &error);
  assert_true (g_error_matches (error, TLS_ERROR, TLS_ERROR_NAME));
  g_clear_error (&error);
  check_refused (server, stranger, "src.test", &error);
  assert_true (g_error_matches (error, TLS_ERROR, TLS_ERROR_UNTRUSTED));
}

static void
test_server_without_tls (void **state)
{
  g_autofree char *source = NULL;
  g_autoptr (NbdServer) server = NULL;
  g_autoptr (GError) error = NULL;

  need ("qemu-nbd");
  source = make_source ("plain-source.raw", "raw");
  server = nbd_server_start (
      NULL, (const char *const[]){ "qemu-nbd", "-r", "-f", "raw", "-x", "data", source, NULL });
  check_refused (server, world.client, "src.test", &error);
  assert_true (g_error_matches (error, NBD_ERROR, NBD_ERROR_NO_TLS));
  assert_non_null (strstr (error->message, "the server offers no TLS"));
}

/* A device full of old data: holes are written as zeroes. */
static void
test_block_device (void **state)
{
  g_autofree char *backing = file_path ("device.img");
  g_autofree char *name_file = file_path ("device.name");
  g_autofree char *device = NULL;
  g_autofree char *source = NULL;
  g_autoptr (NbdServer) server = NULL;
  g_autoptr (GError) error = NULL;
  NbdTarget *target;
  MirrorProgress progress;

  need ("qemu-nbd");
  need ("losetup");
  run_command (
      "yes old | head -c 64M > '%s'; losetup --find --show '%s' > '%s' 2>/dev/null || true",
      backing, backing, name_file);
  assert_true (g_file_get_contents (name_file, &device, NULL, NULL));
  if (*g_strstrip (device) == '\0')
    skip ();
  source = make_source ("device-source.qcow2", "qcow2");
  server = start_qemu_nbd (source, "qcow2", NULL);
  target = nbd_target_new_raw (g_open (device, O_RDWR | O_CLOEXEC, 0), device, &error);
  if (error == NULL && !target->is_zero)
    copy (server, "data", NULL, target, &progress, &error);
  nbd_target_free (target);
  run_command ("losetup -d '%s'", device);
  g_assert_no_error (error);
  run_command ("qemu-img compare -U -f qcow2 -F raw '%s' '%s'", source, backing);
}

/* QEMU's own lock stands against our target, and the other way round. */
static void
test_image_locks (void **state)
{
  g_autofree char *source = NULL;
  g_autoptr (NbdTarget) target = NULL;

  need ("qemu-io");
  source = make_source ("locked.raw", "raw");
  target = make_raw_target (source, 64 << 20);
  run_command ("! qemu-io -f raw -c 'write 0 4k' '%s' 2>/dev/null", source);
  g_clear_pointer (&target, nbd_target_free);
  run_command ("qemu-io -f raw -c 'write 0 4k' '%s'", source);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_qemu_nbd_raw),
    cmocka_unit_test (test_qemu_nbd_qcow2),
    cmocka_unit_test (test_bitmap),
    cmocka_unit_test (test_qcow2_target),
    cmocka_unit_test (test_storage_daemon_odd_size),
    cmocka_unit_test (test_nbdkit),
    cmocka_unit_test (test_nbdkit_read_error),
    cmocka_unit_test (test_wrong_name_and_ca),
    cmocka_unit_test (test_server_without_tls),
    cmocka_unit_test (test_block_device),
    cmocka_unit_test (test_image_locks),
  };

  return cmocka_run_group_tests_name ("nbd", tests, make_world, drop_world);
}
