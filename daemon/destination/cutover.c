/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/destination/private.h"
#include "daemon/listener.h"
#include "qmp/json-client.h"

#define LISTEN_TRIES 8
#define LOAD_TIMEOUT_MS 30000
#define RESOLVED_TIMEOUT_MS 2000
#define CONT_TRIES 20
#define POLL_MS 50

static gboolean
pause_for (GCancellable *cancellable, gint64 ms, GError **error)
{
  Deadline deadline = deadline_in (ms, cancellable);
  g_autoptr (GError) ended = NULL;

  while (deadline_check (deadline, &ended))
    g_usleep (MIN (deadline_left_ms (deadline), 20) * 1000);
  if (g_error_matches (ended, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&ended));
  return FALSE;
}

/* The operator may start it at any time before the cutover: it is waited for. */
static Vm *
wait_for_vm (DestinationJob *job, GError **error)
{
  GCancellable *cancellable = job_cancellable (&job->base);
  Deadline deadline = deadline_in (job->timeout_ms, cancellable);

  for (;;)
    {
      g_autoptr (GError) absent = NULL;
      Vm *vm = destination_open_vm (job, &absent);

      if (vm)
        return vm;
      job_set_message (&job->base, "waiting for a QEMU at %s", job->base.qmp_path);
      if ((!g_error_matches (absent, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)
           && !g_error_matches (absent, G_IO_ERROR, G_IO_ERROR_CONNECTION_REFUSED))
          || !deadline_check (deadline, NULL))
        {
          g_propagate_prefixed_error (error, g_steal_pointer (&absent),
                                      "no QEMU that waits for the guest: ");
          return NULL;
        }
      if (!pause_for (cancellable, 200, error))
        return NULL;
    }
}

/* Nothing but TLS with the source's certificate can get in: QEMU's own word is taken for it before
 * it listens. */
static gboolean
secure_incoming (DestinationJob *job, GError **error)
{
  static const char *const capabilities[] = { "events", "late-block-activate", NULL };
  QmpExecutor *qmp = vm_get_executor (job->vm);
  GCancellable *cancellable = job_cancellable (&job->base);

  return qmp_tls_creds_add (qmp, job->tls_id, agent_get_qemu_tls_dir (job->base.agent), "server",
                            cancellable, error)
         && qmp_authz_add (qmp, job->authz_id, job->source_dn, cancellable, error)
         && qmp_migrate_set_capabilities (qmp, capabilities, TRUE, cancellable, error)
         && qmp_migrate_ensure_parameters (
             qmp, json_args ("tls-creds", "s", job->tls_id, "tls-authz", "s", job->authz_id, NULL),
             cancellable, error);
}

/* Another process can take the port between our look and QEMU's bind: the next one is tried. */
static gboolean
listen_incoming (DestinationJob *job, guint16 *ret_port, GError **error)
{
  const Config *config = agent_get_config (job->base.agent);
  GCancellable *cancellable = job_cancellable (&job->base);
  gboolean ipv6 = strchr (job->local_address, ':') != NULL;
  guint16 first = config->port_min;
  g_autoptr (GError) taken = NULL;

  for (guint i = 0; i < LISTEN_TRIES && first <= config->port_max; i++)
    {
      g_autofree char *uri = NULL;
      guint16 port;

      if (!listener_find_port (job->local_address, first, config->port_max, &port, error))
        return FALSE;
      uri = g_strdup_printf (ipv6 ? "tcp:[%s]:%u" : "tcp:%s:%u", job->local_address, port);
      g_clear_error (&taken);
      if (qmp_migrate_incoming (vm_get_executor (job->vm), uri, cancellable, &taken))
        {
          *ret_port = port;
          return TRUE;
        }
      first = port + 1;
    }
  g_propagate_error (error, g_steal_pointer (&taken));
  return FALSE;
}

