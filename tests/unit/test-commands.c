/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "daemon/commands.h"
#include "daemon/job.h"
#include "tests/unit/agent-lab.h"

#define UUID "aaaaaaaa-2222-4333-8444-555555555555"
#define OTHER_UUID "aaaaaaaa-2222-4333-8444-666666666666"

static AgentLab *lab;

static int
setup (void **state)
{
  lab = agent_lab_new ();
  return 0;
}

static int
teardown (void **state)
{
  g_clear_pointer (&lab, agent_lab_free);
  return 0;
}

static void
check_args (const char *spec, const char *args, const char *expected)
{
  g_autoptr (JsonObject) object = agent_lab_json (args);
  g_autoptr (GError) error = NULL;

  if (commands_check_args (object, spec, &error) != (expected == NULL))
    fail_msg ("%s: %s", args, error ? error->message : "taken");
  if (expected)
    {
      assert_true (g_error_matches (error, JOB_ERROR, JOB_ERROR_USAGE));
      assert_string_equal (error->message, expected);
    }
}

static void
test_args (void **state)
{
  static const char spec[] = "s:s i:i b:b o:o? a:a?";

  check_args ("", "{}", NULL);
  check_args ("", "{\"x\": 1}", "an unknown argument; known are: ");
  check_args (spec, "{\"s\": \"\", \"i\": 0, \"b\": false}", NULL);
  check_args (spec, "{\"s\": \"\", \"i\": 9223372036854775807, \"b\": true, \"o\": {}, \"a\": []}",
              NULL);
  check_args (spec, "{\"i\": 0, \"b\": false}", "argument \"s\" is missing");
  check_args (spec, "{\"s\": 1, \"i\": 0, \"b\": false}", "argument \"s\" is malformed");
  check_args (spec, "{\"s\": null, \"i\": 0, \"b\": false}", "argument \"s\" is malformed");
  check_args (spec, "{\"s\": \"\", \"i\": -1, \"b\": false}", "argument \"i\" is malformed");
  check_args (spec, "{\"s\": \"\", \"i\": 0.5, \"b\": false}", "argument \"i\" is malformed");
  check_args (spec, "{\"s\": \"\", \"i\": \"1\", \"b\": false}", "argument \"i\" is malformed");
  check_args (spec, "{\"s\": \"\", \"i\": 1, \"b\": 1}", "argument \"b\" is malformed");
  check_args (spec, "{\"s\": \"\", \"i\": 1, \"b\": true, \"o\": []}",
              "argument \"o\" is malformed");
  check_args (spec, "{\"s\": \"\", \"i\": 1, \"b\": true, \"a\": {}}",
              "argument \"a\" is malformed");
  check_args (spec, "{\"s\": \"\", \"i\": 1, \"b\": true, \"aa\": 1}",
              "an unknown argument; known are: s:s i:i b:b o:o? a:a?");
}

/* `desc` may have "*" in it; `class` "" is an answer that is no error. */
static void
expect (JsonClient *client, const char *command, const char *args, const char *class,
        const char *desc)
{
  g_autofree char *said = NULL;
  const char *answer = agent_lab_call (client, command, agent_lab_json (args), &said);

  if (!g_str_equal (answer, class) || (desc && !g_pattern_match_simple (desc, said)))
    fail_msg ("%s %s: \"%s\", %s", command, args, answer, said ? said : "returned");
}

#define MIGRATE "\"guest\": \"vm1\", \"host\": \"hostA\", \"qmp\": \"/none\", \"dest-qmp\": \"/x\""

