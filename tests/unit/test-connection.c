/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "qmp/json-args.h"
#include "tests/unit/agent-lab.h"
#include "tls/tls-channel.h"

#define UUID "bbbbbbbb-2222-4333-8444-555555555555"

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

static Deadline
soon (void)
{
  return deadline_in (20000, NULL);
}

/* One line; NULL: the connection has ended. */
static char *
read_line (Channel *channel)
{
  g_autoptr (GString) line = g_string_new (NULL);
  g_autoptr (GError) error = NULL;
  char c;

  while (channel_read_all (channel, &c, 1, soon (), &error))
    {
      if (c == '\n')
        return g_strndup (line->str, strcspn (line->str, "\r"));
      g_string_append_c (line, c);
    }
  assert_false (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT));
  return NULL;
}

static void
expect_line (Channel *channel, const char *pattern)
{
  g_autofree char *line = read_line (channel);

  if (!line || !g_pattern_match_simple (pattern, line))
    fail_msg ("%s instead of %s", line ? line : "the end", pattern);
}

static void
expect_end (Channel *channel)
{
  g_autofree char *line = read_line (channel);

  if (line)
    fail_msg ("%s instead of the end", line);
}

static void
say (Channel *channel, const char *text)
{
  assert_true (channel_write_all (channel, text, strlen (text), soon (), NULL));
}

static void
test_greeting (void **state)
{
  g_autoptr (Channel) local = agent_lab_connect_local (lab);
  g_autoptr (Channel) peer = agent_lab_connect (lab, LAB_HOST_A);
  static const char greeting[] = "{\"vmferry\":{\"protocol\":1,\"version\":\"*\",\"host\":\"*\"}}";

  expect_line (local, greeting);
  expect_line (peer, greeting);
}

static void
test_stranger (void **state)
{
  g_autoptr (Channel) channel = agent_lab_connect (lab, LAB_STRANGER);

  expect_line (channel, "{\"vmferry\":*");
  say (channel, "{\"execute\": \"ping\", \"id\": 1}\n");
  expect_line (channel, "{\"error\":{\"class\":\"Denied\",\"desc\":\"no [peer] of * lists the "
                        "certificate O=vmferry,CN=hostX: add it as dn= to vmferryd.conf "
                        "there\"},\"id\":1}");
  expect_end (channel);
}

static void
test_overlapping (void **state)
{
  g_autoptr (Channel) channel = agent_lab_connect (lab, LAB_HOST_A);

  expect_line (channel, "{\"vmferry\":*");
  say (channel, "{\"execute\": \"ping\", \"id\": 1}\n{\"execute\": \"ping\", \"id\": \"two\"}\n"
                "{\"execute\": \"ping\"}\r\n{\"execute\": \"nothing\", \"id\": [3]}\n"
                "{\"id\": 4}\n{\"execute\": \"ping\", \"arguments\": 5, \"id\": 5}\n");
  expect_line (channel, "{\"return\":{},\"id\":1}");
  expect_line (channel, "{\"return\":{},\"id\":\"two\"}");
  expect_line (channel, "{\"return\":{}}");
  expect_line (channel, "{\"error\":{\"class\":\"Usage\",*},\"id\":[3]}");
  expect_line (channel, "{\"error\":{\"class\":\"Usage\",\"desc\":\"expected *\"},\"id\":4}");
  expect_line (channel, "{\"error\":{\"class\":\"Usage\",\"desc\":\"expected *\"},\"id\":5}");
}

static void
test_garbage (void **state)
{
  static const char *const garbage[] = { "GET / HTTP/1.1\r\n", "[]\n", "{\"execute\": \"ping\",}\n",
                                         "{\"execute\": NaN}\n", "{\"a\": \"\xff\"}\n" };

  for (guint i = 0; i < G_N_ELEMENTS (garbage); i++)
    {
      g_autoptr (Channel) channel = agent_lab_connect_local (lab);

      expect_line (channel, "{\"vmferry\":*");
      say (channel, garbage[i]);
      expect_end (channel);
    }
}

/* The agent may close before all of it was sent. */
static void
send_flood (Channel *channel, const char *text, gsize times)
{
  while (times-- > 0 && channel_write_all (channel, text, strlen (text), soon (), NULL))
    ;
  expect_end (channel);
}

static void
test_too_much (void **state)
{
  g_autofree char *spaces = g_strnfill (65536, ' ');
  g_autofree char *deep = g_strnfill (65, '[');
  g_autoptr (Channel) long_line = agent_lab_connect (lab, LAB_HOST_A);
  g_autoptr (Channel) deep_line = agent_lab_connect (lab, LAB_HOST_A);

  expect_line (long_line, "{\"vmferry\":*");
  say (long_line, "{\"execute\": \"");
  send_flood (long_line, spaces, 17);
  expect_line (deep_line, "{\"vmferry\":*");
  say (deep_line, "{\"execute\": ");
  say (deep_line, deep);
  send_flood (deep_line, "\n", 1);
}

/* Commands that come faster than they can be carried out don't pile up without end. */
static void
test_flood (void **state)
{
  g_autoptr (Channel) channel = agent_lab_connect (lab, LAB_HOST_A);
  g_autoptr (JsonClient) other = NULL;

  expect_line (channel, "{\"vmferry\":*");
  agent_lab_suspend (lab);
  for (guint i = 0; i < 1200; i++)
    if (!channel_write_all (channel, "{\"execute\": \"ping\"}\n", 20, soon (), NULL))
      break;
  expect_end (channel);
  agent_lab_resume (lab);
  other = agent_lab_open (lab, LAB_HOST_A);
  assert_string_equal (agent_lab_call (other, "ping", NULL, NULL), "");
}

