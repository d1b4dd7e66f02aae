/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/destination-private.h"

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

/* Nothing to do but to wait for the source's word; a QEMU that is gone answers the question. */
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
  if (!job->vm)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED, "the QEMU at %s is gone", base->qmp_path);
      return JOB_EVENT_NEVER;
    }
  destination_watch_vm (job);
  return JOB_EVENT_DONE;
}
