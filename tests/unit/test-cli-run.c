/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/run.h"
#include "tests/unit/fake-agent.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define UUID "8c0f3c5e-0000-4000-8000-000000000001"
#define JOB(state, more)                                                                           \
  "{\"job\": \"" UUID "\", \"guest\": \"vm1\", \"role\": \"source\", \"peer\": \"hostB\", "        \
  "\"state\": \"" state "\", \"owner\": \"source\", \"total_s\": 3, \"passes\": 2, "               \
  "\"sent_bytes\": 1048576, \"zero_bytes\": 0, \"disks\": [], \"message\": \"" state "\"" more "}"
#define RUNNING JOB ("seeding", ", \"exit\": null")
#define DONE JOB ("done", ", \"exit\": 0, \"downtime_ms\": 143.2")
#define CANCELLED JOB ("cancelled", ", \"exit\": 130, \"error\": \"cancelled by the operator\"")
#define STARTED "{\"job\": \"" UUID "\"}"

/* What one run of the program did. */
typedef struct
{
  int status;
  char *out, *err;
} Result;

static void
result_clear (Result *result)
{
  g_free (result->out);
  g_free (result->err);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Result, result_clear)

static char *
slurp (FILE *file)
{
  g_autofree char *buf = g_malloc0 (65536);
  rewind (file);
  assert_true (fread (buf, 1, 65535, file) < 65535);
  fclose (file);
  return g_strdup (buf);
}

static Result
run_at (const char *socket, const char *const *words)
{
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  g_ptr_array_add (argv, (gpointer) "vmferry");
  for (; *words != NULL; words++)
    g_ptr_array_add (argv, (gpointer)*words);
  g_ptr_array_add (argv, (gpointer) "--socket");
  g_ptr_array_add (argv, (gpointer)socket);
  g_ptr_array_add (argv, NULL);
  const CliEnvironment environment = { tmpfile (), tmpfile (), 300 };
  Result result = { .status = cli_main ((const char *const *)argv->pdata, &environment) };
  result.out = slurp (environment.out);
  result.err = slurp (environment.err);
  return result;
}

static Result
run_with (FakeAgentScript script, const char *const *words)
{
  g_autoptr (FakeAgent) agent = fake_agent_new ();
  fake_agent_start (agent, script);
  return run_at (fake_agent_get_path (agent), words);
}

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define MIGRATE "migrate", "vm1", "hostB", "--qmp=/a.qmp", "--dest-qmp=/b.qmp"
#define RUN(script, ...) run_with (script, WORDS (__VA_ARGS__))

static void
assert_has (const char *text, const char *part)
{
  if (strstr (text, part) == NULL)
    fail_msg ("'%s' is not in: %s", part, text);
}

/* The last line of --json. */
static JsonObject *
last_object (const char *text)
{
  g_autofree char *copy = g_strdup (text);
  g_strchomp (copy);
  const char *newline = strrchr (copy, '\n');
  g_autoptr (JsonNode) node = json_from_string (newline != NULL ? newline + 1 : copy, NULL);
  assert_non_null (node);
  return json_node_dup_object (node);
}

static void
begin (FakeAgent *agent)
{
  fake_agent_accept (agent, NULL);
  fake_agent_expect (agent, "migrate");
  fake_agent_return (agent, STARTED);
}

