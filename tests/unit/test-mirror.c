/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nbd/mirror-pass.h"
#include "nbd/mirror.h"
#include "nbd/nbd-error.h"
#include "tests/unit/fake-nbd.h"

#define BLOCKS 1000
#define SIZE (BLOCKS * FAKE_BLOCK)

static const char *const contexts[] = { "qemu:dirty-bitmap:bm0", "base:allocation", NULL };

/* A source, a target, and a pass from one to the other. */
typedef struct
{
  guint8 *data;
  guint8 *state;
  guint8 *dirty;
  FakeNbdSpec spec;
  FakeNbd *fake;
  NbdClient *client;
  NbdTarget *target;
  int fd; /* of the target's file; a duplicate */
  MirrorState mirror;
  gint64 timeout_ms;
  GCancellable *cancellable;
  RateLimit *limit;
} World;

static World *
world_new (guint64 size)
{
  World *world = g_new0 (World, 1);

  world->data = g_malloc0 (SIZE + FAKE_BLOCK);
  world->state = g_malloc0 (BLOCKS + 1);
  world->dirty = g_malloc0 (BLOCKS + 1);
  world->spec = (FakeNbdSpec){
    .size = size, .data = world->data, .state = world->state, .dirty = world->dirty, .bitmap = "bm0"
  };
  world->mirror.in_flight = 1024 * 1024;
  world->timeout_ms = 20 * 1000;
  return world;
}

static void
world_make_target (World *world, guint64 size)
{
  int fd = memfd_create ("target", MFD_CLOEXEC);

  assert_int_equal (ftruncate (fd, (off_t)size), 0);
  world->fd = dup (fd);
  world->target = nbd_target_new_raw (fd, "target.raw", NULL);
  assert_non_null (world->target);
}

static void
world_disconnect (World *world)
{
  g_clear_pointer (&world->client, nbd_client_free);
  g_clear_pointer (&world->fake, fake_nbd_free);
}

