/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/digest.h"
#include "nbd/nbd-error.h"
#include "nbd/zero-scan.h"

#include <stdatomic.h>

/* Inlined, the length of a block is a constant to it. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#define MIN_SEGMENT (1024 * 1024)
/* Of one read; a divisor of each segment's size. */
#define READ_SIZE (256 * 1024)

struct NbdDigest
{
  guint64 size;
  guint64 segment_size;
  guint n_segments;
  _Atomic guint64 *sums;
};

/* Where the target says that it has data: what the next find_data () is spared. */
typedef struct
{
  NbdDigest *digest;
  NbdTarget *target;
  guint64 data_start;
  guint64 data_end; /* nothing is known from here on */
  guint8 *buffer;
} Reader;

guint64
nbd_digest_segment_size_for (guint64 size)
{
  guint64 segment = MIN_SEGMENT;

  while (size > 0 && (size - 1) / segment >= NBD_DIGEST_MAX_SEGMENTS)
    segment *= 2;
  return segment;
}

NbdDigest *
nbd_digest_new (guint64 size)
{
  NbdDigest *digest = g_new0 (NbdDigest, 1);

  digest->size = size;
  digest->segment_size = nbd_digest_segment_size_for (size);
  digest->n_segments
      = (guint)(size / digest->segment_size + (size % digest->segment_size != 0 ? 1 : 0));
  digest->sums = g_new0 (_Atomic guint64, digest->n_segments);
  return digest;
}

void
nbd_digest_free (NbdDigest *digest)
{
  if (digest == NULL)
    return;
  g_free ((gpointer)digest->sums);
  g_free (digest);
}

guint64
nbd_digest_get_segment_size (const NbdDigest *digest)
{
  return digest->segment_size;
}

guint
nbd_digest_get_n_segments (const NbdDigest *digest)
{
  return digest->n_segments;
}

guint64
nbd_digest_get_segment (const NbdDigest *digest, guint index)
{
  return atomic_load (&digest->sums[index]);
}

void
nbd_digest_set_segment (NbdDigest *digest, guint index, guint64 value)
{
  atomic_store (&digest->sums[index], value);
}

static guint64
hash_block (const guint8 *data, gsize len, guint64 offset)
{
  if (zero_scan_is_zero (data, len))
    return 0;
  if (G_LIKELY (len == NBD_DIGEST_BLOCK))
    return XXH3_64bits_withSeed (data, NBD_DIGEST_BLOCK, offset);
  return XXH3_64bits_withSeed (data, len, offset);
}

/* Of a piece within one segment. */
static guint64
hash_blocks (const guint8 *data, guint64 len, guint64 offset)
{
  guint64 sum = 0;

  for (guint64 pos = 0; pos < len; pos += NBD_DIGEST_BLOCK)
    sum += hash_block (data + pos, MIN (NBD_DIGEST_BLOCK, len - pos), offset + pos);
  return sum;
}

void
nbd_digest_add (NbdDigest *digest, const guint8 *data, gsize len, guint64 offset)
{
  g_return_if_fail (offset % NBD_DIGEST_BLOCK == 0);
  g_return_if_fail (offset <= digest->size && len <= digest->size - offset);
  g_return_if_fail (len % NBD_DIGEST_BLOCK == 0 || offset + len == digest->size);
  while (len > 0)
    {
      guint64 n = MIN (len, digest->segment_size - offset % digest->segment_size);

      atomic_fetch_add (&digest->sums[offset / digest->segment_size],
                        hash_blocks (data, n, offset));
      data += n;
      len -= n;
      offset += n;
    }
}

/* The part of [offset, end) that begins at the first data: by whole blocks, empty at `end`. */
static gboolean
reader_find (Reader *reader, guint64 offset, guint64 end, guint64 *ret_start, guint64 *ret_end,
             GError **error)
{
  NbdTarget *target = reader->target;
  guint64 start, stop;

  if (offset >= reader->data_end)
    {
      reader->data_start = offset;
      reader->data_end = G_MAXUINT64;
      if (target->klass->find_data != NULL
          && !target->klass->find_data (target, offset, &reader->data_start, &reader->data_end,
                                        error))
        return FALSE;
      if (reader->data_start >= reader->data_end)
        reader->data_start = reader->data_end = G_MAXUINT64;
    }
  start = MAX (offset, reader->data_start / NBD_DIGEST_BLOCK * NBD_DIGEST_BLOCK);
  stop = reader->data_end < end
             ? (reader->data_end + NBD_DIGEST_BLOCK - 1) / NBD_DIGEST_BLOCK * NBD_DIGEST_BLOCK
             : end;
  *ret_start = MIN (start, end);
  *ret_end = MIN (stop, end);
  return TRUE;
}

static gboolean
reader_sum_segment (Reader *reader, guint64 offset, guint64 end, guint64 *ret_sum, GError **error)
{
  guint64 sum = 0;

  while (offset < end)
    {
      guint64 start, stop, len;

      if (!reader_find (reader, offset, end, &start, &stop, error))
        return FALSE;
      offset = start;
      len = MIN (stop - start, READ_SIZE);
      if (len == 0)
        break;
      if (!reader->target->klass->read (reader->target, reader->buffer, len, offset, error))
        return FALSE;
      sum += hash_blocks (reader->buffer, len, offset);
      offset += len;
    }
  *ret_sum = sum;
  return TRUE;
}

static gboolean
reader_check_segment (Reader *reader, guint index, GError **error)
{
  NbdDigest *digest = reader->digest;
  guint64 offset = index * digest->segment_size;
  guint64 end = offset + MIN (digest->segment_size, digest->size - offset);
  guint64 expected = nbd_digest_get_segment (digest, index);
  guint64 sum;

  if (!reader_sum_segment (reader, offset, end, &sum, error))
    return FALSE;
  if (sum == expected)
    return TRUE;
  g_set_error (error, NBD_ERROR, NBD_ERROR_IO,
               "%s: the %" G_GUINT64_FORMAT " bytes at offset %" G_GUINT64_FORMAT
               " don't read back as they were written: digest %016" G_GINT64_MODIFIER
               "x, expected %016" G_GINT64_MODIFIER "x",
               reader->target->name, end - offset, offset, sum, expected);
  return FALSE;
}

gboolean
nbd_digest_verify (NbdDigest *digest, NbdTarget *target, _Atomic guint64 *progress,
                   GCancellable *cancellable, GError **error)
{
  g_autofree guint8 *buffer = g_malloc (READ_SIZE);
  Reader reader = { .digest = digest, .target = target, .buffer = buffer };

  if (target->klass->read == NULL)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED, "%s cannot be read back",
                   target->name);
      return FALSE;
    }
  for (guint i = 0; i < digest->n_segments; i++)
    {
      if (g_cancellable_set_error_if_cancelled (cancellable, error)
          || !reader_check_segment (&reader, i, error))
        return FALSE;
      if (progress != NULL)
        atomic_store (progress, MIN ((i + 1) * digest->segment_size, digest->size));
    }
  return TRUE;
}
