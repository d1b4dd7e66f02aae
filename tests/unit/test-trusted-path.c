/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <glib/gstdio.h>
#include <unistd.h>

#include "daemon/copy/trusted-path.h"

#define STRANGER 12345

typedef struct
{
  char *dir;
  char *sub;
  char *link;
  char *file; /* by way of the link */
} World;

static int
setup (void **state)
{
  World *world = g_new0 (World, 1);

  world->dir = g_dir_make_tmp ("vmferry-path-XXXXXX", NULL);
  world->sub = g_build_filename (world->dir, "sub", NULL);
  world->link = g_build_filename (world->dir, "link", NULL);
  world->file = g_build_filename (world->link, "disk", NULL);
  assert_int_equal (g_mkdir (world->sub, 0700), 0);
  *state = world;
  return 0;
}

static int
teardown (void **state)
{
  World *world = *state;

  g_unlink (world->link);
  g_rmdir (world->sub);
  g_rmdir (world->dir);
  g_free (world->file);
  g_free (world->link);
  g_free (world->sub);
  g_free (world->dir);
  g_free (world);
  return 0;
}

static void
test_own_link (void **state)
{
  World *world = *state;
  g_autofree char *name = NULL;
  int fd;

  assert_int_equal (symlink ("sub", world->link), 0);
  fd = trusted_path_open_parent (world->file, &name, NULL);
  assert_true (fd >= 0);
  assert_string_equal (name, "disk");
  close (fd);
  fd = trusted_path_open (world->link, NULL);
  assert_true (fd >= 0);
  close (fd);
}

static void
test_link_of_a_stranger (void **state)
{
  World *world = *state;
  g_autoptr (GError) error = NULL;
  g_autofree char *name = NULL;

  if (geteuid () != 0)
    skip ();
  assert_int_equal (symlink ("sub", world->link), 0);
  assert_int_equal (lchown (world->link, STRANGER, STRANGER), 0);
  assert_int_equal (trusted_path_open_parent (world->file, &name, &error), -1);
  assert_null (name);
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED));
  assert_true (g_str_has_prefix (error->message, world->file));
  assert_int_equal (trusted_path_open (world->link, NULL), -1);
}

static void
test_loop (void **state)
{
  World *world = *state;
  g_autoptr (GError) error = NULL;

  assert_int_equal (symlink ("link", world->link), 0);
  assert_int_equal (trusted_path_open (world->link, &error), -1);
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TOO_MANY_LINKS));
}

static void
test_absent (void **state)
{
  World *world = *state;
  g_autoptr (GError) error = NULL;
  g_autofree char *name = NULL;

  assert_int_equal (trusted_path_open_parent (world->file, &name, &error), -1);
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND));
}

static void
test_directories (void **state)
{
  static const char *const paths[] = { "/", "/tmp/", "..", "/tmp/.." };
  g_autofree char *name = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (paths); i++)
    assert_int_equal (trusted_path_open_parent (paths[i], &name, NULL), -1);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown (test_own_link, setup, teardown),
    cmocka_unit_test_setup_teardown (test_link_of_a_stranger, setup, teardown),
    cmocka_unit_test_setup_teardown (test_loop, setup, teardown),
    cmocka_unit_test_setup_teardown (test_absent, setup, teardown),
    cmocka_unit_test (test_directories),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
