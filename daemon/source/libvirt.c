/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/source/private.h"

#include "daemon/libvirt/virt-move.h"
#include "daemon/libvirt/virt-ops.h"
#include "daemon/root-socket.h"
#include "daemon/sock-diag.h"

#define CALL_TIMEOUT_MS 10000
#define MIGRATED_TIMEOUT_MS 10000
#define QUIT_TIMEOUT_MS 10000
#define MOVE_TIMEOUT_MS 5000
/* libvirt starts a QEMU at the destination first. */
#define BEGIN_TIMEOUT_MS 30000
/* The guest stands still meanwhile. */
#define HANDSHAKE_TIMEOUT_MS 3000
#define RESTORE_TIMEOUT_MS 60000
/* libvirt's keepalive gives a dead network up after 30 s. */
#define MOVE_ENDS_TIMEOUT_MS 45000
#define LIBVIRT_TIMEOUT_MS 30000
#define AWAIT_POLL_MS 100
#define ABORT_TIMEOUT_MS 3000
#define ABORT_AGAIN_MS 200
#define POLL_MS 5
/* Behind the gate; the destination's agent forwards to there. */
#define LISTEN_ADDRESS "127.0.0.1"

gboolean
source_is_domain (const SourceJob *job)
{
  return job->libvirt.uri != NULL;
}

void
source_libvirt_clear (SourceLibvirt *libvirt)
{
  g_free (libvirt->uri);
  g_free (libvirt->desturi);
  g_free (libvirt->dname);
  g_free (libvirt->tls_destination);
  domain_xml_free (libvirt->domain);
  virt_call_unref (libvirt->move);
}

Vm *
source_open_vm (SourceJob *job, gint64 timeout_ms, GError **error)
{
  Deadline deadline = deadline_in (timeout_ms, job_cancellable (&job->base));

  return source_is_domain (job)
             ? vm_open_domain (job->libvirt.uri, job->base.guest, deadline, error)
             : vm_open (job->base.qmp_path, deadline, error);
}

static Deadline
call_deadline (SourceJob *job)
{
  return deadline_in (CALL_TIMEOUT_MS, job_cancellable (&job->base));
}

gboolean
source_check_domain (SourceJob *job, GError **error)
{
  VirtDomain *domain = vm_get_domain (job->vm);
  g_autofree char *xml = NULL;

  if (!domain)
    return TRUE;
  xml = virt_domain_get_xml (domain, 0, call_deadline (job), error);
  if (!xml || !(job->libvirt.domain = domain_xml_parse (xml, error))
      || !virt_domain_check_metadata (domain, call_deadline (job), error))
    return FALSE;
  for (guint i = 0; i < job->libvirt.domain->stay->len; i++)
    job_notice (&job->base, FALSE, "the read-only medium of %s is not moved: it must be at %s, too",
                (const char *)job->libvirt.domain->stay->pdata[i], job->base.peer);
  return TRUE;
}

/* --------------------------------------------------------------- the cutover */

static char *
destination_xml (SourceJob *job, guint flags, GError **error)
{
  g_autofree char *xml = virt_domain_get_xml (
      vm_get_domain (job->vm), flags | VIR_DOMAIN_XML_SECURE | VIR_DOMAIN_XML_MIGRATABLE,
      call_deadline (job), error);
  g_autofree DomainXmlMove *moves = g_new0 (DomainXmlMove, job->disks->len);

  for (guint i = 0; i < job->disks->len; i++)
    moves[i] = (DomainXmlMove){ source_disk (job, i)->name, source_disk (job, i)->path,
                                source_disk (job, i)->format };
  return xml ? domain_xml_for_destination (xml, moves, job->disks->len, job->libvirt.dname, error)
             : NULL;
}

/* Whoever starts what is stale by itself when the host boots would run the guest twice. */
static gboolean
take_autostart (SourceJob *job, GError **error)
{
  VirtDomain *domain = vm_get_domain (job->vm);
  gboolean autostart = FALSE;

  if (!virt_domain_get_autostart (domain, call_deadline (job), &autostart, error))
    return FALSE;
  if (!autostart)
    return TRUE;
  if (!job_record (&job->base, json_args ("record", "s", "autostart", NULL), error))
    return FALSE;
  job->libvirt.autostart_taken = TRUE;
  return virt_domain_set_autostart (domain, FALSE, call_deadline (job), error);
}

