/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/property/random-world.h"

#include <string.h>

#include "nbd/protocol.h"

guint
random_world_pick (RandomWorld *world, guint n)
{
  return (guint)g_rand_int_range (world->rand, 0, (gint32)n);
}

gboolean
random_world_chance (RandomWorld *world, guint percent)
{
  return random_world_pick (world, 100) < percent;
}

static void
fill_block (RandomWorld *world, guint block)
{
  guint8 *data = world->data + (gsize)block * FAKE_BLOCK;

  for (guint i = 0; i < FAKE_BLOCK; i += 1 + random_world_pick (world, 64))
    data[i] = (guint8)(1 + random_world_pick (world, 255));
}

static void
make_runs (RandomWorld *world)
{
  guint longest = MAX (40, world->n_blocks / 8), block = 0;

  while (block < world->n_blocks)
    {
      guint kind = random_world_pick (world, 4);
      guint run = 1 + random_world_pick (world, random_world_chance (world, 50) ? 3 : longest);
      gboolean clean = random_world_chance (world, 40);

      for (; run > 0 && block < world->n_blocks; run--, block++)
        {
          if (world->dirty != NULL)
            world->dirty[block] = clean ? 0 : NBD_STATE_DIRTY;
          if (kind == 0)
            world->state[block] = NBD_STATE_HOLE | NBD_STATE_ZERO;
          else if (kind == 1) /* zeroes, told or not */
            world->state[block] = random_world_chance (world, 50) ? NBD_STATE_ZERO : 0;
          else
            fill_block (world, block);
        }
    }
}

static void
make_disk (RandomWorld *world, guint max_blocks)
{
  gboolean tiny = random_world_chance (world, 5);

  world->n_blocks = tiny ? random_world_pick (world, 2) : 1 + random_world_pick (world, max_blocks);
  world->size = (guint64)world->n_blocks * FAKE_BLOCK;
  if (world->size > 0 && random_world_chance (world, 40))
    world->size -= random_world_pick (world, FAKE_BLOCK);
  world->data = g_malloc0 ((gsize)world->n_blocks * FAKE_BLOCK + 1);
  world->state = g_malloc0 (world->n_blocks + 1);
  world->dirty = random_world_chance (world, 25) ? g_malloc0 (world->n_blocks + 1) : NULL;
  make_runs (world);
  memset (world->data + world->size, 0, (gsize)world->n_blocks * FAKE_BLOCK + 1 - world->size);
}

static void
make_server (RandomWorld *world)
{
  static const guint32 min_blocks[] = { 0, 0, 0, 1, 512, 4096 };
  static const guint32 payloads[] = { 0, 0, 4096, 8192, 65536, 1024 * 1024 };
  FakeNbdSpec *spec = &world->spec;

  *spec = (FakeNbdSpec){ .size = world->size, .data = world->data };
  spec->read_only = random_world_chance (world, 80);
  spec->state = random_world_chance (world, 75) ? world->state : NULL;
  spec->simple = random_world_chance (world, 20) && world->dirty == NULL;
  if (spec->simple)
    spec->state = NULL;
  spec->bitmap = world->dirty != NULL ? "b" : NULL;
  spec->dirty = world->dirty;
  spec->holes = random_world_chance (world, 30);
  spec->multi_conn = random_world_chance (world, 60);
  spec->min_block = min_blocks[random_world_pick (world, G_N_ELEMENTS (min_blocks))];
  if (world->size % FAKE_BLOCK != 0)
    spec->min_block = MIN (spec->min_block, 1); /* a whole number of blocks, says the spec */
  spec->max_payload = payloads[random_world_pick (world, G_N_ELEMENTS (payloads))];
  spec->preferred_block
      = random_world_chance (world, 30) && spec->max_payload % 65536 == 0 ? 65536 : 0;
}

void
random_world_make_visits (RandomWorld *world, guint max_at)
{
  world->n_visits
      = random_world_chance (world, 20) ? 0 : 1 + random_world_pick (world, RANDOM_MAX_VISITS);
  for (guint i = 0; i < world->n_visits; i++)
    {
      RandomVisit *visit = &world->visits[i];
      FakeFault first = random_world_chance (world, 20) ? FAKE_HONEST : FAKE_WRONG_COOKIE;

      visit->fault = first + random_world_pick (world, FAKE_N_FAULTS - first);
      visit->at = random_world_pick (world, max_at);
      if (random_world_chance (world, 25)) /* what can be mended should be seen often enough */
        visit->fault = random_world_chance (world, 50) ? FAKE_CLOSE_IN_DATA : FAKE_CUT;
    }
}

void
random_world_init (RandomWorld *world, guint32 seed, guint max_blocks)
{
  memset (world, 0, sizeof *world);
  world->rand = g_rand_new_with_seed (seed);
  make_disk (world, max_blocks);
  make_server (world);
}

void
random_world_clear (RandomWorld *world)
{
  g_rand_free (world->rand);
  g_free (world->data);
  g_free (world->state);
  g_free (world->dirty);
}

void
random_world_plan (gpointer data, guint n, FakeNbdSpec *spec)
{
  const RandomWorld *world = data;

  if (n >= world->n_visits)
    return;
  spec->fault = world->visits[n].fault;
  spec->at = world->visits[n].at;
}

guint8 *
random_world_expect (const RandomWorld *world, guint8 old)
{
  guint8 *expected = g_memdup2 (world->data, world->size + 1);

  for (guint block = 0; world->dirty != NULL && block < world->n_blocks; block++)
    if (world->dirty[block] == 0)
      memset (expected + (gsize)block * FAKE_BLOCK, old,
              MIN (FAKE_BLOCK, world->size - (gsize)block * FAKE_BLOCK));
  return expected;
}

char *
random_world_describe (const RandomWorld *world)
{
  const FakeNbdSpec *spec = &world->spec;
  GString *text = g_string_new (NULL);

  g_string_append_printf (
      text, "%" G_GUINT64_FORMAT " bytes, %s%s%s%s%smin %u, payload %u, clients meet:", world->size,
      spec->simple ? "simple, " : "", spec->state != NULL ? "status, " : "",
      spec->dirty != NULL ? "bitmap, " : "", spec->holes ? "holes, " : "",
      spec->multi_conn ? "multi-conn, " : "", spec->min_block, spec->max_payload);
  for (guint i = 0; i < world->n_visits; i++)
    g_string_append_printf (text, " %s@%u", fake_fault_get_name (world->visits[i].fault),
                            world->visits[i].at);
  return g_string_free (text, FALSE);
}