JobEvent
destination_listen (Job *base, GError **error)
{
  DestinationJob *job = (DestinationJob *)base;
  QmpExecutor *qmp;
  guint16 port;

  if (destination_is_domain (job))
    return destination_open_gate (job, error);
  job->vm = wait_for_vm (job, error);
  if (!job->vm || !destination_check_vm (job, job->vm, error))
    return JOB_EVENT_FAILED;
  qmp = vm_get_executor (job->vm);
  /* Clears the autostart: only we start this guest. */
  if (!job_record (base, json_args ("record", "s", "listening", NULL), error)
      || !qmp_stop (qmp, job_cancellable (base), error) || !secure_incoming (job, error))
    return JOB_EVENT_FAILED;
  job->listening = TRUE;
  if (!listen_incoming (job, &port, error))
    return JOB_EVENT_FAILED;
  destination_watch_vm (job);
  base->answer = json_node_alloc ();
  json_node_init (base->answer, JSON_NODE_OBJECT);
  json_node_take_object (base->answer, json_args ("port", "i", (gint64)port, NULL));
  job_set_message (base, "waiting for the guest's memory");
  return JOB_EVENT_DONE;
}

gboolean
destination_close_writers (DestinationJob *job, GError **error)
{
  gboolean ok = TRUE;

  for (guint i = 0; i < job->disks->len; i++)
    {
      DestinationDisk *disk = destination_disk (job, i);

      g_mutex_lock (&job->base.lock);
      g_clear_pointer (&disk->mirror, mirror_free);
      g_mutex_unlock (&job->base.lock);
      if (disk->target && !image_close_writer (disk->image, ok ? error : NULL))
        ok = FALSE;
      disk->target = NULL;
    }
  return ok;
}

JobEvent
destination_release (Job *base, GError **error)
{
  DestinationJob *job = (DestinationJob *)base;

  if (base->command)
    json_get_bool (base->command, "paused", &job->paused);
  if ((destination_is_domain (job) && !destination_know_domain (job, error))
      || !destination_close_writers (job, error)
      || !job_record (base,
                      json_args ("record", "s", "released", "paused", "b", job->paused, "domain-id",
                                 "i", (gint64)job->domain_id, NULL),
                      error))
    return JOB_EVENT_FAILED;
  if (job->gate)
    ram_gate_set_patience (job->gate, SWITCHOVER_TIMEOUT_MS);
  job->released = TRUE;
  job_set_owner (base, JOB_OWNED_BY_UNKNOWN);
  job_set_message (base, "waiting for %s to hand the guest over", base->peer);
  return JOB_EVENT_DONE;
}

/* The journal says "never" before anybody is told: from then on the source may run the guest.  A
 * guest that may have run here is another one than the source's by now: that is for a human. */
static JobEvent
never (DestinationJob *job, const GError *why, GError **error)
{
  if (job->may_have_run)
    {
      g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                   "%s: the guest was being started and it can't be told whether it ran: %s",
                   job->base.qmp_path, why->message);
      return JOB_EVENT_UNKNOWN;
    }
  g_set_error (error, JOB_ERROR, JOB_ERROR_NEVER, "the guest can't be started at %s: %s",
               agent_get_host (job->base.agent), why->message);
  if (!job_record (&job->base, json_args ("record", "s", "never", NULL), NULL))
    return JOB_EVENT_UNKNOWN;
  job_set_owner (&job->base, JOB_OWNED_BY_SOURCE);
  return JOB_EVENT_NEVER;
}

/* Until the whole stream is loaded QEMU is inmigrate; then it is paused, because of our `stop`. */
static gboolean
wait_until_loaded (DestinationJob *job, gint64 timeout_ms, GError **error)
{
  QmpExecutor *qmp = vm_get_executor (job->vm);
  GCancellable *cancellable = job_cancellable (&job->base);
  Deadline deadline = deadline_in (timeout_ms, cancellable);
  VmEvents events;

  vm_get_events (job->vm, &events);
  for (;;)
    {
      g_autofree char *status = NULL;

      if (!qmp_query_status (qmp, cancellable, &status, NULL, error))
        return FALSE;
      if (!g_str_equal (status, "inmigrate"))
        return TRUE;
      if (!deadline_check (deadline, error))
        return FALSE;
      vm_wait_event (job->vm, &events, POLL_MS, cancellable, &events);
    }
}