static void
script_done (FakeAgent *agent)
{
  fake_agent_accept (agent, NULL);
  JsonObject *args = fake_agent_expect (agent, "migrate");
  g_assert_cmpstr (json_object_get_string_member (args, "guest"), ==, "vm1");
  g_assert_cmpstr (json_object_get_string_member (args, "host"), ==, "hostB");
  g_assert_cmpstr (json_object_get_string_member (args, "qmp"), ==, "/a.qmp");
  g_assert_cmpstr (json_object_get_string_member (args, "dest-qmp"), ==, "/b.qmp");
  g_assert_false (json_object_has_member (args, "rate"));
  fake_agent_event (agent, "JOB_PROGRESS", RUNNING);
  fake_agent_return (agent, STARTED);
  fake_agent_event (agent, "JOB_PROGRESS", RUNNING);
  fake_agent_event (agent, "JOB_MESSAGE",
                    "{\"job\": \"" UUID "\", \"level\": \"warning\", \"text\": \"a\\u001b[31mb\"}");
  fake_agent_event (agent, "JOB_PROGRESS", "{\"job\": \"another\", \"state\": \"failed\"}");
  fake_agent_event (agent, "JOB_PROGRESS", JOB ("converging", ""));
  fake_agent_event (agent, "JOB_ENDED", DONE);
  fake_agent_expect_eof (agent);
}

static void
test_migrate (void **state)
{
  g_auto (Result) result = RUN (script_done, MIGRATE);
  assert_int_equal (result.status, 0);
  assert_string_equal (result.err, "vmferry: vm1: seeding\n"
                                   "vmferry: warning: a\\u001b[31mb\n"
                                   "vmferry: vm1: converging\n"
                                   "vmferry: vm1: done\n");
  assert_has (result.out, "\ndowntime   143 ms\n");
  assert_has (result.out, "\nfrom, to   hostA -> hostB\n");
}

static void
test_migrate_json (void **state)
{
  g_auto (Result) result = RUN (script_done, MIGRATE, "--json");
  assert_int_equal (result.status, 0);
  g_auto (GStrv) lines = g_strsplit (g_strchomp (result.out), "\n", -1);
  assert_int_equal (g_strv_length (lines), 6);
  assert_true (g_str_has_prefix (lines[0], "{\"event\":\"JOB_PROGRESS\",\"job\":\"" UUID "\""));
  assert_has (lines[2], "\"text\":\"a\\u001b[31mb\"");
  assert_has (lines[4], "\"event\":\"JOB_ENDED\"");
  g_autoptr (JsonObject) object = last_object (result.out);
  assert_false (json_object_has_member (object, "event"));
  assert_string_equal (json_object_get_string_member (object, "state"), "done");
  assert_int_equal (json_object_get_int_member (object, "exit"), 0);
}

static void
script_options (FakeAgent *agent)
{
  fake_agent_accept (agent, NULL);
  JsonObject *args = fake_agent_expect (agent, "migrate");
  JsonArray *disks = json_object_get_array_member (args, "disks");
  JsonObject *disk = json_array_get_object_element (disks, 0);
  g_assert_cmpstr (json_object_get_string_member (disk, "disk"), ==, "d0");
  g_assert_cmpstr (json_object_get_string_member (disk, "path"), ==, "/x");
  g_assert_cmpstr (json_object_get_string_member (disk, "format"), ==, "qcow2");
  g_assert_false (json_object_has_member (disk, "prealloc"));
  g_assert_cmpint (json_object_get_int_member (args, "rate"), ==, 1024 * 1024);
  g_assert_cmpint (json_object_get_int_member (args, "max-downtime"), ==, 100);
  g_assert_cmpint (json_object_get_int_member (args, "timeout"), ==, 7);
  g_assert_true (json_object_get_boolean_member (args, "overwrite"));
  fake_agent_return (agent, STARTED);
}

static void
test_detach (void **state)
{
  g_auto (Result) result = RUN (script_options, MIGRATE, "--detach", "--disk=d0=/x,format=qcow2",
                                "--rate=1M", "--max-downtime=100", "--timeout=7", "--overwrite");
  assert_int_equal (result.status, 0);
  assert_string_equal (result.out, UUID "\n");
  assert_string_equal (result.err, "");
}

static void
script_failed (FakeAgent *agent)
{
  begin (agent);
  fake_agent_event (agent, "JOB_ENDED",
                    JOB ("failed", ", \"exit\": 1, \"error\": \"hostB: the disk is full\""));
}

