/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "qmp/json-args.h"
#include "tests/unit/agent-lab.h"
#include "tests/unit/fake-qmp.h"

#define UUID "cccccccc-2222-4333-8444-555555555555"
#define SIZE 1048576

/* The destination's QEMU. */
static struct
{
  const char *status;
  const char *machine;
  const char *qdev, *drv, *file; /* `file` NULL: the target */
  gboolean plain;                /* forgets tls-creds */
  gint refused;                  /* cont is refused so often; negative: it is fatal */
  gboolean resumes;              /* says RESUME and refuses all the same */
  gboolean running;
} qemu;

static AgentLab *lab;
static FakeQmp *fake;
static JsonClient *client, *local;
static char *socket_path, *target;

static JsonNode *
answer_status (void)
{
  g_autofree char *text
      = g_strdup_printf ("{\"status\": \"%s\", \"running\": %s, \"singlestep\": false}",
                         qemu.running ? "running" : qemu.status, qemu.running ? "true" : "false");

  return fake_qmp_json (text);
}

static JsonNode *
answer_block (void)
{
  g_autofree char *text = g_strdup_printf (
      "[{\"device\": \"\", \"removable\": false, \"qdev\": \"%s\", \"inserted\": "
      "{\"drv\": \"%s\", \"file\": \"%s\", \"ro\": false, \"node-name\": \"d0\", "
      "\"encrypted\": false, \"image\": {\"virtual-size\": %d}}}]",
      qemu.qdev, qemu.drv, qemu.file ? qemu.file : target, SIZE);

  return fake_qmp_json (text);
}

static JsonNode *
answer_cont (FakeQmp *qmp)
{
  if (qemu.resumes)
    fake_qmp_send_event (qmp, "RESUME", NULL);
  if (qemu.refused < 0)
    return fake_qmp_crash ();
  if (qemu.refused == 0)
    {
      qemu.running = TRUE;
      return NULL;
    }
  /* So that it isn't quit, and its end waited for: it is this very process. */
  if (--qemu.refused == 0)
    qemu.running = TRUE;
  return fake_qmp_error ("GenericError", "Failed to get \"write\" lock");
}

static JsonNode *
answer (FakeQmp *qmp, const char *command, JsonObject *args, gpointer data)
{
  if (g_str_equal (command, "query-status"))
    return answer_status ();
  if (g_str_equal (command, "qom-get"))
    return fake_qmp_string (qemu.machine);
  if (g_str_equal (command, "query-block"))
    return answer_block ();
  if (g_str_equal (command, "query-migrate-parameters"))
    return fake_qmp_json (qemu.plain ? "{\"tls-creds\": \"\", \"tls-authz\": \"\"}"
                                     : "{\"tls-creds\": \"vmferry-cccccccc-tls\", \"tls-authz\": "
                                       "\"vmferry-cccccccc-authz\"}");
  if (g_str_equal (command, "cont"))
    return answer_cont (qmp);
  return NULL;
}

static int
setup (void **state)
{
  lab = agent_lab_new ();
  fake = fake_qmp_new (FAKE_QMP_GREETS, answer, NULL);
  socket_path = g_build_filename (lab->qmp, "vm1.qmp", NULL);
  target = g_build_filename (lab->target, "d0.raw", NULL);
  memset (&qemu, 0, sizeof qemu);
  qemu.status = "inmigrate";
  qemu.machine = "pc-q35-7.2-machine";
  qemu.qdev = "vd0";
  qemu.drv = "raw";
  client = agent_lab_open (lab, LAB_HOST_A);
  local = agent_lab_open_local (lab);
  return link (fake_qmp_get_path (fake), socket_path);
}

static int
teardown (void **state)
{
  json_client_free (client);
  json_client_free (local);
  agent_lab_free (lab);
  fake_qmp_free (fake);
  g_free (socket_path);
  g_free (target);
  return 0;
}

static void
expect (const char *command, JsonObject *args, const char *class, const char *pattern)
{
  g_autofree char *desc = NULL;
  const char *said = agent_lab_call (client, command, args, &desc);

  if (!g_str_equal (said, class) || (pattern && !g_pattern_match_simple (pattern, desc)))
    fail_msg ("%s: \"%s\" %s", command, said, desc ? desc : "returned");
}

