/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include <glib/gstdio.h>

#include "daemon/job.h"
#include "daemon/server.h"

/* The engine with the real table, but with actions that do as the test orders, and with this in
 * place of the agent and of those who wait for answers. */
#define PATIENCE_US (20 * G_USEC_PER_SEC)
#define UUID "11111111-2222-4333-8444-555555555555"

struct JobRequest
{
  guint answers;
  char *error; /* NULL: it was a return */
  int code;
  JsonNode *value;
};

typedef struct
{
  JobEvent event;
  const char *error;

} Order;

static GPtrArray *emitted; /* char *: names of events */
static guint ended;
static GAsyncQueue *orders;
static gint started[JOB_N_ACTIONS];
static gint running, stubborn;

void
agent_emit (Agent *agent, Job *job, const char *event, JsonObject *data)
{
  g_ptr_array_add (emitted, g_strdup (event));
  json_object_unref (data);
}

void
agent_job_ended (Agent *agent, Job *job)
{
  ended++;
}

void
request_return (JobRequest *request, JsonNode *value)
{
  request->answers++;
  request->value = value;
}

void
request_fail (JobRequest *request, const GError *error)
{
  assert_true (error->domain == JOB_ERROR);
  request->answers++;
  request->error = g_strdup (error->message);
  request->code = error->code;
}

static void
request_clear (JobRequest *request)
{
  g_free (request->error);
  g_clear_pointer (&request->value, json_node_unref);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (JobRequest, request_clear)

static JobEvent
act (Job *job, JobAction action, GError **error)
{
  Order *order = NULL;
  JobEvent event = JOB_EVENT_FAILED;

  assert_int_equal (g_atomic_int_add (&running, 1), 0);
  g_atomic_int_inc (&started[action]);
  while (!(order = g_async_queue_timeout_pop (orders, 1000))
         && (g_atomic_int_get (&stubborn) || !g_cancellable_is_cancelled (job_cancellable (job))))
    ;
  if (order)
    event = order->event;
  if (event != JOB_EVENT_DONE)
    g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "%s",
                 order && order->error ? order->error : "cancelled");
  g_free (order);
  g_atomic_int_add (&running, -1);
  return event;
}

#define ACTION(name)                                                                               \
  static JobEvent act_##name (Job *job, GError **error)                                            \
  {                                                                                                \
    return act (job, JOB_ACTION_##name, error);                                                    \
  }
ACTION (CHECK)
ACTION (PREPARE)
ACTION (SEED)
ACTION (COPY)
ACTION (RELEASE)
ACTION (START)
ACTION (FINISH)
ACTION (UNDO)
ACTION (ASK)

static const JobActionFunc actions[JOB_N_ACTIONS] = {
  [JOB_ACTION_CHECK] = act_CHECK,     [JOB_ACTION_PREPARE] = act_PREPARE,
  [JOB_ACTION_SEED] = act_SEED,       [JOB_ACTION_COPY] = act_COPY,
  [JOB_ACTION_RELEASE] = act_RELEASE, [JOB_ACTION_START] = act_START,
  [JOB_ACTION_FINISH] = act_FINISH,   [JOB_ACTION_UNDO] = act_UNDO,
  [JOB_ACTION_ASK] = act_ASK,
};

static void
test_job_free (Job *job)
{
  job_clear (job);
  g_free (job);
}

static const JobClass test_class = { .actions = actions, .free = test_job_free };

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Job, job_free)

static Job *
new_job (JobRole role)
{
  Job *job = g_new0 (Job, 1);

  job_init (job, &test_class, NULL, role, UUID, "vm1", "hostB");
  return job;
}

static void
order (JobEvent event, const char *error)
{
  Order *new = g_new0 (Order, 1);

  new->event = event;
  new->error = error;
  g_async_queue_push (orders, new);
}

static gboolean
wake (gpointer data)
{
  return G_SOURCE_CONTINUE;
}

