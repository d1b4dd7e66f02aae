/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/libvirt/virt-domain.h"

/* What is asked of one domain.  All block, at most until `deadline`; errors as
 * virt_domain_run (). */

char *virt_domain_get_xml (VirtDomain *domain, guint flags, Deadline deadline, GError **error);
/* As virDomainGetState () and virDomainGetID (): each start of a domain has another `id`. */
typedef struct
{
  int state; /* VIR_DOMAIN_NOSTATE where there is no such domain */
  int reason;
  guint id;
} VirtState;
gboolean virt_domain_get_state (VirtDomain *domain, Deadline deadline, VirtState *ret_state,
                                GError **error);
gboolean virt_domain_resume (VirtDomain *domain, Deadline deadline, GError **error);
gboolean virt_domain_abort_job (VirtDomain *domain, Deadline deadline, GError **error);
/* FALSE of one that isn't persistent. */
gboolean virt_domain_get_autostart (VirtDomain *domain, Deadline deadline, gboolean *ret_autostart,
                                    GError **error);
gboolean virt_domain_set_autostart (VirtDomain *domain, gboolean autostart, Deadline deadline,
                                    GError **error);
/* Only where it is paused, never one that runs; then, with `undefine`, its definition, too, where
 * it isn't active.  A domain that is gone is fine. */
gboolean virt_domain_destroy_paused (VirtDomain *domain, gboolean undefine, Deadline deadline,
                                     GError **error);
/* Its definition, where it isn't active; one that is gone is fine. */
gboolean virt_domain_undefine_off (VirtDomain *domain, Deadline deadline, GError **error);
/* Refuses snapshots and checkpoints. */
gboolean virt_domain_check_metadata (VirtDomain *domain, Deadline deadline, GError **error);
