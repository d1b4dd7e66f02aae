/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* What a job does next: a pure table (role, state, event) -> (state, action).  Nothing here does
 * anything; daemon/job.c carries it through, source/ and destination/ hold the actions. */

typedef enum
{
  JOB_SOURCE,
  JOB_DESTINATION,
  JOB_N_ROLES
} JobRole;

typedef enum
{
  /* source, in the order of a migration */
  JOB_CHECKING,
  JOB_PREPARING, /* both */
  JOB_SEEDING,
  JOB_CONVERGING,
  JOB_CUTOVER,    /* RAM is on its way, passes go on beside it */
  JOB_SWITCHOVER, /* the guest stands still, the last pass runs */
  JOB_RELEASING,  /* both; source: released, the stream may end */
  JOB_FENCING,
  JOB_STARTING,  /* both; source: fenced, the destination is told to start */
  JOB_FINISHING, /* both; the destination owns the guest */
  JOB_UNFENCING, /* the destination will never start it: the source may again */

  /* destination */
  JOB_PREPARED,    /* targets are there */
  JOB_COPYING,     /* a pass before the cutover */
  JOB_LISTENING,   /* QEMU is being made to listen */
  JOB_INCOMING,    /* QEMU listens or receives */
  JOB_CATCHING_UP, /* a pass during the cutover */
  JOB_RELEASED,    /* writers closed; only the source's word is missing */
  JOB_OWNER,       /* the guest runs here */

  /* both */
  JOB_RECOVERING,     /* the agent was restarted: what does the journal say, what is there? */
  JOB_UNDOING,        /* on the way to FAILED */
  JOB_CANCELLING,     /* on the way to CANCELLED */
  JOB_NEEDS_OPERATOR, /* who owns the guest can't be told from here; keeps asking */
  JOB_DONE,
  JOB_FAILED,
  JOB_CANCELLED,
  JOB_N_STATES
} JobState;

typedef enum
{
  /* how the running action ended */
  JOB_EVENT_DONE,
  JOB_EVENT_FAILED,
  JOB_EVENT_NEVER,   /* the destination has journaled that it will never start the guest */
  JOB_EVENT_OWNED,   /* the destination owns the guest */
  JOB_EVENT_FENCED,  /* the source can't run the guest any more */
  JOB_EVENT_UNKNOWN, /* nobody can tell from here */
  JOB_EVENT_UNTOLD,  /* done here, but the destination doesn't know it */
  /* from outside */
  JOB_EVENT_PEER_LOST,
  JOB_EVENT_QEMU_LOST,
  JOB_EVENT_CANCEL,
  JOB_EVENT_RESOLVE_SOURCE,
  JOB_EVENT_RESOLVE_DESTINATION,
  /* what the source asks of the destination */
  JOB_EVENT_COPY,
  JOB_EVENT_LISTEN,
  JOB_EVENT_RELEASE,
  JOB_EVENT_START,
  JOB_EVENT_FINISH,
  JOB_EVENT_ABORT,
  JOB_N_EVENTS
} JobEvent;

typedef enum
{
  JOB_ACTION_NONE,     /* only the state changes */
  JOB_ACTION_IGNORE,   /* nothing changes */
  JOB_ACTION_REFUSE,   /* nothing changes, whoever asked is told that it can't be done now */
  JOB_ACTION_TOO_LATE, /* nothing changes: the guest has been handed over */
  JOB_ACTION_AGAIN,    /* nothing changes: it has been done already, say so */
  JOB_ACTION_AWAIT,    /* nothing changes: it is being done, say so when it has been */
  JOB_ACTION_NEVER,    /* nothing changes: the guest was not started here and never will be */
  /* source */
  JOB_ACTION_CHECK,
  JOB_ACTION_PREPARE, /* both */
  JOB_ACTION_SEED,
  JOB_ACTION_CONVERGE,
  JOB_ACTION_CUTOVER,
  JOB_ACTION_LAST_PASS,
  JOB_ACTION_RELEASE, /* both */
  JOB_ACTION_FENCE,
  JOB_ACTION_START,  /* both */
  JOB_ACTION_FINISH, /* both */
  JOB_ACTION_UNFENCE,
  /* destination */
  JOB_ACTION_COPY,
  JOB_ACTION_LISTEN,
  /* both */
  JOB_ACTION_RECOVER,
  JOB_ACTION_UNDO,
  JOB_ACTION_ASK, /* source: asks the destination until it answers; destination: waits to be told */
  JOB_ACTION_END,    /* it is over */
  JOB_ACTION_TELL,   /* source: it is over, but goes on telling the destination how it ended */
  JOB_ACTION_FORGET, /* the destination knows: nothing is left to remember */
  JOB_N_ACTIONS
} JobAction;

typedef struct
{
  JobState state;
  JobAction action;
} JobStep;

JobStep job_table_step (JobRole role, JobState state, JobEvent event);

gboolean job_state_is_final (JobState state);
/* One of the many states of a destination that come and go with each pass. */
gboolean job_state_is_pass (JobState state);
/* As the protocol and people spell it: "seeding", "needs-operator". */
const char *job_state_to_string (JobState state);
const char *job_event_to_string (JobEvent event);
const char *job_action_to_string (JobAction action);