static void
test_local (void **state)
{
  g_autoptr (JsonClient) client = agent_lab_open_local (lab);
  static const char uuid[] = "{\"job\": \"" UUID "\"}";

  expect (client, "query-jobs", "{}", "", NULL);
  expect (client, "watch", "{}", "", NULL);
  expect (client, "shutdown", "{}", "Usage", "*: there is no such command");
  expect (client, "prepare", "{}", "Usage", "*: there is no such command");
  expect (client, "query-jobs", "{\"all\": true}", "Usage", "*an unknown argument*");
  expect (client, "query-job", "{}", "Usage", "*argument \"job\" is missing");
  expect (client, "query-job", "{\"job\": 7}", "Usage", "*argument \"job\" is malformed");
  expect (client, "query-job", "{\"job\": \"\"}", "NotFound", NULL);
  expect (client, "query-job", uuid, "NotFound", "*there is no job " UUID);
  expect (client, "watch", uuid, "NotFound", NULL);
  expect (client, "cancel", uuid, "NotFound", NULL);
  expect (client, "resolve", "{\"job\": \"" UUID "\", \"owner\": \"source\"}", "NotFound", NULL);
  expect (client, "migrate", "{}", "Usage", "*argument \"guest\" is missing");
  expect (client, "migrate", "{" MIGRATE ", \"timeout\": 0}", "Usage",
          "*timeout is 1 to 86400, not 0");
  expect (client, "migrate", "{" MIGRATE ", \"max-downtime\": 2000001}", "Usage",
          "*max-downtime is 1 to 2000000, not 2000001");
  expect (client, "migrate", "{" MIGRATE ", \"rate\": -1}", "Usage", "*\"rate\" is malformed");
  expect (client, "migrate", "{" MIGRATE ", \"disks\": [7]}", "Usage", "*\"disks\" is malformed");
  expect (client, "migrate", "{" MIGRATE ", \"disks\": [{\"path\": \"/x\"}]}", "Usage", NULL);
  expect (client, "migrate",
          "{" MIGRATE ", \"disks\": [{\"disk\": \"d0\", \"prealloc\": \"full\"}]}", "Usage", NULL);
  expect (client, "migrate",
          "{\"guest\": \"vm1\", \"host\": \"a b\", \"qmp\": \"/none\", \"dest-qmp\": \"/x\"}",
          "Failed", "*\"a b\" is not a host*");
  expect (client, "migrate", "{" MIGRATE ", \"connect\": \"qemu:///system\"}", "Usage",
          "*either qmp and dest-qmp, or connect*");
  expect (client, "migrate", "{\"guest\": \"vm1\", \"host\": \"hostA\", \"qmp\": \"/x\"}", "Usage",
          "*either qmp and dest-qmp, or connect*");
}

#define DOMAIN "\"guest\": \"vm1\", \"host\": \"hostA\", \"connect\": "

/* libvirt's URIs can name programs, which root would run, and switch verification off. */
static void
test_uris (void **state)
{
  g_autoptr (JsonClient) client = agent_lab_open_local (lab);
  static const char *const desturis[]
      = { "qemu+ssh://b/system", "qemu+ext:///system?command=/bin/sh", "qemu+tcp://b/system",
          "qemu+tls://b/system?no_verify=1", "qemu+tls://b/system?pkipath=/tmp" };

  expect (client, "migrate", "{" DOMAIN "\"qemu+ext:///system?command=/bin/sh\"}", "Usage",
          "*connect is qemu:///system*");
  for (guint i = 0; i < G_N_ELEMENTS (desturis); i++)
    {
      g_autofree char *args
          = g_strdup_printf ("{" DOMAIN "\"qemu:///system\", \"desturi\": \"%s\"}", desturis[i]);
      expect (client, "migrate", args, "Usage", "*desturi is qemu+tls://HOST/system*");
    }
}

/* A job that ends at once, because there is no QEMU: known by the beginning of its name. */
static void
test_local_job (void **state)
{
  g_autoptr (JsonClient) client = agent_lab_open_local (lab);
  g_autoptr (JsonNode) answer = NULL;
  g_autofree char *query = NULL;
  g_autofree char *resolve = NULL;
  const char *uuid, *job_state = "";
  gint64 until = g_get_monotonic_time () + 20 * G_USEC_PER_SEC;

  assert_true (json_client_call (client, "execute", "migrate", agent_lab_json ("{" MIGRATE "}"), -1,
                                 deadline_in (20000, NULL), &answer, NULL));
  uuid = json_object_get_string_member (json_node_get_object (answer), "job");
  query = g_strdup_printf ("{\"job\": \"%.8s\"}", uuid);
  while (!g_str_equal (job_state, "failed") && g_get_monotonic_time () < until)
    {
      g_autoptr (JsonNode) shown = NULL;
      assert_true (json_client_call (client, "execute", "query-job", agent_lab_json (query), -1,
                                     deadline_in (20000, NULL), &shown, NULL));
      assert_true (json_get_string (json_node_get_object (shown), "state", &job_state));
      job_state = g_intern_string (job_state);
    }
  assert_string_equal (job_state, "failed");
  expect (client, "cancel", query, "Busy", "*that can't be done while it is failed");
  expect (client, "watch", query, "", NULL);
  resolve = g_strdup_printf ("{\"job\": \"%s\", \"owner\": \"me\"}", uuid);
  expect (client, "resolve", resolve, "Usage", "*owner is \"source\" or \"destination\"*");
}

