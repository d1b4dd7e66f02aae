/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <glib/gstdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nbd/pull.h"
#include "tests/property/random-world.h"

/* A random disk, from a server with random abilities that breaks the protocol at random places, to
 * a target full of something else or empty.  Whatever happens:
 *  - success means that the target is the disk, to the byte;
 *  - failure has one line of text, and all that is not on the work list is with the target;
 *  - an honest server can finish what is left, without reading the rest again.
 * A case is made from its seed alone.  $VMFERRY_PROPERTY_SEEDS=FIRST-LAST chooses other seeds;
 * with $VMFERRY_PROPERTY_VERBOSE each is described. */

#define MAX_BLOCKS 160
#define MAX_AT 25
#define FIRST_SEED 1
#define LAST_SEED 600
/* Without progress: what waits for it must not make the whole test slow. */
#define SHORT_MS 250
#define LONG_MS (30 * 1000)
#define OLD_DATA 0xa5

typedef struct
{
  guint32 seed;
  RandomWorld world;
  guint n_connections;
  guint64 stripe;
  guint8 old; /* each byte of the target */
  gint64 timeout_ms;

  char *dir;
  char *path;
  int fd;
  GArray *left; /* WorkRange */
  GMutex lock;
  guint8 stored[MAX_BLOCKS + 1]; /* how often each block was */
} Case;

static Case *
case_new (guint32 seed)
{
  static const guint64 stripes[] = { 4096, 65536, 1024 * 1024 };
  Case *c = g_new0 (Case, 1);

  c->seed = seed;
  g_mutex_init (&c->lock);
  random_world_init (&c->world, seed, MAX_BLOCKS);
  random_world_make_visits (&c->world, MAX_AT);
  c->n_connections = 1 + random_world_pick (&c->world, 4);
  c->stripe = stripes[random_world_pick (&c->world, G_N_ELEMENTS (stripes))];
  c->old = random_world_chance (&c->world, 50) ? OLD_DATA : 0;
  c->timeout_ms = SHORT_MS;
  c->dir = g_dir_make_tmp ("vmferry-property-XXXXXX", NULL);
  c->path = g_build_filename (c->dir, "nbd.sock", NULL);
  c->left = g_array_new (FALSE, FALSE, sizeof (WorkRange));
  return c;
}

static void
case_free (Case *c)
{
  if (c->fd >= 0)
    close (c->fd);
  g_rmdir (c->dir);
  g_array_unref (c->left);
  g_mutex_clear (&c->lock);
  random_world_clear (&c->world);
  g_free (c->dir);
  g_free (c->path);
  g_free (c);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Case, case_free)

static void
case_describe (const Case *c, const char *how)
{
  g_autofree char *world = random_world_describe (&c->world);

  print_message ("# seed %u: %s: %u connections, %s target, %s\n", c->seed, how, c->n_connections,
                 c->old != 0 ? "full" : "empty", world);
}

/* `condition`, or the seed is told before the test fails. */
static void
case_check (const Case *c, gboolean condition, const char *what)
{
  if (condition)
    return;
  case_describe (c, what);
  fail_msg ("seed %u: %s; again with VMFERRY_PROPERTY_SEEDS=%u-%u", c->seed, what, c->seed,
            c->seed);
}

/* Running it */

static void
case_stored (gpointer user_data, const guint8 *data, gsize len, guint64 offset)
{
  Case *c = user_data;

  g_mutex_lock (&c->lock);
  case_check (c, offset % FAKE_BLOCK == 0 && offset + len <= c->world.size,
              "stored beyond the disk");
  case_check (c, memcmp (data, c->world.data + offset, len) == 0, "stored what isn't on the disk");
  for (guint64 at = offset; at < offset + len; at += FAKE_BLOCK)
    case_check (c, c->stored[at / FAKE_BLOCK]++ == 0, "stored a block twice");
  g_mutex_unlock (&c->lock);
}

static NbdTarget *
case_make_target (Case *c)
{
  guint64 size = c->world.size;
  int fd = memfd_create ("target", MFD_CLOEXEC);
  g_autofree guint8 *old = g_malloc (size + 1);
  NbdTarget *target;

  assert_int_equal (ftruncate (fd, (off_t)size), 0);
  memset (old, c->old, size + 1);
  if (c->old != 0)
    assert_int_equal (pwrite (fd, old, size, 0), (ssize_t)size);
  c->fd = dup (fd);
  target = nbd_target_new_raw (fd, "target.raw", NULL);
  assert_non_null (target);
  return target;
}

static NbdDialer *
case_make_dialer (const Case *c)
{
  g_autofree char *text = g_strdup_printf ("nbd+unix:///?socket=%s", c->path);
  g_autoptr (NbdUri) uri = nbd_uri_parse (text, NULL);
  NbdDialer *dialer = nbd_dialer_new (uri, FALSE, NULL);

  assert_non_null (dialer);
  return dialer;
}

