/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <glib/gstdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "nbd/nbd-error.h"
#include "nbd/pull.h"
#include "tests/unit/fake-nbd.h"

#define BLOCKS 3000
#define SIZE (BLOCKS * FAKE_BLOCK)
#define STRIPE (1024 * 1024)

/* What the n-th client of a server meets. */
typedef struct
{
  FakeFault fault;
  guint at;
  gboolean refused; /* hung up on at once */
  guint64 size;     /* 0: as ever */
} Visit;

/* A server at a UNIX socket, and a pull from it. */
typedef struct
{
  guint8 *data;
  guint8 *state;
  guint8 *dirty;
  guint8 *stored; /* how often each block was told as stored */
  FakeNbdSpec spec;
  const Visit *visits; /* from the last one on: honest */
  guint n_visits;

  char *dir;
  char *path;
  int listener;
  GThread *thread;
  GCancellable *stop;
  GPtrArray *fakes;

  NbdTarget *target;
  int fd;
  MirrorState mirror;
  GArray *ranges; /* WorkRange */
  WorkList *work;
  PullSpec pull;
  gint n_lost;
  gint n_proofs;
  gboolean same; /* what a proof says */
} World;

static gpointer
serve_thread (gpointer data)
{
  World *world = data;

  while (deadline_poll (deadline_in (-1, world->stop), world->listener, POLLIN, NULL))
    {
      FakeNbdSpec spec = world->spec;
      guint n = world->fakes->len;
      int fd = accept (world->listener, NULL, NULL);

      assert_true (fd >= 0);
      if (n < world->n_visits)
        {
          spec.fault = world->visits[n].fault;
          spec.at = world->visits[n].at;
          spec.size = world->visits[n].size > 0 ? world->visits[n].size : spec.size;
        }
      if (n < world->n_visits && world->visits[n].refused)
        shutdown (fd, SHUT_RDWR);
      g_ptr_array_add (world->fakes, fake_nbd_new_fd (&spec, fd));
    }
  return NULL;
}

static void
world_listen (World *world)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  world->dir = g_dir_make_tmp ("vmferry-pull-XXXXXX", NULL);
  world->path = g_build_filename (world->dir, "nbd.sock", NULL);
  g_strlcpy (address.sun_path, world->path, sizeof address.sun_path);
  world->listener = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal (bind (world->listener, (struct sockaddr *)&address, sizeof address), 0);
  assert_int_equal (listen (world->listener, 16), 0);
  world->stop = g_cancellable_new ();
  world->fakes = g_ptr_array_new_with_free_func ((GDestroyNotify)fake_nbd_free);
  world->thread = g_thread_new ("serve", serve_thread, world);
}

/* Some data, some holes, some blocks of zeroes. */
static void
world_fill (World *world)
{
  for (guint b = 0; b < BLOCKS; b++)
    if (b % 13 < 3)
      world->state[b] = NBD_STATE_HOLE | NBD_STATE_ZERO;
    else if (b % 13 < 11)
      memset (world->data + b * FAKE_BLOCK, (int)(b % 250 + 1), FAKE_BLOCK);
}

static World *
world_new (void)
{
  World *world = g_new0 (World, 1);
  int fd = memfd_create ("target", MFD_CLOEXEC);
  const WorkRange all = { 0, SIZE };

  world->data = g_malloc0 (SIZE);
  world->state = g_malloc0 (BLOCKS);
  world->dirty = g_malloc0 (BLOCKS);
  world->stored = g_malloc0 (BLOCKS);
  world_fill (world);
  world->spec = (FakeNbdSpec){ .size = SIZE,
                               .data = world->data,
                               .state = world->state,
                               .dirty = world->dirty,
                               .bitmap = "bm0",
                               .read_only = TRUE,
                               .multi_conn = TRUE };
  assert_int_equal (ftruncate (fd, SIZE), 0);
  world->fd = dup (fd);
  world->target = nbd_target_new_raw (fd, "target.raw", NULL);
  world->ranges = g_array_new (FALSE, FALSE, sizeof (WorkRange));
  g_array_append_val (world->ranges, all);
  world->same = TRUE;
  world->pull = (PullSpec){ .n_connections = 1, .timeout_ms = 20 * 1000, .user_data = world };
  world_listen (world);
  return world;
}

