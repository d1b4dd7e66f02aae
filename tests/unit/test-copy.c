/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/copy/copy.h"
#include "nbd/nbd-error.h"
#include "nbd/protocol.h"
#include "tests/unit/fake-nbd.h"

#define MIB (1024u * 1024)
#define SIZE (40 * MIB + 777)
#define BLOCKS ((SIZE + FAKE_BLOCK - 1) / FAKE_BLOCK)

/* A server at a UNIX socket, and a file beside it. */
typedef struct
{
  guint8 *data;
  guint8 *state;
  FakeNbdSpec spec;
  gboolean once;   /* the fault is for the first client alone */
  guint8 *sink;    /* what the second client writes to; NULL: `data` */
  guint n_flushes; /* of the second client, at the end of the last run */
  char *dir;
  char *socket;
  char *uri;
  char *target;
  char *part;
  char *journal;
  int listener;
  GThread *thread;
  GCancellable *stop;
  GPtrArray *fakes;
  CopySpec copy;
  GString *notes;
  CopyProgress progress; /* at the end of the last run */
} World;

static gpointer
serve_thread (gpointer user_data)
{
  World *world = user_data;

  while (deadline_poll (deadline_in (-1, world->stop), world->listener, POLLIN, NULL))
    {
      FakeNbdSpec *spec = g_memdup2 (&world->spec, sizeof world->spec);
      int fd = accept (world->listener, NULL, NULL);

      assert_true (fd >= 0);
      if (world->once && world->fakes->len > 0)
        spec->fault = FAKE_HONEST;
      if (world->sink != NULL && world->fakes->len == 1)
        spec->data = world->sink;
      g_ptr_array_add (world->fakes, fake_nbd_new_fd (spec, fd));
      g_object_weak_ref (G_OBJECT (world->stop), (GWeakNotify)(void (*) (void))g_free, spec);
    }
  return NULL;
}

static void
world_serve (World *world)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  g_unlink (world->socket);
  g_strlcpy (address.sun_path, world->socket, sizeof address.sun_path);
  world->listener = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal (bind (world->listener, (struct sockaddr *)&address, sizeof address), 0);
  assert_int_equal (listen (world->listener, 20), 0);
  world->stop = g_cancellable_new ();
  world->fakes = g_ptr_array_new_with_free_func ((GDestroyNotify)fake_nbd_free);
  world->thread = g_thread_new ("serve", serve_thread, world);
}

static void
world_stop_serving (World *world)
{
  g_cancellable_cancel (world->stop);
  g_thread_join (world->thread);
  if (world->fakes->len > 1)
    world->n_flushes = fake_nbd_get_n (world->fakes->pdata[1], NBD_CMD_FLUSH);
  g_ptr_array_unref (world->fakes);
  g_object_unref (world->stop);
  close (world->listener);
}

/* A third each of data, of holes, and of zeroes that are told as data. */
static void
world_fill (World *world, guint32 seed)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (seed);

  for (guint run = 0, block = 0; block < BLOCKS; block += run)
    {
      guint kind = (guint)g_rand_int_range (rand, 0, 3);

      run = MIN (BLOCKS - block, (guint)g_rand_int_range (rand, 1, 700));
      for (guint i = block; i < block + run; i++)
        {
          world->state[i] = kind == 1 ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0;
          memset (world->data + (gsize)i * FAKE_BLOCK, kind == 0 ? 1 + (int)(i % 250) : 0,
                  MIN (FAKE_BLOCK, SIZE - (gsize)i * FAKE_BLOCK));
        }
    }
}

static int
setup (void **state)
{
  World *world = g_new0 (World, 1);

  world->dir = g_dir_make_tmp ("vmferry-copy-XXXXXX", NULL);
  world->socket = g_build_filename (world->dir, "socket", NULL);
  world->uri = g_strdup_printf ("nbd+unix:///disk?socket=%s", world->socket);
  world->target = g_build_filename (world->dir, "target", NULL);
  world->part = g_strconcat (world->target, ".vmferry-part", NULL);
  world->journal = g_strconcat (world->target, ".vmferry-journal", NULL);
  world->data = g_malloc (SIZE);
  world->state = g_malloc (BLOCKS);
  world_fill (world, 1);
  world->spec = (FakeNbdSpec){
    .size = SIZE, .data = world->data, .state = world->state, .multi_conn = TRUE
  };
  world->notes = g_string_new (NULL);
  world->copy = (CopySpec){
    .uri = world->uri, .target = world->target, .n_connections = 1, .timeout_ms = 20000
  };
  *state = world;
  return 0;
}

