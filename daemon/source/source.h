/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/job.h"

/* The source's side of a job, which leads it.  Main thread. */

/* From the arguments of `migrate`, which have been checked for their types.  Nothing is made yet.
 */
Job *source_new (Agent *agent, JsonObject *args, GError **error);
/* After a restart.  Takes over `journal`; adds the job to the agent. */
gboolean source_recover (Agent *agent, const char *uuid, Journal *journal, GPtrArray *records,
                         GError **error);
