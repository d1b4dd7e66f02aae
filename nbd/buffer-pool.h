/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* Buffers that are used again and again: fresh memory costs page faults, and the one that was used
 * last is still in the processor's cache.  Not thread-safe. */
typedef struct BufferPool BufferPool;

BufferPool *buffer_pool_new (void);
/* All buffers must have been given back. */
void buffer_pool_free (BufferPool *pool);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (BufferPool, buffer_pool_free)

/* At least `size` bytes (at most 512 MiB, and less than twice of it is taken), not cleared. */
guint8 *buffer_pool_take (BufferPool *pool, gsize size);
/* `size` as it was asked for. */
void buffer_pool_give (BufferPool *pool, guint8 *buffer, gsize size);
