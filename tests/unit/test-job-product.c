/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "daemon/job-table.h"

/* Both tables together, with all that can come between: commands that are lost, repeated or late
 * without bound, ends of connections, an agent that dies in the middle of each action and is
 * restarted, QEMUs that give up, die or say nothing, and a human who decides.  All worlds that can
 * be reached are visited: in none do both hosts run the guest, and from each there is a way on to
 * one where the job is over at both.
 *
 * The actions are modelled by what they journal, what they do, and what they may find out. */

#define ABSENT JOB_N_STATES /* there is no such job here */

enum /* where the guest is at the source */
{
  SRC_RUN,     /* or may be resumed by the agent: nothing was released */
  SRC_LEAVING, /* released: QEMU itself decides whether it comes back */
  SRC_STOPPED, /* all was sent; nothing but `cont` would bring it back */
  SRC_FENCED,
  SRC_GONE
};

enum /* and at the destination */
{
  DST_HELD, /* nothing, or paused */
  DST_RUNS,
  DST_DEAD
};

enum /* journals and words, as bits */
{
  BEGUN = 1,
  RELEASED = 2,
  FENCED = 4,
  UNFENCED = 8,
  OWNER = 16,
  NEVER = 32,
  UNDONE = 64
};

enum
{
  NOBODY,
  TO_SOURCE,
  TO_DESTINATION
};

typedef struct
{
  guint8 state, action, step; /* of the agent; `step`: how far the action is */
  guint8 journal;
  guint8 crashes; /* that it may still have */
  guint8 resolved;
} Side;

typedef struct
{
  Side s, d;
  guint8 src, dst;
  guint8 stream;       /* the destination has all of the guest */
  guint8 may_have_run; /* the destination's agent can't rule it out */
  guint8 said;         /* by the destination: RELEASED, OWNER, NEVER, UNDONE */
  guint8 lost;         /* for the destination's agent: bits 1 (peer), 2 (QEMU) */
  guint8 human;
  guint8 sent; /* bits: commands that may arrive at any time, any number of times */
} World;

G_STATIC_ASSERT (JOB_N_EVENTS - JOB_EVENT_COPY <= 8);

typedef struct
{
  GHashTable *seen;  /* World -> its number plus one */
  GPtrArray *worlds; /* World */
  GArray *edges;     /* Edge */
  guint from;
} Walk;

typedef struct
{
  guint from, to;
} Edge;

static guint
world_hash (gconstpointer key)
{
  const guint8 *bytes = key;
  guint hash = 5381;

  for (gsize i = 0; i < sizeof (World); i++)
    hash = hash * 33 + bytes[i];
  return hash;
}

static gboolean
world_equal (gconstpointer a, gconstpointer b)
{
  return memcmp (a, b, sizeof (World)) == 0;
}

static gboolean
is_over (const Side *side)
{
  return side->state == ABSENT || job_state_is_final (side->state);
}

static void
check (const World *w)
{
  const char *wrong = NULL;

  if ((w->src == SRC_RUN || w->src == SRC_LEAVING) && w->dst == DST_RUNS)
    wrong = "the guest can run on both hosts";
  else if (w->human == NOBODY && w->dst == DST_RUNS && w->src != SRC_FENCED && w->src != SRC_GONE)
    wrong = "the guest runs at the destination and isn't fenced at the source";
  else if (w->s.state == JOB_DONE && w->dst == DST_HELD && w->human == NOBODY)
    wrong = "done, and nobody runs the guest";
  else if ((w->s.state == JOB_FAILED || w->s.state == JOB_CANCELLED) && w->src == SRC_STOPPED)
    wrong = "over at the source, and the guest stands still";
  if (wrong)
    fail_msg ("%s: source %s (guest %u, journal %02x), destination %s (guest %u, journal %02x), "
              "said %02x, human %u",
              wrong, w->s.state < ABSENT ? job_state_to_string (w->s.state) : "-", w->src,
              w->s.journal, w->d.state < ABSENT ? job_state_to_string (w->d.state) : "-", w->dst,
              w->d.journal, w->said, w->human);
}