static void
world_free (World *world)
{
  g_cancellable_cancel (world->stop);
  g_thread_join (world->thread);
  g_ptr_array_unref (world->fakes);
  close (world->listener);
  g_unlink (world->path);
  g_rmdir (world->dir);
  nbd_target_free (world->target);
  close (world->fd);
  work_list_free (world->work);
  g_array_unref (world->ranges);
  g_object_unref (world->stop);
  g_free (world->dir);
  g_free (world->path);
  g_free (world->data);
  g_free (world->state);
  g_free (world->dirty);
  g_free (world->stored);
  g_free (world);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (World, world_free)

/* Ranges of their own: no lock is needed, and the sanitizers look after that. */
static void
world_stored (gpointer user_data, const guint8 *data, gsize len, guint64 offset)
{
  World *world = user_data;

  assert_int_equal (offset % FAKE_BLOCK, 0);
  assert_int_equal (len % FAKE_BLOCK, 0);
  assert_memory_equal (data, world->data + offset, len);
  for (gsize i = 0; i < len / FAKE_BLOCK; i++)
    assert_int_equal (world->stored[offset / FAKE_BLOCK + i]++, 0);
}

static gboolean
world_prove (gpointer user_data, NbdClient *client, GError **error)
{
  World *world = user_data;

  g_atomic_int_inc (&world->n_proofs);
  if (!world->same)
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "another disk");
  return world->same;
}

static void
world_lost (gpointer user_data, const GError *error)
{
  World *world = user_data;

  assert_non_null (error);
  g_atomic_int_inc (&world->n_lost);
}

static NbdDialer *
world_make_dialer (World *world)
{
  g_autofree char *text = g_strdup_printf ("nbd+unix:///data?socket=%s", world->path);
  g_autoptr (NbdUri) uri = nbd_uri_parse (text, NULL);
  NbdDialer *dialer;

  assert_non_null (uri);
  dialer = nbd_dialer_new (uri, FALSE, NULL);
  assert_non_null (dialer);
  return dialer;
}

static gboolean
world_run (World *world, GError **error)
{
  static const MirrorObserver observer = { .stored = world_stored };
  g_autoptr (NbdDialer) dialer = world_make_dialer (world);
  g_auto (GStrv) contexts = pull_get_contexts (world->pull.bitmap);
  NbdClient *first = nbd_dialer_connect (dialer, (const char *const *)contexts,
                                         deadline_in (20 * 1000, NULL), error);

  if (first == NULL)
    return FALSE;
  world->work
      = work_list_new ((WorkRange *)(void *)world->ranges->data, world->ranges->len, STRIPE);
  world->pull.dialer = dialer;
  world->pull.target = world->target;
  world->pull.work = world->work;
  world->pull.state = &world->mirror;
  world->pull.prove = world_prove;
  world->pull.lost = world_lost;
  if (world->pull.observer == NULL)
    world->pull.observer = &observer;
  return pull_run (&world->pull, first, error);
}

static void
assert_done (World *world)
{
  g_autofree guint8 *got = g_malloc (SIZE);
  g_autoptr (GArray) left = work_list_get_left (world->work);

  assert_int_equal (pread (world->fd, got, SIZE, 0), SIZE);
  assert_memory_equal (got, world->data, SIZE);
  assert_int_equal (left->len, 0);
  assert_int_equal (world->mirror.done, SIZE);
  assert_int_equal (world->mirror.todo, SIZE);
  assert_int_equal (world->mirror.size, SIZE);
}