/* A writer that was released just now can hold its lock for a moment more. */
static gboolean
run_guest (DestinationJob *job, GError **error)
{
  QmpExecutor *qmp = vm_get_executor (job->vm);
  g_autoptr (GError) failed = NULL;
  gboolean running = FALSE;

  for (guint i = 0; i < CONT_TRIES; i++)
    {
      g_clear_error (&failed);
      if (!qmp_query_status (qmp, NULL, NULL, &running, &failed))
        break;
      if (running || qmp_cont (qmp, NULL, &failed))
        return TRUE;
      g_usleep (POLL_MS * 1000);
    }
  g_propagate_error (error, g_steal_pointer (&failed));
  return FALSE;
}

/* QEMU said no each time: the guest never ran.  A QEMU that died over it may have run it. */
static JobEvent
start_failed (DestinationJob *job, const GError *failed, GError **error)
{
  VmEvents events;

  vm_get_events (job->vm, &events);
  if (events.resumes > 0 || !g_error_matches (failed, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_REPLY))
    job->may_have_run = TRUE;
  return never (job, failed, error);
}

static gboolean
vm_is_gone (DestinationJob *job)
{
  VmEvents events = { .closed = TRUE };

  if (job->vm)
    vm_get_events (job->vm, &events);
  return events.closed;
}

/* A human says that the guest ran here before its QEMU died: its disks are here now. */
static JobEvent
own_without_vm (DestinationJob *job)
{
  job_notice (&job->base, TRUE, "the guest belongs here and its QEMU is gone: start it again");
  job_set_owner (&job->base, JOB_OWNED_BY_DESTINATION);
  return JOB_EVENT_DONE;
}

/* A human chose this side, but it can't be: the choice is theirs again. */
static JobEvent
refuse_part (DestinationJob *job, const GError *why, GError **error)
{
  g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
               "only a part of the guest has come here, it can't run at %s: %s",
               agent_get_host (job->base.agent), why->message);
  return JOB_EVENT_UNKNOWN;
}

JobEvent
destination_start (Job *base, GError **error)
{
  DestinationJob *job = (DestinationJob *)base;
  g_autoptr (GError) failed = NULL;

  if (base->command)
    json_get_bool (base->command, "paused", &job->paused);
  if (destination_is_domain (job))
    return destination_start_domain (job, error);
  if (base->resolved && job->may_have_run && vm_is_gone (job))
    return own_without_vm (job);
  if (vm_is_gone (job))
    failed = g_error_new (JOB_ERROR, JOB_ERROR_FAILED, "the QEMU at %s is gone", base->qmp_path);
  if (!failed && base->resolved && !wait_until_loaded (job, RESOLVED_TIMEOUT_MS, &failed))
    return refuse_part (job, failed, error);
  if (failed || !wait_until_loaded (job, LOAD_TIMEOUT_MS, &failed))
    return never (job, failed, error);
  /* From here on the end of this QEMU is no proof that the guest never ran. */
  vm_set_lost_handler (job->vm, NULL, NULL);
  if (!job_record (base, json_args ("record", "s", "owner", "paused", "b", job->paused, NULL),
                   error))
    return JOB_EVENT_UNKNOWN;
  if (!job->paused && !run_guest (job, &failed))
    return start_failed (job, failed, error);
  /* Tells the switches where the guest is now; a machine without a network doesn't mind. */
  if (!job->paused)
    qmp_announce_self (vm_get_executor (job->vm), NULL, NULL);
  job_set_owner (base, JOB_OWNED_BY_DESTINATION);
  job_set_message (base,
                   job->paused ? "the guest is here, paused as it was" : "the guest runs here");
  return JOB_EVENT_DONE;
}

JobEvent
destination_finish (Job *base, GError **error)
{
  DestinationJob *job = (DestinationJob *)base;

  destination_clean_vm (job);
  if (destination_is_domain (job))
    destination_finish_domain (job);
  /* An ended job is remembered; its images must not stay open. */
  for (guint i = 0; i < job->disks->len; i++)
    g_clear_pointer (&destination_disk (job, i)->image, image_free);
  return JOB_EVENT_DONE;
}