static void
test_failed (void **state)
{
  g_auto (Result) result = RUN (script_failed, MIGRATE);
  assert_int_equal (result.status, 1);
  assert_has (result.err, "vmferry: hostB: the disk is full\n");
  assert_has (result.out, "result     failed: vm1 stays at hostA\n");
}

static void
script_operator (FakeAgent *agent)
{
  begin (agent);
  fake_agent_event (agent, "JOB_NEEDS_OPERATOR", JOB ("needs-operator", ", \"exit\": 3"));
}

static void
test_needs_operator (void **state)
{
  g_auto (Result) result = RUN (script_operator, MIGRATE);
  assert_int_equal (result.status, 3);
  assert_has (result.out, "vmferry resolve");
  assert_has (result.err, "vmferry resolve " UUID " --owner source|destination\n");
}

static void
script_interrupted (FakeAgent *agent)
{
  begin (agent);
  raise (SIGINT);
  JsonObject *args = fake_agent_expect (agent, "cancel");
  g_assert_cmpstr (json_object_get_string_member (args, "job"), ==, UUID);
  fake_agent_return (agent, NULL);
  raise (SIGTERM);
  fake_agent_event (agent, "JOB_ENDED", CANCELLED);
  fake_agent_expect_eof (agent);
}

static void
test_interrupt_cancels (void **state)
{
  g_auto (Result) result = RUN (script_interrupted, MIGRATE);
  assert_int_equal (result.status, 130);
  assert_has (result.err, "vmferry: cancelling: waiting until everything is undone\n");
  assert_has (result.err, "vmferry: cancelled by the operator\n");
}

static void
script_too_late (FakeAgent *agent)
{
  begin (agent);
  raise (SIGTERM);
  fake_agent_expect (agent, "cancel");
  fake_agent_fail (agent, "TooLate", "the guest has been handed over");
  raise (SIGTERM);
  fake_agent_event (agent, "JOB_ENDED", DONE);
  fake_agent_expect_eof (agent);
}

static void
test_interrupt_too_late (void **state)
{
  g_auto (Result) result = RUN (script_too_late, MIGRATE);
  assert_int_equal (result.status, 0);
  assert_has (result.err, "vmferry: too late to cancel: the guest has been handed over\n");
}

static void
script_hangup (FakeAgent *agent)
{
  begin (agent);
  raise (SIGHUP);
  fake_agent_expect_eof (agent);
}

static void
test_hangup_leaves_the_job (void **state)
{
  g_auto (Result) result = RUN (script_hangup, MIGRATE);
  assert_int_equal (result.status, 129);
  assert_has (result.err, "vmferry: job " UUID " goes on: see 'vmferry status'\n");
}

static void
script_restarted (FakeAgent *agent)
{
  begin (agent);
  fake_agent_close (agent, FALSE);
  fake_agent_accept (agent, NULL);
  JsonObject *args = fake_agent_expect (agent, "watch");
  g_assert_cmpstr (json_object_get_string_member (args, "job"), ==, UUID);
  fake_agent_return (agent, NULL);
  fake_agent_event (agent, "JOB_ENDED", DONE);
}

static void
test_agent_comes_back (void **state)
{
  g_auto (Result) result = RUN (script_restarted, MIGRATE);
  assert_int_equal (result.status, 0);
  assert_has (result.err, "lost the connection to ");
  assert_has (result.err, "connected to ");
}

static void
script_gone (FakeAgent *agent)
{
  begin (agent);
  fake_agent_close (agent, TRUE);
}

static void
test_agent_stays_away (void **state)
{
  g_auto (Result) result = RUN (script_gone, MIGRATE, "--json");
  assert_int_equal (result.status, 1);
  assert_has (result.err, "is vmferryd running?; the job may go on: see 'vmferry status " UUID "'");
  g_autoptr (JsonObject) object = last_object (result.out);
  assert_has (json_object_get_string_member (object, "error"), "the job may go on");
}

