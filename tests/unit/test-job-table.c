/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "daemon/job-table.h"

/* The whole table once more, as a person would say it: "STATE: EVENT=NEXT/ACTION ...", where
 * "/ACTION" alone stays in the state.  What isn't written is ignored (ends of actions and losses)
 * or refused (what can be asked for). */
static const char *const source_rows[] = {
  "checking: done=preparing/prepare failed=undoing/undo peer-lost=undoing/undo "
  "qemu-lost=undoing/undo cancel=cancelling/undo",
  "preparing: done=seeding/seed failed=undoing/undo peer-lost=undoing/undo "
  "qemu-lost=undoing/undo cancel=cancelling/undo",
  "seeding: done=converging/converge failed=undoing/undo peer-lost=undoing/undo "
  "qemu-lost=undoing/undo cancel=cancelling/undo",
  "converging: done=cutover/cutover failed=undoing/undo peer-lost=undoing/undo "
  "qemu-lost=undoing/undo cancel=cancelling/undo",
  "cutover: done=switchover/last-pass failed=undoing/undo peer-lost=undoing/undo "
  "qemu-lost=undoing/undo cancel=cancelling/undo",
  "switchover: done=releasing/release failed=undoing/undo peer-lost=undoing/undo "
  "qemu-lost=undoing/undo cancel=cancelling/undo",
  "releasing: done=fencing/fence fenced=starting/start failed=undoing/undo "
  "unknown=needs-operator/ask cancel=/too-late",
  "fencing: done=starting/start failed=undoing/undo unknown=needs-operator/ask cancel=/too-late",
  "starting: done=finishing/finish never=unfencing/unfence unknown=needs-operator/ask "
  "cancel=/too-late",
  "finishing: done=done/end failed=done/end untold=done/tell cancel=/too-late",
  "unfencing: done=undoing/undo failed=undoing/undo owned=finishing/finish "
  "unknown=needs-operator/ask cancel=/too-late",
  "recovering: done=fencing/fence failed=undoing/undo fenced=starting/start "
  "owned=finishing/finish never=unfencing/unfence unknown=needs-operator/ask",
  "undoing: done=failed/end failed=failed/end untold=failed/tell",
  "cancelling: done=cancelled/end failed=cancelled/end untold=cancelled/tell cancel=/again",
  "needs-operator: done=fencing/fence fenced=starting/start failed=undoing/undo "
  "owned=finishing/finish never=unfencing/unfence "
  "resolve-source=unfencing/unfence resolve-destination=finishing/finish cancel=/too-late",
  "done: done=/forget cancel=/too-late",
  "failed: done=/forget",
  "cancelled: done=/forget",
  NULL,
};

static const char *const destination_rows[] = {
  "preparing: done=prepared/none failed=undoing/undo peer-lost=undoing/undo "
  "qemu-lost=undoing/undo cancel=cancelling/undo abort=undoing/undo",
  "prepared: copy=copying/copy listen=listening/listen failed=undoing/undo peer-lost=undoing/undo "
  "qemu-lost=undoing/undo cancel=cancelling/undo abort=undoing/undo",
  "copying: done=prepared/none failed=undoing/undo peer-lost=undoing/undo "
  "qemu-lost=undoing/undo cancel=cancelling/undo abort=undoing/undo",
  "listening: done=incoming/none failed=undoing/undo peer-lost=undoing/undo "
  "qemu-lost=undoing/undo cancel=cancelling/undo abort=undoing/undo",
  "incoming: copy=catching-up/copy release=releasing/release failed=undoing/undo "
  "peer-lost=undoing/undo qemu-lost=undoing/undo cancel=cancelling/undo abort=undoing/undo",
  "catching-up: done=incoming/none failed=undoing/undo peer-lost=undoing/undo "
  "qemu-lost=undoing/undo cancel=cancelling/undo abort=undoing/undo",
  "releasing: done=released/none failed=undoing/undo abort=undoing/undo cancel=/too-late",
  "released: start=starting/start abort=undoing/undo peer-lost=needs-operator/ask "
  "qemu-lost=undoing/undo cancel=/too-late",
  "starting: done=owner/none never=undoing/undo unknown=needs-operator/ask start=/await "
  "cancel=/too-late",
  "owner: start=/again finish=finishing/finish resolve-destination=finishing/finish "
  "abort=/too-late cancel=/too-late",
  "finishing: done=done/end failed=done/end start=/again finish=/again abort=/too-late "
  "cancel=/too-late",
  "recovering: done=needs-operator/ask failed=undoing/undo never=undoing/undo owned=owner/none "
  "fenced=starting/start",
  "undoing: done=failed/end failed=failed/end owned=owner/none unknown=needs-operator/ask "
  "abort=/await",
  "cancelling: done=cancelled/end failed=cancelled/end cancel=/again abort=/await",
  "needs-operator: start=starting/start abort=undoing/undo never=undoing/undo owned=owner/none "
  "resolve-source=undoing/undo resolve-destination=starting/start "
  "cancel=/too-late",
  "done: start=/again finish=/again abort=/too-late cancel=/too-late",
  "failed: start=/never finish=/never abort=/again",
  "cancelled: start=/never finish=/never abort=/again",
  NULL,
};