#define HELLO "\"protocol\": 1, \"host\": \"hostB\""
#define DN "\"O=vmferry,CN=hostA\""

static void
test_hello (void **state)
{
  g_autoptr (JsonClient) client = agent_lab_open (lab, LAB_HOST_A);

  expect (client, "hello", "{}", "Usage", "*argument \"protocol\" is missing");
  expect (client, "hello",
          "{\"protocol\": 0, \"host\": \"b\", \"client-dn\": " DN ", \"server-dn\": " DN "}",
          "Version", "*speaks version 1 of the control protocol, not 0");
  expect (client, "hello", "{" HELLO ", \"client-dn\": \"CN=x\", \"server-dn\": " DN "}", "Denied",
          "*[peer hostA] of * doesn't list all of its certificates: CN=x and *");
  expect (client, "hello", "{" HELLO ", \"client-dn\": " DN ", \"server-dn\": \"CN=x\"}", "Denied",
          NULL);
  expect (client, "hello",
          "{\"protocol\": 9, \"host\": \"b\", \"client-dn\": " DN ", \"server-dn\": " DN "}", "",
          NULL);
  expect (client, "migrate", "{}", "Usage", "*there is no such command");
}

static char *
prepare_args (const char *uuid, const char *disks, const char *qmp)
{
  return g_strdup_printf ("{\"job\": \"%s\", \"guest\": \"vm1\", \"dest-qmp\": \"%s\", "
                          "\"machine\": \"pc-q35-7.2\", \"timeout\": 30, \"rate\": 0, "
                          "\"disks\": %s, \"overwrite\": false, \"full-speed\": false}",
                          uuid, qmp, disks);
}

static void
expect_prepare (JsonClient *client, const char *uuid, const char *disks, const char *class,
                const char *desc)
{
  g_autofree char *qmp = g_build_filename (lab->qmp, uuid, NULL);
  g_autofree char *args = prepare_args (uuid, disks, qmp);

  expect (client, "prepare", args, class, desc);
}

static void
test_prepare (void **state)
{
  g_autoptr (JsonClient) client = agent_lab_open (lab, LAB_HOST_A);
  g_autoptr (GString) list = g_string_new ("[");
  g_autofree char *args = prepare_args (UUID, "[]", "/tmp\\u001b[2J");

  for (guint i = 0; i < 65; i++)
    g_string_append (list, i > 0 ? ", {}" : "{}");
  g_string_append (list, "]");
  expect_prepare (client, "../../../etc/passwd", "[]", "Usage", "*\"job\" is no UUID");
  expect (client, "prepare", args, "Usage", "*\"dest-qmp\"*is empty, too long or no plain text");
  expect_prepare (client, UUID, "[{}]", "Usage", "*argument \"disks\" is malformed");
  expect_prepare (client, UUID, "[1]", "Usage", "*argument \"disks\" is malformed");
  expect_prepare (client, UUID, list->str, "Usage", "*65 disks, at most 64 can be moved");
  expect_prepare (client, UUID,
                  "[{\"disk\": \"d\\n0\", \"device\": \"d\", \"path\": \"/x\", \"format\": "
                  "\"raw\", \"prealloc\": \"off\", \"size\": 1}]",
                  "Usage", "*argument \"disks\" is malformed");
  expect_prepare (client, UUID,
                  "[{\"disk\": \"d0\", \"device\": \"d\", \"path\": \"/etc/x\", \"format\": "
                  "\"raw\", \"prealloc\": \"off\", \"size\": 4096}]",
                  "Failed", "*/etc/x is not beneath one of the target-dirs of [peer hostA]*");
  /* It has ended, but its name stays taken. */
  expect_prepare (client, UUID, "[]", "Busy", "*there is a job " UUID " already");
  expect_prepare (client, OTHER_UUID, "[]", "", NULL);
}