static void
test_one (void **state)
{
  g_autoptr (World) world = world_new ();
  g_autoptr (GError) error = NULL;

  assert_true (world_run (world, &error));
  assert_done (world);
  assert_int_equal (world->fakes->len, 1);
  assert_int_equal (world->n_lost, 0);
  assert_int_equal (world->n_proofs, 0);
}

static void
test_several (void **state)
{
  g_autoptr (World) world = world_new ();

  world->pull.n_connections = 4;
  assert_true (world_run (world, NULL));
  assert_done (world);
  assert_true (world->fakes->len <= 4);
}

/* Without CAN_MULTI_CONN one connection may not see what another one sees. */
static void
test_no_multi_conn (void **state)
{
  g_autoptr (World) world = world_new ();

  world->spec.multi_conn = FALSE;
  world->pull.n_connections = 4;
  assert_true (world_run (world, NULL));
  assert_done (world);
  assert_int_equal (world->fakes->len, 1);
}

static void
test_bitmap (void **state)
{
  g_autoptr (World) world = world_new ();
  g_autofree guint8 *got = g_malloc (SIZE);

  world->pull.bitmap = "bm0";
  world->pull.n_connections = 2;
  memset (world->dirty + 1000, NBD_STATE_DIRTY, 1000);
  assert_true (world_run (world, NULL));
  assert_int_equal (pread (world->fd, got, SIZE, 0), SIZE);
  assert_memory_equal (got + 1000 * FAKE_BLOCK, world->data + 1000 * FAKE_BLOCK, 1000 * FAKE_BLOCK);
  assert_int_equal (world->mirror.done, 1000 * FAKE_BLOCK);
  memset (got, 0, SIZE);
  assert_int_equal (pread (world->fd, got, 1000 * FAKE_BLOCK, 0), 1000 * FAKE_BLOCK);
  for (guint i = 0; i < 1000 * FAKE_BLOCK; i++)
    assert_int_equal (got[i], 0);
}

static void
test_no_such_bitmap (void **state)
{
  g_autoptr (World) world = world_new ();
  g_autoptr (GError) error = NULL;

  world->pull.bitmap = "other";
  assert_false (world_run (world, &error));
  assert_true (g_error_matches (error, NBD_ERROR, NBD_ERROR_NO_CONTEXT));
}

/* Ranges that an earlier run has left over. */
static void
test_some_ranges (void **state)
{
  const WorkRange some[] = { { 10 * FAKE_BLOCK, 700 * FAKE_BLOCK },
                             { 2000 * FAKE_BLOCK, 2001 * FAKE_BLOCK },
                             { 2900 * FAKE_BLOCK, SIZE } };
  g_autoptr (World) world = world_new ();
  guint64 sum = 0;

  g_array_set_size (world->ranges, 0);
  g_array_append_vals (world->ranges, some, G_N_ELEMENTS (some));
  memset (world->state, 0, BLOCKS);
  assert_true (world_run (world, NULL));
  for (guint i = 0; i < G_N_ELEMENTS (some); i++)
    {
      for (guint64 b = some[i].start / FAKE_BLOCK; b < some[i].end / FAKE_BLOCK; b++)
        assert_int_equal (world->stored[b], 1);
      sum += some[i].end - some[i].start;
    }
  assert_int_equal (world->mirror.done, sum);
}

static void
test_nothing_to_do (void **state)
{
  g_autoptr (World) world = world_new ();

  g_array_set_size (world->ranges, 0);
  world->pull.n_connections = 4;
  assert_true (world_run (world, NULL));
  assert_int_equal (world->fakes->len, 1);
}

static const FakeFault losses[] = { FAKE_CLOSE, FAKE_CLOSE_IN_DATA, FAKE_SHUTDOWN };

