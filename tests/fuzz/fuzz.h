/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* What every fuzz target has, and what they share. */

/* The entry of libFuzzer and of replay.c.  Aborts on a finding; otherwise 0. */
int LLVMFuzzerTestOneInput (const guint8 *data, gsize size);

/* An invariant: it holds whatever the input is, in every build. */
#define FUZZ_REQUIRE(condition)                                                                    \
  do                                                                                               \
    {                                                                                              \
      if (!(condition))                                                                            \
        fuzz_fail (__FILE__, __LINE__, #condition);                                                \
    }                                                                                              \
  while (0)
G_NORETURN void fuzz_fail (const char *file, int line, const char *what);

/* The input, taken from the front; behind its end everything is 0.  Borrows `data`. */
typedef struct
{
  const guint8 *data;
  gsize left;
} FuzzInput;

guint8 fuzz_input_u8 (FuzzInput *input);
guint16 fuzz_input_u16 (FuzzInput *input);
guint32 fuzz_input_u32 (FuzzInput *input);
guint64 fuzz_input_u64 (FuzzInput *input);

/* A small generator of its own, so that an input means the same everywhere (splitmix64). */
guint64 fuzz_random (guint64 *state);

/* Bytes that are allocated now, as far as the allocator tells: what "bounded memory" is measured
 * by. */
gsize fuzz_allocated (void);
