/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/job-table.h"

/* A cell that isn't written is zero: what can't happen there is ignored, what can be asked for from
 * outside is refused (job_table_step).  The state of a cell is stored plus one for that reason. */
typedef struct
{
  guint8 state_plus_one;
  guint8 action;
} Cell;

#define GO(state, action)                                                                          \
  {                                                                                                \
    state + 1, action                                                                              \
  }
#define STAY(action)                                                                               \
  {                                                                                                \
    0, action                                                                                      \
  }

/* Whatever goes wrong before the release: everything is undone, the guest goes on at the source. */
#define UNDO_ON_TROUBLE                                                                            \
  [JOB_EVENT_FAILED] = GO (JOB_UNDOING, JOB_ACTION_UNDO),                                          \
  [JOB_EVENT_PEER_LOST] = GO (JOB_UNDOING, JOB_ACTION_UNDO),                                       \
  [JOB_EVENT_QEMU_LOST] = GO (JOB_UNDOING, JOB_ACTION_UNDO),                                       \
  [JOB_EVENT_CANCEL] = GO (JOB_CANCELLING, JOB_ACTION_UNDO)

#define BEFORE_RELEASE(next, next_action)                                                          \
  {                                                                                                \
    [JOB_EVENT_DONE] = GO (next, next_action), UNDO_ON_TROUBLE                                     \
  }

