/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/copy/copy.h"
#include "tests/property/random-world.h"

/* The copy of a random disk to a file, by the whole engine, interrupted again and again: by faults
 * of the server, by the user, by kill -9, with the last line of its journal torn, or another one
 * damaged.  Each time it goes on with --resume.  Whatever happens:
 *  - success means that the file is the disk, to the byte, and that nothing else is left;
 *  - after a failure there is no file that could be taken for a whole one;
 *  - in the end an honest server makes it whole, and what the journal proved is not read again.
 * A case is made from its seed, but for where a process is when it is killed.
 * $VMFERRY_PROPERTY_SEEDS=FIRST-LAST chooses other seeds. */

#define MIB (G_GUINT64_CONSTANT (1024) * 1024)
#define SMALL_BLOCKS (8 * 1024 * 1024 / FAKE_BLOCK)
#define LARGE_BLOCKS (40 * 1024 * 1024 / FAKE_BLOCK)
#define MAX_AT 60
#define FIRST_SEED 1
#define LAST_SEED 60
#define SHORT_MS 250
#define LONG_MS (30 * 1000)
/* Slow enough to be interrupted somewhere. */
#define INTERRUPTED_RATE (100 * MIB)
#define OLD_DATA 0xa5

typedef enum
{
  END_FAULTS,
  END_CANCELLED,
  END_KILLED,
  N_ENDS
} End;

typedef struct
{
  guint32 seed;
  RandomWorld world;
  CopySpec spec;
  char *dir;
  char *socket;
  char *uri;
  char *target;
  char *part;
  char *journal;
  gboolean killed; /* the last time */
  GString *story;  /* what was done to it */
  CopyProgress progress;
} Case;

/* Making a case */

static void
case_make_old_target (Case *c)
{
  g_autofree guint8 *old = g_malloc (c->world.size + 1);

  memset (old, OLD_DATA, c->world.size + 1);
  /* With a bitmap it has to be of the same size. */
  if (c->world.dirty == NULL && random_world_chance (&c->world, 50))
    return;
  assert_true (g_file_set_contents (c->target, (const char *)old, (gssize)c->world.size, NULL));
}

/* In memory where that is possible: copies sync a lot. */
static char *
make_dir (void)
{
  const char *parent = g_access ("/dev/shm", W_OK) == 0 ? "/dev/shm" : g_get_tmp_dir ();
  char *dir = g_build_filename (parent, "vmferry-property-XXXXXX", NULL);

  assert_non_null (g_mkdtemp (dir));
  return dir;
}

static Case *
case_new (guint32 seed)
{
  Case *c = g_new0 (Case, 1);

  c->seed = seed;
  random_world_init (&c->world, seed, seed % 4 == 0 ? LARGE_BLOCKS : SMALL_BLOCKS);
  c->dir = make_dir ();
  c->socket = g_build_filename (c->dir, "socket", NULL);
  c->uri = g_strdup_printf ("nbd+unix:///disk?socket=%s", c->socket);
  c->target = g_build_filename (c->dir, "target", NULL);
  c->part = g_strconcat (c->target, ".vmferry-part", NULL);
  c->journal = g_strconcat (c->target, ".vmferry-journal", NULL);
  c->story = g_string_new (NULL);
  c->spec = (CopySpec){ .uri = c->uri,
                        .target = c->target,
                        .bitmap = c->world.spec.bitmap,
                        .n_connections = 1 + random_world_pick (&c->world, 4),
                        .verify = c->world.dirty == NULL && random_world_chance (&c->world, 50) };
  case_make_old_target (c);
  return c;
}