/* Lost and made anew, again and again: all is there, and nothing was stored twice. */
static void
test_losses (void **state)
{
  for (guint i = 0; i < G_N_ELEMENTS (losses); i++)
    for (guint n = 1; n <= 4; n += 3)
      {
        g_autoptr (World) world = world_new ();
        const Visit visits[] = { { .fault = losses[i], .at = 9 },
                                 { .fault = losses[i], .at = 5 },
                                 { .refused = TRUE },
                                 { .fault = losses[i], .at = 12 } };
        g_autoptr (GError) error = NULL;

        world->visits = visits;
        world->n_visits = G_N_ELEMENTS (visits);
        world->pull.n_connections = n;
        assert_true (world_run (world, &error));
        assert_done (world);
        if (n == 1)
          {
            assert_int_equal (world->n_lost, 3);
            assert_int_equal (world->n_proofs, 3);
          }
      }
}

/* A server that hangs up before anything is copied, each time, is given up. */
static void
test_no_progress (void **state)
{
  g_autoptr (World) world = world_new ();
  Visit visits[100] = { { .fault = FAKE_HONEST } };
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (visits); i++)
    visits[i] = (Visit){ .fault = FAKE_CLOSE };
  world->visits = visits;
  world->n_visits = G_N_ELEMENTS (visits);
  world->pull.timeout_ms = 700;
  assert_false (world_run (world, &error));
  assert_non_null (strstr (error->message, "(nothing could be copied for 0.7 s)"));
  assert_true (world->n_lost > 1);
}

static void
test_silence (void **state)
{
  g_autoptr (World) world = world_new ();
  const Visit visits[] = { { .fault = FAKE_SILENT, .at = 7 } };
  g_autoptr (GError) error = NULL;

  world->visits = visits;
  world->n_visits = 1;
  world->pull.timeout_ms = 200;
  assert_false (world_run (world, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT));
}

static void
test_another_size (void **state)
{
  g_autoptr (World) world = world_new ();
  const Visit visits[] = { { .fault = FAKE_CLOSE, .at = 9 }, { .size = SIZE - FAKE_BLOCK } };
  g_autoptr (GError) error = NULL;

  world->visits = visits;
  world->n_visits = 2;
  assert_false (world_run (world, &error));
  assert_true (g_error_matches (error, NBD_ERROR, NBD_ERROR_SIZE));
  assert_non_null (strstr (error->message, "this is not the export that the copy began with"));
}

static void
test_another_disk (void **state)
{
  g_autoptr (World) world = world_new ();
  const Visit visits[] = { { .fault = FAKE_CLOSE, .at = 9 } };
  g_autoptr (GError) error = NULL;

  world->visits = visits;
  world->n_visits = 1;
  world->same = FALSE;
  assert_false (world_run (world, &error));
  assert_string_equal (error->message, "another disk");
}

/* Not to be mended: the first error wins, and the other connections end. */
static void
test_fatal (void **state)
{
  static const FakeFault faults[] = { FAKE_EIO, FAKE_WRONG_COOKIE, FAKE_UNCOVERED };

  for (guint i = 0; i < G_N_ELEMENTS (faults); i++)
    for (guint n = 1; n <= 3; n += 2)
      {
        g_autoptr (World) world = world_new ();
        g_autoptr (GError) error = NULL;
        const Visit visits[] = { { .fault = faults[i], .at = 4 },
                                 { .fault = FAKE_SILENT, .at = 6 },
                                 { .fault = FAKE_SILENT, .at = 7 } };

        world->visits = visits;
        world->n_visits = G_N_ELEMENTS (visits);
        world->pull.n_connections = n;
        assert_false (world_run (world, &error));
        assert_int_equal (error->domain, NBD_ERROR);
        assert_non_null (strstr (error->message, "export \"data\""));
        assert_int_equal (world->n_proofs, 0);
      }
}

/* The target's own failures have nothing to do with connections. */
static gboolean
fail_to_write (NbdTarget *target, const void *buf, gsize len, guint64 offset, GError **error)
{
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED, "target: gone");
  return FALSE;
}