static void
go (Walk *walk, const World *w)
{
  guint n = GPOINTER_TO_UINT (g_hash_table_lookup (walk->seen, w));
  Edge edge;

  if (n == 0)
    {
      World *copy = g_memdup2 (w, sizeof *w);

      check (w);
      g_ptr_array_add (walk->worlds, copy);
      n = walk->worlds->len;
      g_hash_table_insert (walk->seen, copy, GUINT_TO_POINTER (n));
    }
  edge = (Edge){ walk->from, n - 1 };
  g_array_append_val (walk->edges, edge);
}

/* Carries a step of the table out, as job.c does; TRUE: something changed. */
static gboolean
enter (World *w, JobRole role, JobStep step)
{
  Side *side = role == JOB_SOURCE ? &w->s : &w->d;

  if (step.action >= JOB_ACTION_IGNORE && step.action <= JOB_ACTION_NEVER)
    return FALSE;
  side->state = step.state;
  side->step = 0;
  side->action = step.action;
  if (step.action == JOB_ACTION_END || step.action == JOB_ACTION_TELL
      || step.action == JOB_ACTION_FORGET)
    {
      side->action = JOB_ACTION_NONE;
      side->journal = step.action == JOB_ACTION_TELL ? side->journal : 0;
    }
  for (guint bit = 1; role == JOB_DESTINATION && bit <= 2; bit <<= 1)
    if (w->lost & bit)
      {
        JobEvent event = bit == 1 ? JOB_EVENT_PEER_LOST : JOB_EVENT_QEMU_LOST;
        if (!job_state_is_final (side->state)
            && enter (w, role, job_table_step (role, side->state, event)))
          break;
      }
  return TRUE;
}

/* The action of this side ends with `event`. */
static void
ends (Walk *walk, World w, JobRole role, JobEvent event)
{
  Side *side = role == JOB_SOURCE ? &w.s : &w.d;

  side->action = JOB_ACTION_NONE;
  enter (&w, role, job_table_step (role, side->state, event));
  go (walk, &w);
}

static void
send (World *w, JobEvent command)
{
  if (command == JOB_EVENT_START
      && ((w->s.journal & (FENCED | UNFENCED)) != FENCED || w->src < SRC_FENCED))
    fail_msg ("start is said by a source that is not fenced, or whose journal doesn't say so");
  w->sent |= 1u << (command - JOB_EVENT_COPY);
}

/* What the source's action `ask` finds. */
static void
source_asks (Walk *walk, World w)
{
  if ((w.s.journal & FENCED) && !(w.s.journal & UNFENCED))
    {
      send (&w, JOB_EVENT_START);
      go (walk, &w);
      if (w.said & OWNER)
        {
          w.s.journal |= OWNER;
          ends (walk, w, JOB_SOURCE, JOB_EVENT_OWNED);
        }
      else if (w.said & NEVER)
        ends (walk, w, JOB_SOURCE, JOB_EVENT_NEVER);
      return;
    }
  if (w.src == SRC_STOPPED || w.src == SRC_FENCED)
    ends (walk, w, JOB_SOURCE, JOB_EVENT_DONE);
  else if (w.src == SRC_RUN)
    ends (walk, w, JOB_SOURCE, JOB_EVENT_FAILED);
  else if (w.d.state == JOB_OWNER || w.d.state == JOB_DONE)
    ends (walk, w, JOB_SOURCE, JOB_EVENT_OWNED);
  else if (w.d.state == JOB_FAILED || w.d.state == JOB_CANCELLED)
    ends (walk, w, JOB_SOURCE, JOB_EVENT_NEVER);
}