/* From what is left on. */
static gboolean
case_pull (Case *c, NbdTarget *target, GError **error)
{
  static const MirrorObserver observer = { .stored = case_stored };
  g_autoptr (NbdDialer) dialer = case_make_dialer (c);
  g_autoptr (WorkList) work
      = work_list_new ((const WorkRange *)(void *)c->left->data, c->left->len, c->stripe);
  const char *bitmap = c->world.spec.bitmap;
  g_auto (GStrv) contexts = pull_get_contexts (bitmap);
  MirrorState state = { 0 };
  const PullSpec spec = { .dialer = dialer,
                          .target = target,
                          .work = work,
                          .state = &state,
                          .bitmap = bitmap,
                          .n_connections = c->n_connections,
                          .timeout_ms = c->timeout_ms,
                          .observer = &observer,
                          .user_data = c };
  g_autoptr (NbdClient) first = nbd_dialer_connect (dialer, (const char *const *)contexts,
                                                    deadline_in (c->timeout_ms, NULL), error);
  gboolean good = FALSE;

  if (first != NULL && nbd_client_get_export (first)->size == c->world.size)
    good = pull_run (&spec, g_steal_pointer (&first), error);
  g_array_unref (c->left);
  c->left = work_list_get_left (work);
  return good;
}

static gboolean
case_serve_and_pull (Case *c, NbdTarget *target, GError **error)
{
  g_autoptr (FakeListener) listener = fake_listener_new (
      fake_listener_open_unix (c->path), &c->world.spec, random_world_plan, &c->world);
  gboolean good = case_pull (c, target, error);

  g_unlink (c->path);
  return good;
}

/* All but what is left. */
static void
case_check_target (const Case *c)
{
  guint64 size = c->world.size;
  g_autofree guint8 *expected = random_world_expect (&c->world, c->old);
  g_autofree guint8 *got = g_malloc0 (size + 1);
  struct stat info;

  assert_int_equal (pread (c->fd, got, size + 1, 0), (ssize_t)size);
  assert_int_equal (fstat (c->fd, &info), 0);
  case_check (c, (guint64)info.st_size == size, "the size of the target changed");
  for (guint i = 0; i < c->left->len; i++)
    {
      WorkRange range = g_array_index (c->left, WorkRange, i);

      case_check (c, range.start < range.end && range.end <= size, "left is no range");
      memcpy (got + range.start, expected + range.start, range.end - range.start);
    }
  case_check (c, memcmp (got, expected, size) == 0, "what is not left is not the disk");
}

static void
case_check_error (const Case *c, const GError *error)
{
  case_check (c, error != NULL && error->message[0] != '\0', "no reason is told");
  for (const char *at = error->message; *at != '\0'; at++)
    case_check (c, !g_ascii_iscntrl (*at), "control characters in the message");
}

/* What was settled before a failure is not read again. */
static void
case_forget_left (Case *c)
{
  for (guint i = 0; i < c->left->len; i++)
    for (guint64 at = g_array_index (c->left, WorkRange, i).start;
         at < g_array_index (c->left, WorkRange, i).end; at += FAKE_BLOCK)
      c->stored[at / FAKE_BLOCK] = 0;
}

static void
case_finish (Case *c, NbdTarget *target)
{
  g_autoptr (GError) error = NULL;

  c->world.n_visits = 0;
  c->timeout_ms = LONG_MS;
  case_forget_left (c);
  if (!case_serve_and_pull (c, target, &error))
    case_check (c, FALSE, error->message);
  case_check (c, c->left->len == 0, "something is left at the end");
  case_check_target (c);
}

/* Whether it went well with the first server. */
static gboolean
case_run (guint32 seed)
{
  g_autoptr (Case) c = case_new (seed);
  g_autoptr (NbdTarget) target = case_make_target (c);
  g_autoptr (GError) error = NULL;
  const WorkRange all = { 0, c->world.size };
  gboolean good;

  if (c->world.size > 0)
    g_array_append_val (c->left, all);
  good = case_serve_and_pull (c, target, &error);
  if (g_getenv ("VMFERRY_PROPERTY_VERBOSE") != NULL)
    case_describe (c, good ? "copied" : error != NULL ? error->message : "another size");
  case_check_target (c);
  if (good)
    case_check (c, c->left->len == 0, "success, and something is left");
  else if (error != NULL)
    case_check_error (c, error);
  if (!good)
    case_finish (c, target);
  return good;
}

static void
test_identical_or_failed (void **state)
{
  const char *text = g_getenv ("VMFERRY_PROPERTY_SEEDS");
  guint first = FIRST_SEED, last = LAST_SEED, n_good = 0;

  if (text != NULL)
    assert_int_equal (sscanf (text, "%u-%u", &first, &last), 2);
  for (guint seed = first; seed <= last; seed++)
    n_good += case_run (seed);
  print_message ("# seeds %u to %u: %u copied at once, %u refused and then copied\n", first, last,
                 n_good, last - first + 1 - n_good);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_identical_or_failed),
  };
  return cmocka_run_group_tests_name ("property", tests, NULL, NULL);
}
