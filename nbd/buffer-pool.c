/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/buffer-pool.h"

/* Sizes double from this one on: single dirty blocks are read by the dozen, and don't take a large
 * buffer each. */
#define SMALLEST 16384
#define MAX_RANKS 16
/* Of buffers that nobody uses.  A server that answers in its own order makes us take many. */
#define MAX_IDLE (2 * 1024 * 1024)

struct BufferPool
{
  GPtrArray *idle[MAX_RANKS];
  gsize idle_bytes;
};

BufferPool *
buffer_pool_new (void)
{
  BufferPool *pool = g_new0 (BufferPool, 1);

  for (guint i = 0; i < MAX_RANKS; i++)
    pool->idle[i] = g_ptr_array_new_with_free_func (g_free);
  return pool;
}

void
buffer_pool_free (BufferPool *pool)
{
  if (pool == NULL)
    return;
  for (guint i = 0; i < MAX_RANKS; i++)
    g_ptr_array_unref (pool->idle[i]);
  g_free (pool);
}

static gsize
rank_size (guint rank)
{
  return (gsize)SMALLEST << rank;
}

static guint
find_rank (gsize size)
{
  guint rank = 0;

  while (rank_size (rank) < size)
    rank++;
  g_assert (rank < MAX_RANKS);
  return rank;
}

guint8 *
buffer_pool_take (BufferPool *pool, gsize size)
{
  guint rank = find_rank (size);
  GPtrArray *idle = pool->idle[rank];

  if (idle->len == 0)
    return g_malloc (rank_size (rank));
  pool->idle_bytes -= rank_size (rank);
  return g_ptr_array_steal_index_fast (idle, idle->len - 1);
}

void
buffer_pool_give (BufferPool *pool, guint8 *buffer, gsize size)
{
  guint rank = find_rank (size);

  if (pool->idle_bytes + rank_size (rank) > MAX_IDLE && pool->idle[rank]->len > 0)
    {
      g_free (buffer);
      return;
    }
  pool->idle_bytes += rank_size (rank);
  g_ptr_array_add (pool->idle[rank], buffer);
}