static void
source_recovers (Walk *walk, World w)
{
  if (w.s.journal & UNDONE)
    ends (walk, w, JOB_SOURCE, JOB_EVENT_FAILED);
  else if (w.s.journal & OWNER)
    ends (walk, w, JOB_SOURCE, JOB_EVENT_OWNED);
  else if ((w.s.journal & FENCED) && !(w.s.journal & UNFENCED))
    ends (walk, w, JOB_SOURCE, JOB_EVENT_FENCED);
  else if (w.s.journal & UNFENCED)
    ends (walk, w, JOB_SOURCE, JOB_EVENT_NEVER);
  else if (!(w.s.journal & RELEASED) || w.src == SRC_RUN)
    ends (walk, w, JOB_SOURCE, JOB_EVENT_FAILED);
  else if (w.src == SRC_STOPPED || w.src == SRC_FENCED)
    ends (walk, w, JOB_SOURCE, JOB_EVENT_DONE);
  else
    /* Gone while nobody watched, or it says nothing. */
    ends (walk, w, JOB_SOURCE, JOB_EVENT_UNKNOWN);
}

static void
source_copies (Walk *walk, World w)
{
  static const JobState wanted[JOB_N_ACTIONS] = { [JOB_ACTION_PREPARE] = JOB_PREPARED,
                                                  [JOB_ACTION_SEED] = JOB_PREPARED,
                                                  [JOB_ACTION_CONVERGE] = JOB_PREPARED,
                                                  [JOB_ACTION_CUTOVER] = JOB_INCOMING };
  gboolean good = w.s.action == JOB_ACTION_LAST_PASS ? (w.said & RELEASED) != 0
                                                     : w.d.state == wanted[w.s.action];

  if (w.s.step > 0)
    {
      ends (walk, w, JOB_SOURCE, JOB_EVENT_FAILED);
      if (good)
        ends (walk, w, JOB_SOURCE, JOB_EVENT_DONE);
      return;
    }
  w.s.step = 1;
  if (w.s.action == JOB_ACTION_PREPARE)
    {
      w.s.journal |= BEGUN;
      w.d.state = JOB_PREPARING;
      w.d.action = JOB_ACTION_PREPARE;
      w.d.journal = BEGUN;
    }
  else
    send (&w, JOB_EVENT_COPY);
  if (w.s.action == JOB_ACTION_CUTOVER)
    send (&w, JOB_EVENT_LISTEN);
  if (w.s.action == JOB_ACTION_LAST_PASS)
    send (&w, JOB_EVENT_RELEASE);
  go (walk, &w);
}

static void
source_releases (Walk *walk, World w)
{
  if (w.s.step == 0)
    {
      ends (walk, w, JOB_SOURCE, JOB_EVENT_FAILED);
      w.s.step = 1;
      w.s.journal |= RELEASED;
      w.src = SRC_LEAVING;
      go (walk, &w);
      return;
    }
  ends (walk, w, JOB_SOURCE, JOB_EVENT_UNKNOWN);
  if (w.src == SRC_STOPPED)
    ends (walk, w, JOB_SOURCE, JOB_EVENT_DONE);
  else if (w.src == SRC_RUN)
    ends (walk, w, JOB_SOURCE, JOB_EVENT_FAILED);
  else if (w.src == SRC_GONE)
    {
      w.s.journal |= FENCED;
      ends (walk, w, JOB_SOURCE, JOB_EVENT_FENCED);
    }
}

static void
source_fences (Walk *walk, World w)
{
  ends (walk, w, JOB_SOURCE, JOB_EVENT_UNKNOWN);
  if (w.src == SRC_RUN)
    {
      ends (walk, w, JOB_SOURCE, JOB_EVENT_FAILED);
      return;
    }
  if (w.src == SRC_STOPPED)
    {
      w.src = SRC_FENCED;
      go (walk, &w);
    }
  else if (w.src != SRC_LEAVING)
    {
      w.s.journal = (w.s.journal | FENCED) & ~UNFENCED;
      ends (walk, w, JOB_SOURCE, JOB_EVENT_DONE);
    }
}

