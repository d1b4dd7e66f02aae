/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tests/unit/fake-listener.h"

/* A random disk, a server of it with random abilities, and faults that its first clients meet.  All
 * of it comes from the seed alone. */

#define RANDOM_MAX_VISITS 6

typedef struct
{
  FakeFault fault;
  guint at;
} RandomVisit;

typedef struct
{
  GRand *rand;
  guint n_blocks;
  guint64 size;
  guint8 *data; /* whole blocks, and a byte */
  guint8 *state;
  guint8 *dirty; /* of the bitmap "b"; NULL: there is none */
  FakeNbdSpec spec;
  RandomVisit visits[RANDOM_MAX_VISITS];
  guint n_visits; /* who comes later meets an honest server */
} RandomWorld;

/* A disk of `max_blocks` at most, without visits. */
void random_world_init (RandomWorld *world, guint32 seed, guint max_blocks);
void random_world_clear (RandomWorld *world);
/* Other faults; the first requests up to number `max_at` go well. */
void random_world_make_visits (RandomWorld *world, guint max_at);

guint random_world_pick (RandomWorld *world, guint n); /* from 0 to n - 1 */
gboolean random_world_chance (RandomWorld *world, guint percent);

/* FakeListenerPlan, of a RandomWorld. */
void random_world_plan (gpointer world, guint n, FakeNbdSpec *spec);
/* What a target that held `old` everywhere holds after a copy; `size` bytes and one, g_free. */
guint8 *random_world_expect (const RandomWorld *world, guint8 old);
/* What the server is like and what clients meet, in words; g_free. */
char *random_world_describe (const RandomWorld *world);