static void
case_free (Case *c)
{
  g_autoptr (GDir) dir = g_dir_open (c->dir, 0, NULL);
  const char *name;

  while ((name = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *path = g_build_filename (c->dir, name, NULL);

      g_unlink (path);
    }
  g_rmdir (c->dir);
  random_world_clear (&c->world);
  g_string_free (c->story, TRUE);
  g_free (c->dir);
  g_free (c->socket);
  g_free (c->uri);
  g_free (c->target);
  g_free (c->part);
  g_free (c->journal);
  g_free (c);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Case, case_free)

static void
case_check (const Case *c, gboolean condition, const char *what)
{
  g_autofree char *world = NULL;

  if (condition)
    return;
  world = random_world_describe (&c->world);
  fail_msg ("seed %u: %s (%u connections%s, %s;%s); again with VMFERRY_PROPERTY_SEEDS=%u-%u",
            c->seed, what, c->spec.n_connections, c->spec.verify ? ", verify" : "", world,
            c->story->str, c->seed, c->seed);
}

/* Running it */

/* Waits for so many bytes, or the end, and then interrupts. */
typedef struct
{
  Copy *copy;
  guint64 bytes;
  GCancellable *cancellable; /* NULL: kill -9 */
  gint ended;
} Watch;

static gpointer
watch_thread (gpointer data)
{
  Watch *watch = data;
  CopyProgress progress = { 0 };

  while (!g_atomic_int_get (&watch->ended) && progress.done_bytes < watch->bytes)
    {
      g_usleep (200);
      copy_get_progress (watch->copy, &progress);
    }
  if (g_atomic_int_get (&watch->ended))
    return NULL;
  if (watch->cancellable == NULL)
    kill (getpid (), SIGKILL);
  g_cancellable_cancel (watch->cancellable);
  return NULL;
}

/* `watch` may be NULL. */
static gboolean
case_copy (Case *c, Watch *watch, GError **error)
{
  g_autoptr (FakeListener) listener = fake_listener_new (
      fake_listener_open_unix (c->socket), &c->world.spec, random_world_plan, &c->world);
  g_autoptr (Copy) copy = copy_new (&c->spec, error);
  GThread *thread = NULL;
  gboolean good;

  case_check (c, copy != NULL, "no copy is made");
  if (watch != NULL)
    {
      watch->copy = copy;
      thread = g_thread_new ("watch", watch_thread, watch);
    }
  good = copy_run (copy, NULL, NULL, watch != NULL ? watch->cancellable : NULL, error);
  if (thread != NULL)
    {
      g_atomic_int_set (&watch->ended, TRUE);
      g_thread_join (thread);
    }
  copy_get_progress (copy, &c->progress);
  return good;
}

/* In a process of its own; whether it came to its end. */
static gboolean
case_copy_and_die (Case *c, guint64 bytes)
{
  pid_t pid = fork ();
  Watch watch = { .bytes = bytes };
  int status;

  assert_true (pid >= 0);
  if (pid == 0)
    {
      /* Children of one process would all make the same UUID. */
      g_random_set_seed ((guint32)getpid ());
      _exit (case_copy (c, &watch, NULL) ? 0 : 1);
    }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  if (WIFSIGNALED (status))
    assert_int_equal (WTERMSIG (status), SIGKILL);
  return WIFEXITED (status) && WEXITSTATUS (status) == 0;
}

/* TRUE: it was a success. */
static gboolean
case_interrupt (Case *c)
{
  End end = random_world_pick (&c->world, N_ENDS);
  guint64 bytes = c->world.size / 8 * random_world_pick (&c->world, 9);
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  Watch watch = { .bytes = bytes, .cancellable = cancellable };
  g_autoptr (GError) error = NULL;
  gboolean good;

  c->world.n_visits = 0;
  c->killed = end == END_KILLED;
  c->spec.rate = end == END_FAULTS ? 0 : INTERRUPTED_RATE;
  c->spec.timeout_ms = LONG_MS;
  if (end == END_FAULTS)
    {
      random_world_make_visits (&c->world, MAX_AT);
      c->spec.timeout_ms = SHORT_MS;
    }
  if (end == END_KILLED)
    good = case_copy_and_die (c, bytes);
  else
    good = case_copy (c, end == END_CANCELLED ? &watch : NULL, &error);
  g_string_append_printf (c->story, " %s: %s;",
                          end == END_FAULTS      ? "faults"
                          : end == END_CANCELLED ? "cancelled"
                                                 : "killed",
                          good            ? "copied"
                          : error != NULL ? error->message
                                          : "dead");
  g_unlink (c->socket);
  return good;
}

/* What a crash may do to the end of a journal, or a bad disk to any of it. */
static void
case_damage_journal (Case *c)
{
  g_autofree char *text = NULL;
  gsize len;

  if (!g_file_get_contents (c->journal, &text, &len, NULL) || len == 0)
    return;
  if (random_world_chance (&c->world, 50))
    {
      guint cut = 1 + random_world_pick (&c->world, (guint)MIN (len, 20));

      g_string_append_printf (c->story, " journal cut by %u;", cut);
      assert_int_equal (truncate (c->journal, (off_t)(len - cut)), 0);
      return;
    }
  g_string_append (c->story, " journal damaged;");
  text[random_world_pick (&c->world, (guint)len)] ^= 1;
  assert_true (g_file_set_contents_full (c->journal, text, (gssize)len, G_FILE_SET_CONTENTS_NONE,
                                         0600, NULL));
}

/* The judgement */

static gboolean
case_target_is (const Case *c, const guint8 *expected)
{
  g_autofree char *got = NULL;
  gsize len;

  return g_file_get_contents (c->target, &got, &len, NULL) && len == c->world.size
         && memcmp (got, expected, len) == 0;
}

static void
case_check_whole (const Case *c)
{
  g_autofree guint8 *expected = random_world_expect (&c->world, OLD_DATA);

  case_check (c, case_target_is (c, expected), "a success, and the target is not the disk");
  case_check (c, !g_file_test (c->part, G_FILE_TEST_EXISTS), "a part stays after a success");
  case_check (c, !g_file_test (c->journal, G_FILE_TEST_EXISTS), "a journal stays after a success");
}

/* What had the name before still has it. */
static void
case_check_not_there (const Case *c, gboolean was_there)
{
  g_autofree guint8 *old = g_malloc (c->world.size + 1);

  memset (old, OLD_DATA, c->world.size + 1);
  if (c->world.dirty != NULL)
    return;
  if (was_there)
    case_check (c, case_target_is (c, old), "a failure has changed the old target");
  else
    case_check (c, !g_file_test (c->target, G_FILE_TEST_EXISTS), "a target after a failure");
}

/* A process that was killed right at its end has done its work; its journal may stay. */
static gboolean
case_is_whole (const Case *c)
{
  g_autofree guint8 *expected = random_world_expect (&c->world, OLD_DATA);

  return c->world.dirty == NULL && !g_file_test (c->part, G_FILE_TEST_EXISTS)
         && case_target_is (c, expected);
}

static void
case_finish (Case *c)
{
  g_autoptr (GError) error = NULL;

  c->world.n_visits = 0;
  c->spec.rate = 0;
  c->spec.timeout_ms = LONG_MS;
  if (!case_copy (c, NULL, &error))
    case_check (c, FALSE, error->message);
  case_check (c, c->progress.read_bytes + c->progress.resumed_bytes <= c->world.size,
              "what was copied is read again");
  case_check_whole (c);
}

/* How many interruptions it took; adds to `n_resumed` when the last run went on with something. */
static guint
case_run (guint32 seed, guint *n_resumed)
{
  g_autoptr (Case) c = case_new (seed);
  gboolean was_there = g_file_test (c->target, G_FILE_TEST_EXISTS);
  guint n = random_world_pick (&c->world, 4);

  for (guint i = 0; i < n; i++)
    {
      if (case_interrupt (c))
        {
          case_check_whole (c);
          return i;
        }
      if (c->killed && case_is_whole (c))
        return i;
      case_check_not_there (c, was_there);
      c->spec.resume = TRUE;
      if (random_world_chance (&c->world, 20))
        case_damage_journal (c);
    }
  case_finish (c);
  *n_resumed += c->progress.resumed_bytes > 0 ? 1 : 0;
  return n;
}

static void
test_identical_after_all (void **state)
{
  const char *text = g_getenv ("VMFERRY_PROPERTY_SEEDS");
  guint first = FIRST_SEED, last = LAST_SEED, n_ends = 0, n_resumed = 0;

  if (text != NULL)
    assert_int_equal (sscanf (text, "%u-%u", &first, &last), 2);
  for (guint seed = first; seed <= last; seed++)
    n_ends += case_run (seed, &n_resumed);
  print_message ("# seeds %u to %u: copied, with %u interruptions; %u resumed\n", first, last,
                 n_ends, n_resumed);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_identical_after_all),
  };
  return cmocka_run_group_tests_name ("property-copy", tests, NULL, NULL);
}