static void
source_starts (Walk *walk, World w)
{
  send (&w, JOB_EVENT_START);
  go (walk, &w);
  ends (walk, w, JOB_SOURCE, JOB_EVENT_UNKNOWN);
  if (w.said & OWNER)
    {
      w.s.journal |= OWNER;
      ends (walk, w, JOB_SOURCE, JOB_EVENT_DONE);
    }
  else if (w.said & NEVER)
    ends (walk, w, JOB_SOURCE, JOB_EVENT_NEVER);
}

/* Where a human gave it to the source, the destination has to promise first; one that can't be
 * asked has been told by the same human. */
static void
source_unfences (Walk *walk, World w)
{
  gboolean promised = (w.said & (NEVER | UNDONE)) || w.d.state == JOB_FAILED
                      || w.d.state == JOB_CANCELLED || w.d.state == ABSENT;

  if (w.s.step == 0 && w.s.resolved && !promised)
    {
      send (&w, JOB_EVENT_ABORT);
      go (walk, &w);
      ends (walk, w, JOB_SOURCE, w.said & OWNER ? JOB_EVENT_OWNED : JOB_EVENT_UNKNOWN);
      return;
    }
  if (w.s.step == 0)
    {
      w.s.step = 1;
      w.s.journal |= UNFENCED;
      go (walk, &w);
      return;
    }
  if (w.src == SRC_STOPPED || w.src == SRC_FENCED || w.src == SRC_RUN)
    {
      w.src = SRC_RUN;
      ends (walk, w, JOB_SOURCE, JOB_EVENT_DONE);
    }
  else if (w.src == SRC_GONE)
    ends (walk, w, JOB_SOURCE, JOB_EVENT_FAILED);
}

static void
source_acts (Walk *walk, World w)
{
  switch (w.s.action)
    {
    case JOB_ACTION_NONE:
      break;
    case JOB_ACTION_CHECK:
      ends (walk, w, JOB_SOURCE, JOB_EVENT_DONE);
      ends (walk, w, JOB_SOURCE, JOB_EVENT_FAILED);
      break;
    case JOB_ACTION_RELEASE:
      source_releases (walk, w);
      break;
    case JOB_ACTION_FENCE:
      source_fences (walk, w);
      break;
    case JOB_ACTION_START:
      source_starts (walk, w);
      break;
    case JOB_ACTION_ASK:
      source_asks (walk, w);
      break;
    case JOB_ACTION_UNFENCE:
      source_unfences (walk, w);
      break;
    case JOB_ACTION_RECOVER:
      source_recovers (walk, w);
      break;
    case JOB_ACTION_FINISH:
      if (w.src != SRC_RUN)
        w.src = SRC_GONE;
      send (&w, JOB_EVENT_FINISH);
      ends (walk, w, JOB_SOURCE, JOB_EVENT_DONE);
      ends (walk, w, JOB_SOURCE, JOB_EVENT_UNTOLD);
      break;
    case JOB_ACTION_UNDO:
      send (&w, JOB_EVENT_ABORT);
      ends (walk, w, JOB_SOURCE, JOB_EVENT_DONE);
      w.s.journal |= UNDONE;
      ends (walk, w, JOB_SOURCE, JOB_EVENT_UNTOLD);
      break;
    default:
      source_copies (walk, w);
      break;
    }
}

static void
destination_cant_start (Walk *walk, World w)
{
  if (!w.may_have_run)
    {
      w.d.journal |= NEVER;
      w.said |= NEVER;
      ends (walk, w, JOB_DESTINATION, JOB_EVENT_NEVER);
    }
  else
    ends (walk, w, JOB_DESTINATION, JOB_EVENT_UNKNOWN);
}

