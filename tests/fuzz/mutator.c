/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/mutator.h"

#include <string.h>

#include "nbd/protocol.h"

#define MAX_HELD 8
#define MAX_COOKIES 16

struct Mutator
{
  FuzzInput *script;
  MutatorTruth truth;
  guint skip;      /* so many frames are let through */
  GQueue held;     /* GByteArray */
  guint hold_left; /* frames until they are let go */
  gboolean silent; /* nothing is sent any more */
  guint delay;
  guint64 cookies[MAX_COOKIES]; /* of earlier frames */
  guint n_cookies;
};

typedef struct
{
  Mutator *mutator;
  HonestKind kind;
  GByteArray *bytes; /* a copy, to be changed */
  GByteArray *out;
  gboolean drop;
  gboolean close;
} Change;

static void
become (Mutator *mutator, MutatorTruth truth)
{
  mutator->truth = MAX (mutator->truth, truth);
}

static guint8
take_u8 (const Change *change)
{
  return fuzz_input_u8 (change->mutator->script);
}

static void
put_at (Change *change, gsize at, guint64 value, gsize size)
{
  value = GUINT64_TO_BE (value << (64 - 8 * size));
  if (at + size <= change->bytes->len)
    memcpy (change->bytes->data + at, &value, size);
}

static guint64
get_at (const Change *change, gsize at, gsize size)
{
  guint64 value = 0;

  if (at + size <= change->bytes->len)
    memcpy (&value, change->bytes->data + at, size);
  return GUINT64_FROM_BE (value) >> (64 - 8 * size);
}

/* A small step, a bit, or any value. */
static guint64
change_number (Change *change, guint64 value, gsize size)
{
  guint8 how = take_u8 (change);

  switch (how % 8)
    {
    case 0:
      return value + 1 + how / 8;
    case 1:
      return value - 1 - how / 8;
    case 2:
      return value + ((guint64)1 + how / 8) * 4096;
    case 3:
      return value - ((guint64)1 + how / 8) * 4096;
    case 4:
      return value ^ (guint64)1 << how / 8 % (8 * size);
    case 5:
      return (guint64)1 << how / 8 << (size > 4 ? 32 : 0);
    case 6:
      return 0 - (guint64)(how / 8);
    default:
      return size == 8 ? fuzz_input_u64 (change->mutator->script)
                       : fuzz_input_u32 (change->mutator->script);
    }
}

static void
change_at (Change *change, gsize at, gsize size)
{
  put_at (change, at, change_number (change, get_at (change, at, size), size), size);
}

/* What can be done to a frame */

static void
do_drop (Change *change)
{
  change->drop = TRUE;
}

static void
do_duplicate (Change *change)
{
  guint n = 1 + take_u8 (change) % 3;

  for (guint i = 0; i < n; i++)
    g_byte_array_append (change->out, change->bytes->data, change->bytes->len);
}

static void
do_hold (Change *change)
{
  Mutator *mutator = change->mutator;

  mutator->hold_left = take_u8 (change) % 16;
  if (mutator->held.length >= MAX_HELD)
    return;
  g_queue_push_tail (&mutator->held, g_byte_array_ref (change->bytes));
  change->drop = TRUE;
}

static void
do_truncate (Change *change)
{
  guint n = take_u8 (change) + 1u;

  g_byte_array_set_size (change->bytes, change->bytes->len - MIN (n, change->bytes->len));
}

static void
do_close (Change *change)
{
  guint n = fuzz_input_u16 (change->mutator->script);

  change->close = TRUE;
  g_byte_array_set_size (change->bytes, MIN (n, change->bytes->len));
}

static void
do_silence (Change *change)
{
  change->mutator->silent = TRUE;
}

static void
do_delay (Change *change)
{
  change->mutator->delay = 10u * take_u8 (change);
}

static void
do_magic (Change *change)
{
  guint bit = take_u8 (change) % 32;

  change->bytes->data[bit / 8] ^= (guint8)(1u << bit % 8);
}

static void
do_flags (Change *change)
{
  if (change->kind == HONEST_CHUNK)
    put_at (change, 4, get_at (change, 4, 2) ^ 1u << take_u8 (change) % 16, 2);
}

static void
do_type (Change *change)
{
  static const guint16 types[] = { 0, 1, 2, 5, 99, 0x8001, 0x8002, 0x8063 };

  if (change->kind == HONEST_CHUNK)
    put_at (change, 6, types[take_u8 (change) % G_N_ELEMENTS (types)], 2);
}