static void
script_forgotten (FakeAgent *agent)
{
  begin (agent);
  fake_agent_close (agent, FALSE);
  fake_agent_accept (agent, NULL);
  fake_agent_expect (agent, "watch");
  fake_agent_fail (agent, "NotFound", "there is no such job");
}

static void
test_agent_forgot (void **state)
{
  g_auto (Result) result = RUN (script_forgotten, MIGRATE);
  assert_int_equal (result.status, 1);
  assert_has (result.err, "doesn't know job " UUID " any more");
}

/* Ctrl-C while nobody listens is not forgotten. */
static void
script_interrupted_alone (FakeAgent *agent)
{
  begin (agent);
  raise (SIGINT);
  fake_agent_close (agent, FALSE);
  fake_agent_accept (agent, NULL);
  fake_agent_expect (agent, "watch");
  fake_agent_return (agent, NULL);
  fake_agent_expect (agent, "cancel");
  fake_agent_return (agent, NULL);
  fake_agent_event (agent, "JOB_ENDED", CANCELLED);
}

static void
test_interrupt_without_agent (void **state)
{
  g_auto (Result) result = RUN (script_interrupted_alone, MIGRATE);
  assert_int_equal (result.status, 130);
}

static void
script_busy (FakeAgent *agent)
{
  fake_agent_accept (agent, NULL);
  fake_agent_expect (agent, "migrate");
  fake_agent_fail (agent, "Busy", "vm1 is being migrated already");
}

static void
script_usage (FakeAgent *agent)
{
  fake_agent_accept (agent, NULL);
  fake_agent_expect (agent, "migrate");
  fake_agent_fail (agent, "Usage", "vm1 has no disk d7");
}

static void
test_refused (void **state)
{
  g_auto (Result) busy = RUN (script_busy, MIGRATE);
  assert_int_equal (busy.status, 1);
  assert_string_equal (busy.err, "vmferry: vm1 is being migrated already\n");
  assert_string_equal (busy.out, "");
  g_auto (Result) usage = RUN (script_usage, MIGRATE);
  assert_int_equal (usage.status, 2);
  assert_string_equal (usage.err, "vmferry: vm1 has no disk d7\n");
}

static void
script_old (FakeAgent *agent)
{
  fake_agent_accept (agent, "{\"vmferry\": {\"protocol\": 0, \"version\": \"0.0.9\"}}");
}

static void
script_stranger (FakeAgent *agent)
{
  fake_agent_accept (agent, "{\"QMP\": {}}");
}

static void
test_no_agent (void **state)
{
  g_auto (Result) none = run_at ("/nonexistent/control", WORDS ("jobs", "--json"));
  assert_int_equal (none.status, 1);
  assert_has (none.err, "vmferry: cannot connect to /nonexistent/control: ");
  assert_has (none.err, ": is vmferryd running?\n");
  g_autoptr (JsonObject) object = last_object (none.out);
  assert_has (json_object_get_string_member (object, "error"), "is vmferryd running?");
  g_auto (Result) old = RUN (script_old, "jobs");
  assert_int_equal (old.status, 1);
  assert_has (old.err, "vmferryd 0.0.9 speaks protocol 0, this vmferry (" VMFERRY_VERSION
                       ") needs 1: install the same version of both\n");
  g_auto (Result) stranger = RUN (script_stranger, "jobs");
  assert_int_equal (stranger.status, 1);
  assert_has (stranger.err, ": not an agent: ");
}

static void
script_jobs (FakeAgent *agent)
{
  fake_agent_accept (agent, NULL);
  fake_agent_expect (agent, "query-jobs");
  fake_agent_return (agent, "[" RUNNING ", " DONE "]");
}

