/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "nbd/protocol.h"
#include "nbd/pull.h"
#include "tests/fuzz/session-judge.h"
#include "tests/fuzz/session-server.h"
#include "tests/fuzz/session-target.h"
#include "tests/fuzz/virtual-time.h"

/* A whole copy: the real dialer, handshake, client and pull, over real sockets, from servers that
 * are honest but for what a script breaks (mutator.h).  Input: the abilities of the server, what
 * is to be copied and how, the disk, and a script for each of the first clients.  What has to hold:
 *  - where nothing is broken the copy succeeds;
 *  - whatever is not left to do is what the server said, to the byte, and as long as it told no lie
 *    it is the disk; nothing else is touched;
 *  - a failure has one line of text;
 *  - requests and memory stay in their bounds, and everything ends (virtual-time.h). */

#define MAX_BLOCKS 256
#define MAX_DISK (MAX_BLOCKS * HONEST_BLOCK)
#define MAX_VISITS 6
#define TIMEOUT_MS (30 * 1000)
/* Of the engine, its threads, and of the servers with all that they said. */
#define MAX_MEMORY (32 * 1024 * 1024)
#define OLD_DATA 0xa5

static gsize memory_before;

typedef struct
{
  FuzzInput input;
  HonestSpec spec;
  guint8 *data;
  guint8 state[MAX_BLOCKS];
  guint8 dirty[MAX_BLOCKS];
  SessionVisit visits[MAX_VISITS];
  guint n_visits;
  gboolean bitmap;
  gboolean other_exports;
  guint n_connections;
  guint64 stripe;
  guint8 seed;

  guint8 before; /* each byte of the target */
  guint64 size;  /* that was agreed on */
  WorkRange work[2];
  guint n_work;
  GArray *left; /* WorkRange */

  GMutex lock;
  guint8 *target;
  guint8 stored[MAX_BLOCKS]; /* how often */
  guint failing_call;        /* of the target; 0: none fails */
  gboolean target_failed;
} Session;

/* The disk */

/* Anything but zeroes. */
static const guint8 *
get_pattern (void)
{
  static guint8 pattern[MAX_DISK];
  guint64 random = 1;

  if (pattern[0] == 0)
    for (guint i = 0; i < MAX_DISK; i++)
      pattern[i] = (guint8)(1 + fuzz_random (&random) % 255);
  return pattern;
}

static void
make_block (Session *session, guint block, guint kind)
{
  guint8 *data = session->data + (gsize)block * HONEST_BLOCK;
  static const guint8 states[] = { 0, NBD_STATE_HOLE | NBD_STATE_ZERO, NBD_STATE_ZERO, 0,
                                   0, NBD_STATE_HOLE | NBD_STATE_ZERO, NBD_STATE_HOLE, 0 };

  session->state[block] = states[kind];
  session->dirty[block] = kind == 4 || kind == 5 ? 0 : NBD_STATE_DIRTY;
  if (kind == 7)
    data[block * 16] = 1;
  else if (kind == 0 || kind == 4 || kind == 6)
    memcpy (data, get_pattern () + (gsize)block * HONEST_BLOCK, HONEST_BLOCK);
}

static void
make_disk (Session *session)
{
  guint n = fuzz_input_u8 (&session->input);
  guint tail = fuzz_input_u8 (&session->input) * 16u;

  n = 1 + n * n / MAX_BLOCKS; /* most are small, and so fast */
  memset (session->data, 0, (n + 1) * HONEST_BLOCK);
  for (guint block = 0; block < n;)
    {
      guint8 run = fuzz_input_u8 (&session->input);

      for (guint i = 0; i <= run / 8u && block < n; i++)
        make_block (session, block++, run % 8);
    }
  session->spec.size = (guint64)n * HONEST_BLOCK;
  if (session->spec.min_block <= 1)
    session->spec.size -= tail;
}

/* The server */

static void
make_server (Session *session)
{
  static const guint32 min_blocks[] = { 0, 1, 512, 4096 };
  static const guint32 max_blocks[] = { 32 * 1024 * 1024, 4096, 65536, 1024 * 1024 };
  static const guint32 chunks[] = { 0, 4096, 16384, 512 };
  guint8 abilities = fuzz_input_u8 (&session->input);
  guint8 sizes = fuzz_input_u8 (&session->input);
  HonestSpec *spec = &session->spec;

  spec->structured = !(abilities & 1);
  spec->go = !(abilities & 2);
  spec->state = abilities & 4 ? NULL : session->state;
  session->bitmap = (abilities & 8) && spec->structured;
  spec->dirty = session->bitmap ? session->dirty : NULL;
  spec->holes = (abilities & 16) != 0;
  spec->backwards = (abilities & 32) != 0;
  spec->short_status = (abilities & 64) != 0;
  spec->multi_conn = (abilities & 128) != 0;
  spec->min_block = min_blocks[sizes % 4];
  spec->max_block = max_blocks[sizes / 4 % 4];
  spec->chunk = chunks[sizes / 16 % 4];
  session->before = session->bitmap || sizes & 64 ? OLD_DATA : 0;
  spec->data = session->data;
}

