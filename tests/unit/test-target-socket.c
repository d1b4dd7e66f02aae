/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <glib/gstdio.h>
#include <string.h>

#include "nbd/nbd-error.h"
#include "nbd/protocol.h"
#include "nbd/target.h"
#include "tests/unit/fake-nbd.h"

#define SIZE (32 * 1024 * 1024)

typedef struct
{
  char *dir;
  char *path;
  guint8 *data;
  FakeNbdSpec spec;
  FakeNbd *fake;
  NbdTarget *target;
} World;

static World *
world_new (void)
{
  World *world = g_new0 (World, 1);

  world->dir = g_dir_make_tmp ("vmferry-XXXXXX", NULL);
  world->path = g_build_filename (world->dir, "sock", NULL);
  world->data = g_malloc0 (SIZE);
  world->spec = (FakeNbdSpec){ .size = SIZE, .data = world->data };
  return world;
}

static void
world_free (World *world)
{
  nbd_target_free (world->target);
  fake_nbd_free (world->fake);
  g_unlink (world->path);
  g_rmdir (world->dir);
  g_free (world->dir);
  g_free (world->path);
  g_free (world->data);
  g_free (world);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (World, world_free)

static gboolean
world_open (World *world, gboolean is_zero, gint64 timeout_ms, GError **error)
{
  world->fake = fake_nbd_new_listening (&world->spec, world->path);
  world->target
      = nbd_target_new_socket (world->path, "", "disk.qcow2", is_zero, timeout_ms, NULL, error);
  return world->target != NULL;
}

static void
test_writes (void **state)
{
  g_autoptr (World) world = world_new ();
  g_autofree guint8 *expected = g_malloc0 (SIZE);
  g_autofree guint8 *buf = g_malloc (SIZE);
  NbdTarget *target;

  assert_true (world_open (world, TRUE, 20 * 1000, NULL));
  target = world->target;
  assert_int_equal (target->size, SIZE);
  assert_true (target->is_zero);
  for (guint64 at = 0; at < SIZE; at += 262144)
    {
      memset (buf, (int)(at / 262144 + 1), 262144);
      memcpy (expected + at, buf, 262144);
      assert_true (target->klass->write (target, buf, 262144, at, NULL));
      /* It is ours again. */
      memset (buf, 0xff, 262144);
    }
  /* More than may be under way; and the same range again, where the last one has to win. */
  memset (buf, 0x77, SIZE);
  assert_true (target->klass->write (target, buf, SIZE / 2, 0, NULL));
  memset (expected, 0x77, SIZE / 2);
  for (guint i = 0; i < 200; i++)
    {
      memset (buf, (int)i, 4096);
      assert_true (target->klass->write (target, buf, 4096, 8192, NULL));
    }
  memset (expected + 8192, 199, 4096);
  assert_true (target->klass->zero (target, SIZE / 4, 65536, NULL));
  memset (expected + SIZE / 4, 0, 65536);
  assert_true (target->klass->flush (target, NULL));
  assert_memory_equal (world->data, expected, SIZE);
  g_clear_pointer (&world->target, nbd_target_free);
  fake_nbd_join (world->fake);
  assert_int_equal (fake_nbd_get_n (world->fake, NBD_CMD_FLUSH), 1);
  assert_true (fake_nbd_got_goodbye (world->fake));
}

static void
test_empty_target_needs_no_zeroes (void **state)
{
  g_autoptr (World) world = world_new ();

  assert_true (world_open (world, TRUE, 20 * 1000, NULL));
  assert_true (world->target->klass->zero (world->target, 0, SIZE, NULL));
  assert_true (world->target->klass->flush (world->target, NULL));
  g_clear_pointer (&world->target, nbd_target_free);
  fake_nbd_join (world->fake);
  assert_int_equal (fake_nbd_get_n (world->fake, NBD_CMD_WRITE_ZEROES), 0);
}

/* The answer to a write may come late, but not later than the flush. */
static void
test_error_comes_with_the_flush (void **state)
{
  g_autoptr (World) world = world_new ();
  g_autoptr (GError) error = NULL;
  guint8 buf[4096] = { 1 };

  world->spec.fault = FAKE_EIO;
  world->spec.simple = FALSE;
  assert_true (world_open (world, TRUE, 20 * 1000, NULL));
  if (world->target->klass->write (world->target, buf, sizeof buf, 0, &error))
    assert_false (world->target->klass->flush (world->target, &error));
  assert_true (g_error_matches (error, NBD_ERROR, NBD_ERROR_IO));
  assert_true (g_str_has_prefix (error->message, "disk.qcow2: "));
  assert_non_null (strstr (error->message, "write of 4096 bytes at offset 0"));
}

static void
test_silent_server (void **state)
{
  g_autoptr (World) world = world_new ();
  g_autoptr (GError) error = NULL;

  world->spec.fault = FAKE_SILENT;
  assert_true (world_open (world, TRUE, 1000, NULL));
  assert_false (world->target->klass->flush (world->target, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT));
  assert_true (g_str_has_prefix (error->message, "disk.qcow2: "));
}

static void
test_read_only (void **state)
{
  g_autoptr (World) world = world_new ();
  g_autoptr (GError) error = NULL;

  world->spec.read_only = TRUE;
  assert_false (world_open (world, TRUE, 20 * 1000, &error));
  assert_true (g_str_has_prefix (error->message, "disk.qcow2: "));
  assert_true (g_str_has_suffix (error->message, ", export \"\": the export is read-only"));
}

static void
test_nobody_listens (void **state)
{
  g_autoptr (GError) error = NULL;

  assert_null (
      nbd_target_new_socket ("/nonexistent/sock", "", "disk.qcow2", TRUE, 1000, NULL, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND));
  assert_true (g_str_has_prefix (error->message, "disk.qcow2: "));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_writes),
    cmocka_unit_test (test_empty_target_needs_no_zeroes),
    cmocka_unit_test (test_error_comes_with_the_flush),
    cmocka_unit_test (test_silent_server),
    cmocka_unit_test (test_read_only),
    cmocka_unit_test (test_nobody_listens),
  };

  return cmocka_run_group_tests_name ("target-socket", tests, NULL, NULL);
}