static void
world_free (World *world)
{
  world_disconnect (world);
  nbd_target_free (world->target);
  if (world->fd > 0)
    close (world->fd);
  g_free (world->data);
  g_free (world->state);
  g_free (world->dirty);
  g_free (world);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (World, world_free)

/* `bitmap`: a pass, otherwise a seed. */
static gboolean
world_run (World *world, gboolean bitmap, guint64 *ret_bytes, GError **error)
{
  NbdHandshake handshake = { .export_name = "data", .contexts = contexts + (bitmap ? 0 : 1) };
  MirrorPassSpec spec = { .target = world->target,
                          .state = &world->mirror,
                          .bitmap_context = bitmap ? 0 : -1,
                          .timeout_ms = world->timeout_ms,
                          .cancellable = world->cancellable,
                          .limit = world->limit };
  NbdExport export;
  Channel *channel;

  world_disconnect (world);
  world->fake = fake_nbd_new (&world->spec, &channel);
  channel = nbd_handshake_run (channel, &handshake, deadline_in (20 * 1000, NULL), &export, NULL);
  assert_non_null (channel);
  world->client = nbd_client_new (channel, &export, "data");
  spec.client = world->client;
  spec.allocation_context = export.has_context[bitmap ? 1 : 0] ? (bitmap ? 1 : 0) : -1;
  return mirror_pass_run_whole (&spec, ret_bytes, error);
}

static void
world_finish (World *world)
{
  nbd_client_disconnect (world->client);
  fake_nbd_join (world->fake);
}

static void
assert_same (World *world)
{
  g_autofree guint8 *got = g_malloc0 (SIZE + FAKE_BLOCK);

  assert_int_equal (pread (world->fd, got, world->target->size, 0), world->target->size);
  assert_memory_equal (got, world->data, world->target->size);
}

static void
fill_block (World *world, guint block, guint8 seed)
{
  for (guint i = 0; i < FAKE_BLOCK; i++)
    world->data[block * FAKE_BLOCK + i] = (guint8)(seed + i);
}

/* Data, holes that are zero, holes that are not, zeroes that are allocated. */
static void
fill_mixed (World *world)
{
  for (guint b = 0; b < BLOCKS; b++)
    {
      if (b % 16 < 5 || (b > 300 && b < 600))
        fill_block (world, b, (guint8)(b | 1));
      else if (b % 16 < 10)
        world->state[b] = NBD_STATE_HOLE | NBD_STATE_ZERO;
      else if (b % 16 < 12)
        {
          fill_block (world, b, (guint8)(b | 1));
          world->state[b] = NBD_STATE_HOLE;
        }
    }
}

static guint64
allocated (World *world)
{
  struct stat info;

  assert_int_equal (fstat (world->fd, &info), 0);
  return (guint64)info.st_blocks * 512;
}

static guint
count_data_blocks (World *world)
{
  guint n = 0;

  for (guint b = 0; b < BLOCKS; b++)
    for (guint i = 0; i < FAKE_BLOCK; i++)
      if (world->data[b * FAKE_BLOCK + i] != 0)
        {
          n++;
          break;
        }
  return n;
}

static void
test_seed (void **state)
{
  g_autoptr (World) world = world_new (SIZE);
  guint64 bytes = 0;

  fill_mixed (world);
  world_make_target (world, SIZE);
  assert_true (world->target->is_zero);
  assert_true (world_run (world, FALSE, &bytes, NULL));
  assert_same (world);
  assert_false (world->target->is_zero);
  /* Sparse to the block, and nothing that the server calls zero was read. */
  assert_int_equal (allocated (world), count_data_blocks (world) * FAKE_BLOCK);
  world_finish (world);
  assert_int_equal (fake_nbd_get_data_sent (world->fake), bytes);
  assert_int_equal (world->mirror.read_bytes, bytes);
  assert_int_equal (world->mirror.zero_bytes, SIZE - bytes);
  assert_int_equal (world->mirror.todo, SIZE);
  assert_int_equal (world->mirror.done, SIZE);
  assert_true (fake_nbd_got_goodbye (world->fake));
}

static void
test_seed_over_old_data (void **state)
{
  g_autoptr (World) world = world_new (SIZE);
  g_autofree guint8 *junk = g_malloc (SIZE);

  memset (junk, 0x55, SIZE);
  fill_mixed (world);
  world_make_target (world, SIZE);
  assert_int_equal (pwrite (world->fd, junk, SIZE, 0), SIZE);
  world->target->is_zero = FALSE;
  assert_true (world_run (world, FALSE, NULL, NULL));
  assert_same (world);
  /* A second seed over the first. */
  assert_true (world_run (world, FALSE, NULL, NULL));
  assert_same (world);
}

static void
test_seed_without_extents (void **state)
{
  g_autoptr (World) world = world_new (SIZE);

  fill_mixed (world);
  world->spec.simple = TRUE;
  world_make_target (world, SIZE);
  assert_true (world_run (world, FALSE, NULL, NULL));
  assert_same (world);
  assert_int_equal (allocated (world), count_data_blocks (world) * FAKE_BLOCK);
}

static void
test_tiny_status (void **state)
{
  g_autoptr (World) world = world_new (SIZE);

  fill_mixed (world);
  world->spec.fault = FAKE_TINY_STATUS;
  world_make_target (world, SIZE);
  assert_true (world_run (world, FALSE, NULL, NULL));
  assert_same (world);
}

static void
test_pass (void **state)
{
  g_autoptr (World) world = world_new (SIZE);
  guint64 bytes = 0, before;
  guint n_read = 0, n_dirty = 0;

  fill_mixed (world);
  world_make_target (world, SIZE);
  assert_true (world_run (world, FALSE, NULL, NULL));
  before = world->mirror.read_bytes;
  for (guint b = 0; b < BLOCKS; b += 7)
    {
      world->dirty[b] = NBD_STATE_DIRTY;
      n_dirty++;
      world->state[b] = b % 2 ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0;
      if (b % 2)
        memset (world->data + b * FAKE_BLOCK, 0, FAKE_BLOCK);
      else
        {
          fill_block (world, b, 0x99);
          n_read++;
        }
    }
  assert_true (world_run (world, TRUE, &bytes, NULL));
  assert_same (world);
  assert_int_equal (bytes, n_dirty * FAKE_BLOCK);
  assert_int_equal (world->mirror.read_bytes - before, n_read * FAKE_BLOCK);
  assert_int_equal (world->mirror.todo, bytes);
  assert_int_equal (world->mirror.done, bytes);
}

/* A long range that is written with zeroes becomes a hole again, whether or not the server tells.
 */
static void
test_pass_makes_holes (void **state)
{
  g_autoptr (World) world = world_new (SIZE);

  for (guint b = 0; b < BLOCKS; b++)
    fill_block (world, b, 1);
  world_make_target (world, SIZE);
  assert_true (world_run (world, FALSE, NULL, NULL));
  memset (world->data + 100 * FAKE_BLOCK, 0, 100 * FAKE_BLOCK);
  memset (world->dirty + 100, NBD_STATE_DIRTY, 100);
  assert_true (world_run (world, TRUE, NULL, NULL));
  assert_same (world);
  assert_int_equal (allocated (world), (BLOCKS - 100) * FAKE_BLOCK);
}

static void
test_nothing_dirty (void **state)
{
  g_autoptr (World) world = world_new (SIZE);
  guint64 bytes = 99;

  world_make_target (world, SIZE);
  assert_true (world_run (world, TRUE, &bytes, NULL));
  assert_int_equal (bytes, 0);
  assert_true (world->target->is_zero);
}

static void
test_odd_sizes (void **state)
{
  static const struct
  {
    guint64 export;
    guint64 target;
  } cases[] = { { 512512, 512300 }, { 512300, 512300 }, { 512300, 512512 }, { 0, 0 }, { 1, 1 } };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (World) world = world_new (cases[i].export);

      for (guint k = 0; k < MIN (cases[i].export, cases[i].target); k++)
        world->data[k] = (guint8)(k | 1);
      world->spec.min_block = cases[i].export % 512 == 0 ? 512 : 1;
      world_make_target (world, cases[i].target);
      assert_true (world_run (world, FALSE, NULL, NULL));
      assert_same (world);
    }
}

