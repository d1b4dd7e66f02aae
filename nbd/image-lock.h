/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* Locks `fd` (open for reading and writing) the way QEMU's file driver does for a writer that
 * tolerates no other: shared OFD locks on the bytes of the permissions that are used (100 + bit)
 * and of those that others must not use (200 + bit), then a look whether somebody else holds an
 * opposite byte.  The locks last until the open file is closed.  Files on which locks are not
 * possible are let pass, as QEMU does.
 * Fails with G_IO_ERROR_BUSY; `name` begins the message. */
gboolean image_lock_writer (int fd, const char *name, GError **error);
