/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/agent.h"
#include "daemon/job-table.h"
#include "daemon/journal.h"
#include "qmp/json-args.h"

/* One migration as this host sees it.  The engine here carries job-table.c through: it runs at most
 * one action of a job at a time, in a thread of its own, and turns its end into the next event.  A
 * transition out of a state cancels the action that runs; the next one starts when it has returned.
 *
 * Main thread: everything but what says otherwise. */
typedef struct Job Job;

#define JOB_ERROR (job_error_quark ())
GQuark job_error_quark (void);

typedef enum
{
  JOB_ERROR_USAGE,
  JOB_ERROR_NOT_FOUND,
  JOB_ERROR_DENIED,
  JOB_ERROR_BUSY,
  JOB_ERROR_TOO_LATE,
  JOB_ERROR_VERSION,
  JOB_ERROR_NEVER,
  JOB_ERROR_FAILED
} JobError;

/* Runs in the action's thread; blocks; watches job_cancellable ().  `error` is set whenever the
 * event isn't JOB_EVENT_DONE. */
typedef JobEvent (*JobActionFunc) (Job *job, GError **error);

typedef enum
{
  JOB_OWNED_BY_SOURCE,
  JOB_OWNED_BY_DESTINATION,
  JOB_OWNED_BY_UNKNOWN
} JobOwner;

/* How far one disk is: what people and scripts are shown. */
typedef struct
{
  char *disk, *target, *format;
  char *source;             /* the file or device it has at the source; NULL at the destination */
  guint64 size, todo, done; /* bytes; of the pass that runs */
  guint64 read, zero;       /* bytes; of all passes */
  guint pass;               /* 0: seeding */
} JobDisk;

/* What is shown of a job; guarded by Job.lock. */
typedef struct
{
  JobOwner owner;
  guint passes;
  guint64 rate;       /* bytes per second, lately */
  double left_s;      /* negative: unknown */
  gint64 downtime_us; /* negative: unknown */
  gsize in_flight;    /* bytes, of each disk */
  GArray *disks;      /* JobDisk */
  guint64 ram_total, ram_sent, ram_left;
  char *message;
} JobView;

typedef struct
{
  const JobActionFunc *actions; /* [JOB_N_ACTIONS] */
  /* Five times a second in the main thread, to bring the view up to date; may be NULL. */
  void (*tick) (Job *job);
  void (*free) (Job *job); /* frees the whole of it; job_clear () for this part */
} JobClass;

struct Job
{
  const JobClass *klass;
  Agent *agent;
  JobRole role;
  char *uuid, *guest, *peer;
  char *qmp_path;     /* of the QEMU at this end: one job at a time may have it */
  Journal *journal;   /* NULL: nothing has been made yet */
  GPtrArray *records; /* JsonObject: what it told after a restart, or NULL */

  JobState state;
  gint64 started_us, ended_us; /* monotonic */
  gboolean running;            /* an action has not returned yet */
  gboolean superseded;         /* ... and its end doesn't count */
  JobAction queued;            /* to start when it has returned */
  GCancellable *cancellable;   /* of the action that runs */
  guint sticky;                /* bits of JOB_EVENT_{PEER,QEMU}_LOST: they stay true */
  gboolean resolved;           /* a human's decision led to the action that runs */
  JobRequest *request;         /* who waits for the end of the action; may be NULL */
  JsonNode *answer;            /* what the action wants to answer with */
  JsonObject *command;         /* the arguments of the command that is being carried out */
  GError *error;               /* the first one that ended the job */
  gboolean doubtful;           /* ... or only left it open how it ends: the next one replaces it */

  GMutex lock;
  JobView view;
  gboolean view_changed;
};

void job_init (Job *job, const JobClass *klass, Agent *agent, JobRole role, const char *uuid,
               const char *guest, const char *peer);
void job_clear (Job *job);
void job_free (Job *job);

/* Enters `state` and starts `action`. */
void job_begin (Job *job, JobState state, JobAction action);

/* An event from outside.  FALSE with JOB_ERROR_TOO_LATE or _BUSY where the table refuses it.
 * `reason` (may be NULL; copied) is why the job ends, where this event ends it. */
gboolean job_event (Job *job, JobEvent event, const GError *reason, GError **error);
/* The same from any thread, later. */
void job_post (Job *job, JobEvent event, const GError *reason);
/* JOB_EVENT_PEER_LOST or _QEMU_LOST: stays true in later states, until it is forgotten. Any thread.
 */
void job_post_lost (Job *job, JobEvent event, const GError *reason);
void job_forget_lost (Job *job, JobEvent event);
/* A command of the peer: `request` is answered when the action that it started has ended, at once
 * if it is refused or done already.  Takes over `request` and a reference on `args`. */
void job_command (Job *job, JobEvent event, JobRequest *request, JsonObject *args);

/* Any thread: of the action that runs. */
GCancellable *job_cancellable (Job *job);
/* The last record of that name from before the restart; borrowed, NULL where there is none. */
JsonObject *job_find_record (Job *job, const char *name);
/* Any thread: writes a record and waits for the disk.  Takes over `record`; NULL journal: nothing
 * to do. */
gboolean job_record (Job *job, JsonObject *record, GError **error);

/* Any thread.  What the job is at ("seeding"), in words. */
void job_set_message (Job *job, const char *format, ...) G_GNUC_PRINTF (2, 3);
/* Any thread.  Something people should know; goes to the log and to whoever follows the job. */
void job_notice (Job *job, gboolean warning, const char *format, ...) G_GNUC_PRINTF (3, 4);
void job_set_owner (Job *job, JobOwner owner);
JobOwner job_get_owner (Job *job);

/* The job object of docs/protocol.md. */
JsonObject *job_describe (Job *job);
/* Whether something changed since the last call. */
gboolean job_take_changed (Job *job);