static JsonObject *
job_args (void)
{
  return json_args ("job", "s", UUID, NULL);
}

static void
expect_prepare (gboolean with_disk, const char *class, const char *pattern)
{
  JsonArray *disks = json_array_new ();

  if (with_disk)
    json_array_add_object_element (
        disks, json_args ("disk", "s", "d0", "device", "s", "vd0", "size", "i", (gint64)SIZE,
                          "path", "s", target, "format", "s", "raw", "prealloc", "s", "off", NULL));
  expect ("prepare",
          json_args ("job", "s", UUID, "guest", "s", "vm1", "dest-qmp", "s", socket_path, "machine",
                     "s", "pc-q35-7.2", "timeout", "i", (gint64)30, "rate", "i", (gint64)0, "disks",
                     "a", disks, "overwrite", "b", FALSE, "full-speed", "b", FALSE, NULL),
          class, pattern);
}

static void
wait_for (const char *expected_state, const char *expected_owner)
{
  gint64 until = g_get_monotonic_time () + 20 * G_USEC_PER_SEC;

  for (;;)
    {
      g_autoptr (JsonNode) shown = NULL;
      const char *job_state, *owner;

      assert_true (json_client_call (local, "execute", "query-job", job_args (), -1,
                                     deadline_in (20000, NULL), &shown, NULL));
      assert_true (json_get_string (json_node_get_object (shown), "state", &job_state));
      assert_true (json_get_string (json_node_get_object (shown), "owner", &owner));
      if (g_str_equal (job_state, expected_state))
        {
          assert_string_equal (owner, expected_owner);
          return;
        }
      if (g_get_monotonic_time () > until)
        fail_msg ("%s instead of %s", job_state, expected_state);
      g_usleep (10 * 1000);
    }
}

static void
refused (const char *pattern)
{
  expect_prepare (TRUE, "Failed", pattern);
  wait_for ("failed", "source");
  assert_false (g_file_test (target, G_FILE_TEST_EXISTS));
  assert_int_equal (fake_qmp_count (fake, "migrate-incoming"), 0);
  assert_int_equal (fake_qmp_count (fake, "quit"), 0);
}

static void
test_ready (void **state)
{
  expect_prepare (TRUE, "", NULL);
  assert_true (g_file_test (target, G_FILE_TEST_EXISTS));
  expect ("abort", json_args ("job", "s", UUID, "reason", "s", "x", NULL), "", NULL);
  wait_for ("failed", "source");
  assert_false (g_file_test (target, G_FILE_TEST_EXISTS));
}

static void
test_not_waiting (void **state)
{
  qemu.status = "paused";
  refused ("*this QEMU doesn't wait for a migration (it is paused): start it with -incoming defer");
}

static void
test_other_machine (void **state)
{
  qemu.machine = "pc-i440fx-7.2-machine";
  refused ("*this QEMU has the machine type pc-i440fx-7.2, the guest has pc-q35-7.2: start it with "
           "-machine pc-q35-7.2");
}

static void
test_without_disk (void **state)
{
  qemu.qdev = "vd1";
  refused ("*this QEMU has no disk device vd0 (d0 at the source): start it with the same devices "
           "and ids");
}

static void
test_other_file (void **state)
{
  qemu.file = "/dev/null";
  refused ("*disk vd0 is on /dev/null in this QEMU, but */d0.raw is being filled: start it with "
           "that");
}

/* What can't be told to be the target is taken for another one. */
static void
test_no_file (void **state)
{
  qemu.file = "json:{}";
  refused ("*disk vd0 is on json:{} in this QEMU, but *");
}

static void
test_relative_file (void **state)
{
  qemu.file = "d0.raw";
  refused ("*disk vd0 is on d0.raw in this QEMU, but *");
}

static void
test_other_format (void **state)
{
  qemu.drv = "qcow2";
  refused ("*disk vd0 is opened as qcow2 in this QEMU, the target */d0.raw is raw");
}

static void
test_protocol_alone (void **state)
{
  qemu.drv = "file";
  expect_prepare (TRUE, "", NULL);
}