static gboolean
begin_call (SourceJob *job, guint16 port, GError **error)
{
  const SourceLibvirt *libvirt = &job->libvirt;
  const char *address = peer_link_get_remote_address (job->link);
  g_autofree char *uri
      = g_strdup_printf (strchr (address, ':') ? "tcp:[%s]:%u" : "tcp:%s:%u", address, port);
  g_autofree char *xml = destination_xml (job, 0, error);
  g_autofree char *persistent
      = xml && libvirt->persistent ? destination_xml (job, VIR_DOMAIN_XML_INACTIVE, error) : NULL;
  VirtMove move = {
    .desturi = libvirt->desturi,
    .migrate_uri = uri,
    .listen_address = LISTEN_ADDRESS,
    .tls_destination
    = libvirt->tls_destination ? libvirt->tls_destination : peer_link_get_name (job->link),
    .xml = xml,
    .persistent_xml = persistent,
    .name = libvirt->dname,
    .bandwidth_mib_s = libvirt->bandwidth,
    .persistent = libvirt->persistent,
    .auto_converge = libvirt->auto_converge,
  };

  if (!xml || (libvirt->persistent && !persistent))
    return FALSE;
  if (job->rate > 0 && move.bandwidth_mib_s == 0)
    move.bandwidth_mib_s = MAX (source_ram_bandwidth (job) >> 20, 1);
  job->libvirt.move = virt_move_begin (libvirt->uri, libvirt->domain->uuid, &move);
  return TRUE;
}

gboolean
source_check_move (SourceJob *job, GError **error)
{
  if (!job->libvirt.move || !virt_call_has_ended (job->libvirt.move))
    return TRUE;
  if (virt_call_wait (job->libvirt.move, DEADLINE_NEVER, error))
    g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
                 "libvirt says that the memory of %s has been moved, which can't be",
                 job->base.guest);
  return FALSE;
}

/* libvirt has promised it (VIR_MIGRATE_TLS) and the gate looks at the first bytes; QEMU's own word
 * can't be had before, because its monitor stands still until the handshake is through. */
static gboolean
check_tls (SourceJob *job, GError **error)
{
  QmpExecutor *qmp = vm_get_executor (job->vm);
  g_autoptr (JsonNode) answer = NULL;
  const char *creds = "";

  if (!qmp->klass->call (qmp, "query-migrate-parameters", NULL, -1,
                         deadline_in (HANDSHAKE_TIMEOUT_MS, job_cancellable (&job->base)), &answer,
                         error))
    return FALSE;
  if (JSON_NODE_HOLDS_OBJECT (answer))
    json_get_string (json_node_get_object (answer), "tls-creds", &creds);
  if (*creds != '\0')
    return TRUE;
  g_set_error (error, JOB_ERROR, JOB_ERROR_FAILED,
               "libvirt has not given QEMU credentials for the memory of %s: it would go in clear",
               job->base.guest);
  return FALSE;
}

/* The gate lets nobody in until it has the word of this end which connection is ours.  That must be
 * soon: libvirt gives QEMU a socket that blocks, and the guest's disks stand still during the
 * handshake over it. */
static gboolean
name_stream (SourceJob *job, guint16 port, GError **error)
{
  GCancellable *cancellable = job_cancellable (&job->base);
  Deadline deadline = deadline_in (MAX (job->timeout_ms, BEGIN_TIMEOUT_MS), cancellable);
  guint16 local_port = 0;

  while (!root_socket_find (peer_link_get_remote_address (job->link), port, &local_port))
    {
      if (!source_check_move (job, error))
        return FALSE;
      if (!deadline_check (deadline, error))
        {
          g_prefix_error (error, "the memory of %s doesn't begin to move: ", job->base.guest);
          return FALSE;
        }
      g_usleep (POLL_MS * 1000);
    }
  if (peer_link_call (job->link, "admit",
                      json_args ("job", "s", job->base.uuid, "port", "i", (gint64)local_port, NULL),
                      deadline_in (HANDSHAKE_TIMEOUT_MS, cancellable), NULL, error)
      && check_tls (job, error))
    return TRUE;
  source_break_move (job);
  return FALSE;
}

