/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/buffer-pool.h"

/* Single dirty blocks are read by the dozen: they don't take a large buffer each. */
#define SMALL_SIZE 16384

struct BufferPool
{
  gsize max_size;
  GPtrArray *small;
  GPtrArray *large;
};

BufferPool *
buffer_pool_new (gsize max_size)
{
  BufferPool *pool = g_new0 (BufferPool, 1);

  pool->max_size = max_size;
  pool->small = g_ptr_array_new_with_free_func (g_free);
  pool->large = g_ptr_array_new_with_free_func (g_free);
  return pool;
}

void
buffer_pool_free (BufferPool *pool)
{
  if (pool == NULL)
    return;
  g_ptr_array_unref (pool->small);
  g_ptr_array_unref (pool->large);
  g_free (pool);
}

guint8 *
buffer_pool_take (BufferPool *pool, gsize size)
{
  gboolean small = size <= SMALL_SIZE;
  GPtrArray *list = small ? pool->small : pool->large;

  g_assert (size <= pool->max_size);
  if (list->len > 0)
    return g_ptr_array_steal_index_fast (list, list->len - 1);
  return g_malloc (small ? SMALL_SIZE : pool->max_size);
}

void
buffer_pool_give (BufferPool *pool, guint8 *buffer, gsize size)
{
  g_ptr_array_add (size <= SMALL_SIZE ? pool->small : pool->large, buffer);
}
