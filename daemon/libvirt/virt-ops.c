/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/libvirt/virt-ops.h"

#include <libvirt/virterror.h>

typedef struct
{
  guint flags;
  char *xml;
} Answer;

static void
answer_clear (gpointer data)
{
  free (((Answer *)data)->xml);
}

static gboolean
run_get_xml (virDomainPtr domain, gpointer data, GError **error)
{
  Answer *answer = data;

  answer->xml = virDomainGetXMLDesc (domain, answer->flags);
  if (!answer->xml)
    virt_set_domain_error (domain, error);
  return answer->xml != NULL;
}

char *
virt_domain_get_xml (VirtDomain *domain, guint flags, Deadline deadline, GError **error)
{
  Answer *answer = g_atomic_rc_box_new0 (Answer);
  char *xml = NULL;

  answer->flags = flags;
  if (virt_domain_run (domain, run_get_xml, answer, answer_clear, deadline, error))
    xml = g_strdup (answer->xml);
  g_atomic_rc_box_release_full (answer, answer_clear);
  return xml;
}

/* The handle knows the number that it had when it was made: a new one is asked for. */
static gboolean
run_get_state (virDomainPtr domain, gpointer data, GError **error)
{
  VirtState *state = data;
  unsigned char uuid[VIR_UUID_BUFLEN];
  virDomainPtr fresh = virDomainGetUUID (domain, uuid) == 0
                           ? virDomainLookupByUUID (virDomainGetConnect (domain), uuid)
                           : NULL;
  gboolean ok = fresh && virDomainGetState (fresh, &state->state, &state->reason, 0) == 0;

  if (!ok)
    virt_set_error ("the domain's state", error);
  else
    state->id = virDomainGetID (fresh);
  if (fresh)
    virDomainFree (fresh);
  return ok;
}

gboolean
virt_domain_get_state (VirtDomain *domain, Deadline deadline, VirtState *ret_state, GError **error)
{
  VirtState *state = g_atomic_rc_box_new0 (VirtState);
  g_autoptr (GError) failed = NULL;
  gboolean ok = virt_domain_run (domain, run_get_state, state, NULL, deadline, &failed);

  if (g_error_matches (failed, VIRT_ERROR, VIR_ERR_NO_DOMAIN))
    {
      *ret_state = (VirtState){ .state = VIR_DOMAIN_NOSTATE };
      ok = TRUE;
    }
  else if (ok)
    *ret_state = *state;
  else
    g_propagate_error (error, g_steal_pointer (&failed));
  g_atomic_rc_box_release (state);
  return ok;
}

static gboolean
run_resume (virDomainPtr domain, gpointer data, GError **error)
{
  if (virDomainResume (domain) == 0)
    return TRUE;
  virt_set_domain_error (domain, error);
  return FALSE;
}

gboolean
virt_domain_resume (VirtDomain *domain, Deadline deadline, GError **error)
{
  return virt_domain_run (domain, run_resume, NULL, NULL, deadline, error);
}

static gboolean
run_abort_job (virDomainPtr domain, gpointer data, GError **error)
{
  if (virDomainAbortJob (domain) == 0)
    return TRUE;
  virt_set_domain_error (domain, error);
  return FALSE;
}

gboolean
virt_domain_abort_job (VirtDomain *domain, Deadline deadline, GError **error)
{
  return virt_domain_run (domain, run_abort_job, NULL, NULL, deadline, error);
}

typedef struct
{
  int value;
} Number;

static gboolean
run_get_autostart (virDomainPtr domain, gpointer data, GError **error)
{
  /* A transient domain has none. */
  if (virDomainIsPersistent (domain) != 1)
    return TRUE;
  if (virDomainGetAutostart (domain, &((Number *)data)->value) == 0)
    return TRUE;
  virt_set_domain_error (domain, error);
  return FALSE;
}