static void
test_data_in_the_padding (void **state)
{
  g_autoptr (World) world = world_new (512512);
  g_autoptr (GError) error = NULL;

  world->data[512300] = 1;
  world_make_target (world, 512300);
  assert_false (world_run (world, FALSE, NULL, &error));
  assert_string_equal (error->message,
                       "target.raw: it has only 512300 bytes, and fake:10809, export \"data\" has "
                       "data beyond that which is not zero");
}

static void
test_sizes_differ (void **state)
{
  g_autoptr (World) world = world_new (SIZE);
  g_autoptr (GError) error = NULL;

  world_make_target (world, SIZE - 512);
  assert_false (world_run (world, FALSE, NULL, &error));
  assert_string_equal (error->message,
                       "fake:10809, export \"data\" has 4096000 bytes, but target.raw has 4095488: "
                       "the sizes have to be the same");
  assert_true (g_error_matches (error, NBD_ERROR, NBD_ERROR_SIZE));
}

static void
test_faults (void **state)
{
  static const FakeFault faults[] = {
    FAKE_WRONG_COOKIE, FAKE_CLOSE,     FAKE_CLOSE_IN_DATA, FAKE_LONG_CHUNK,
    FAKE_UNCOVERED,    FAKE_OVERLAP,   FAKE_UNKNOWN_ERROR, FAKE_EIO,
    FAKE_SHUTDOWN,     FAKE_NO_STATUS, FAKE_EMPTY_EXTENT,
  };

  for (guint i = 0; i < G_N_ELEMENTS (faults); i++)
    for (guint at = 0; at < 20; at += 6)
      {
        g_autoptr (World) world = world_new (SIZE);
        g_autoptr (GError) error = NULL;

        fill_mixed (world);
        world->spec.fault = faults[i];
        /* There is one query only. */
        world->spec.at = faults[i] >= FAKE_EMPTY_EXTENT ? 0 : at;
        world_make_target (world, SIZE);
        assert_false (world_run (world, FALSE, NULL, &error));
        assert_non_null (strstr (error->message, "fake:10809"));
        assert_non_null (strstr (error->message, "export \"data\""));
      }
}