static void
test_target_fails (void **state)
{
  g_autoptr (World) world = world_new ();
  g_autoptr (GError) error = NULL;
  NbdTargetClass klass = *world->target->klass;
  const NbdTargetClass *honest = world->target->klass;

  klass.write = fail_to_write;
  world->target->klass = &klass;
  world->pull.n_connections = 3;
  assert_false (world_run (world, &error));
  assert_string_equal (error->message, "target: gone");
  assert_int_equal (world->n_lost, 0);
  world->target->klass = honest;
}

/* Extra connections that are refused leave the work to the others. */
static void
test_refused_extras (void **state)
{
  g_autoptr (World) world = world_new ();
  const Visit visits[] = { { .fault = FAKE_HONEST }, { .refused = TRUE }, { .refused = TRUE } };

  world->visits = visits;
  world->n_visits = G_N_ELEMENTS (visits);
  world->pull.n_connections = 3;
  assert_true (world_run (world, NULL));
  assert_done (world);
}

static gint64
never (gpointer user_data, guint64 bytes)
{
  World *world = user_data;

  g_cancellable_cancel (world->pull.cancellable);
  return 1000;
}

static void
test_cancel (void **state)
{
  static const MirrorObserver observer = { .admit = never };
  g_autoptr (World) world = world_new ();
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;

  world->pull.cancellable = cancellable;
  world->pull.observer = &observer;
  world->pull.n_connections = 2;
  assert_false (world_run (world, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED));
}

/* Few bytes a time: what was not admitted is not asked for. */
static guint64 admitted;

static gint64
admit_some (gpointer user_data, guint64 bytes)
{
  World *world = user_data;

  if (admitted > world->mirror.read_bytes)
    return 100;
  admitted += bytes;
  return 0;
}

static void
test_admission (void **state)
{
  static const MirrorObserver observer = { .admit = admit_some, .stored = world_stored };
  g_autoptr (World) world = world_new ();

  admitted = 0;
  world->pull.observer = &observer;
  assert_true (world_run (world, NULL));
  assert_done (world);
  assert_int_equal (admitted, world->mirror.read_bytes);
}

static void
test_block_sizes (void **state)
{
  static const struct
  {
    guint32 min, preferred, max;
  } cases[] = { { 1, 4096, 4096 },
                { 512, 65536, 100 * 512 + 65536 },
                { 4096, 1 << 20, 1 << 20 },
                { 65536, 65536, 65536 },
                { 1, 1 << 25, 32 * 1048576 } };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (World) world = world_new ();
      g_autoptr (GError) error = NULL;

      world->spec.min_block = cases[i].min;
      world->spec.preferred_block = cases[i].preferred;
      world->spec.max_payload = cases[i].max;
      world->spec.size = SIZE / 65536 * 65536;
      g_array_index (world->ranges, WorkRange, 0).end = world->spec.size;
      assert_true (world_run (world, &error));
      assert_int_equal (world->mirror.done, world->spec.size);
    }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_one),
    cmocka_unit_test (test_several),
    cmocka_unit_test (test_no_multi_conn),
    cmocka_unit_test (test_bitmap),
    cmocka_unit_test (test_no_such_bitmap),
    cmocka_unit_test (test_some_ranges),
    cmocka_unit_test (test_nothing_to_do),
    cmocka_unit_test (test_losses),
    cmocka_unit_test (test_no_progress),
    cmocka_unit_test (test_silence),
    cmocka_unit_test (test_another_size),
    cmocka_unit_test (test_another_disk),
    cmocka_unit_test (test_fatal),
    cmocka_unit_test (test_target_fails),
    cmocka_unit_test (test_refused_extras),
    cmocka_unit_test (test_cancel),
    cmocka_unit_test (test_admission),
    cmocka_unit_test (test_block_sizes),
  };

  return cmocka_run_group_tests_name ("pull", tests, NULL, NULL);
}