/* Runs the main loop until `condition`. */
#define wait_until(condition)                                                                      \
  do                                                                                               \
    {                                                                                              \
      gint64 until = g_get_monotonic_time () + PATIENCE_US;                                        \
      guint ticks = g_timeout_add (5, wake, NULL);                                                 \
      while (!(condition) && g_get_monotonic_time () < until)                                      \
        g_main_context_iteration (NULL, TRUE);                                                     \
      g_source_remove (ticks);                                                                     \
      assert_true (condition);                                                                     \
    }                                                                                              \
  while (0)

static void
wait_started (JobAction action, gint times)
{
  wait_until (g_atomic_int_get (&started[action]) == times);
}

static void
wait_at_rest (Job *job, JobState state)
{
  wait_until (job->state == state && !job->running);
}

static gboolean
was_emitted (const char *name)
{
  for (guint i = 0; i < emitted->len; i++)
    if (g_str_equal (g_ptr_array_index (emitted, i), name))
      return TRUE;
  return FALSE;
}

static int
setup (void **state)
{
  memset (started, 0, sizeof started);
  ended = 0;
  stubborn = 0;
  emitted = g_ptr_array_new_with_free_func (g_free);
  orders = g_async_queue_new_full (g_free);
  return 0;
}

static int
teardown (void **state)
{
  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_ptr_array_unref (emitted);
  g_async_queue_unref (orders);
  return 0;
}

static void
test_one_after_the_other (void **state)
{
  g_autoptr (Job) job = new_job (JOB_SOURCE);

  job_begin (job, JOB_CHECKING, JOB_ACTION_CHECK);
  assert_int_equal (job->state, JOB_CHECKING);
  order (JOB_EVENT_DONE, NULL);
  wait_started (JOB_ACTION_PREPARE, 1);
  assert_int_equal (job->state, JOB_PREPARING);
  order (JOB_EVENT_FAILED, "no room at hostB");
  wait_started (JOB_ACTION_UNDO, 1);
  assert_int_equal (job->state, JOB_UNDOING);
  assert_int_equal (ended, 0);
  order (JOB_EVENT_FAILED, "a bitmap stays");
  wait_at_rest (job, JOB_FAILED);
  assert_int_equal (ended, 1);
  /* The first error is the one that people are told. */
  assert_string_equal (job->error->message, "no room at hostB");
}

static void
test_supersede (void **state)
{
  g_autoptr (Job) job = new_job (JOB_SOURCE);
  g_autoptr (GError) reason = g_error_new (JOB_ERROR, JOB_ERROR_FAILED, "cancelled by hand");

  stubborn = 1;
  job_begin (job, JOB_SEEDING, JOB_ACTION_SEED);
  wait_started (JOB_ACTION_SEED, 1);
  assert_true (job_event (job, JOB_EVENT_CANCEL, reason, NULL));
  assert_int_equal (job->state, JOB_CANCELLING);
  assert_true (g_cancellable_is_cancelled (job_cancellable (job)));
  /* Twice is once, and what it is doing isn't cancelled again. */
  assert_true (job_event (job, JOB_EVENT_CANCEL, NULL, NULL));
  assert_int_equal (g_atomic_int_get (&started[JOB_ACTION_UNDO]), 0);
  /* How the old action ends doesn't count, not even well. */
  order (JOB_EVENT_DONE, NULL);
  wait_started (JOB_ACTION_UNDO, 1);
  assert_false (g_cancellable_is_cancelled (job_cancellable (job)));
  assert_int_equal (job->state, JOB_CANCELLING);
  order (JOB_EVENT_DONE, NULL);
  wait_at_rest (job, JOB_CANCELLED);
  assert_string_equal (job->error->message, "cancelled by hand");
  assert_int_equal (started[JOB_ACTION_COPY], 0);
}

static void
test_refused (void **state)
{
  g_autoptr (Job) job = new_job (JOB_SOURCE);
  g_autoptr (GError) error = NULL;

  job_begin (job, JOB_STARTING, JOB_ACTION_START);
  assert_false (job_event (job, JOB_EVENT_CANCEL, NULL, &error));
  assert_true (g_error_matches (error, JOB_ERROR, JOB_ERROR_TOO_LATE));
  g_clear_error (&error);
  assert_false (job_event (job, JOB_EVENT_RESOLVE_SOURCE, NULL, &error));
  assert_true (g_error_matches (error, JOB_ERROR, JOB_ERROR_BUSY));
  assert_string_equal (error->message, "job 11111111: that can't be done while it is starting");
  assert_null (job->error);
  order (JOB_EVENT_DONE, NULL);
  wait_started (JOB_ACTION_FINISH, 1);
  order (JOB_EVENT_DONE, NULL);
  wait_at_rest (job, JOB_DONE);
  assert_null (job->error);
}