static void
make_visits (Session *session)
{
  FuzzInput *input = &session->input;

  while (input->left > 0 && session->n_visits < MAX_VISITS)
    {
      SessionVisit *visit = &session->visits[session->n_visits++];
      guint8 head = fuzz_input_u8 (input);
      gsize len = MIN (head % 64u, input->left);

      visit->spec = session->spec;
      visit->script = (FuzzInput){ input->data, len };
      input->data += len;
      input->left -= len;
      /* Not the export that the copy began with. */
      if (session->n_visits > 1 && head & 64)
        visit->spec.multi_conn = !visit->spec.multi_conn;
      if (session->n_visits > 1 && head & 128)
        visit->spec.size += HONEST_BLOCK;
      session->other_exports |= session->n_visits > 1 && head & 192;
    }
}

static Session *
session_new (const guint8 *data, gsize size)
{
  /* Too large to be made anew each time. */
  static guint8 disk[MAX_DISK], target[MAX_DISK];
  Session *session = g_new0 (Session, 1);
  guint8 how;

  session->data = disk;
  session->target = target;
  session->input = (FuzzInput){ data, size };
  g_mutex_init (&session->lock);
  make_server (session);
  how = fuzz_input_u8 (&session->input);
  session->n_connections = (how & 7) > 4 ? (how & 7) - 3u : 1;
  session->stripe = (guint64)HONEST_BLOCK << (how / 8 % 4) * 3;
  session->n_work = how & 32 ? 2 : 1;
  session->failing_call = fuzz_input_u8 (&session->input);
  session->seed = fuzz_input_u8 (&session->input);
  make_disk (session);
  make_visits (session);
  return session;
}

static void
session_free (Session *session)
{
  g_clear_pointer (&session->left, g_array_unref);
  g_mutex_clear (&session->lock);
  g_free (session);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Session, session_free)

/* The copy */

static void
on_stored (gpointer user_data, const guint8 *data, gsize len, guint64 offset)
{
  Session *session = user_data;
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&session->lock);

  FUZZ_REQUIRE (offset % PULL_BLOCK == 0 && offset + len <= session->size);
  for (guint64 at = offset; at < offset + len; at += HONEST_BLOCK)
    FUZZ_REQUIRE (session->stored[at / HONEST_BLOCK]++ == 0);
}

static void
on_lost (gpointer user_data, const GError *error)
{
  FUZZ_REQUIRE (error != NULL && error->message[0] != '\0');
}

/* All of it, or all but a part in the middle. */
static void
plan_work (Session *session)
{
  guint64 third = session->size / 3 / HONEST_BLOCK * HONEST_BLOCK;

  session->work[0] = (WorkRange){ 0, session->size };
  if (session->n_work == 2 && third > 0)
    {
      session->work[0].end = third;
      session->work[1] = (WorkRange){ 2 * third, session->size };
    }
  else
    {
      session->n_work = session->size > 0 ? 1 : 0;
    }
}

static gboolean
run_pull (Session *session, const NbdDialer *dialer, NbdClient *first, GError **error)
{
  static const MirrorObserver observer = { .stored = on_stored };
  SessionTarget target;
  g_autoptr (WorkList) work = work_list_new (session->work, session->n_work, session->stripe);
  _Atomic gboolean target_failed = FALSE;
  MirrorState state = { 0 };
  const PullSpec spec = { .dialer = dialer,
                          .target = &target.base,
                          .work = work,
                          .state = &state,
                          .bitmap = session->bitmap ? "b" : NULL,
                          .n_connections = session->n_connections,
                          .timeout_ms = TIMEOUT_MS,
                          .observer = &observer,
                          .lost = on_lost,
                          .user_data = session,
                          .target_failed = &target_failed };
  gboolean good;

  session_target_init (&target, session->target, session->size, session->before == 0,
                       session->failing_call);
  good = pull_run (&spec, first, error);
  session_target_clear (&target);
  session->target_failed = target.failed;
  session->left = work_list_get_left (work);
  FUZZ_REQUIRE (session->target_failed == target_failed);
  FUZZ_REQUIRE (!good || (session->left->len == 0 && !target_failed));
  return good;
}