static void
do_cookie (Change *change)
{
  const Mutator *mutator = change->mutator;
  guint8 which = take_u8 (change);

  if (which & 1 && mutator->n_cookies > 0)
    put_at (change, 8, mutator->cookies[which / 2 % MIN (mutator->n_cookies, MAX_COOKIES)], 8);
  else
    change_at (change, 8, 8);
}

static void
do_length (Change *change)
{
  if (change->kind == HONEST_CHUNK)
    change_at (change, 16, 4);
}

/* The chunk keeps its form: what is cut off isn't announced. */
static void
do_shorten (Change *change)
{
  guint n = take_u8 (change) + 1u;

  if (change->kind != HONEST_CHUNK || change->bytes->len < 20 + n)
    return;
  g_byte_array_set_size (change->bytes, change->bytes->len - n);
  put_at (change, 16, change->bytes->len - 20, 4);
}

/* The offset of data or a hole, the context of a status, the number of an error. */
static void
do_offset (Change *change)
{
  change_at (change, 20, change->kind == HONEST_CHUNK && get_at (change, 6, 2) <= 2 ? 8 : 4);
}

/* Any header field, or any extent of a status: never payload. */
static void
do_field (Change *change)
{
  gboolean status = change->kind == HONEST_CHUNK && get_at (change, 6, 2) == 5;
  gboolean payload = change->kind != HONEST_HANDSHAKE && !status;
  gsize end = payload ? MIN (change->bytes->len, change->kind == HONEST_CHUNK ? 20 : 16)
                      : change->bytes->len;
  gsize at = (gsize)fuzz_input_u16 (change->mutator->script) % MAX (end, 1);

  change_at (change, at, at + 4 <= end ? 4 : 1);
}

static void
do_insert (Change *change)
{
  guint8 what = take_u8 (change);
  guint64 cookie = get_at (change, 8, 8);

  switch (what % 6)
    {
    case 0:
      honest_put_chunk (change->out, what & 8 ? NBD_REPLY_FLAG_DONE : 0, NBD_REPLY_TYPE_NONE,
                        cookie, 0);
      break;
    case 1:
      honest_put_error (change->out, cookie, what & 8 ? NBD_EIO : NBD_ESHUTDOWN, "broken\x1b[2J");
      break;
    case 2:
      honest_put_chunk (change->out, 0, NBD_REPLY_TYPE_OFFSET_HOLE, cookie, 12);
      honest_put_u64 (change->out, get_at (change, 20, 8));
      honest_put_u32 (change->out, what & 8 ? 0 : 512);
      break;
    case 3:
      honest_put_chunk (change->out, 0, NBD_REPLY_TYPE_BLOCK_STATUS, cookie, 12);
      honest_put_u32 (change->out, what & 8 ? 7 : 9);
      honest_put_u32 (change->out, (guint32)what << 8);
      honest_put_u32 (change->out, what >> 4 & 3);
      break;
    case 4:
      honest_put_chunk (change->out, 0, NBD_REPLY_TYPE_OFFSET_DATA, cookie, 8);
      honest_put_u64 (change->out, get_at (change, 20, 8));
      break;
    default:
      honest_put_u32 (change->out, NBD_SIMPLE_REPLY_MAGIC);
      honest_put_u32 (change->out, what & 8 ? NBD_EIO : 0);
      honest_put_u64 (change->out, cookie);
      break;
    }
}

static void
do_error (Change *change)
{
  guint64 cookie = get_at (change, 8, 8);
  guint32 error = take_u8 (change) & 1 ? NBD_EIO : NBD_ESHUTDOWN;

  g_byte_array_set_size (change->bytes, 0);
  if (change->kind == HONEST_CHUNK)
    {
      honest_put_error (change->bytes, cookie, error, "bad sector");
      return;
    }
  honest_put_u32 (change->bytes, NBD_SIMPLE_REPLY_MAGIC);
  honest_put_u32 (change->bytes, error);
  honest_put_u64 (change->bytes, cookie);
}

/* Simple replies name no offset and so say where bytes belong by their cookie and their order
 * alone; so do status chunks.  Where frames lose their bounds, what follows may look like data. */
