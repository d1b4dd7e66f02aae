/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/honest-nbd.h"

/* Breaks what an honest server says, message by message, as a script tells: a byte for each message
 * says what is done with it, below 0x80 nothing; behind its end everything is honest again. */
typedef struct Mutator Mutator;

/* How far the server can still be believed. */
typedef enum
{
  MUTATOR_HONEST,   /* nothing was changed: the copy must succeed */
  MUTATOR_TRUTHFUL, /* it may fail, but nothing wrong was said about the disk */
  MUTATOR_LIAR      /* it has said that other bytes belong to a place, in the right form */
} MutatorTruth;

/* `script` is borrowed.  No payload is ever changed. */
Mutator *mutator_new (FuzzInput *script);
void mutator_free (Mutator *mutator);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Mutator, mutator_free)

/* A frame of the server; what becomes of it is appended to `out`.  FALSE: the connection ends
 * behind that. */
gboolean mutator_put (Mutator *mutator, const HonestFrame *frame, GByteArray *out);
/* The frames that were held back, when the server has nothing more to say for now. */
void mutator_flush (Mutator *mutator, GByteArray *out);

MutatorTruth mutator_get_truth (const Mutator *mutator);
/* Microseconds to wait before what was put last is sent; 0 nearly always. */
guint mutator_take_delay (Mutator *mutator);