gboolean
source_begin_move (SourceJob *job, guint16 port, GError **error)
{
  job->release_asked = TRUE;
  job->libvirt.gate_port = port;
  return take_autostart (job, error) && begin_call (job, port, error)
         && name_stream (job, port, error);
}

gboolean
source_let_go (SourceJob *job, GError **error)
{
  return peer_link_call (job->link, "let-go", json_args ("job", "s", job->base.uuid, NULL),
                         deadline_in (SWITCHOVER_TIMEOUT_MS, NULL), NULL, error);
}

/* ---------------------------------------------------------------- afterwards */

/* The process can end before libvirt's word of it has arrived; events come in order, so one that
 * says that the guest ran again is here before that of the end. */
gboolean
source_was_migrated (SourceJob *job)
{
  gint64 until = g_get_monotonic_time () + MIGRATED_TIMEOUT_MS * 1000;
  VmEvents events;

  vm_get_events (job->vm, &events);
  while (!events.migrated && events.gaps == job->gaps && g_get_monotonic_time () < until)
    vm_wait_event (job->vm, &events, POLL_MS, NULL, &events);
  return events.migrated && events.gaps == job->gaps && events.resumes == job->resumes;
}

/* The guest runs at the destination, so libvirt's migration has succeeded there: it needs this QEMU
 * no more, even where its answer was lost. */
void
source_finish_domain (SourceJob *job)
{
  vm_set_lost_handler (job->vm, NULL, NULL);
  /* Where a human says so libvirt may still be on the way to the destination's end of it, and takes
   * the guest away there when this QEMU ends first. */
  if (job->libvirt.move)
    virt_call_wait (job->libvirt.move,
                    deadline_in (job->base.resolved ? MOVE_ENDS_TIMEOUT_MS : MOVE_TIMEOUT_MS, NULL),
                    NULL);
  if (!vm_wait_exit (job->vm, 0))
    {
      gboolean running = TRUE;

      if (qmp_query_status (vm_get_executor (job->vm), NULL, NULL, &running, NULL) && !running)
        vm_terminate (job->vm);
    }
  if (vm_wait_exit (job->vm, QUIT_TIMEOUT_MS))
    job->fenced = TRUE;
  else
    job_notice (&job->base, TRUE, "the QEMU of %s is still there, fenced: destroy the domain",
                job->base.guest);
}

/* libvirt isn't asked to do it in its migration: it would before the guest runs at the destination,
 * and where that fails the source's definition is the only one left.  A process that has just ended
 * is active for libvirt for a moment more. */
void
source_undefine_domain (SourceJob *job)
{
  g_autoptr (VirtDomain) domain = NULL;
  g_autoptr (GError) failed = NULL;
  const char *uuid = NULL;
  Deadline deadline = deadline_in (CALL_TIMEOUT_MS, NULL);
  VirtState now;

  if (job->libvirt.domain)
    uuid = job->libvirt.domain->uuid;
  else if (job->base.records)
    json_get_string (job->base.records->pdata[0], "domain", &uuid);
  if (!job->libvirt.undefine_source || !uuid)
    return;
  domain = virt_domain_new (job->libvirt.uri, uuid, NULL, NULL);
  while (virt_domain_get_state (domain, deadline, &now, &failed) && now.state != VIR_DOMAIN_NOSTATE
         && now.state != VIR_DOMAIN_SHUTOFF && now.state != VIR_DOMAIN_CRASHED
         && deadline_check (deadline, &failed))
    g_usleep (POLL_MS * 1000);
  if (failed || !virt_domain_undefine_off (domain, deadline, &failed))
    job_notice (&job->base, TRUE, "the stale domain is still defined: %s", failed->message);
}

