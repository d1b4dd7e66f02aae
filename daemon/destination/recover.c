/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/destination/private.h"

#define POLL_MS 500

/* The QEMU that we told to listen still has our objects; another one is none of ours. */
static gboolean
is_our_vm (DestinationJob *job, Vm *vm)
{
  gboolean ours = FALSE;

  return qmp_qom_list_has (vm_get_executor (vm), "/objects", job->tls_id, NULL, &ours, NULL)
         && ours;
}

static void
reopen_vm (DestinationJob *job)
{
  g_autoptr (Vm) vm = NULL;

  if (destination_is_domain (job))
    {
      job->listening = job_find_record (&job->base, "listening") != NULL;
      if (job_find_record (&job->base, "domain"))
        json_get_bool (job_find_record (&job->base, "domain"), "defined", &job->was_defined);
      return;
    }
  if (!job_find_record (&job->base, "listening") || !(vm = destination_open_vm (job, NULL))
      || !is_our_vm (job, vm))
    return;
  job->listening = TRUE;
  job->vm = g_steal_pointer (&vm);
}

/* What the journal proves about a job that a restart interrupted. */
JobEvent
destination_recover_action (Job *base, GError **error)
{
  DestinationJob *job = (DestinationJob *)base;
  gboolean running = FALSE;

  reopen_vm (job);
  if (job_find_record (base, "never") || !job_find_record (base, "released"))
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "the agent of %s was restarted",
                   agent_get_host (base->agent));
      return JOB_EVENT_FAILED;
    }
  job->released = TRUE;
  json_get_bool (job_find_record (base, "released"), "paused", &job->paused);
  if (destination_is_domain (job))
    return destination_recover_domain (job, error);
  if (!job_find_record (base, "owner"))
    {
      job_set_owner (base, JOB_OWNED_BY_UNKNOWN);
      return JOB_EVENT_DONE;
    }
  job->may_have_run = TRUE;
  job_set_owner (base, JOB_OWNED_BY_DESTINATION);
  if (job->vm && qmp_query_status (vm_get_executor (job->vm), NULL, NULL, &running, NULL)
      && !running)
    {
      base->command = json_object_ref (job_find_record (base, "owner"));
      return JOB_EVENT_FENCED;
    }
  return JOB_EVENT_OWNED;
}

/* A QEMU that is gone before the guest can have run in it answers the question. */
static JobEvent
wait_for_word (DestinationJob *job, GError **error)
{
  GCancellable *cancellable = job_cancellable (&job->base);
  VmEvents events = { .closed = TRUE };

  if (job->vm)
    vm_get_events (job->vm, &events);
  while (!g_cancellable_is_cancelled (cancellable) && !events.closed)
    vm_wait_event (job->vm, &events, POLL_MS, cancellable, &events);
  if (g_cancellable_set_error_if_cancelled (cancellable, error))
    return JOB_EVENT_UNKNOWN;
  g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "the QEMU at %s is gone", job->base.qmp_path);
  return JOB_EVENT_NEVER;
}

/* Nothing to do but to wait for the source's word, or for a human's. */
JobEvent
destination_ask (Job *base, GError **error)
{
  DestinationJob *job = (DestinationJob *)base;

  if (job->may_have_run)
    {
      job_set_message (
          base,
          "the guest was being started here, and it can't be told whether it ran: look "
          "at %s and at its disks, then vmferry resolve %s --owner "
          "destination|source, on both hosts",
          base->qmp_path, base->uuid);
      return JOB_EVENT_DONE;
    }
  job_set_message (base,
                   "released, and the word of %s that the guest is fenced there is missing: the "
                   "guest is held here, paused. When %s can't come back: vmferry resolve %s "
                   "--owner destination, on both hosts; to give it back: --owner source",
                   base->peer, base->peer, base->uuid);
  return destination_is_domain (job) ? destination_wait_domain (job, error)
                                     : wait_for_word (job, error);
}