static void
test_jobs (void **state)
{
  g_auto (Result) table = RUN (script_jobs, "jobs");
  assert_int_equal (table.status, 0);
  assert_true (g_str_has_prefix (table.out, "JOB       GUEST  ROLE "));
  assert_has (table.out, "8c0f3c5e  vm1    source  hostB  seeding  source  3.0 s\n");
  g_auto (Result) json = RUN (script_jobs, "jobs", "--json");
  g_autoptr (JsonObject) object = last_object (json.out);
  assert_int_equal (json_array_get_length (json_object_get_array_member (object, "jobs")), 2);
  g_auto (Result) all = RUN (script_jobs, "status");
  assert_has (all.out, "state      seeding\n");
  assert_has (all.out, "\n\nstate      done\n");
}

static void
expect_query (FakeAgent *agent)
{
  fake_agent_accept (agent, NULL);
  JsonObject *args = fake_agent_expect (agent, "query-job");
  g_assert_cmpstr (json_object_get_string_member (args, "job"), ==, "8c0f");
  fake_agent_return (agent, RUNNING);
}

static void
script_unknown (FakeAgent *agent)
{
  fake_agent_accept (agent, NULL);
  fake_agent_expect (agent, "query-job");
  fake_agent_fail (agent, "NotFound", "there is no job 8c0f");
}

static void
test_status (void **state)
{
  g_auto (Result) one = RUN (expect_query, "status", "8c0f");
  assert_int_equal (one.status, 0);
  assert_has (one.out, "job        " UUID "\n");
  g_auto (Result) json = RUN (expect_query, "status", "8c0f", "--json");
  g_autoptr (JsonObject) object = last_object (json.out);
  assert_string_equal (json_object_get_string_member (object, "state"), "seeding");
  g_auto (Result) none = RUN (script_unknown, "status", "8c0f");
  assert_int_equal (none.status, 1);
  assert_string_equal (none.err, "vmferry: there is no job 8c0f\n");
}

static void
expect_watch (FakeAgent *agent)
{
  expect_query (agent);
  JsonObject *args = fake_agent_expect (agent, "watch");
  g_assert_cmpstr (json_object_get_string_member (args, "job"), ==, UUID);
  fake_agent_return (agent, NULL);
  fake_agent_event (agent, "JOB_PROGRESS", RUNNING);
}

static void
script_watch (FakeAgent *agent)
{
  expect_watch (agent);
  fake_agent_event (agent, "JOB_ENDED", DONE);
}

/* A job that ended before: all that comes is its last state. */
static void
script_watch_ended (FakeAgent *agent)
{
  expect_query (agent);
  fake_agent_expect (agent, "watch");
  fake_agent_return (agent, NULL);
  fake_agent_event (agent, "JOB_PROGRESS", CANCELLED);
}

static void
script_watch_interrupted (FakeAgent *agent)
{
  expect_watch (agent);
  raise (SIGINT);
  fake_agent_expect_eof (agent);
}

static void
script_watch_all (FakeAgent *agent)
{
  fake_agent_accept (agent, NULL);
  JsonObject *args = fake_agent_expect (agent, "watch");
  g_assert_false (json_object_has_member (args, "job"));
  fake_agent_return (agent, NULL);
  fake_agent_event (agent, "JOB_PROGRESS", RUNNING);
  fake_agent_event (agent, "JOB_ENDED", DONE);
  fake_agent_close (agent, TRUE);
}

static void
test_watch (void **state)
{
  g_auto (Result) done = RUN (script_watch, "watch", "8c0f");
  assert_int_equal (done.status, 0);
  assert_has (done.out, "downtime   143 ms\n");
  g_auto (Result) ended = RUN (script_watch_ended, "watch", "8c0f");
  assert_int_equal (ended.status, 130);
  g_auto (Result) left = RUN (script_watch_interrupted, "watch", "8c0f");
  assert_int_equal (left.status, 130);
  assert_has (left.err, " goes on: see 'vmferry status'\n");
  g_auto (Result) all = RUN (script_watch_all, "watch");
  assert_int_equal (all.status, 1);
  assert_has (all.err, "vmferry: vm1: seeding\nvmferry: vm1: done\nvmferry: lost the connection");
}