static JobState
state_of (const char *name)
{
  for (JobState state = 0; state < JOB_N_STATES; state++)
    if (g_str_equal (job_state_to_string (state), name))
      return state;
  fail_msg ("there is no state %s", name);
  return 0;
}

static JobEvent
event_of (const char *name)
{
  for (JobEvent event = 0; event < JOB_N_EVENTS; event++)
    if (g_str_equal (job_event_to_string (event), name))
      return event;
  fail_msg ("there is no event %s", name);
  return 0;
}

static JobAction
action_of (const char *name)
{
  for (JobAction action = 0; action < JOB_N_ACTIONS; action++)
    if (g_str_equal (job_action_to_string (action), name))
      return action;
  fail_msg ("there is no action %s", name);
  return 0;
}

static JobStep
unwritten (JobState state, JobEvent event)
{
  gboolean asked = event == JOB_EVENT_CANCEL || event == JOB_EVENT_RESOLVE_SOURCE
                   || event == JOB_EVENT_RESOLVE_DESTINATION || event == JOB_EVENT_COPY
                   || event == JOB_EVENT_LISTEN || event == JOB_EVENT_RELEASE
                   || event == JOB_EVENT_START || event == JOB_EVENT_FINISH
                   || event == JOB_EVENT_ABORT;

  return (JobStep){ state, asked ? JOB_ACTION_REFUSE : JOB_ACTION_IGNORE };
}

static void
read_row (const char *row, JobStep expected[JOB_N_STATES][JOB_N_EVENTS])
{
  g_auto (GStrv) words = g_strsplit (row, " ", -1);
  JobState state;

  *strchr (words[0], ':') = '\0';
  state = state_of (words[0]);
  for (guint i = 1; words[i]; i++)
    {
      char *next = strchr (words[i], '=');
      char *action = strchr (words[i], '/');
      JobEvent event;

      *next++ = '\0';
      *action++ = '\0';
      event = event_of (words[i]);
      expected[state][event]
          = (JobStep){ *next != '\0' ? state_of (next) : state, action_of (action) };
    }
}

static void
check_table (JobRole role, const char *const *rows)
{
  JobStep expected[JOB_N_STATES][JOB_N_EVENTS];

  for (JobState state = 0; state < JOB_N_STATES; state++)
    for (JobEvent event = 0; event < JOB_N_EVENTS; event++)
      expected[state][event] = unwritten (state, event);
  for (guint i = 0; rows[i]; i++)
    read_row (rows[i], expected);
  for (JobState state = 0; state < JOB_N_STATES; state++)
    for (JobEvent event = 0; event < JOB_N_EVENTS; event++)
      {
        JobStep step = job_table_step (role, state, event);

        if (step.state != expected[state][event].state
            || step.action != expected[state][event].action)
          fail_msg ("%s, %s, %s: %s/%s instead of %s/%s",
                    role == JOB_SOURCE ? "source" : "destination", job_state_to_string (state),
                    job_event_to_string (event), job_state_to_string (step.state),
                    job_action_to_string (step.action),
                    job_state_to_string (expected[state][event].state),
                    job_action_to_string (expected[state][event].action));
      }
}

static void
test_source (void **state)
{
  check_table (JOB_SOURCE, source_rows);
}

static void
test_destination (void **state)
{
  check_table (JOB_DESTINATION, destination_rows);
}

static void
test_names (void **unused)
{
  g_autoptr (GHashTable) seen = g_hash_table_new (g_str_hash, g_str_equal);

  for (JobState state = 0; state < JOB_N_STATES; state++)
    assert_true (g_hash_table_add (seen, (char *)job_state_to_string (state)));
  g_hash_table_remove_all (seen);
  for (JobEvent event = 0; event < JOB_N_EVENTS; event++)
    assert_true (g_hash_table_add (seen, (char *)job_event_to_string (event)));
  g_hash_table_remove_all (seen);
  for (JobAction action = 0; action < JOB_N_ACTIONS; action++)
    assert_true (g_hash_table_add (seen, (char *)job_action_to_string (action)));
}

/* A step that changes nothing changes the state neither, and a final state has no way out. */
static void
test_steps_make_sense (void **unused)
{
  for (JobRole role = 0; role < JOB_N_ROLES; role++)
    for (JobState state = 0; state < JOB_N_STATES; state++)
      for (JobEvent event = 0; event < JOB_N_EVENTS; event++)
        {
          JobStep step = job_table_step (role, state, event);

          if (step.action >= JOB_ACTION_IGNORE && step.action <= JOB_ACTION_NEVER)
            assert_int_equal (step.state, state);
          if (job_state_is_final (state))
            assert_int_equal (step.state, state);
          if (job_state_is_final (step.state) && step.state != state)
            assert_true (step.action == JOB_ACTION_END || step.action == JOB_ACTION_TELL);
        }
}