static void
destination_starts (Walk *walk, World w)
{
  if (w.d.step == 0)
    {
      if (w.d.resolved && w.may_have_run && w.dst == DST_DEAD)
        ends (walk, w, JOB_DESTINATION, JOB_EVENT_DONE);
      else
        destination_cant_start (walk, w);
      if (w.dst == DST_DEAD || !w.stream)
        return;
      w.d.step = 1;
      w.d.journal |= OWNER;
      go (walk, &w);
      return;
    }
  /* It died over it, before or after the guest ran, or doesn't answer. */
  w.may_have_run = TRUE;
  ends (walk, w, JOB_DESTINATION, JOB_EVENT_UNKNOWN);
  w.may_have_run = FALSE;
  if (w.dst != DST_RUNS)
    destination_cant_start (walk, w);
  if (w.dst == DST_DEAD)
    return;
  w.dst = DST_RUNS;
  go (walk, &w);
  w.said |= OWNER;
  ends (walk, w, JOB_DESTINATION, JOB_EVENT_DONE);
}

static void
destination_recovers (Walk *walk, World w)
{
  if ((w.d.journal & NEVER) || !(w.d.journal & RELEASED))
    ends (walk, w, JOB_DESTINATION, JOB_EVENT_FAILED);
  else if (!(w.d.journal & OWNER))
    ends (walk, w, JOB_DESTINATION, JOB_EVENT_DONE);
  else
    {
      w.may_have_run = TRUE;
      ends (walk, w, JOB_DESTINATION, w.dst == DST_HELD ? JOB_EVENT_FENCED : JOB_EVENT_OWNED);
    }
}

static void
destination_acts (Walk *walk, World w)
{
  switch (w.d.action)
    {
    case JOB_ACTION_NONE:
      break;
    case JOB_ACTION_START:
      destination_starts (walk, w);
      break;
    case JOB_ACTION_RECOVER:
      destination_recovers (walk, w);
      break;
    case JOB_ACTION_ASK:
      if (!w.may_have_run && w.dst == DST_DEAD)
        ends (walk, w, JOB_DESTINATION, JOB_EVENT_NEVER);
      break;
    case JOB_ACTION_FINISH:
      ends (walk, w, JOB_DESTINATION, JOB_EVENT_DONE);
      break;
    case JOB_ACTION_UNDO:
      if (w.may_have_run && w.dst != DST_DEAD)
        ends (walk, w, JOB_DESTINATION, JOB_EVENT_UNKNOWN);
      if (w.may_have_run && w.dst == DST_RUNS)
        {
          w.said |= OWNER;
          ends (walk, w, JOB_DESTINATION, JOB_EVENT_OWNED);
          break;
        }
      if (w.d.journal & RELEASED)
        w.said |= NEVER;
      if (w.dst == DST_HELD)
        w.dst = DST_DEAD;
      w.said |= UNDONE;
      ends (walk, w, JOB_DESTINATION, JOB_EVENT_DONE);
      break;
    case JOB_ACTION_RELEASE:
      ends (walk, w, JOB_DESTINATION, JOB_EVENT_FAILED);
      w.d.journal |= RELEASED;
      w.said |= RELEASED;
      ends (walk, w, JOB_DESTINATION, JOB_EVENT_DONE);
      break;
    default:
      ends (walk, w, JOB_DESTINATION, JOB_EVENT_DONE);
      ends (walk, w, JOB_DESTINATION, JOB_EVENT_FAILED);
      break;
    }
}

static void
deliver (Walk *walk, World w, JobEvent command)
{
  JobStep step;

  if (w.d.state == ABSENT)
    return;
  w.lost &= ~1;
  step = job_table_step (JOB_DESTINATION, w.d.state, command);
  if (command == JOB_EVENT_START && step.action == JOB_ACTION_AGAIN)
    w.said |= OWNER;
  if (step.action == JOB_ACTION_NEVER)
    w.said |= NEVER;
  if (command == JOB_EVENT_ABORT && step.action == JOB_ACTION_AGAIN)
    w.said |= UNDONE;
  if (command == JOB_EVENT_ABORT && step.action == JOB_ACTION_TOO_LATE)
    w.said |= OWNER;
  w.d.resolved = FALSE;
  enter (&w, JOB_DESTINATION, step);
  go (walk, &w);
}

