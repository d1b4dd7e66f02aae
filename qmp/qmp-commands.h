/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* QMP commands as C functions, the ones that a migration needs.  Each takes an executor first and
 * a GCancellable (may be NULL) and a GError last, blocks for the answer (qmp_call), and names its
 * QAPI command in its comment.  QEMU may be broken or hostile: every reply is checked before use,
 * and one of the wrong shape is JSON_CLIENT_ERROR_UNEXPECTED, "NAME: query-block: unexpected
 * reply: ...". */
#include "qmp/qmp-bitmap.h"
#include "qmp/qmp-block.h"
#include "qmp/qmp-export.h"
#include "qmp/qmp-machine.h"
#include "qmp/qmp-migration.h"
#include "qmp/qmp-object.h"