/* Connects and copies. */
static gboolean
run_session (Session *session, SessionServer *server, GError **error)
{
  g_autofree char *text = g_strdup_printf ("nbd+unix:///?socket=%s", session_server_get_path ());
  g_autoptr (NbdUri) uri = nbd_uri_parse (text, NULL);
  g_autoptr (NbdDialer) dialer = nbd_dialer_new (uri, FALSE, NULL);
  g_auto (GStrv) contexts = pull_get_contexts (session->bitmap ? "b" : NULL);
  NbdClient *first = nbd_dialer_connect (dialer, (const char *const *)contexts,
                                         deadline_in (TIMEOUT_MS, NULL), error);
  const NbdExport *export = first != NULL ? nbd_client_get_export (first) : NULL;

  if (export == NULL)
    return FALSE;
  session_server_begin (server, export, virtual_time_get_polled_fd ());
  if (export->size > MAX_DISK)
    {
      nbd_client_free (first);
      g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_FAILED, "a handshake that lies");
      return FALSE;
    }
  session->size = export->size;
  plan_work (session);
  memset (session->target, session->before, session->size);
  return run_pull (session, dialer, first, error);
}

/* The judgement */

static gboolean
is_in (const WorkRange *ranges, guint n, guint64 offset)
{
  for (guint i = 0; i < n; i++)
    if (ranges[i].start <= offset && offset < ranges[i].end)
      return TRUE;
  return FALSE;
}

static gboolean
is_all (const guint8 *data, gsize len, guint8 value)
{
  return data[0] == value && memcmp (data, data + 1, len - 1) == 0;
}

/* What was not to be copied is as it was; what was, and is not left, is the disk, or if there was a
 * lie, what was told. */
static void
check_block (const Session *session, guint64 offset, const guint8 *told)
{
  gsize len = MIN (HONEST_BLOCK, session->size - offset);
  const guint8 *target = session->target + offset;
  gboolean clean = session->bitmap && session->dirty[offset / HONEST_BLOCK] == 0;

  if (!is_in (session->work, session->n_work, offset) || (told == NULL && clean))
    FUZZ_REQUIRE (is_all (target, len, session->before));
  else if (told == NULL)
    FUZZ_REQUIRE (memcmp (target, session->data + offset, len) == 0);
  else
    FUZZ_REQUIRE (is_all (told + offset, len, 1));
}

static void
check_target (const Session *session, const SessionServer *server)
{
  const SessionCopy copy = { session->target, session->size, session->before, session->bitmap };
  gboolean lied = session_server_get_truth (server) == MUTATOR_LIAR;
  g_autofree guint8 *told = lied ? session_judge_find_told (server, &copy) : NULL;
  const WorkRange *left = (const WorkRange *)(void *)session->left->data;

  for (guint64 offset = 0; offset < session->size; offset += HONEST_BLOCK)
    if (!is_in (left, session->left->len, offset))
      check_block (session, offset, told);
}

static void
check_error (const GError *error)
{
  FUZZ_REQUIRE (error != NULL && error->message[0] != '\0');
  FUZZ_REQUIRE (g_utf8_validate (error->message, -1, NULL));
  for (const char *at = error->message; *at != '\0'; at++)
    FUZZ_REQUIRE ((guint8)*at >= 0x20 && *at != 0x7f);
}

static void
on_serve (gpointer user_data)
{
  static guint n;

  session_server_serve (user_data);
  /* To count takes its time. */
  if (++n % 64 == 0)
    FUZZ_REQUIRE (fuzz_allocated () < memory_before + MAX_MEMORY);
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  g_autoptr (Session) session = session_new (data, size);
  g_autoptr (SessionServer) server
      = session_server_new (session->visits, session->n_visits, &session->spec, session->seed);
  g_autoptr (GError) error = NULL;
  MutatorTruth truth;
  gboolean good;

  memory_before = fuzz_allocated ();
  virtual_time_begin (on_serve, server);
  good = run_session (session, server, &error);
  session_server_end (server);
  truth = session_server_get_truth (server);
  if (!good)
    check_error (error);
  if (truth == MUTATOR_HONEST && !session->other_exports)
    {
      FUZZ_REQUIRE (good || session->target_failed);
      FUZZ_REQUIRE (session_server_get_n_invalid (server) == 0);
    }
  if (session->left != NULL)
    check_target (session, server);
  return 0;
}