gboolean
source_run_guest (SourceJob *job, GError **error)
{
  VirtDomain *domain = vm_get_domain (job->vm);
  g_autoptr (GError) failed = NULL;
  gboolean running = FALSE;

  if (!domain)
    return qmp_cont (vm_get_executor (job->vm), NULL, error);
  if (virt_domain_resume (domain, deadline_in (RESTORE_TIMEOUT_MS, NULL), &failed))
    return TRUE;
  /* libvirt's own rollback was quicker. */
  if (qmp_query_status (vm_get_executor (job->vm), NULL, NULL, &running, NULL) && running)
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&failed));
  return FALSE;
}

/* libvirt gives QEMU a socket that blocks: where the network is dead QEMU waits for it, in the
 * handshake or in mid-switchover, with the guest and the monitor standing still, for as long as TCP
 * does.  Only a connection of ours to that gate is destroyed: its port may be another's by now. */
void
source_break_move (SourceJob *job)
{
  guint16 local_port;

  if (job->libvirt.gate_port > 0 && job->link
      && root_socket_find (peer_link_get_remote_address (job->link), job->libvirt.gate_port,
                           &local_port))
    sock_diag_destroy (local_port, NULL);
}

/* A call that has only begun could still set the memory going: it is waited for.  Its end may take
 * as long as libvirt waits for a dead network. */
void
source_end_move (SourceJob *job)
{
  gint64 until = g_get_monotonic_time () + MOVE_ENDS_TIMEOUT_MS * 1000;

  if (!job->libvirt.move || virt_call_has_ended (job->libvirt.move))
    return;
  virt_domain_abort_job (vm_get_domain (job->vm), deadline_in (ABORT_TIMEOUT_MS, NULL), NULL);
  /* As long as the gate is there and lets nobody in, QEMU and libvirt may wait for it: it is closed
   * by this. */
  if (job->link)
    source_send_end (job, "abort", SWITCHOVER_TIMEOUT_MS, NULL);
  source_break_move (job);
  while (!virt_call_has_ended (job->libvirt.move) && g_get_monotonic_time () < until)
    {
      virt_domain_abort_job (vm_get_domain (job->vm), deadline_in (ABORT_TIMEOUT_MS, NULL), NULL);
      virt_call_wait (job->libvirt.move, deadline_in (ABORT_AGAIN_MS, NULL), NULL);
    }
}

/* A libvirtd that is being restarted answers soon, and only then can anything be removed from QEMU.
 * The gate is closed before: by that QEMU has its guest back without libvirt. */
void
source_await_libvirt (SourceJob *job)
{
  Deadline deadline = deadline_in (LIBVIRT_TIMEOUT_MS, NULL);
  gboolean told = FALSE;
  VmEvents events;

  vm_get_events (job->vm, &events);
  while (source_is_domain (job) && !events.closed
         && !qmp_query_status (vm_get_executor (job->vm), NULL, NULL, NULL, NULL)
         && deadline_check (deadline, NULL))
    {
      if (job->link && !told)
        source_send_end (job, "abort", SWITCHOVER_TIMEOUT_MS, NULL);
      told = TRUE;
      g_usleep (AWAIT_POLL_MS * 1000);
      vm_get_events (job->vm, &events);
    }
}

/* QEMU resumes its guest by itself when a migration is given up, and libvirt does after it; where
 * neither has, we do. */
void
source_restore_domain (SourceJob *job, GError **error)
{
  gboolean running = TRUE;

  if (!source_is_domain (job) || !job->release_asked || !job->ran)
    return;
  if (qmp_query_status (vm_get_executor (job->vm), NULL, NULL, &running, NULL) && !running
      && !source_run_guest (job, error))
    job_notice (&job->base, TRUE, "the guest stands still: virsh resume %s", job->base.guest);
}

void
source_restore_autostart (SourceJob *job)
{
  g_autoptr (VirtDomain) domain = NULL;
  g_autoptr (GError) failed = NULL;

  if (!job->libvirt.autostart_taken)
    return;
  domain = virt_domain_new (job->libvirt.uri, job->base.guest, NULL, NULL);
  if (!virt_domain_set_autostart (domain, TRUE, deadline_in (CALL_TIMEOUT_MS, NULL), &failed))
    job_notice (&job->base, TRUE, "the autostart of %s is off now: %s", job->base.guest,
                failed->message);
}