static void
post_lost (Job *job, JobEvent event)
{
  g_autoptr (GError) lost = g_error_new (JOB_ERROR, JOB_ERROR_FAILED, "lost");

  job_post_lost (job, event, lost);
  while (g_main_context_iteration (NULL, FALSE))
    ;
}

/* A loss that is of no interest now is told to the state that cares. */
static void
test_sticky_loss (void **state)
{
  g_autoptr (Job) job = new_job (JOB_DESTINATION);

  job_begin (job, JOB_RELEASING, JOB_ACTION_RELEASE);
  post_lost (job, JOB_EVENT_PEER_LOST);
  assert_int_equal (job->state, JOB_RELEASING);
  order (JOB_EVENT_DONE, NULL);
  wait_started (JOB_ACTION_ASK, 1);
  assert_int_equal (job->state, JOB_NEEDS_OPERATOR);
  assert_true (was_emitted ("JOB_NEEDS_OPERATOR"));
  assert_true (job_event (job, JOB_EVENT_RESOLVE_SOURCE, NULL, NULL));
  wait_started (JOB_ACTION_UNDO, 1);
  order (JOB_EVENT_DONE, NULL);
  wait_at_rest (job, JOB_FAILED);
}

static void
test_forgotten_loss (void **state)
{
  g_autoptr (Job) job = new_job (JOB_DESTINATION);

  job_begin (job, JOB_RELEASING, JOB_ACTION_RELEASE);
  post_lost (job, JOB_EVENT_PEER_LOST);
  job_forget_lost (job, JOB_EVENT_PEER_LOST);
  order (JOB_EVENT_DONE, NULL);
  wait_at_rest (job, JOB_RELEASED);
  assert_int_equal (started[JOB_ACTION_ASK], 0);
}

static void
test_passing_loss (void **state)
{
  g_autoptr (Job) job = new_job (JOB_DESTINATION);

  job_begin (job, JOB_RELEASING, JOB_ACTION_RELEASE);
  job_post (job, JOB_EVENT_PEER_LOST, NULL);
  order (JOB_EVENT_DONE, NULL);
  wait_at_rest (job, JOB_RELEASED);
  /* Nobody is told of anything once it is over. */
  job_event (job, JOB_EVENT_ABORT, NULL, NULL);
  order (JOB_EVENT_DONE, NULL);
  wait_at_rest (job, JOB_FAILED);
  post_lost (job, JOB_EVENT_QEMU_LOST);
  assert_int_equal (job->state, JOB_FAILED);
  assert_int_equal (job->sticky, 0);
}

static void
command (Job *job, JobEvent event, JobRequest *request)
{
  g_autoptr (JsonObject) args = json_args ("reason", "s", "tired\nof it", NULL);

  job_command (job, event, request, args);
}

static void
test_answers (void **state)
{
  g_autoptr (Job) job = new_job (JOB_DESTINATION);
  g_auto (JobRequest) copy = { 0 };
  g_auto (JobRequest) refused = { 0 };
  g_auto (JobRequest) failing = { 0 };

  job_begin (job, JOB_PREPARED, JOB_ACTION_NONE);
  command (job, JOB_EVENT_COPY, &copy);
  wait_started (JOB_ACTION_COPY, 1);
  command (job, JOB_EVENT_COPY, &refused);
  assert_int_equal (refused.answers, 1);
  assert_int_equal (refused.code, JOB_ERROR_BUSY);
  assert_int_equal (copy.answers, 0);
  job->answer = json_node_init_int (json_node_alloc (), 42);
  order (JOB_EVENT_DONE, NULL);
  wait_at_rest (job, JOB_PREPARED);
  assert_int_equal (copy.answers, 1);
  assert_int_equal (json_node_get_int (copy.value), 42);
  assert_null (job->answer);

  command (job, JOB_EVENT_COPY, &failing);
  order (JOB_EVENT_FAILED, "disk full");
  wait_started (JOB_ACTION_UNDO, 1);
  assert_int_equal (failing.answers, 1);
  assert_string_equal (failing.error, "disk full");
  order (JOB_EVENT_DONE, NULL);
  wait_at_rest (job, JOB_FAILED);
  assert_int_equal (copy.answers + refused.answers + failing.answers, 3);
}

