/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/report.h"

#include "qmp/json-args.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define UUID "8c0f3c5e-0000-4000-8000-000000000001"

static JsonObject *
parse (const char *text)
{
  g_autoptr (JsonNode) node = json_from_string (text, NULL);
  assert_non_null (node);
  return json_node_dup_object (node);
}

static CliJob *
make_job (const char *state, const char *role, const char *owner, const char *more)
{
  g_autofree char *text = g_strdup_printf (
      "{\"job\": \"" UUID "\", \"guest\": \"vm1\", \"role\": \"%s\", \"peer\": \"hostB\", "
      "\"state\": \"%s\", \"owner\": \"%s\", \"total_s\": 10, \"passes\": 5, "
      "\"sent_bytes\": 1073741824, \"zero_bytes\": 734003200, "
      "\"disks\": [{\"disk\": \"d0\", \"source\": \"/srv/a.raw\", \"target\": \"/srv/b.raw\", "
      "\"format\": \"raw\", \"size\": 2147483648, \"todo\": 4096, \"done\": 4096, \"pass\": 5}], "
      "\"message\": \"%s\"%s}",
      role, state, owner, state, more);
  g_autoptr (JsonObject) object = parse (text);
  return cli_job_new (object);
}

static void
test_done (void **state)
{
  g_autoptr (CliJob) job
      = make_job ("done", "source", "destination", ", \"downtime_ms\": 142.6, \"exit\": 0");
  g_autofree char *text = cli_report_result (job, "hostA");
  assert_string_equal (text, "result     done: vm1 is at hostB\n"
                             "guest      vm1\n"
                             "from, to   hostA -> hostB\n"
                             "job        " UUID "\n"
                             "total time 10.0 s\n"
                             "downtime   143 ms\n"
                             "sent       1.00 GiB\n"
                             "zeroes     700 MiB skipped\n"
                             "passes     5\n"
                             "mean rate  102 MiB/s\n"
                             "old disk   d0: /srv/a.raw at hostA, stale\n");
  assert_int_equal (cli_job_exit_status (job), 0);
  assert_true (cli_job_has_ended (job));
}

static void
test_failed (void **state)
{
  g_autoptr (CliJob) job = make_job ("failed", "source", "source",
                                     ", \"downtime_ms\": null, \"exit\": 1, \"error\": \"x\"");
  g_autofree char *text = cli_report_result (job, "hostA");
  assert_true (g_str_has_prefix (text, "result     failed: vm1 stays at hostA\n"));
  assert_null (strstr (text, "downtime"));
  assert_null (strstr (text, "stale"));
  assert_int_equal (cli_job_exit_status (job), 1);
}

static void
test_needs_operator (void **state)
{
  g_autoptr (CliJob) job = make_job ("needs-operator", "destination", "unknown", "");
  g_autofree char *text = cli_report_result (job, "hostA");
  assert_true (g_str_has_prefix (
      text, "result     needs-operator: who owns vm1 must be decided (vmferry resolve)\n"));
  assert_non_null (strstr (text, "from, to   hostB -> hostA\n"));
  assert_int_equal (cli_job_exit_status (job), 3);
  assert_false (cli_job_has_ended (job));
}

static void
test_status (void **state)
{
  g_autoptr (CliJob) job
      = make_job ("switchover", "source", "source",
                  ", \"error\": \"no\\u001b[0m\", \"ram\": {\"total\": 1048576, \"sent\": 2097152, "
                  "\"left\": 1024}");
  g_autofree char *text = cli_report_status (job, "hostA");
  assert_true (g_str_has_prefix (text, "state      switchover\nowner      source\n"));
  assert_non_null (
      strstr (text, "disk       d0 -> /srv/b.raw (raw, 2.00 GiB): pass 5, 4.00 KiB of 4.00 KiB\n"));
  assert_non_null (strstr (text, "RAM        1.00 MiB: 2.00 MiB sent, 1.00 KiB left\n"));
  assert_non_null (strstr (text, "error      no\\u001b[0m\n"));
}

static void
test_table (void **state)
{
  g_autoptr (GPtrArray) jobs = g_ptr_array_new_with_free_func ((GDestroyNotify)cli_job_free);
  g_autofree char *empty = cli_report_table (jobs);
  assert_string_equal (empty, "JOB  GUEST  ROLE  PEER  STATE  OWNER  TIME\n");
  g_ptr_array_add (jobs, make_job ("seeding", "source", "source", ""));
  g_autofree char *text = cli_report_table (jobs);
  assert_string_equal (text, "JOB       GUEST  ROLE    PEER   STATE    OWNER   TIME\n"
                             "8c0f3c5e  vm1    source  hostB  seeding  source  10.0 s\n");
}

/* An agent may send anything: nothing of it is trusted to be there, or to be of its type. */
static void
test_garbage (void **state)
{
  g_autoptr (JsonObject) object = parse (
      "{\"job\": 7, \"guest\": null, \"state\": [], \"total_s\": \"x\", \"sent_bytes\": -4, "
      "\"disks\": [1, {}, {\"done\": 9, \"todo\": 3}], \"ram\": [], \"exit\": 1e9, "
      "\"downtime_ms\": -3}");
  g_autoptr (CliJob) job = cli_job_new (object);
  assert_string_equal (job->id, "");
  assert_int_equal (job->sent_bytes, 0);
  assert_int_equal (job->disks->len, 2);
  const CliJobDisk *disk = g_ptr_array_index (job->disks, 1);
  assert_int_equal (disk->done, 3);
  assert_true (job->downtime_ms < 0);
  assert_int_equal (cli_job_exit_status (job), 1);
  g_free (cli_report_result (job, "hostA"));
  g_free (cli_report_status (job, "hostA"));
}

static void
test_json_result (void **state)
{
  static const char *const names[]
      = { "job",         "guest",      "state",      "owner",  "total_s",
          "downtime_ms", "sent_bytes", "zero_bytes", "passes", "error" };
  g_autoptr (JsonObject) job = json_args ("job", "s", UUID, "state", "s", "done", NULL);
  g_autofree char *whole = cli_report_json (job, "vm1", NULL);
  g_autofree char *failed = cli_report_json (NULL, "vm1", "no\nagent");
  assert_true (g_str_has_suffix (whole, "}\n"));
  assert_ptr_equal (strchr (failed, '\n'), failed + strlen (failed) - 1);
  g_autoptr (JsonObject) first = parse (whole);
  g_autoptr (JsonObject) second = parse (failed);
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      assert_true (json_object_has_member (first, names[i]));
      assert_true (json_object_has_member (second, names[i]));
    }
  assert_string_equal (json_object_get_string_member (first, "state"), "done");
  assert_true (json_object_get_null_member (first, "error"));
  assert_string_equal (json_object_get_string_member (second, "error"), "no\nagent");
  assert_string_equal (json_object_get_string_member (second, "state"), "failed");
  /* The job object itself is left alone. */
  assert_false (json_object_has_member (job, "owner"));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_done),           cmocka_unit_test (test_failed),
    cmocka_unit_test (test_needs_operator), cmocka_unit_test (test_status),
    cmocka_unit_test (test_table),          cmocka_unit_test (test_garbage),
    cmocka_unit_test (test_json_result),
  };
  return cmocka_run_group_tests (tests, NULL, NULL);
}