static void
test_foreign_socket (void **state)
{
  assert_int_equal (g_unlink (socket_path), 0);
  assert_int_equal (symlink (fake_qmp_get_path (fake), socket_path), 0);
  expect_prepare (FALSE, "Failed", "*not a socket: give QEMU -qmp unix:*");
}

static void
test_no_qemu (void **state)
{
  assert_int_equal (g_unlink (socket_path), 0);
  expect_prepare (FALSE, "", NULL);
}

static void
copy (const char *disks, const char *class, const char *pattern)
{
  g_autoptr (JsonObject) parsed = NULL;
  g_autofree char *text = g_strdup_printf ("{\"disks\": %s}", disks);

  parsed = agent_lab_json (text);
  expect ("copy",
          json_args ("job", "s", UUID, "port", "i", (gint64)1, "last", "b", FALSE, "disks", "a",
                     json_array_ref (json_object_get_array_member (parsed, "disks")), NULL),
          class, pattern);
}

#define MALFORMED "*argument \"disks\" is malformed"

static void
test_copy_unknown_disk (void **state)
{
  expect_prepare (TRUE, "", NULL);
  copy ("[{\"disk\": \"d1\", \"export\": \"x\"}]", "Usage", MALFORMED);
  wait_for ("failed", "source");
}

static void
test_copy_twice_the_same (void **state)
{
  expect_prepare (TRUE, "", NULL);
  copy ("[{\"disk\": \"d0\", \"export\": \"x\"}, {\"disk\": \"d0\", \"export\": \"y\"}]", "Usage",
        MALFORMED);
}

static void
test_copy_no_export (void **state)
{
  expect_prepare (TRUE, "", NULL);
  copy ("[{\"disk\": \"d0\"}]", "Usage", MALFORMED);
}

static void
test_copy_no_object (void **state)
{
  expect_prepare (TRUE, "", NULL);
  copy ("[null]", "Usage", MALFORMED);
}

static void
test_copy_nobody_there (void **state)
{
  expect_prepare (TRUE, "", NULL);
  copy ("[{\"disk\": \"d0\", \"export\": \"x\", \"bitmap\": \"b\"}]", "Failed",
        "*disk d0: cannot connect to 127.0.0.1:1: *");
  wait_for ("failed", "source");
  assert_false (g_file_test (target, G_FILE_TEST_EXISTS));
}

/* QEMU's own word is taken for what secures the stream. */
static void
test_plain_stream (void **state)
{
  qemu.plain = TRUE;
  expect_prepare (FALSE, "", NULL);
  expect ("incoming", job_args (), "Failed",
          "*QEMU took the migration parameter tls-creds but doesn't have it");
  wait_for ("failed", "source");
  assert_int_equal (fake_qmp_count (fake, "migrate-incoming"), 0);
}

static JsonObject *
paused_args (gboolean paused)
{
  return json_args ("job", "s", UUID, "paused", "b", paused, NULL);
}

static void
bring_to_release (gboolean paused)
{
  expect_prepare (FALSE, "", NULL);
  expect ("incoming", job_args (), "", NULL);
  assert_int_equal (fake_qmp_count (fake, "migrate-incoming"), 1);
  assert_int_equal (fake_qmp_count (fake, "stop"), 1);
  copy ("[]", "", NULL);
  expect ("release", paused_args (paused), "", NULL);
  wait_for ("released", "unknown");
  qemu.status = "paused";
}

static void
test_start (void **state)
{
  bring_to_release (FALSE);
  qemu.refused = 0;
  expect ("start", paused_args (FALSE), "", NULL);
  wait_for ("owner", "destination");
  assert_int_equal (fake_qmp_count (fake, "cont"), 1);
  expect ("start", paused_args (FALSE), "", NULL);
  expect ("abort", json_args ("job", "s", UUID, "reason", "s", "x", NULL), "TooLate", NULL);
  expect ("finish", job_args (), "", NULL);
  wait_for ("done", "destination");
  assert_int_equal (fake_qmp_count (fake, "cont"), 1);
  assert_int_equal (fake_qmp_count (fake, "quit"), 0);
}