gboolean
virt_domain_get_autostart (VirtDomain *domain, Deadline deadline, gboolean *ret_autostart,
                           GError **error)
{
  Number *number = g_atomic_rc_box_new0 (Number);
  gboolean ok = virt_domain_run (domain, run_get_autostart, number, NULL, deadline, error);

  if (ok)
    *ret_autostart = number->value != 0;
  g_atomic_rc_box_release (number);
  return ok;
}

static gboolean
run_set_autostart (virDomainPtr domain, gpointer data, GError **error)
{
  if (virDomainSetAutostart (domain, ((Number *)data)->value) == 0)
    return TRUE;
  virt_set_domain_error (domain, error);
  return FALSE;
}

gboolean
virt_domain_set_autostart (VirtDomain *domain, gboolean autostart, Deadline deadline,
                           GError **error)
{
  Number *number = g_atomic_rc_box_new0 (Number);
  gboolean ok;

  number->value = autostart;
  ok = virt_domain_run (domain, run_set_autostart, number, NULL, deadline, error);
  g_atomic_rc_box_release (number);
  return ok;
}

/* libvirt has no call that destroys a domain only while it is paused; a domain that runs isn't
 * touched, and nobody resumes one of ours in the moment between the two calls. */
static gboolean
run_destroy_paused (virDomainPtr domain, gpointer data, GError **error)
{
  int state;

  if (virDomainGetState (domain, &state, NULL, 0) < 0
      || (state == VIR_DOMAIN_PAUSED && virDomainDestroy (domain) < 0)
      || (((Number *)data)->value && virDomainIsActive (domain) == 0
          && virDomainIsPersistent (domain) == 1 && virDomainUndefine (domain) < 0))
    {
      virt_set_domain_error (domain, error);
      return FALSE;
    }
  return TRUE;
}

gboolean
virt_domain_destroy_paused (VirtDomain *domain, gboolean undefine, Deadline deadline,
                            GError **error)
{
  Number *number = g_atomic_rc_box_new0 (Number);
  g_autoptr (GError) failed = NULL;
  gboolean ok;

  number->value = undefine;
  ok = virt_domain_run (domain, run_destroy_paused, number, NULL, deadline, &failed)
       || g_error_matches (failed, VIRT_ERROR, VIR_ERR_NO_DOMAIN);
  g_atomic_rc_box_release (number);
  if (!ok)
    g_propagate_error (error, g_steal_pointer (&failed));
  return ok;
}

static gboolean
run_undefine_off (virDomainPtr domain, gpointer data, GError **error)
{
  if (virDomainIsActive (domain) != 0 || virDomainIsPersistent (domain) != 1
      || virDomainUndefine (domain) == 0)
    return TRUE;
  virt_set_domain_error (domain, error);
  return FALSE;
}

gboolean
virt_domain_undefine_off (VirtDomain *domain, Deadline deadline, GError **error)
{
  g_autoptr (GError) failed = NULL;

  if (virt_domain_run (domain, run_undefine_off, NULL, NULL, deadline, &failed)
      || g_error_matches (failed, VIRT_ERROR, VIR_ERR_NO_DOMAIN))
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&failed));
  return FALSE;
}

/* What belongs to a domain and that libvirt refuses to migrate, or forgets. */
static gboolean
run_check_metadata (virDomainPtr domain, gpointer data, GError **error)
{
  int snapshots = virDomainSnapshotNum (domain, 0);
  int checkpoints = virDomainListAllCheckpoints (domain, NULL, 0);

  if (snapshots < 0 || checkpoints < 0)
    virt_set_domain_error (domain, error);
  else if (snapshots > 0 || checkpoints > 0)
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                 "domain %s has %d snapshots and %d checkpoints, which can't be moved: delete "
                 "them, or their metadata, first",
                 virDomainGetName (domain), snapshots, checkpoints);
  return snapshots == 0 && checkpoints == 0;
}

gboolean
virt_domain_check_metadata (VirtDomain *domain, Deadline deadline, GError **error)
{
  return virt_domain_run (domain, run_check_metadata, NULL, NULL, deadline, error);
}