static void
test_interrupted_answer (void **state)
{
  g_autoptr (Job) job = new_job (JOB_DESTINATION);
  g_auto (JobRequest) copy = { 0 };
  g_auto (JobRequest) abort_it = { 0 };
  g_auto (JobRequest) late = { 0 };

  job_begin (job, JOB_PREPARED, JOB_ACTION_NONE);
  command (job, JOB_EVENT_COPY, &copy);
  wait_started (JOB_ACTION_COPY, 1);
  command (job, JOB_EVENT_ABORT, &abort_it);
  assert_int_equal (copy.answers, 1);
  assert_string_equal (copy.error, "interrupted: hostB gave up: tired\\nof it");
  wait_started (JOB_ACTION_UNDO, 1);
  assert_int_equal (abort_it.answers, 0);
  order (JOB_EVENT_DONE, NULL);
  wait_at_rest (job, JOB_FAILED);
  assert_int_equal (abort_it.answers, 1);
  assert_null (abort_it.error);
  assert_int_equal (copy.answers, 1);
  assert_string_equal (job->error->message, "hostB gave up: tired\\nof it");
  command (job, JOB_EVENT_START, &late);
  assert_int_equal (late.code, JOB_ERROR_NEVER);
}

/* Who asks a second time, after the connection was lost, is answered when it has been done, and
 * never before. */
static void
test_awaited_answer (void **state)
{
  g_autoptr (Job) job = new_job (JOB_DESTINATION);
  g_auto (JobRequest) first = { 0 };
  g_auto (JobRequest) second = { 0 };
  g_auto (JobRequest) third = { 0 };
  g_auto (JobRequest) too_late = { 0 };

  job_begin (job, JOB_RELEASED, JOB_ACTION_NONE);
  command (job, JOB_EVENT_START, &first);
  wait_started (JOB_ACTION_START, 1);
  command (job, JOB_EVENT_START, &second);
  assert_int_equal (first.answers, 1);
  assert_int_equal (first.code, JOB_ERROR_BUSY);
  assert_int_equal (second.answers, 0);
  order (JOB_EVENT_DONE, NULL);
  wait_at_rest (job, JOB_OWNER);
  assert_int_equal (second.answers, 1);
  assert_null (second.error);
  command (job, JOB_EVENT_START, &third);
  assert_int_equal (third.answers, 1);
  assert_null (third.error);
  command (job, JOB_EVENT_ABORT, &too_late);
  assert_int_equal (too_late.code, JOB_ERROR_TOO_LATE);
  assert_int_equal (started[JOB_ACTION_START], 1);
  assert_int_equal (first.answers, 1);
}

static void
test_never (void **state)
{
  g_autoptr (Job) job = new_job (JOB_DESTINATION);
  g_auto (JobRequest) start = { 0 };

  job_begin (job, JOB_RELEASED, JOB_ACTION_NONE);
  command (job, JOB_EVENT_START, &start);
  order (JOB_EVENT_NEVER, "the stream is torn");
  wait_started (JOB_ACTION_UNDO, 1);
  assert_int_equal (start.answers, 1);
  assert_string_equal (start.error, "the stream is torn");
  order (JOB_EVENT_DONE, NULL);
  wait_at_rest (job, JOB_FAILED);
}

