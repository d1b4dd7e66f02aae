/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "daemon/tool.h"
#include "qmp/executor.h"

/* A real QEMU without a guest: no firmware is needed, nothing runs on its processor.  Its disks are
 * virtio-blk on a bare PCI machine. */
typedef struct
{
  Tool *tool;
  QmpExecutor *executor;
} Vm;

/* `args` (NULL-terminated) follow the basic ones.  NULL where QEMU isn't installed. */
Vm *vm_start (const char *dir, const char *const *args);
/* Kills it. */
void vm_free (Vm *vm);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Vm, vm_free)

/* A command without a result; `args` is taken.  Fails the test when it fails. */
void vm_do (Vm *vm, const char *command, JsonObject *args);
/* The error's message when it is refused; NULL when it isn't. */
char *vm_try (Vm *vm, const char *command, JsonObject *args);
/* Waits until query-status tells `status`. */
void vm_wait_status (Vm *vm, const char *status);
