/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/types.h>

#include "tls/deadline.h"

typedef enum
{
  CANARY_SAFE,    /* an NBD client may disconnect from an export whose disk is on an iothread */
  CANARY_AFFECTED /* this QEMU aborts then (7.2: nbd_blockdev_client_closed) */
} CanaryVerdict;

/* Starts a throw-away QEMU from the binary of process `pid` (/proc/PID/exe) with no guest, a tiny
 * disk and an NBD export of it on an iothread, on a UNIX socket in `runtime_dir`; connects,
 * disconnects, and sees whether it survives.  Leaves nothing behind.  FALSE where it could not be
 * told. */
gboolean canary_run (pid_t pid, const char *runtime_dir, Deadline deadline,
                     CanaryVerdict *ret_verdict, GError **error);
