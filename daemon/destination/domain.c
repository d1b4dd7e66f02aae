/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/destination/private.h"

#include "daemon/libvirt/virt-ops.h"

/* Where libvirt starts the guest's other half: behind the gate. */
#define BEHIND "127.0.0.1"
#define CALL_TIMEOUT_MS 10000
#define LOAD_TIMEOUT_MS 30000
#define RESUME_TIMEOUT_MS 60000
#define GONE_TIMEOUT_MS 10000
#define RESUME_TRIES 20
#define POLL_MS 5
#define TRY_AGAIN_MS 50

gboolean
destination_is_domain (const DestinationJob *job)
{
  return job->domain_uuid != NULL;
}

static gboolean
get_state (DestinationJob *job, GCancellable *cancellable, VirtState *ret_state, GError **error)
{
  return virt_domain_get_state (job->domain, deadline_in (CALL_TIMEOUT_MS, cancellable), ret_state,
                                error);
}

static gboolean
is_off (const VirtState *now)
{
  return now->state == VIR_DOMAIN_NOSTATE || now->state == VIR_DOMAIN_SHUTOFF
         || now->state == VIR_DOMAIN_CRASHED;
}

/* The guest that came through the gate has gone: another start of the domain is somebody else's. */
static gboolean
is_gone (const DestinationJob *job, const VirtState *now)
{
  return is_off (now) || now->id != job->domain_id;
}

static gboolean
is_incoming (const VirtState *now)
{
  return now->state == VIR_DOMAIN_PAUSED && now->reason == VIR_DOMAIN_PAUSED_MIGRATION;
}

/* A domain of the peer's choice is touched later on: none that somebody uses. */
gboolean
destination_check_domain (DestinationJob *job, GError **error)
{
  VirtState now;

  if (!get_state (job, job_cancellable (&job->base), &now, error))
    return FALSE;
  job->was_defined = now.state != VIR_DOMAIN_NOSTATE;
  if (is_off (&now))
    return job_record (&job->base,
                       json_args ("record", "s", "domain", "defined", "b", job->was_defined, NULL),
                       error);
  g_set_error (error, JOB_ERROR, JOB_ERROR_BUSY,
               "the domain %s (%s) is active at %s already: shut it off there", job->base.guest,
               job->domain_uuid, agent_get_host (job->base.agent));
  return FALSE;
}

JobEvent
destination_open_gate (DestinationJob *job, GError **error)
{
  Job *base = &job->base;
  const Config *config = agent_get_config (base->agent);
  RamGate *gate;

  if (!job_record (base, json_args ("record", "s", "listening", NULL), error))
    return JOB_EVENT_FAILED;
  job->listening = TRUE;
  gate = ram_gate_new (job->local_address, BEHIND, config->port_min, config->port_max,
                       job->source_address, error);
  if (!gate)
    return JOB_EVENT_FAILED;
  g_mutex_lock (&base->lock);
  job->gate = gate;
  g_mutex_unlock (&base->lock);
  base->answer = json_node_alloc ();
  json_node_init (base->answer, JSON_NODE_OBJECT);
  json_node_take_object (base->answer,
                         json_args ("port", "i", (gint64)ram_gate_get_port (gate), NULL));
  job_set_message (base, "waiting for the guest's memory");
  return JOB_EVENT_DONE;
}

static void
close_gate (DestinationJob *job)
{
  RamGate *gate;

  g_mutex_lock (&job->base.lock);
  gate = g_steal_pointer (&job->gate);
  g_mutex_unlock (&job->base.lock);
  ram_gate_free (gate);
}

gboolean
destination_admit (Job *base, gint64 port, GError **error)
{
  DestinationJob *job = (DestinationJob *)base;
  gboolean there;

  g_mutex_lock (&base->lock);
  there = job->gate && base->state == JOB_INCOMING && port > 0 && port <= G_MAXUINT16;
  if (there)
    ram_gate_admit (job->gate, port);
  g_mutex_unlock (&base->lock);
  if (!there)
    g_set_error (error, JOB_ERROR, JOB_ERROR_BUSY, "job %.8s: no stream is waited for", base->uuid);
  return there;
}

