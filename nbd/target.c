/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/target.h"

void
nbd_target_free (NbdTarget *target)
{
  if (target != NULL)
    target->klass->free (target);
}