/* Until the source has said "released", every trouble undoes all, and so does whoever cancels. */
static void
test_trouble_before_release (void **unused)
{
  static const JobState source[]
      = { JOB_CHECKING, JOB_PREPARING, JOB_SEEDING, JOB_CONVERGING, JOB_CUTOVER, JOB_SWITCHOVER };
  static const JobState destination[]
      = { JOB_PREPARING, JOB_PREPARED, JOB_COPYING, JOB_LISTENING, JOB_INCOMING, JOB_CATCHING_UP };
  static const JobEvent troubles[] = { JOB_EVENT_FAILED, JOB_EVENT_PEER_LOST, JOB_EVENT_QEMU_LOST };

  G_STATIC_ASSERT (G_N_ELEMENTS (source) == G_N_ELEMENTS (destination));
  for (guint i = 0; i < G_N_ELEMENTS (source); i++)
    for (JobRole role = 0; role < JOB_N_ROLES; role++)
      {
        JobState state = role == JOB_SOURCE ? source[i] : destination[i];
        JobStep cancelled = job_table_step (role, state, JOB_EVENT_CANCEL);

        for (guint j = 0; j < G_N_ELEMENTS (troubles); j++)
          {
            JobStep step = job_table_step (role, state, troubles[j]);
            assert_int_equal (step.state, JOB_UNDOING);
            assert_int_equal (step.action, JOB_ACTION_UNDO);
          }
        assert_int_equal (cancelled.state, JOB_CANCELLING);
        assert_int_equal (cancelled.action, JOB_ACTION_UNDO);
      }
}

/* From `from` by every event but those in `but` (bits), and in NEEDS_OPERATOR those in `but_there`.
 */
static void
reach (JobRole role, JobState from, guint but, guint but_there, gboolean seen[JOB_N_STATES])
{
  guint barred = but | (from == JOB_NEEDS_OPERATOR ? but_there : 0);

  if (seen[from])
    return;
  seen[from] = TRUE;
  for (JobEvent event = 0; event < JOB_N_EVENTS; event++)
    if (!(barred & (1u << event)))
      reach (role, job_table_step (role, from, event).state, but, but_there, seen);
}

/* After the fence only the destination's word, or a human's, leads back to a guest here.  What
 * became of the stream is told in NEEDS_OPERATOR only where it is not fenced yet. */
static void
test_no_way_back_after_fence (void **unused)
{
  gboolean seen[JOB_N_STATES] = { FALSE };

  reach (JOB_SOURCE, JOB_STARTING, 1u << JOB_EVENT_NEVER | 1u << JOB_EVENT_RESOLVE_SOURCE,
         1u << JOB_EVENT_DONE | 1u << JOB_EVENT_FENCED | 1u << JOB_EVENT_FAILED, seen);
  for (JobState state = 0; state < JOB_N_STATES; state++)
    assert_true (seen[state]
                 == (state == JOB_STARTING || state == JOB_NEEDS_OPERATOR || state == JOB_FINISHING
                     || state == JOB_DONE));
}

/* Once the guest runs at the destination, it can't be taken from there. */
static void
test_owner_stays_owner (void **unused)
{
  gboolean seen[JOB_N_STATES] = { FALSE };

  reach (JOB_DESTINATION, JOB_OWNER, 0, 0, seen);
  for (JobState state = 0; state < JOB_N_STATES; state++)
    assert_true (seen[state]
                 == (state == JOB_OWNER || state == JOB_FINISHING || state == JOB_DONE));
}

static void
test_every_state_has_an_end (void **unused)
{
  for (JobRole role = 0; role < JOB_N_ROLES; role++)
    {
      gboolean used[JOB_N_STATES] = { FALSE };

      reach (role, role == JOB_SOURCE ? JOB_CHECKING : JOB_PREPARING, 0, 0, used);
      reach (role, JOB_RECOVERING, 0, 0, used);
      for (JobState state = 0; state < JOB_N_STATES; state++)
        {
          gboolean seen[JOB_N_STATES] = { FALSE };

          reach (role, state, 0, 0, seen);
          if (used[state])
            assert_true (seen[JOB_DONE] || seen[JOB_FAILED] || seen[JOB_CANCELLED]);
        }
    }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_source),
    cmocka_unit_test (test_destination),
    cmocka_unit_test (test_names),
    cmocka_unit_test (test_steps_make_sense),
    cmocka_unit_test (test_trouble_before_release),
    cmocka_unit_test (test_no_way_back_after_fence),
    cmocka_unit_test (test_owner_stays_owner),
    cmocka_unit_test (test_every_state_has_an_end),
  };

  return cmocka_run_group_tests_name ("job-table", tests, NULL, NULL);
}