gboolean
destination_let_go (Job *base, GError **error)
{
  DestinationJob *job = (DestinationJob *)base;
  gboolean gone = FALSE;

  g_mutex_lock (&base->lock);
  if (job->gate && base->state == JOB_RELEASED && job->released)
    gone = ram_gate_open (job->gate, error);
  else
    g_set_error (error, JOB_ERROR, JOB_ERROR_BUSY, "job %.8s: nothing is held for it", base->uuid);
  g_mutex_unlock (&base->lock);
  return gone;
}

/* While the stream is held, the domain is what comes through it: only that start of it is resumed
 * or destroyed, whatever a peer may have called it.  Without a stream in the gate it is what comes
 * from somebody else. */
gboolean
destination_know_domain (DestinationJob *job, GError **error)
{
  VirtState now;

  if (!job->gate || !ram_gate_is_holding (job->gate))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "no memory of %s is held at %s",
                   job->base.guest, agent_get_host (job->base.agent));
      return FALSE;
    }
  if (!get_state (job, job_cancellable (&job->base), &now, error))
    return FALSE;
  job->domain_id = now.id;
  if (is_incoming (&now))
    return TRUE;
  g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "libvirt has no incoming domain %s at %s",
               job->domain_uuid, agent_get_host (job->base.agent));
  return FALSE;
}

/* libvirt says "paused (migrating)" until it has the whole stream and has ended its part. */
static gboolean
wait_until_loaded (DestinationJob *job, VirtState *ret_now, GError **error)
{
  GCancellable *cancellable = job_cancellable (&job->base);
  Deadline deadline = deadline_in (LOAD_TIMEOUT_MS, cancellable);

  for (;;)
    {
      if (!get_state (job, cancellable, ret_now, error))
        return FALSE;
      if (!is_incoming (ret_now))
        return TRUE;
      if (!deadline_check (deadline, error))
        {
          g_prefix_error (error, "libvirt doesn't end the migration of %s: ", job->base.guest);
          return FALSE;
        }
      g_usleep (POLL_MS * 1000);
    }
}

/* A writer that was released just now can hold its lock for a moment more. */
static gboolean
resume (DestinationJob *job, GError **error)
{
  g_autoptr (GError) failed = NULL;
  VirtState now;

  for (guint i = 0; i < RESUME_TRIES; i++)
    {
      g_clear_error (&failed);
      if (virt_domain_resume (job->domain, deadline_in (RESUME_TIMEOUT_MS, NULL), &failed))
        return TRUE;
      if (get_state (job, NULL, &now, NULL) && now.state == VIR_DOMAIN_RUNNING)
        return TRUE;
      g_usleep (TRY_AGAIN_MS * 1000);
    }
  g_propagate_error (error, g_steal_pointer (&failed));
  return FALSE;
}

/* The journal says "never" before anybody is told: from then on the source may run the guest. */
static JobEvent
never (DestinationJob *job, GError **error)
{
  g_set_error (error, JOB_ERROR, JOB_ERROR_NEVER,
               "the guest can't be started at %s: libvirt has given it up there",
               agent_get_host (job->base.agent));
  if (job->may_have_run || !job_record (&job->base, json_args ("record", "s", "never", NULL), NULL))
    return JOB_EVENT_UNKNOWN;
  job_set_owner (&job->base, JOB_OWNED_BY_SOURCE);
  return JOB_EVENT_NEVER;
}

/* When libvirt has ended the source's QEMU, what is paused here is all that is left of the guest's
 * memory: it isn't thrown away because it can't be resumed. */