static void
test_silent_server (void **state)
{
  g_autoptr (World) world = world_new (SIZE);
  g_autoptr (GError) error = NULL;

  fill_mixed (world);
  world->spec.fault = FAKE_SILENT;
  world->spec.at = 5;
  world->timeout_ms = 100;
  world_make_target (world, SIZE);
  assert_false (world_run (world, FALSE, NULL, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT));
  assert_true (g_str_has_prefix (error->message,
                                 "fake:10809, export \"data\": no progress in 0.1 s, at offset "));
}

static gpointer
cancel_thread (gpointer cancellable)
{
  g_usleep (1000);
  g_cancellable_cancel (cancellable);
  return NULL;
}

static void
test_cancel (void **state)
{
  g_autoptr (World) world = world_new (SIZE);
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  GThread *thread;

  fill_mixed (world);
  world->spec.fault = FAKE_SILENT;
  world->cancellable = cancellable;
  world_make_target (world, SIZE);
  thread = g_thread_new ("cancel", cancel_thread, cancellable);
  assert_false (world_run (world, FALSE, NULL, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED));
  g_thread_join (thread);
}

static void
test_rate_limit (void **state)
{
  g_autoptr (World) world = world_new (SIZE);
  g_autoptr (RateLimit) limit = rate_limit_new (16 * SIZE);
  gint64 start = g_get_monotonic_time ();

  for (guint b = 0; b < BLOCKS; b++)
    fill_block (world, b, 1);
  world->limit = limit;
  world_make_target (world, SIZE);
  assert_true (world_run (world, FALSE, NULL, NULL));
  assert_same (world);
  /* All but the last request are paid for, and what may be saved up. */
  assert_true (g_get_monotonic_time () - start
               >= (gint64)(SIZE - MIRROR_REQUEST_SIZE) * G_USEC_PER_SEC / (16 * SIZE) - 50000);
}

/* What the server says about holes and dirty blocks is random, but never wrong. */
static void
test_random (void **state)
{
  for (guint round = 0; round < 60; round++)
    {
      g_autoptr (World) world = world_new (SIZE);
      g_autoptr (GRand) rand = g_rand_new_with_seed (round);

      world->spec.holes = g_rand_boolean (rand);
      world->spec.simple = round % 10 == 9;
      world->spec.min_block = 1u << g_rand_int_range (rand, 0, 13);
      world->mirror.in_flight = 1u << g_rand_int_range (rand, 0, 22);
      world_make_target (world, SIZE);
      for (guint b = 0; b < BLOCKS; b++)
        if (g_rand_int_range (rand, 0, 3) == 0)
          fill_block (world, b, (guint8)g_rand_int (rand));
        else
          world->state[b] = (guint8)g_rand_int_range (rand, 0, 4);
      assert_true (world_run (world, FALSE, NULL, NULL));
      assert_same (world);
      if (world->spec.simple)
        continue;
      for (guint pass = 0; pass < 3; pass++)
        {
          for (guint b = 0; b < BLOCKS; b++)
            {
              world->dirty[b] = g_rand_int_range (rand, 0, 4) == 0;
              if (!world->dirty[b])
                continue;
              world->state[b] = (guint8)g_rand_int_range (rand, 0, 4);
              memset (world->data + b * FAKE_BLOCK,
                      world->state[b] & NBD_STATE_ZERO ? 0 : g_rand_int_range (rand, 0, 3),
                      FAKE_BLOCK);
            }
          assert_true (world_run (world, TRUE, NULL, NULL));
          assert_same (world);
        }
    }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_seed),
    cmocka_unit_test (test_seed_over_old_data),
    cmocka_unit_test (test_seed_without_extents),
    cmocka_unit_test (test_tiny_status),
    cmocka_unit_test (test_pass),
    cmocka_unit_test (test_pass_makes_holes),
    cmocka_unit_test (test_nothing_dirty),
    cmocka_unit_test (test_odd_sizes),
    cmocka_unit_test (test_data_in_the_padding),
    cmocka_unit_test (test_sizes_differ),
    cmocka_unit_test (test_faults),
    cmocka_unit_test (test_silent_server),
    cmocka_unit_test (test_cancel),
    cmocka_unit_test (test_rate_limit),
    cmocka_unit_test (test_random),
  };

  return cmocka_run_group_tests_name ("mirror", tests, NULL, NULL);
}
