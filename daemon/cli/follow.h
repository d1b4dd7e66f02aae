/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/cli/job.h"
#include "daemon/cli/session.h"
#include "daemon/cli/terminal.h"

/* Shows what a job does until it ends, or until there is a reason to stop looking.  A lost
 * connection is made anew for a while: agents can be restarted in mid-job.  From cli_follow_new ()
 * on, SIGINT, SIGTERM and SIGHUP are taken note of, and answered in cli_follow_run (). */
typedef struct CliFollow CliFollow;

typedef struct
{
  const char *socket;
  FILE *out; /* gets a line for each event where `json` */
  gboolean json;
  gboolean cancels;   /* SIGINT and SIGTERM cancel the job; otherwise they end the following */
  gint64 patience_ms; /* how long a lost agent is waited for */
} CliFollowConfig;

typedef enum
{
  CLI_FOLLOW_ENDED,
  CLI_FOLLOW_NEEDS_OPERATOR,
  CLI_FOLLOW_INTERRUPTED, /* SIGINT or SIGTERM where they don't cancel */
  CLI_FOLLOW_HANGUP,      /* SIGHUP */
  CLI_FOLLOW_LOST         /* the agent is gone for good, or has forgotten the job */
} CliFollowEnd;

/* Takes over `session`, copies `config`, borrows its members and `terminal`. */
CliFollow *cli_follow_new (CliSession *session, const CliFollowConfig *config,
                           CliTerminal *terminal);
void cli_follow_free (CliFollow *follow);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CliFollow, cli_follow_free)

/* The session that is in use now. */
CliSession *cli_follow_get_session (CliFollow *follow);

/* Blocks.  `job`: a whole UUID, whose events come already; NULL: all jobs, without end.  `error` is
 * set for CLI_FOLLOW_LOST. */
CliFollowEnd cli_follow_run (CliFollow *follow, const char *job, GError **error);

/* The last that was heard of the job, and the same as it was received; NULL before.  Live with
 * `follow`. */
const CliJob *cli_follow_get_job (CliFollow *follow);
JsonObject *cli_follow_get_object (CliFollow *follow);
/* How the agent calls its host; also when the agent is gone. */
const char *cli_follow_get_host (CliFollow *follow);