/* What a peer may name is its own, and nothing tells whether there is another's. */
static void
test_foreign_job (void **state)
{
  static const char *const commands[] = { "query", "incoming", "release", "finish" };
  g_autoptr (JsonClient) ours = agent_lab_open (lab, LAB_HOST_A);
  g_autoptr (JsonClient) theirs = agent_lab_open (lab, LAB_HOST_C);
  g_autoptr (JsonClient) local = agent_lab_open_local (lab);

  expect_prepare (ours, UUID, "[]", "", NULL);
  for (guint i = 0; i < G_N_ELEMENTS (commands); i++)
    expect (theirs, commands[i], "{\"job\": \"" UUID "\"}", "NotFound", "*there is no job*");
  expect (theirs, "pace", "{\"job\": \"" UUID "\", \"rate\": 1}", "NotFound", NULL);
  expect (theirs, "abort", "{\"job\": \"" UUID "\", \"reason\": \"\"}", "NotFound", NULL);
  expect (theirs, "start", "{\"job\": \"" UUID "\", \"paused\": true}", "NotFound", NULL);
  expect (theirs, "copy", "{\"job\": \"" UUID "\", \"port\": 1, \"last\": true, \"disks\": []}",
          "NotFound", NULL);
  expect (theirs, "query", "{\"job\": \"aaaaaaaa\"}", "NotFound", NULL);
  /* Its owner may not abbreviate, either; a local user may. */
  expect (ours, "query", "{\"job\": \"aaaaaaaa\"}", "NotFound", NULL);
  expect (local, "query-job", "{\"job\": \"aaaaaaaa\"}", "", NULL);
  expect (ours, "query", "{\"job\": \"" UUID "\"}", "", NULL);
  /* Nor its monitor. */
  expect_prepare (theirs, OTHER_UUID, "[]", "Failed", "*qmp-dirs of [peer hostC]: there are none");
}

static void
test_job_commands (void **state)
{
  g_autoptr (JsonClient) client = agent_lab_open (lab, LAB_HOST_A);
  static const char job[] = "{\"job\": \"" UUID "\"}";

  expect_prepare (client, UUID, "[]", "", NULL);
  expect (client, "release", job, "Busy", "*that can't be done while it is prepared");
  expect (client, "finish", job, "Busy", NULL);
  expect (client, "start", "{\"job\": \"" UUID "\", \"paused\": false}", "Busy", NULL);
  expect (client, "pace", "{\"job\": \"" UUID "\", \"in-flight\": 9223372036854775807}", "", NULL);
  expect (client, "pace", "{\"job\": \"" UUID "\", \"in-flight\": -1}", "Usage", NULL);
  expect (client, "copy", "{\"job\": \"" UUID "\", \"port\": 1, \"last\": false, \"disks\": []}",
          "", NULL);
  expect (client, "copy",
          "{\"job\": \"" UUID "\", \"port\": 65536, \"last\": false, \"disks\": []}", "Usage",
          "*argument \"port\" is malformed");
  expect (client, "abort", "{\"job\": \"" UUID "\", \"reason\": \"x\"}", "", NULL);
  expect (client, "abort", "{\"job\": \"" UUID "\", \"reason\": \"x\"}", "", NULL);
  expect (client, "start", "{\"job\": \"" UUID "\", \"paused\": false}", "Never",
          "*was not started here and never will be");
}

#define TEST(name) cmocka_unit_test_setup_teardown (test_##name, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_args),
    TEST (uris),
    TEST (local),
    TEST (local_job),
    TEST (hello),
    TEST (prepare),
    TEST (foreign_job),
    TEST (job_commands),
  };

  return cmocka_run_group_tests_name ("commands", tests, NULL, NULL);
}