static int
teardown (void **state)
{
  World *world = *state;
  g_autoptr (GDir) dir = g_dir_open (world->dir, 0, NULL);
  const char *name;

  while ((name = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *path = g_build_filename (world->dir, name, NULL);

      g_unlink (path);
    }
  g_rmdir (world->dir);
  g_free (world->dir);
  g_free (world->socket);
  g_free (world->uri);
  g_free (world->target);
  g_free (world->part);
  g_free (world->journal);
  g_free (world->data);
  g_free (world->state);
  g_string_free (world->notes, TRUE);
  g_free (world);
  return 0;
}

static void
on_note (gpointer user_data, const char *text)
{
  World *world = user_data;

  g_string_append_printf (world->notes, "%s\n", text);
}

static gboolean
world_copy (World *world, GError **error)
{
  g_autoptr (Copy) copy = copy_new (&world->copy, error);
  gboolean good;

  if (copy == NULL)
    return FALSE;
  g_string_set_size (world->notes, 0);
  world_serve (world);
  good = copy_run (copy, on_note, world, NULL, error);
  copy_get_progress (copy, &world->progress);
  world_stop_serving (world);
  return good;
}

static void
assert_whole (World *world)
{
  g_autofree char *data = NULL;
  gsize len;

  assert_true (g_file_get_contents (world->target, &data, &len, NULL));
  assert_int_equal (len, world->spec.size);
  assert_memory_equal (data, world->data, len);
  assert_false (g_file_test (world->part, G_FILE_TEST_EXISTS));
  assert_false (g_file_test (world->journal, G_FILE_TEST_EXISTS));
  assert_int_equal (world->progress.phase, COPY_DONE);
  assert_int_equal (world->progress.done_bytes, world->spec.size);
}

static void
copy_whole (World *world)
{
  g_autoptr (GError) error = NULL;

  if (!world_copy (world, &error))
    fail_msg ("%s", error->message);
  assert_whole (world);
}

/* Leaves what an interrupted copy leaves: the n-th request is answered with an error. */
static void
interrupt_copy (World *world, guint n)
{
  g_autoptr (GError) error = NULL;

  world->spec.fault = FAKE_EIO;
  world->spec.at = n;
  assert_false (world_copy (world, &error));
  world->spec.fault = FAKE_HONEST;
  assert_true (g_error_matches (error, NBD_ERROR, NBD_ERROR_IO));
  assert_non_null (strstr (error->message, "--resume goes on with it"));
  assert_false (g_file_test (world->target, G_FILE_TEST_EXISTS));
  assert_true (g_file_test (world->part, G_FILE_TEST_EXISTS));
  assert_true (g_file_test (world->journal, G_FILE_TEST_EXISTS));
  world->copy.resume = TRUE;
}

static void
test_copy_whole (void **state)
{
  World *world = *state;

  copy_whole (world);
  assert_int_equal (world->progress.resumed_bytes, 0);
  assert_int_equal (world->progress.read_bytes + world->progress.zero_bytes, SIZE);
  assert_int_equal (world->notes->len, 0);
}

static void
test_copy_verified (void **state)
{
  World *world = *state;

  world->copy.verify = TRUE;
  world->copy.n_connections = 3;
  copy_whole (world);
  assert_int_equal (world->progress.verified_bytes, SIZE);
}

static void
test_copy_simple_server (void **state)
{
  World *world = *state;

  world->copy.verify = TRUE;
  world->spec.state = NULL;
  world->spec.simple = TRUE;
  copy_whole (world);
}

static void
test_copy_empty (void **state)
{
  World *world = *state;

  world->spec.size = 0;
  world->copy.verify = TRUE;
  copy_whole (world);
}

static void
test_copy_to_null (void **state)
{
  World *world = *state;
  g_autoptr (GError) error = NULL;

  world->copy.target = "null:";
  assert_true (world_copy (world, &error));
  assert_int_equal (world->progress.done_bytes, SIZE);
}

/* What a server has not written out yet stays small. */
static void
test_copy_to_server (void **state)
{
  World *world = *state;
  g_autofree guint8 *sink = g_malloc0 (SIZE);
  g_autoptr (GError) error = NULL;

  world->sink = sink;
  world->copy.target = world->uri;
  world->copy.rate = 6 * MIB;
  assert_true (world_copy (world, &error));
  assert_memory_equal (sink, world->data, SIZE);
  assert_in_range (world->n_flushes, 2, 100);
}

static void
expect_usage (World *world, const char *text)
{
  g_autoptr (GError) error = NULL;

  assert_null (copy_new (&world->copy, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT));
  assert_non_null (strstr (error->message, text));
}

static void
test_copy_usage (void **state)
{
  World *world = *state;

  world->copy.target = "null:";
  world->copy.resume = TRUE;
  expect_usage (world, "--resume works with files and block devices");
  world->copy.target = "nbd+unix:///?socket=/there";
  expect_usage (world, "--resume works with files and block devices");
  world->copy.resume = FALSE;
  world->copy.verify = TRUE;
  world->copy.target = "null:";
  expect_usage (world, "--verify reads the target back");
  world->copy.target = world->target;
  world->copy.bitmap = "b";
  expect_usage (world, "--verify is about whole disks");
  world->copy.verify = FALSE;
  world->copy.bitmap = NULL;
  world->copy.n_connections = 17;
  expect_usage (world, "1 to 16 connections");
  world->copy.n_connections = 1;
  world->copy.uri = "http://host";
  expect_usage (world, "http://host");
}

/* Nothing that anybody could go on with. */
static void
test_copy_fails_at_once (void **state)
{
  World *world = *state;
  g_autoptr (GError) error = NULL;

  world->spec.state = NULL;
  world->spec.fault = FAKE_EIO;
  assert_false (world_copy (world, &error));
  assert_null (strstr (error->message, "--resume"));
  assert_false (g_file_test (world->target, G_FILE_TEST_EXISTS));
  assert_false (g_file_test (world->part, G_FILE_TEST_EXISTS));
  assert_false (g_file_test (world->journal, G_FILE_TEST_EXISTS));
}

static void
test_copy_resumes (void **state)
{
  World *world = *state;

  for (guint n = 10; n <= 55; n += 15)
    for (guint verify = 0; verify < 2; verify++)
      {
        world->copy.resume = FALSE;
        world->copy.verify = verify == 1;
        world->copy.n_connections = 1 + n / 15;
        interrupt_copy (world, n);
        copy_whole (world);
        assert_true (world->progress.resumed_bytes > 0);
        assert_int_equal (world->notes->len, 0);
        g_unlink (world->target);
      }
}

/* The server was started again with larger blocks. */
static void
test_copy_resumes_in_larger_blocks (void **state)
{
  World *world = *state;

  interrupt_copy (world, 20);
  world->spec.min_block = world->spec.preferred_block = 65536;
  copy_whole (world);
  assert_true (world->progress.resumed_bytes > 0);
  assert_int_equal (world->notes->len, 0);
}

/* An interruption after another adds up. */
static void
test_copy_resumes_again_and_again (void **state)
{
  World *world = *state;
  guint64 before = 0;

  world->copy.verify = TRUE;
  for (guint i = 0; i < 4; i++)
    {
      interrupt_copy (world, 60);
      assert_true (world->progress.resumed_bytes >= before);
      before = world->progress.resumed_bytes;
    }
  assert_true (before > 0);
  copy_whole (world);
}

static void
test_copy_nothing_to_resume (void **state)
{
  World *world = *state;

  world->copy.resume = TRUE;
  copy_whole (world);
  assert_non_null (strstr (world->notes->str, "starting from the beginning"));
}

static void
expect_start_over (World *world, const char *why)
{
  copy_whole (world);
  assert_int_equal (world->progress.resumed_bytes, 0);
  if (strstr (world->notes->str, "starting over") == NULL
      || strstr (world->notes->str, why) == NULL)
    fail_msg ("\"%s\" is not in: %s", why, world->notes->str);
  g_unlink (world->target);
  world->copy.resume = FALSE;
}

static void
test_copy_changed_source (void **state)
{
  World *world = *state;
  g_autofree char *other = g_strdup_printf ("nbd+unix:///other?socket=%s", world->socket);

  interrupt_copy (world, 60);
  for (gsize i = 0; i < BLOCKS; i++)
    world->data[i * FAKE_BLOCK] ^= world->state[i] == 0;
  expect_start_over (world, "are not what they were when they were copied");
  interrupt_copy (world, 60);
  world->copy.uri = other;
  expect_start_over (world, "it was a copy of");
  interrupt_copy (world, 60);
  world->spec.size -= FAKE_BLOCK;
  expect_start_over (world, "the export had 41943817 bytes, and now has 41939721");
}

/* Where only zeroes were copied, any disk may go on from there. */
static void
test_copy_changed_zeroes (void **state)
{
  World *world = *state;

  for (gsize i = 0; i < BLOCKS - 100; i++)
    world->state[i] = NBD_STATE_HOLE | NBD_STATE_ZERO;
  memset (world->data, 0, (BLOCKS - 100) * FAKE_BLOCK);
  memset (world->state + BLOCKS - 100, 0, 100);
  interrupt_copy (world, 1);
  memset (world->state, 0, BLOCKS);
  memset (world->data, 7, SIZE / 2);
  expect_start_over (world, "nothing but zeroes");
}

static void
test_copy_changed_target (void **state)
{
  World *world = *state;
  g_autofree char *data = NULL;
  gsize len;
  FILE *file;

  interrupt_copy (world, 60);
  assert_true (g_file_get_contents (world->part, &data, &len, NULL));
  for (gsize i = 0; i < len; i++)
    data[i] ^= 1;
  file = g_fopen (world->part, "r+");
  assert_int_equal (fwrite (data, 1, len, file), len);
  fclose (file);
  expect_start_over (world, "are not what they were when they were copied");
}

/* Somebody put another file there. */
static void
test_copy_foreign_part (void **state)
{
  World *world = *state;
  g_autofree char *data = NULL;
  g_autofree char *kept = g_strconcat (world->part, "-kept", NULL);
  g_autoptr (GError) error = NULL;
  gsize len;

  interrupt_copy (world, 60);
  assert_true (g_file_get_contents (world->part, &data, &len, NULL));
  assert_int_equal (g_rename (world->part, kept), 0);
  assert_true (g_file_set_contents (world->part, data, (gssize)len, NULL));
  /* Not ours: neither gone on with nor thrown away. */
  if (world_copy (world, &error))
    {
      assert_int_equal (world->progress.resumed_bytes, 0);
      assert_whole (world);
    }
  else
    assert_true (g_file_test (world->part, G_FILE_TEST_EXISTS));
}

static void
test_copy_torn_journal (void **state)
{
  World *world = *state;
  g_autofree char *text = NULL;
  gsize len;

  interrupt_copy (world, 60);
  assert_true (g_file_get_contents (world->journal, &text, &len, NULL));
  assert_int_equal (truncate (world->journal, (off_t)len - 5), 0);
  copy_whole (world);
  assert_int_equal (world->notes->len, 0);
}

static void
test_copy_damaged_journal (void **state)
{
  World *world = *state;
  g_autofree char *text = NULL;
  gsize len;

  interrupt_copy (world, 60);
  assert_true (g_file_get_contents (world->journal, &text, &len, NULL));
  text[30] ^= 1;
  assert_true (g_file_set_contents (world->journal, text, (gssize)len, NULL));
  expect_start_over (world, "record 1 is damaged");
}

static void
test_copy_resume_without_digests (void **state)
{
  World *world = *state;
  g_autoptr (GError) error = NULL;
  g_autofree char *before = NULL;
  g_autofree char *after = NULL;

  interrupt_copy (world, 60);
  assert_true (g_file_get_contents (world->journal, &before, NULL, NULL));
  world->copy.verify = TRUE;
  assert_false (world_copy (world, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT));
  assert_non_null (strstr (error->message, "go on with --resume alone"));
  assert_true (g_file_get_contents (world->journal, &after, NULL, NULL));
  assert_string_equal (before, after);
  world->copy.verify = FALSE;
  copy_whole (world);
  assert_true (world->progress.resumed_bytes > 0);
}

/* The connection is lost: it is made anew, and believed after a look at the data. */
static void
test_copy_reconnects (void **state)
{
  World *world = *state;

  world->once = TRUE;
  world->spec.fault = FAKE_CLOSE_IN_DATA;
  world->spec.at = 60;
  world->copy.verify = TRUE;
  copy_whole (world);
  assert_int_equal (world->progress.n_reconnects, 1);
  assert_non_null (strstr (world->notes->str, "connected again"));
}

static gpointer
cancel_thread (gpointer user_data)
{
  gpointer *both = user_data;
  CopyProgress progress;

  do
    {
      g_usleep (500);
      copy_get_progress (both[0], &progress);
    }
  while (progress.done_bytes < SIZE / 3);
  g_cancellable_cancel (both[1]);
  return NULL;
}

static void
test_copy_cancelled (void **state)
{
  World *world = *state;
  g_autoptr (GError) error = NULL;
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (Copy) copy = NULL;
  gpointer both[2];
  GThread *thread;

  world->copy.rate = 20 * MIB;
  copy = copy_new (&world->copy, &error);
  both[0] = copy;
  both[1] = cancellable;
  world_serve (world);
  thread = g_thread_new ("cancel", cancel_thread, both);
  assert_false (copy_run (copy, NULL, NULL, cancellable, &error));
  g_thread_join (thread);
  world_stop_serving (world);
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED));
  assert_non_null (strstr (error->message, "--resume goes on with it"));
  assert_true (g_str_has_prefix (error->message, "cancelled; "));
  world->copy.rate = 0;
  world->copy.resume = TRUE;
  copy_whole (world);
  assert_true (world->progress.resumed_bytes >= SIZE / 3 - 8 * MIB);
}