static const char *
prepare (JsonClient *client, const char *uuid, gint64 timeout_s)
{
  g_autofree char *qmp = g_build_filename (lab->qmp, uuid, NULL);

  return agent_lab_call (client, "prepare",
                         json_args ("job", "s", uuid, "guest", "s", "vm1", "dest-qmp", "s", qmp,
                                    "machine", "s", "pc", "timeout", "i", timeout_s, "rate", "i",
                                    (gint64)0, "disks", "a", json_array_new (), "overwrite", "b",
                                    FALSE, "full-speed", "b", FALSE, NULL),
                         NULL);
}

static void
wait_for_state (const char *uuid, const char *expected)
{
  g_autoptr (JsonClient) client = agent_lab_open_local (lab);
  gint64 until = g_get_monotonic_time () + 20 * G_USEC_PER_SEC;

  for (;;)
    {
      g_autoptr (JsonNode) shown = NULL;
      const char *job_state;

      assert_true (json_client_call (client, "execute", "query-job",
                                     json_args ("job", "s", uuid, NULL), -1, soon (), &shown,
                                     NULL));
      assert_true (json_get_string (json_node_get_object (shown), "state", &job_state));
      if (g_str_equal (job_state, expected))
        return;
      if (g_get_monotonic_time () > until)
        fail_msg ("%s instead of %s", job_state, expected);
      g_usleep (10 * 1000);
    }
}

/* Who opens a job and says nothing for its time-out is gone, and so is the job. */
static void
test_silent_peer (void **state)
{
  g_autoptr (JsonClient) client = agent_lab_open (lab, LAB_HOST_A);

  assert_string_equal (prepare (client, UUID, 1), "");
  wait_for_state (UUID, "failed");
  assert_string_equal (agent_lab_call (client, "ping", NULL, NULL), "lost");
}

static void
test_lost_peer (void **state)
{
  JsonClient *client = agent_lab_open (lab, LAB_HOST_A);
  g_autoptr (JsonClient) again = NULL;

  assert_string_equal (prepare (client, UUID, 30), "");
  json_client_free (client);
  wait_for_state (UUID, "failed");
  again = agent_lab_open (lab, LAB_HOST_A);
  assert_string_equal (agent_lab_call (again, "query", json_args ("job", "s", UUID, NULL), NULL),
                       "");
}

static void
test_events (void **state)
{
  g_autoptr (Channel) watcher = agent_lab_connect_local (lab);
  g_autoptr (Channel) idle = agent_lab_connect_local (lab);
  g_autoptr (JsonClient) peer = agent_lab_open (lab, LAB_HOST_A);

  assert_string_equal (prepare (peer, UUID, 30), "");
  expect_line (idle, "{\"vmferry\":*");
  expect_line (watcher, "{\"vmferry\":*");
  say (watcher, "{\"execute\": \"watch\", \"arguments\": {\"job\": \"bbbb\"}}\n");
  expect_line (watcher, "{\"return\":{}}");
  expect_line (watcher,
               "{\"event\":\"JOB_PROGRESS\",\"data\":{\"job\":\"" UUID "\",*"
               "\"state\":\"prepared\",*\"timestamp\":{\"seconds\":*,\"microseconds\":*}}");
  assert_string_equal (agent_lab_call (peer, "abort",
                                       json_args ("job", "s", UUID, "reason", "s", "enough", NULL),
                                       NULL),
                       "");
  for (;;)
    {
      g_autofree char *line = read_line (watcher);

      assert_non_null (line);
      if (!g_pattern_match_simple ("{\"event\":\"JOB_ENDED\"*", line))
        continue;
      assert_true (
          g_pattern_match_simple ("*\"error\":\"hostA gave up: enough\",\"exit\":1*", line));
      break;
    }
  /* Who doesn't follow it hears nothing of it. */
  say (idle, "{\"execute\": \"query-jobs\", \"id\": 1}\n");
  expect_line (idle, "{\"return\":[{\"job\":\"" UUID "\"*");
}

/* One certificate can't take all the room. */
static void
test_room (void **state)
{
  g_autoptr (GPtrArray) crowd = g_ptr_array_new_with_free_func ((GDestroyNotify)channel_free);
  g_autoptr (JsonClient) other = NULL;
  g_autoptr (JsonClient) local = NULL;

  for (guint i = 0; i < 64; i++)
    {
      Channel *channel = agent_lab_connect (lab, LAB_HOST_C);

      g_ptr_array_add (crowd, channel);
      expect_line (channel, "{\"vmferry\":*");
    }
  g_ptr_array_add (crowd, agent_lab_connect (lab, LAB_HOST_C));
  expect_end (g_ptr_array_index (crowd, 64));
  other = agent_lab_open (lab, LAB_HOST_A);
  local = agent_lab_open_local (lab);
}

#define TEST(name) cmocka_unit_test_setup_teardown (test_##name, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (greeting), TEST (stranger),    TEST (overlapping), TEST (garbage), TEST (too_much),
    TEST (flood),    TEST (silent_peer), TEST (lost_peer),   TEST (events),  TEST (room),
  };

  return cmocka_run_group_tests_name ("connection", tests, NULL, NULL);
}