static void
script_cancel (FakeAgent *agent)
{
  expect_watch (agent);
  JsonObject *args = fake_agent_expect (agent, "cancel");
  g_assert_cmpstr (json_object_get_string_member (args, "job"), ==, UUID);
  fake_agent_return (agent, NULL);
  fake_agent_event (agent, "JOB_ENDED", CANCELLED);
}

static void
script_cancel_late (FakeAgent *agent)
{
  expect_watch (agent);
  fake_agent_expect (agent, "cancel");
  fake_agent_fail (agent, "TooLate", "it has been handed over");
}

/* It was just too late, though nobody knew. */
static void
script_cancel_lost (FakeAgent *agent)
{
  expect_watch (agent);
  fake_agent_expect (agent, "cancel");
  fake_agent_return (agent, NULL);
  fake_agent_event (agent, "JOB_ENDED", DONE);
}

static void
test_cancel (void **state)
{
  g_auto (Result) cancelled = RUN (script_cancel, "cancel", "8c0f");
  assert_int_equal (cancelled.status, 0);
  g_auto (Result) late = RUN (script_cancel_late, "cancel", "8c0f");
  assert_int_equal (late.status, 1);
  assert_string_equal (late.err, "vmferry: too late to cancel: it has been handed over\n");
  g_auto (Result) lost = RUN (script_cancel_lost, "cancel", "8c0f");
  assert_int_equal (lost.status, 1);
}

static void
script_resolve (FakeAgent *agent)
{
  expect_query (agent);
  JsonObject *args = fake_agent_expect (agent, "resolve");
  g_assert_cmpstr (json_object_get_string_member (args, "job"), ==, UUID);
  g_assert_cmpstr (json_object_get_string_member (args, "owner"), ==, "destination");
  fake_agent_return (agent, NULL);
}

static void
test_resolve (void **state)
{
  g_auto (Result) result = RUN (script_resolve, "resolve", "8c0f", "--owner=destination", "--json");
  assert_int_equal (result.status, 0);
  assert_string_equal (result.err, "vmferry: recorded at hostA: the destination owns vm1; "
                                   "say the same at hostB\n");
  g_autoptr (JsonObject) object = last_object (result.out);
  assert_string_equal (json_object_get_string_member (object, "owner"), "destination");
}

static void
test_words (void **state)
{
  g_auto (Result) usage = run_at ("/nonexistent", WORDS ("cutover", "8c0f"));
  assert_int_equal (usage.status, 2);
  assert_string_equal (usage.err,
                       "vmferry: cutover: not in this version yet (see 'vmferry --help')\n");
  g_auto (Result) help = run_at ("/nonexistent", WORDS ("migrate", "--help"));
  assert_int_equal (help.status, 0);
  assert_has (help.out, "--dest-qmp=SOCKET");
  assert_string_equal (help.err, "");
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_migrate),
    cmocka_unit_test (test_migrate_json),
    cmocka_unit_test (test_detach),
    cmocka_unit_test (test_failed),
    cmocka_unit_test (test_needs_operator),
    cmocka_unit_test (test_interrupt_cancels),
    cmocka_unit_test (test_interrupt_too_late),
    cmocka_unit_test (test_hangup_leaves_the_job),
    cmocka_unit_test (test_agent_comes_back),
    cmocka_unit_test (test_agent_stays_away),
    cmocka_unit_test (test_agent_forgot),
    cmocka_unit_test (test_interrupt_without_agent),
    cmocka_unit_test (test_refused),
    cmocka_unit_test (test_no_agent),
    cmocka_unit_test (test_jobs),
    cmocka_unit_test (test_status),
    cmocka_unit_test (test_watch),
    cmocka_unit_test (test_cancel),
    cmocka_unit_test (test_resolve),
    cmocka_unit_test (test_words),
  };
  return cmocka_run_group_tests (tests, NULL, NULL);
}