/* In a process of its own, which ends at any time. */
static void
run_and_die (World *world, gulong delay_us)
{
  pid_t pid = fork ();
  int status;

  assert_true (pid >= 0);
  if (pid == 0)
    {
      g_autoptr (Copy) copy = copy_new (&world->copy, NULL);
      sigset_t none;

      sigemptyset (&none);
      /* Children of one process would all make the same UUID, and so the same temporary files. */
      g_random_set_seed ((guint32)getpid ());
      world_serve (world);
      if (fork () == 0)
        {
          g_usleep (delay_us);
          kill (getppid (), SIGKILL);
          _exit (0);
        }
      copy_run (copy, NULL, NULL, NULL, NULL);
      sigsuspend (&none);
    }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFSIGNALED (status));
}

static void
test_copy_killed (void **state)
{
  World *world = *state;

  world->copy.resume = TRUE;
  for (guint i = 0; i < 12; i++)
    {
      world->copy.verify = i % 2 == 1;
      world->copy.n_connections = 1 + i % 3;
      world->copy.rate = 100 * MIB;
      run_and_die (world, 1000 + i * 23000);
      if (g_file_test (world->target, G_FILE_TEST_EXISTS))
        break;
      world->copy.rate = 0;
      copy_whole (world);
      g_unlink (world->target);
    }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown (test_copy_whole, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_verified, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_simple_server, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_empty, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_to_null, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_to_server, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_usage, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_fails_at_once, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_resumes, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_resumes_in_larger_blocks, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_resumes_again_and_again, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_nothing_to_resume, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_changed_source, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_changed_zeroes, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_changed_target, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_foreign_part, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_torn_journal, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_damaged_journal, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_resume_without_digests, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_reconnects, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_cancelled, setup, teardown),
    cmocka_unit_test_setup_teardown (test_copy_killed, setup, teardown),
  };

  return cmocka_run_group_tests_name ("copy", tests, NULL, NULL);
}