static void
happens (Walk *walk, World w, JobRole role, JobEvent event)
{
  Side *side = role == JOB_SOURCE ? &w.s : &w.d;

  if (is_over (side) || side->state == JOB_RECOVERING)
    return;
  if (role == JOB_DESTINATION && event != JOB_EVENT_CANCEL)
    w.lost |= event == JOB_EVENT_PEER_LOST ? 1 : 2;
  enter (&w, role, job_table_step (role, side->state, event));
  go (walk, &w);
}

static void
crash (Walk *walk, World w, JobRole role)
{
  Side *side = role == JOB_SOURCE ? &w.s : &w.d;

  if (side->state == ABSENT || side->crashes == 0)
    return;
  side->crashes--;
  side->step = side->resolved = 0;
  side->action = side->journal ? JOB_ACTION_RECOVER : JOB_ACTION_NONE;
  side->state = side->journal ? JOB_RECOVERING : ABSENT;
  if (role == JOB_DESTINATION)
    w.lost = w.may_have_run = 0;
  go (walk, &w);
}

/* What QEMUs do by themselves. */
static void
nature (Walk *walk, World w)
{
  World other = w;

  if (w.src == SRC_LEAVING)
    {
      other.src = SRC_RUN;
      go (walk, &other);
      other.src = SRC_STOPPED;
      other.stream = TRUE;
      go (walk, &other);
      other.src = SRC_GONE;
      go (walk, &other);
      other.stream = w.stream;
      go (walk, &other);
    }
  other = w;
  if (w.dst == DST_HELD && (w.d.journal & RELEASED))
    {
      other.dst = DST_DEAD;
      if (w.d.action == JOB_ACTION_START && w.d.step > 0)
        go (walk, &other); /* it isn't watched any more */
      else if (is_over (&w.d) || w.d.state == JOB_RECOVERING || w.may_have_run)
        go (walk, &other);
      else
        happens (walk, other, JOB_DESTINATION, JOB_EVENT_QEMU_LOST);
    }
}

static void
resolve (Walk *walk, World w, JobRole role, guint8 owner)
{
  Side *side = role == JOB_SOURCE ? &w.s : &w.d;
  JobStep step = job_table_step (role, side->state,
                                 owner == TO_SOURCE ? JOB_EVENT_RESOLVE_SOURCE
                                                    : JOB_EVENT_RESOLVE_DESTINATION);

  if (w.human != NOBODY && w.human != owner)
    return;
  w.human = owner;
  side->resolved = TRUE;
  if (enter (&w, role, step))
    go (walk, &w);
}

/* A human looks first, decides once, and tells both hosts. */
static void
humans (Walk *walk, World w)
{
  gboolean can_be_here = w.human == TO_DESTINATION || w.dst == DST_RUNS
                         || (w.dst == DST_HELD && w.stream)
                         || (w.dst == DST_DEAD && w.may_have_run);

  if (w.d.state < ABSENT)
    {
      if (w.dst != DST_RUNS)
        resolve (walk, w, JOB_DESTINATION, TO_SOURCE);
      if (can_be_here && w.src != SRC_RUN && w.src != SRC_LEAVING)
        resolve (walk, w, JOB_DESTINATION, TO_DESTINATION);
    }
  if (w.s.state < ABSENT)
    {
      if (w.dst != DST_RUNS)
        resolve (walk, w, JOB_SOURCE, TO_SOURCE);
      if (can_be_here && w.src != SRC_RUN && w.src != SRC_LEAVING)
        resolve (walk, w, JOB_SOURCE, TO_DESTINATION);
    }
}