static void
test_start_paused (void **state)
{
  bring_to_release (FALSE);
  expect ("start", paused_args (TRUE), "", NULL);
  wait_for ("owner", "destination");
  assert_int_equal (fake_qmp_count (fake, "cont"), 0);
  expect ("finish", job_args (), "", NULL);
}

/* It was refused each time, so it never ran: the source may run it. */
static void
test_start_refused (void **state)
{
  bring_to_release (FALSE);
  qemu.refused = 20;
  expect ("start", paused_args (FALSE), "Never", "*Failed to get \"write\" lock*");
  wait_for ("failed", "source");
  expect ("start", paused_args (FALSE), "Never", NULL);
}

/* A QEMU that dies over the start may have run the guest: nobody may say that it didn't. */
static void
test_start_deadly (void **state)
{
  bring_to_release (FALSE);
  qemu.refused = -1;
  expect ("start", paused_args (FALSE), "Failed", "*it can't be told whether it ran*");
  wait_for ("needs-operator", "unknown");
  expect ("start", paused_args (FALSE), "Failed", "*it can't be told whether it ran*");
  wait_for ("needs-operator", "unknown");
  assert_string_equal (agent_lab_call (local, "resolve",
                                       json_args ("job", "s", UUID, "owner", "s", "source", NULL),
                                       NULL),
                       "");
  wait_for ("failed", "source");
}

/* The guest runs after all: whoever wants it undone comes too late. */
static void
test_start_unsure (void **state)
{
  bring_to_release (FALSE);
  qemu.refused = 20;
  qemu.resumes = TRUE;
  expect ("start", paused_args (FALSE), "Failed", "*it can't be told whether it ran*");
  wait_for ("needs-operator", "unknown");
  expect ("abort", json_args ("job", "s", UUID, "reason", "s", "x", NULL), "TooLate",
          "*too late: the guest runs in the QEMU at *");
  wait_for ("owner", "destination");
  expect ("start", paused_args (FALSE), "", NULL);
  expect ("finish", job_args (), "", NULL);
}

/* A QEMU that is gone before the start can't have run it. */
static void
test_gone_before_start (void **state)
{
  bring_to_release (FALSE);
  g_clear_pointer (&fake, fake_qmp_free);
  wait_for ("failed", "source");
  expect ("start", paused_args (FALSE), "Never", NULL);
}

/* The source's connection ends after the release: held, and started when it comes back. */
static void
test_lost_after_release (void **state)
{
  bring_to_release (FALSE);
  g_clear_pointer (&client, json_client_free);
  wait_for ("needs-operator", "unknown");
  client = agent_lab_open (lab, LAB_HOST_A);
  expect ("start", paused_args (FALSE), "", NULL);
  wait_for ("owner", "destination");
  expect ("finish", job_args (), "", NULL);
}

/* The source's word never comes, and a human decides. */
static void
test_paused_without_a_word (void **state)
{
  g_autofree char *desc = NULL;

  bring_to_release (TRUE);
  g_clear_pointer (&client, json_client_free);
  wait_for ("needs-operator", "unknown");
  assert_string_equal (
      agent_lab_call (local, "resolve",
                      json_args ("job", "s", UUID, "owner", "s", "destination", NULL), &desc),
      "");
  wait_for ("owner", "destination");
  assert_int_equal (fake_qmp_count (fake, "cont"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown (test_##name, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (ready),
    TEST (not_waiting),
    TEST (other_machine),
    TEST (without_disk),
    TEST (other_file),
    TEST (no_file),
    TEST (relative_file),
    TEST (other_format),
    TEST (protocol_alone),
    TEST (foreign_socket),
    TEST (no_qemu),
    TEST (copy_unknown_disk),
    TEST (copy_twice_the_same),
    TEST (copy_no_export),
    TEST (copy_no_object),
    TEST (copy_nobody_there),
    TEST (plain_stream),
    TEST (start),
    TEST (start_paused),
    TEST (start_refused),
    TEST (start_deadly),
    TEST (start_unsure),
    TEST (gone_before_start),
    TEST (lost_after_release),
    TEST (paused_without_a_word),
  };

  return cmocka_run_group_tests_name ("destination", tests, NULL, NULL);
}