JobEvent
destination_start_domain (DestinationJob *job, GError **error)
{
  Job *base = &job->base;
  VirtState now;

  if (!wait_until_loaded (job, &now, error))
    return JOB_EVENT_UNKNOWN;
  if (is_gone (job, &now))
    return never (job, error);
  if (!job_record (base, json_args ("record", "s", "owner", "paused", "b", job->paused, NULL),
                   error))
    return JOB_EVENT_UNKNOWN;
  job->may_have_run = TRUE;
  if (!job->paused && now.state != VIR_DOMAIN_RUNNING && !resume (job, error))
    {
      g_prefix_error (error, "the guest is here, whole and paused, but can't be resumed: ");
      return JOB_EVENT_UNKNOWN;
    }
  job_set_owner (base, JOB_OWNED_BY_DESTINATION);
  job_set_message (base, job->paused ? "the guest is here, paused" : "the guest runs here");
  return JOB_EVENT_DONE;
}

void
destination_finish_domain (DestinationJob *job)
{
  close_gate (job);
}

/* Without an end of its stream libvirt gives the guest up by itself; one that came to its end, and
 * is not to be started, is destroyed.  Never one that runs, or that didn't come through the gate.
 */
JobEvent
destination_undo_domain (DestinationJob *job, GError **error)
{
  gint64 until = g_get_monotonic_time () + GONE_TIMEOUT_MS * 1000;
  VirtState now;

  close_gate (job);
  if (!job->listening)
    return JOB_EVENT_NEVER;
  do
    {
      g_autoptr (GError) failed = NULL;

      /* Before the release no answer is needed: nothing whole can have come. */
      if (!get_state (job, NULL, &now, &failed))
        {
          if (!job->released)
            return JOB_EVENT_NEVER;
          g_propagate_error (error, g_steal_pointer (&failed));
          return JOB_EVENT_UNKNOWN;
        }
      if (!is_incoming (&now))
        break;
      g_usleep (POLL_MS * 1000);
    }
  while (g_get_monotonic_time () < until);
  if (!job->released || is_gone (job, &now))
    return JOB_EVENT_NEVER;
  if (now.state != VIR_DOMAIN_PAUSED)
    {
      job_set_owner (&job->base, JOB_OWNED_BY_DESTINATION);
      g_set_error (error, JOB_ERROR, JOB_ERROR_TOO_LATE, "too late: the guest runs at %s",
                   agent_get_host (job->base.agent));
      return JOB_EVENT_OWNED;
    }
  return virt_domain_destroy_paused (job->domain, !job->was_defined,
                                     deadline_in (CALL_TIMEOUT_MS, NULL), error)
             ? JOB_EVENT_NEVER
             : JOB_EVENT_UNKNOWN;
}

/* What the journal and libvirt say after a restart, of a job that had been released. */
JobEvent
destination_recover_domain (DestinationJob *job, GError **error)
{
  JsonObject *owner = job_find_record (&job->base, "owner");
  gint64 id = 0;
  VirtState now;

  json_get_int (job_find_record (&job->base, "released"), "domain-id", &id);
  job->domain_id = id;
  if (!owner)
    {
      job_set_owner (&job->base, JOB_OWNED_BY_UNKNOWN);
      return JOB_EVENT_DONE;
    }
  job->may_have_run = TRUE;
  job_set_owner (&job->base, JOB_OWNED_BY_DESTINATION);
  if (get_state (job, NULL, &now, NULL) && (now.state != VIR_DOMAIN_PAUSED || is_gone (job, &now)))
    return JOB_EVENT_OWNED;
  job->base.command = json_object_ref (owner);
  return JOB_EVENT_FENCED;
}

/* Waits for the source's word, or a human's.  A domain that is gone before it can have been resumed
 * answers the question. */
JobEvent
destination_wait_domain (DestinationJob *job, GError **error)
{
  GCancellable *cancellable = job_cancellable (&job->base);
  VirtState now;

  while (!g_cancellable_is_cancelled (cancellable))
    {
      if (get_state (job, cancellable, &now, NULL) && is_gone (job, &now))
        {
          g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "libvirt has given up %s here",
                       job->base.guest);
          return JOB_EVENT_NEVER;
        }
      deadline_poll (deadline_in (TRY_AGAIN_MS * 10, cancellable), -1, 0, NULL);
    }
  g_cancellable_set_error_if_cancelled (cancellable, error);
  return JOB_EVENT_UNKNOWN;
}