static const Cell source_table[JOB_N_STATES][JOB_N_EVENTS] = {
  [JOB_CHECKING] = BEFORE_RELEASE (JOB_PREPARING, JOB_ACTION_PREPARE),
  [JOB_PREPARING] = BEFORE_RELEASE (JOB_SEEDING, JOB_ACTION_SEED),
  [JOB_SEEDING] = BEFORE_RELEASE (JOB_CONVERGING, JOB_ACTION_CONVERGE),
  [JOB_CONVERGING] = BEFORE_RELEASE (JOB_CUTOVER, JOB_ACTION_CUTOVER),
  [JOB_CUTOVER] = BEFORE_RELEASE (JOB_SWITCHOVER, JOB_ACTION_LAST_PASS),
  [JOB_SWITCHOVER] = BEFORE_RELEASE (JOB_RELEASING, JOB_ACTION_RELEASE),
  /* From here on the stream alone decides: a lost agent or monitor is found out by the action. */
  [JOB_RELEASING] = { [JOB_EVENT_DONE] = GO (JOB_FENCING, JOB_ACTION_FENCE),
                      [JOB_EVENT_FENCED] = GO (JOB_STARTING, JOB_ACTION_START),
                      [JOB_EVENT_FAILED] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                      [JOB_EVENT_UNKNOWN] = GO (JOB_NEEDS_OPERATOR, JOB_ACTION_ASK),
                      [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_FENCING] = { [JOB_EVENT_DONE] = GO (JOB_STARTING, JOB_ACTION_START),
                    [JOB_EVENT_FAILED] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                    [JOB_EVENT_UNKNOWN] = GO (JOB_NEEDS_OPERATOR, JOB_ACTION_ASK),
                    [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_STARTING] = { [JOB_EVENT_DONE] = GO (JOB_FINISHING, JOB_ACTION_FINISH),
                     [JOB_EVENT_NEVER] = GO (JOB_UNFENCING, JOB_ACTION_UNFENCE),
                     [JOB_EVENT_UNKNOWN] = GO (JOB_NEEDS_OPERATOR, JOB_ACTION_ASK),
                     [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_FINISHING] = { [JOB_EVENT_DONE] = GO (JOB_DONE, JOB_ACTION_END),
                      [JOB_EVENT_FAILED] = GO (JOB_DONE, JOB_ACTION_END),
                      [JOB_EVENT_UNTOLD] = GO (JOB_DONE, JOB_ACTION_TELL),
                      [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_UNFENCING] = { [JOB_EVENT_DONE] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                      [JOB_EVENT_FAILED] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                      [JOB_EVENT_OWNED] = GO (JOB_FINISHING, JOB_ACTION_FINISH),
                      [JOB_EVENT_UNKNOWN] = GO (JOB_NEEDS_OPERATOR, JOB_ACTION_ASK),
                      [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_RECOVERING] = { [JOB_EVENT_DONE] = GO (JOB_FENCING, JOB_ACTION_FENCE),
                       [JOB_EVENT_FAILED] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                       [JOB_EVENT_FENCED] = GO (JOB_STARTING, JOB_ACTION_START),
                       [JOB_EVENT_OWNED] = GO (JOB_FINISHING, JOB_ACTION_FINISH),
                       [JOB_EVENT_NEVER] = GO (JOB_UNFENCING, JOB_ACTION_UNFENCE),
                       [JOB_EVENT_UNKNOWN] = GO (JOB_NEEDS_OPERATOR, JOB_ACTION_ASK) },
  [JOB_UNDOING] = { [JOB_EVENT_DONE] = GO (JOB_FAILED, JOB_ACTION_END),
                    [JOB_EVENT_FAILED] = GO (JOB_FAILED, JOB_ACTION_END),
                    [JOB_EVENT_UNTOLD] = GO (JOB_FAILED, JOB_ACTION_TELL) },
  [JOB_CANCELLING] = { [JOB_EVENT_DONE] = GO (JOB_CANCELLED, JOB_ACTION_END),
                       [JOB_EVENT_FAILED] = GO (JOB_CANCELLED, JOB_ACTION_END),
                       [JOB_EVENT_UNTOLD] = GO (JOB_CANCELLED, JOB_ACTION_TELL),
                       [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_AGAIN) },
  [JOB_NEEDS_OPERATOR] = { /* what became of a stream that stood still for too long */
                           [JOB_EVENT_DONE] = GO (JOB_FENCING, JOB_ACTION_FENCE),
                           [JOB_EVENT_FENCED] = GO (JOB_STARTING, JOB_ACTION_START),
                           [JOB_EVENT_FAILED] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                           [JOB_EVENT_OWNED] = GO (JOB_FINISHING, JOB_ACTION_FINISH),
                           [JOB_EVENT_NEVER] = GO (JOB_UNFENCING, JOB_ACTION_UNFENCE),
                           [JOB_EVENT_RESOLVE_SOURCE] = GO (JOB_UNFENCING, JOB_ACTION_UNFENCE),
                           [JOB_EVENT_RESOLVE_DESTINATION] = GO (JOB_FINISHING, JOB_ACTION_FINISH),
                           [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_DONE] = { [JOB_EVENT_DONE] = GO (JOB_DONE, JOB_ACTION_FORGET),
                 [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_FAILED] = { [JOB_EVENT_DONE] = GO (JOB_FAILED, JOB_ACTION_FORGET) },
  [JOB_CANCELLED] = { [JOB_EVENT_DONE] = GO (JOB_CANCELLED, JOB_ACTION_FORGET) },
};

/* Before the release the destination never owns anything: all its troubles end in UNDOING, and its
 * operator may cancel like the source's. */
#define DESTINATION_TROUBLE UNDO_ON_TROUBLE, [JOB_EVENT_ABORT] = GO (JOB_UNDOING, JOB_ACTION_UNDO)

static const Cell destination_table[JOB_N_STATES][JOB_N_EVENTS] = {
  [JOB_PREPARING] = { [JOB_EVENT_DONE] = GO (JOB_PREPARED, JOB_ACTION_NONE), DESTINATION_TROUBLE },
  [JOB_PREPARED] = { [JOB_EVENT_COPY] = GO (JOB_COPYING, JOB_ACTION_COPY),
                     [JOB_EVENT_LISTEN] = GO (JOB_LISTENING, JOB_ACTION_LISTEN),
                     DESTINATION_TROUBLE },
  [JOB_COPYING] = { [JOB_EVENT_DONE] = GO (JOB_PREPARED, JOB_ACTION_NONE), DESTINATION_TROUBLE },
  [JOB_LISTENING] = { [JOB_EVENT_DONE] = GO (JOB_INCOMING, JOB_ACTION_NONE), DESTINATION_TROUBLE },
  [JOB_INCOMING] = { [JOB_EVENT_COPY] = GO (JOB_CATCHING_UP, JOB_ACTION_COPY),
                     [JOB_EVENT_RELEASE] = GO (JOB_RELEASING, JOB_ACTION_RELEASE),
                     DESTINATION_TROUBLE },
  [JOB_CATCHING_UP]
  = { [JOB_EVENT_DONE] = GO (JOB_INCOMING, JOB_ACTION_NONE), DESTINATION_TROUBLE },
  /* A lost source is not the end any more: it may hold our word that the writers are closed. */
  [JOB_RELEASING] = { [JOB_EVENT_DONE] = GO (JOB_RELEASED, JOB_ACTION_NONE),
                      [JOB_EVENT_FAILED] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                      [JOB_EVENT_ABORT] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                      [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_RELEASED] = { [JOB_EVENT_START] = GO (JOB_STARTING, JOB_ACTION_START),
                     [JOB_EVENT_ABORT] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                     [JOB_EVENT_PEER_LOST] = GO (JOB_NEEDS_OPERATOR, JOB_ACTION_ASK),
                     [JOB_EVENT_QEMU_LOST] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                     [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_STARTING] = { [JOB_EVENT_DONE] = GO (JOB_OWNER, JOB_ACTION_NONE),
                     [JOB_EVENT_NEVER] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                     [JOB_EVENT_UNKNOWN] = GO (JOB_NEEDS_OPERATOR, JOB_ACTION_ASK),
                     [JOB_EVENT_START] = STAY (JOB_ACTION_AWAIT),
                     [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_OWNER] = { [JOB_EVENT_START] = STAY (JOB_ACTION_AGAIN),
                  [JOB_EVENT_FINISH] = GO (JOB_FINISHING, JOB_ACTION_FINISH),
                  /* The source hasn't said that it knows: the journal is kept until it does. */
                  [JOB_EVENT_RESOLVE_DESTINATION] = GO (JOB_FINISHING, JOB_ACTION_FINISH),
                  [JOB_EVENT_ABORT] = STAY (JOB_ACTION_TOO_LATE),
                  [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_FINISHING] = { [JOB_EVENT_DONE] = GO (JOB_DONE, JOB_ACTION_END),
                      [JOB_EVENT_FAILED] = GO (JOB_DONE, JOB_ACTION_END),
                      [JOB_EVENT_START] = STAY (JOB_ACTION_AGAIN),
                      [JOB_EVENT_FINISH] = STAY (JOB_ACTION_AGAIN),
                      [JOB_EVENT_ABORT] = STAY (JOB_ACTION_TOO_LATE),
                      [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_RECOVERING] = { [JOB_EVENT_DONE] = GO (JOB_NEEDS_OPERATOR, JOB_ACTION_ASK),
                       [JOB_EVENT_FAILED] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                       [JOB_EVENT_NEVER] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                       [JOB_EVENT_OWNED] = GO (JOB_OWNER, JOB_ACTION_NONE),
                       [JOB_EVENT_FENCED] = GO (JOB_STARTING, JOB_ACTION_START) },
  [JOB_UNDOING] = { [JOB_EVENT_DONE] = GO (JOB_FAILED, JOB_ACTION_END),
                    [JOB_EVENT_FAILED] = GO (JOB_FAILED, JOB_ACTION_END),
                    [JOB_EVENT_OWNED] = GO (JOB_OWNER, JOB_ACTION_NONE),
                    [JOB_EVENT_UNKNOWN] = GO (JOB_NEEDS_OPERATOR, JOB_ACTION_ASK),
                    [JOB_EVENT_ABORT] = STAY (JOB_ACTION_AWAIT) },
  [JOB_CANCELLING] = { [JOB_EVENT_DONE] = GO (JOB_CANCELLED, JOB_ACTION_END),
                       [JOB_EVENT_FAILED] = GO (JOB_CANCELLED, JOB_ACTION_END),
                       [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_AGAIN),
                       [JOB_EVENT_ABORT] = STAY (JOB_ACTION_AWAIT) },
  [JOB_NEEDS_OPERATOR] = { [JOB_EVENT_START] = GO (JOB_STARTING, JOB_ACTION_START),
                           [JOB_EVENT_ABORT] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                           [JOB_EVENT_NEVER] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                           [JOB_EVENT_OWNED] = GO (JOB_OWNER, JOB_ACTION_NONE),
                           [JOB_EVENT_RESOLVE_SOURCE] = GO (JOB_UNDOING, JOB_ACTION_UNDO),
                           [JOB_EVENT_RESOLVE_DESTINATION] = GO (JOB_STARTING, JOB_ACTION_START),
                           [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_DONE] = { [JOB_EVENT_START] = STAY (JOB_ACTION_AGAIN),
                 [JOB_EVENT_FINISH] = STAY (JOB_ACTION_AGAIN),
                 [JOB_EVENT_ABORT] = STAY (JOB_ACTION_TOO_LATE),
                 [JOB_EVENT_CANCEL] = STAY (JOB_ACTION_TOO_LATE) },
  [JOB_FAILED] = { [JOB_EVENT_START] = STAY (JOB_ACTION_NEVER),
                   [JOB_EVENT_FINISH] = STAY (JOB_ACTION_NEVER),
                   [JOB_EVENT_ABORT] = STAY (JOB_ACTION_AGAIN) },
  [JOB_CANCELLED] = { [JOB_EVENT_START] = STAY (JOB_ACTION_NEVER),
                      [JOB_EVENT_FINISH] = STAY (JOB_ACTION_NEVER),
                      [JOB_EVENT_ABORT] = STAY (JOB_ACTION_AGAIN) },
};

JobStep
job_table_step (JobRole role, JobState state, JobEvent event)
{
  const Cell *cell
      = role == JOB_SOURCE ? &source_table[state][event] : &destination_table[state][event];

  if (cell->state_plus_one > 0)
    return (JobStep){ cell->state_plus_one - 1, cell->action };
  if (cell->action != JOB_ACTION_NONE)
    return (JobStep){ state, cell->action };
  return (JobStep){ state, event >= JOB_EVENT_CANCEL ? JOB_ACTION_REFUSE : JOB_ACTION_IGNORE };
}

gboolean
job_state_is_final (JobState state)
{
  return state == JOB_DONE || state == JOB_FAILED || state == JOB_CANCELLED;
}

gboolean
job_state_is_pass (JobState state)
{
  return state == JOB_COPYING || state == JOB_CATCHING_UP;
}

const char *
job_state_to_string (JobState state)
{
  static const char *const names[JOB_N_STATES] = {
    [JOB_CHECKING] = "checking",
    [JOB_PREPARING] = "preparing",
    [JOB_SEEDING] = "seeding",
    [JOB_CONVERGING] = "converging",
    [JOB_CUTOVER] = "cutover",
    [JOB_SWITCHOVER] = "switchover",
    [JOB_RELEASING] = "releasing",
    [JOB_FENCING] = "fencing",
    [JOB_STARTING] = "starting",
    [JOB_FINISHING] = "finishing",
    [JOB_UNFENCING] = "unfencing",
    [JOB_PREPARED] = "prepared",
    [JOB_COPYING] = "copying",
    [JOB_LISTENING] = "listening",
    [JOB_INCOMING] = "incoming",
    [JOB_CATCHING_UP] = "catching-up",
    [JOB_RELEASED] = "released",
    [JOB_OWNER] = "owner",
    [JOB_RECOVERING] = "recovering",
    [JOB_UNDOING] = "undoing",
    [JOB_CANCELLING] = "cancelling",
    [JOB_NEEDS_OPERATOR] = "needs-operator",
    [JOB_DONE] = "done",
    [JOB_FAILED] = "failed",
    [JOB_CANCELLED] = "cancelled",
  };

  return names[state];
}

const char *
job_event_to_string (JobEvent event)
{
  static const char *const names[JOB_N_EVENTS] = {
    [JOB_EVENT_DONE] = "done",
    [JOB_EVENT_FAILED] = "failed",
    [JOB_EVENT_NEVER] = "never",
    [JOB_EVENT_OWNED] = "owned",
    [JOB_EVENT_FENCED] = "fenced",
    [JOB_EVENT_UNKNOWN] = "unknown",
    [JOB_EVENT_UNTOLD] = "untold",
    [JOB_EVENT_PEER_LOST] = "peer-lost",
    [JOB_EVENT_QEMU_LOST] = "qemu-lost",
    [JOB_EVENT_CANCEL] = "cancel",
    [JOB_EVENT_RESOLVE_SOURCE] = "resolve-source",
    [JOB_EVENT_RESOLVE_DESTINATION] = "resolve-destination",
    [JOB_EVENT_COPY] = "copy",
    [JOB_EVENT_LISTEN] = "listen",
    [JOB_EVENT_RELEASE] = "release",
    [JOB_EVENT_START] = "start",
    [JOB_EVENT_FINISH] = "finish",
    [JOB_EVENT_ABORT] = "abort",
  };

  return names[event];
}

const char *
job_action_to_string (JobAction action)
{
  static const char *const names[JOB_N_ACTIONS] = {
    [JOB_ACTION_NONE] = "none",
    [JOB_ACTION_IGNORE] = "ignore",
    [JOB_ACTION_REFUSE] = "refuse",
    [JOB_ACTION_TOO_LATE] = "too-late",
    [JOB_ACTION_AGAIN] = "again",
    [JOB_ACTION_AWAIT] = "await",
    [JOB_ACTION_NEVER] = "never",
    [JOB_ACTION_CHECK] = "check",
    [JOB_ACTION_PREPARE] = "prepare",
    [JOB_ACTION_SEED] = "seed",
    [JOB_ACTION_CONVERGE] = "converge",
    [JOB_ACTION_CUTOVER] = "cutover",
    [JOB_ACTION_LAST_PASS] = "last-pass",
    [JOB_ACTION_RELEASE] = "release",
    [JOB_ACTION_FENCE] = "fence",
    [JOB_ACTION_START] = "start",
    [JOB_ACTION_FINISH] = "finish",
    [JOB_ACTION_UNFENCE] = "unfence",
    [JOB_ACTION_COPY] = "copy",
    [JOB_ACTION_LISTEN] = "listen",
    [JOB_ACTION_RECOVER] = "recover",
    [JOB_ACTION_UNDO] = "undo",
    [JOB_ACTION_ASK] = "ask",
    [JOB_ACTION_END] = "end",
    [JOB_ACTION_TELL] = "tell",
    [JOB_ACTION_FORGET] = "forget",
  };

  return names[action];
}