static void
test_described (void **state)
{
  g_autoptr (Job) job = new_job (JOB_DESTINATION);
  g_autoptr (JsonObject) shown = NULL;
  JobDisk disk = { .disk = g_strdup ("d0"), .target = g_strdup ("/x"), .size = 10, .read = 7 };
  const char *text;

  g_array_append_val (job->view.disks, disk);
  job_begin (job, JOB_RELEASED, JOB_ACTION_NONE);
  job_set_message (job, "waiting for %s", "hostA");
  job_set_owner (job, JOB_OWNED_BY_UNKNOWN);
  assert_int_equal (job_get_owner (job), JOB_OWNED_BY_UNKNOWN);
  assert_true (job_take_changed (job));
  assert_false (job_take_changed (job));
  shown = job_describe (job);
  assert_true (json_get_string (shown, "state", &text));
  assert_string_equal (text, "released");
  assert_true (json_get_string (shown, "owner", &text));
  assert_string_equal (text, "unknown");
  assert_true (json_get_string (shown, "message", &text));
  assert_string_equal (text, "waiting for hostA");
  assert_true (json_object_get_null_member (shown, "exit"));
  assert_true (json_object_get_null_member (shown, "downtime_ms"));
  assert_int_equal (json_object_get_int_member (shown, "sent_bytes"), 7);
}

static void
test_exit_status (void **state)
{
  static const struct
  {
    JobState state;
    int exit;
  } ends[]
      = { { JOB_DONE, 0 }, { JOB_FAILED, 1 }, { JOB_CANCELLED, 130 }, { JOB_NEEDS_OPERATOR, 3 } };

  for (guint i = 0; i < G_N_ELEMENTS (ends); i++)
    {
      g_autoptr (Job) job = new_job (JOB_SOURCE);
      g_autoptr (JsonObject) shown = NULL;

      job->state = ends[i].state;
      shown = job_describe (job);
      assert_int_equal (json_object_get_int_member (shown, "exit"), ends[i].exit);
    }
}

static void
test_notice (void **state)
{
  g_autoptr (Job) job = new_job (JOB_SOURCE);

  job_notice (job, FALSE, "%u things", 2);
  assert_false (was_emitted ("JOB_MESSAGE"));
  wait_until (was_emitted ("JOB_MESSAGE"));
}

static void
test_journal (void **state)
{
  g_autofree char *dir = g_dir_make_tmp ("vmferry-job-XXXXXX", NULL);
  g_autofree char *jobs = g_build_filename (dir, "jobs", NULL);
  g_autofree char *file = g_strdup_printf ("%s/" UUID ".journal", jobs);
  g_autoptr (Job) job = new_job (JOB_DESTINATION);
  gint64 n;

  assert_int_equal (g_mkdir (jobs, 0700), 0);
  assert_true (job_record (job, json_args ("record", "s", "lost", NULL), NULL));
  job->journal = journal_create (dir, UUID, NULL);
  assert_non_null (job->journal);
  for (gint64 i = 0; i < 2; i++)
    assert_true (job_record (job, json_args ("record", "s", "begin", "n", "i", i, NULL), NULL));
  journal_free (job->journal);
  job->journal = journal_open (dir, UUID, &job->records, NULL);
  assert_non_null (job->journal);
  assert_null (job_find_record (job, "lost"));
  assert_true (json_get_int (job_find_record (job, "begin"), "n", &n));
  assert_int_equal (n, 1);

  job_begin (job, JOB_UNDOING, JOB_ACTION_UNDO);
  assert_true (g_file_test (file, G_FILE_TEST_EXISTS));
  order (JOB_EVENT_DONE, NULL);
  wait_at_rest (job, JOB_FAILED);
  assert_false (g_file_test (file, G_FILE_TEST_EXISTS));
  assert_null (job->journal);
  assert_int_equal (g_rmdir (jobs), 0);
  assert_int_equal (g_rmdir (dir), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown (test_##name, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (one_after_the_other),
    TEST (supersede),
    TEST (refused),
    TEST (sticky_loss),
    TEST (forgotten_loss),
    TEST (passing_loss),
    TEST (answers),
    TEST (interrupted_answer),
    TEST (awaited_answer),
    TEST (never),
    TEST (described),
    TEST (exit_status),
    TEST (notice),
    TEST (journal),
  };

  return cmocka_run_group_tests_name ("job", tests, NULL, NULL);
}