static const struct
{
  void (*change) (Change *change);
  MutatorTruth chunk;
  MutatorTruth simple;
} changes[] = {
  { do_drop, MUTATOR_TRUTHFUL, MUTATOR_TRUTHFUL },
  { do_duplicate, MUTATOR_TRUTHFUL, MUTATOR_TRUTHFUL },
  { do_hold, MUTATOR_TRUTHFUL, MUTATOR_TRUTHFUL },
  { do_close, MUTATOR_TRUTHFUL, MUTATOR_TRUTHFUL },
  { do_silence, MUTATOR_TRUTHFUL, MUTATOR_TRUTHFUL },
  { do_delay, MUTATOR_HONEST, MUTATOR_HONEST },
  { do_magic, MUTATOR_TRUTHFUL, MUTATOR_LIAR },
  { do_flags, MUTATOR_TRUTHFUL, MUTATOR_TRUTHFUL },
  { do_error, MUTATOR_TRUTHFUL, MUTATOR_TRUTHFUL },
  { do_cookie, MUTATOR_LIAR, MUTATOR_LIAR },
  { do_type, MUTATOR_LIAR, MUTATOR_LIAR },
  { do_truncate, MUTATOR_LIAR, MUTATOR_LIAR },
  { do_length, MUTATOR_LIAR, MUTATOR_LIAR },
  { do_shorten, MUTATOR_LIAR, MUTATOR_LIAR },
  { do_offset, MUTATOR_LIAR, MUTATOR_LIAR },
  { do_field, MUTATOR_LIAR, MUTATOR_LIAR },
  { do_insert, MUTATOR_LIAR, MUTATOR_LIAR },
};

static gboolean
is_status (const Change *change)
{
  return change->kind == HONEST_CHUNK && get_at (change, 6, 2) == NBD_REPLY_TYPE_BLOCK_STATUS;
}

static void
apply (Change *change, guint8 op)
{
  guint which = op % G_N_ELEMENTS (changes);
  MutatorTruth truth = change->kind == HONEST_CHUNK ? changes[which].chunk : changes[which].simple;

  /* Chunks of data under another cookie are still told to be where they are. */
  if (changes[which].change == do_cookie && change->kind == HONEST_CHUNK && !is_status (change))
    truth = MUTATOR_TRUTHFUL;
  if (change->kind == HONEST_HANDSHAKE && truth != MUTATOR_HONEST)
    truth = MUTATOR_LIAR;
  become (change->mutator, truth);
  changes[which].change (change);
}

/* The script */

static void
note_cookie (Mutator *mutator, const Change *change)
{
  if (change->kind != HONEST_HANDSHAKE)
    mutator->cookies[mutator->n_cookies++ % MAX_COOKIES] = get_at (change, 8, 8);
}

/* The next frame's byte; below 0x80: as it is. */
static guint8
take_op (Mutator *mutator)
{
  guint8 op;

  if (mutator->skip > 0)
    {
      mutator->skip--;
      return 0;
    }
  op = fuzz_input_u8 (mutator->script);
  if (op >= 0x40 && op < 0x80)
    mutator->skip = op - 0x40u;
  return op;
}

gboolean
mutator_put (Mutator *mutator, const HonestFrame *frame, GByteArray *out)
{
  g_autoptr (GByteArray) bytes = g_byte_array_sized_new (frame->bytes->len);
  Change change = { .mutator = mutator, .kind = frame->kind, .bytes = bytes, .out = out };
  guint8 op;

  if (mutator->silent)
    return TRUE;
  g_byte_array_append (bytes, frame->bytes->data, frame->bytes->len);
  op = take_op (mutator);
  if (op & 0x80)
    apply (&change, op & 0x7f);
  note_cookie (mutator, &change);
  if (!change.drop)
    g_byte_array_append (out, bytes->data, bytes->len);
  if (mutator->held.length > 0 && mutator->hold_left-- == 0)
    mutator_flush (mutator, out);
  return !change.close;
}

void
mutator_flush (Mutator *mutator, GByteArray *out)
{
  GByteArray *bytes;

  mutator->hold_left = 0;
  while ((bytes = g_queue_pop_tail (&mutator->held)) != NULL)
    {
      g_byte_array_append (out, bytes->data, bytes->len);
      g_byte_array_unref (bytes);
    }
}

Mutator *
mutator_new (FuzzInput *script)
{
  Mutator *mutator = g_new0 (Mutator, 1);

  mutator->script = script;
  g_queue_init (&mutator->held);
  return mutator;
}

void
mutator_free (Mutator *mutator)
{
  if (mutator == NULL)
    return;
  g_queue_clear_full (&mutator->held, (GDestroyNotify)g_byte_array_unref);
  g_free (mutator);
}

MutatorTruth
mutator_get_truth (const Mutator *mutator)
{
  return mutator->truth;
}

guint
mutator_take_delay (Mutator *mutator)
{
  guint delay = mutator->delay;

  mutator->delay = 0;
  return delay;
}