static void
visit (Walk *walk, World w)
{
  source_acts (walk, w);
  destination_acts (walk, w);
  for (JobEvent command = JOB_EVENT_COPY; command < JOB_N_EVENTS; command++)
    if (w.sent & (1u << (command - JOB_EVENT_COPY)))
      deliver (walk, w, command);
  happens (walk, w, JOB_SOURCE, JOB_EVENT_PEER_LOST);
  happens (walk, w, JOB_SOURCE, JOB_EVENT_CANCEL);
  happens (walk, w, JOB_DESTINATION, JOB_EVENT_PEER_LOST);
  happens (walk, w, JOB_DESTINATION, JOB_EVENT_CANCEL);
  crash (walk, w, JOB_SOURCE);
  crash (walk, w, JOB_DESTINATION);
  nature (walk, w);
  humans (walk, w);
}

static Walk *
walk_all (guint crashes_s, guint crashes_d)
{
  Walk *walk = g_new0 (Walk, 1);
  World first
      = { .s = { .state = JOB_CHECKING, .action = JOB_ACTION_CHECK }, .d = { .state = ABSENT } };

  first.s.crashes = crashes_s;
  first.d.crashes = crashes_d;
  walk->seen = g_hash_table_new (world_hash, world_equal);
  walk->worlds = g_ptr_array_new_with_free_func (g_free);
  walk->edges = g_array_new (FALSE, FALSE, sizeof (Edge));
  go (walk, &first);
  for (walk->from = 0; walk->from < walk->worlds->len; walk->from++)
    visit (walk, *(World *)g_ptr_array_index (walk->worlds, walk->from));
  return walk;
}

static void
walk_free (Walk *walk)
{
  g_hash_table_unref (walk->seen);
  g_ptr_array_unref (walk->worlds);
  g_array_unref (walk->edges);
  g_free (walk);
}

/* Backwards from the worlds where it is over at both. */
static void
check_ends (Walk *walk)
{
  g_autofree gboolean *ends_well = g_new0 (gboolean, walk->worlds->len);
  gboolean changed = TRUE;

  for (guint i = 0; i < walk->worlds->len; i++)
    {
      const World *w = g_ptr_array_index (walk->worlds, i);
      ends_well[i] = is_over (&w->s) && is_over (&w->d);
    }
  while (changed)
    {
      changed = FALSE;
      for (guint i = walk->edges->len; i-- > 0;)
        {
          Edge edge = g_array_index (walk->edges, Edge, i);
          if (!ends_well[edge.from] && ends_well[edge.to])
            changed = ends_well[edge.from] = TRUE;
        }
    }
  for (guint i = 0; i < walk->worlds->len; i++)
    {
      const World *w = g_ptr_array_index (walk->worlds, i);
      if (!ends_well[i])
        fail_msg ("no way on: source %s (guest %u, journal %02x), destination %s (guest %u, "
                  "journal %02x), said %02x, human %u",
                  w->s.state < ABSENT ? job_state_to_string (w->s.state) : "-", w->src,
                  w->s.journal, w->d.state < ABSENT ? job_state_to_string (w->d.state) : "-",
                  w->dst, w->d.journal, w->said, w->human);
    }
}

static void
check_walk (guint crashes_s, guint crashes_d)
{
  Walk *walk = walk_all (crashes_s, crashes_d);

  print_message ("%u worlds, %u steps\n", walk->worlds->len, walk->edges->len);
  check_ends (walk);
  walk_free (walk);
}

static void
test_no_crash (void **state)
{
  check_walk (0, 0);
}

static void
test_source_crashes (void **state)
{
  check_walk (2, 0);
}

static void
test_destination_crashes (void **state)
{
  check_walk (0, 2);
}

static void
test_both_crash (void **state)
{
  check_walk (1, 1);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_no_crash),
    cmocka_unit_test (test_source_crashes),
    cmocka_unit_test (test_destination_crashes),
    cmocka_unit_test (test_both_crash),
  };

  return cmocka_run_group_tests_name ("job-product", tests, NULL, NULL);
}
