/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nbd/image-lock.h"
#include "nbd/target.h"

#define MIB (1024 * 1024)

static int
make_file (gsize size)
{
  int fd = memfd_create ("target", MFD_CLOEXEC);

  assert_int_equal (ftruncate (fd, (off_t)size), 0);
  return fd;
}

/* The same file, opened anew: locks of a duplicate would not stand in our way. */
static int
open_again (int fd)
{
  g_autofree char *path = g_strdup_printf ("/proc/self/fd/%d", fd);

  return open (path, O_RDWR | O_CLOEXEC);
}

static guint64
allocated (int fd)
{
  struct stat info;

  assert_int_equal (fstat (fd, &info), 0);
  return (guint64)info.st_blocks * 512;
}

static void
test_write_and_zero (void **state)
{
  int fd = make_file (MIB);
  g_autoptr (NbdTarget) target = nbd_target_new_raw (fd, "t", NULL);
  g_autofree guint8 *buf = g_malloc (MIB);

  assert_int_equal (target->size, MIB);
  assert_true (target->is_zero);
  assert_true (target->klass->zero (target, 0, MIB, NULL));
  assert_true (target->is_zero);
  memset (buf, 7, MIB);
  assert_true (target->klass->write (target, buf, MIB, 0, NULL));
  assert_false (target->is_zero);
  assert_int_equal (allocated (fd), MIB);
  assert_true (target->klass->zero (target, 65536, 131072, NULL));
  assert_int_equal (allocated (fd), MIB - 131072);
  assert_true (target->klass->flush (target, NULL));
  assert_int_equal (pread (fd, buf, MIB, 0), MIB);
  for (guint i = 0; i < MIB; i++)
    assert_int_equal (buf[i], i >= 65536 && i < 196608 ? 0 : 7);
}

static void
test_old_data_is_noticed (void **state)
{
  int fd = make_file (MIB);
  g_autoptr (NbdTarget) target = NULL;

  assert_int_equal (pwrite (fd, "x", 1, 500000), 1);
  target = nbd_target_new_raw (fd, "t", NULL);
  assert_false (target->is_zero);
}

/* qemu-img create writes the first block of a raw image. */
static void
test_little_of_zeroes_is_empty (void **state)
{
  static const guint8 block[4096];
  int fd = make_file (MIB);
  g_autoptr (NbdTarget) target = NULL;

  assert_int_equal (pwrite (fd, block, sizeof block, 0), sizeof block);
  target = nbd_target_new_raw (fd, "t", NULL);
  assert_true (target->is_zero);
}

static void
test_beyond_the_end (void **state)
{
  g_autoptr (NbdTarget) target = nbd_target_new_raw (make_file (1000), "t.raw", NULL);
  g_autoptr (GError) error = NULL;

  assert_false (target->klass->write (target, "abc", 3, 998, &error));
  assert_string_equal (error->message, "t.raw: cannot write 3 bytes at offset 998: File too large");
  assert_false (target->klass->zero (target, G_MAXUINT64, 2, NULL));
  assert_true (target->klass->write (target, "abc", 3, 997, NULL));
}

static void
test_not_a_file (void **state)
{
  g_autoptr (GError) error = NULL;

  assert_null (nbd_target_new_raw (open ("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null", &error));
  assert_string_equal (error->message,
                       "/dev/null: this is neither a regular file nor a block device");
}

static void
test_locks (void **state)
{
  int fd = make_file (MIB);
  int other = open_again (fd);
  struct flock unshared = { .l_type = F_RDLCK, .l_start = 201, .l_len = 1 };
  g_autoptr (NbdTarget) target = nbd_target_new_raw (fd, "t.raw", NULL);
  g_autoptr (GError) error = NULL;

  assert_non_null (target);
  assert_null (nbd_target_new_raw (open_again (fd), "t.raw", &error));
  assert_string_equal (error->message,
                       "t.raw: it is in use: another program has this image open (QEMU or "
                       "qemu-nbd); close it there first");
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_BUSY));
  g_clear_pointer (&target, nbd_target_free);

  /* Somebody who reads and does not want writers. */
  assert_int_equal (fcntl (other, F_OFD_SETLK, &unshared), 0);
  assert_false (image_lock_writer (open_again (other), "t.raw", NULL));
  close (other);
}

/* A file system of one megabyte, where we may make one. */
static void
test_disk_full (void **state)
{
  g_autofree char *dir = g_dir_make_tmp ("vmferry-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (dir, "t.raw", NULL);
  g_autofree guint8 *buf = g_malloc (4 * MIB);
  g_autoptr (GError) error = NULL;
  NbdTarget *target;
  int fd;

  if (mount ("none", dir, "tmpfs", 0, "size=1m") < 0)
    {
      g_rmdir (dir);
      skip ();
    }
  memset (buf, 1, 4 * MIB);
  fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  assert_int_equal (ftruncate (fd, 4 * MIB), 0);
  target = nbd_target_new_raw (fd, path, NULL);
  assert_false (target->klass->write (target, buf, 4 * MIB, 0, &error));
  nbd_target_free (target);
  assert_int_equal (umount (dir), 0);
  g_rmdir (dir);
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_NO_SPACE));
  assert_true (g_str_has_prefix (error->message, path));
  assert_true (g_str_has_suffix (error->message, ": No space left on device"));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_write_and_zero),
    cmocka_unit_test (test_old_data_is_noticed),
    cmocka_unit_test (test_little_of_zeroes_is_empty),
    cmocka_unit_test (test_beyond_the_end),
    cmocka_unit_test (test_not_a_file),
    cmocka_unit_test (test_locks),
    cmocka_unit_test (test_disk_full),
  };

  return cmocka_run_group_tests_name ("target-raw", tests, NULL, NULL);
}
