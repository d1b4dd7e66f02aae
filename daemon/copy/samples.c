/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/copy/samples.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "nbd/exchange.h"
#include "nbd/protocol.h"
#include "nbd/work-list.h"

#define FIRST_STRIDE COPY_SAMPLE_SIZE

struct CopySamples
{
  GMutex lock;
  guint64 stride; /* one sample at most begins in each */
  GArray *kept;   /* CopySample, by offset */
};

CopySamples *
copy_samples_new (void)
{
  CopySamples *samples = g_new0 (CopySamples, 1);

  g_mutex_init (&samples->lock);
  samples->stride = FIRST_STRIDE;
  samples->kept = g_array_new (FALSE, FALSE, sizeof (CopySample));
  return samples;
}

void
copy_samples_free (CopySamples *samples)
{
  if (samples == NULL)
    return;
  g_array_unref (samples->kept);
  g_mutex_clear (&samples->lock);
  g_free (samples);
}

static CopySample *
sample_at (const GArray *array, guint i)
{
  return &g_array_index (array, CopySample, i);
}

/* The index of the first one at or behind `offset`. */
static guint
kept_find (const GArray *kept, guint64 offset)
{
  guint low = 0, high = kept->len;

  while (low < high)
    {
      guint middle = (low + high) / 2;

      if (sample_at (kept, middle)->offset < offset)
        low = middle + 1;
      else
        high = middle;
    }
  return low;
}

/* Whether there is room for a sample at `offset`, and where. */
static gboolean
samples_want (const CopySamples *samples, guint64 offset, guint *ret_index)
{
  const GArray *kept = samples->kept;
  guint64 slot = offset / samples->stride;
  guint i = kept_find (kept, offset);

  *ret_index = i;
  return (i == kept->len || sample_at (kept, i)->offset / samples->stride != slot)
         && (i == 0 || sample_at (kept, i - 1)->offset / samples->stride != slot);
}

/* Twice the stride, and of each the first one stays. */
static void
samples_thin_out (CopySamples *samples)
{
  GArray *kept = samples->kept;
  guint n = 0;

  samples->stride *= 2;
  for (guint i = 0; i < kept->len; i++)
    {
      CopySample sample = *sample_at (kept, i);

      if (n == 0
          || sample_at (kept, n - 1)->offset / samples->stride != sample.offset / samples->stride)
        *sample_at (kept, n++) = sample;
    }
  g_array_set_size (kept, n);
}

void
copy_samples_insert (CopySamples *samples, const CopySample *sample)
{
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&samples->lock);
  guint i;

  if (!samples_want (samples, sample->offset, &i))
    return;
  g_array_insert_val (samples->kept, i, *sample);
  while (samples->kept->len > COPY_SAMPLES_MAX)
    samples_thin_out (samples);
}

void
copy_samples_add (CopySamples *samples, const guint8 *data, gsize len, guint64 offset)
{
  CopySample sample = { .offset = offset, .length = (guint32)MIN (len, COPY_SAMPLE_SIZE) };
  guint i;

  if (len == 0)
    return;
  {
    G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&samples->lock);

    if (!samples_want (samples, offset, &i))
      return;
  }
  sample.hash = XXH3_64bits (data, sample.length);
  copy_samples_insert (samples, &sample);
}

/* Walks through `left` along with ascending samples. */
static gboolean
is_finished (const CopySample *sample, const GArray *left, guint *next)
{
  while (left != NULL && *next < left->len
         && g_array_index (left, WorkRange, *next).end <= sample->offset)
    (*next)++;
  return left == NULL || *next == left->len
         || g_array_index (left, WorkRange, *next).start >= sample->offset + sample->length;
}

static GArray *
samples_take (CopySamples *samples, const GArray *left, gboolean record)
{
  GArray *taken = g_array_new (FALSE, FALSE, sizeof (CopySample));
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&samples->lock);
  guint next = 0;

  for (guint i = 0; i < samples->kept->len; i++)
    {
      CopySample *sample = sample_at (samples->kept, i);

      if (!is_finished (sample, left, &next) || (record && sample->recorded))
        continue;
      sample->recorded |= record;
      g_array_append_val (taken, *sample);
    }
  return taken;
}

GArray *
copy_samples_get (CopySamples *samples, const GArray *left)
{
  return samples_take (samples, left, FALSE);
}

GArray *
copy_samples_record (CopySamples *samples, const GArray *left)
{
  return samples_take (samples, left, TRUE);
}

static gboolean
check_sample (const CopySample *sample, const guint8 *data, const char *name, GError **error)
{
  if (XXH3_64bits (data, sample->length) == sample->hash)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
               "%s: the %u bytes at offset %" G_GUINT64_FORMAT
               " are not what they were when they were copied",
               name, sample->length, sample->offset);
  return FALSE;
}

/* By the whole blocks of a server that may have had smaller ones when the sample was taken. */
static gboolean
read_sample (const CopySample *sample, guint8 *buffer, NbdClient *client, gint64 timeout_ms,
             GCancellable *cancellable, const guint8 **ret_data, GError **error)
{
  const NbdExport *export = nbd_client_get_export (client);
  guint64 block = export->min_block;
  guint64 start = sample->offset / block * block;
  guint64 end = (sample->offset + sample->length + block - 1) / block * block;

  *ret_data = buffer + (sample->offset - start);
  return nbd_exchange_read (client, buffer, MIN (end, export->size) - start, start, timeout_ms,
                            cancellable, error);
}

static gboolean
prove_sample (const CopySample *sample, guint8 *buffer, NbdClient *client, NbdTarget *target,
              gint64 timeout_ms, GCancellable *cancellable, GError **error)
{
  const guint8 *data;

  if (client != NULL
      && (!read_sample (sample, buffer, client, timeout_ms, cancellable, &data, error)
          || !check_sample (sample, data, nbd_client_get_name (client), error)))
    return FALSE;
  return target == NULL
         || (target->klass->read (target, buffer, sample->length, sample->offset, error)
             && check_sample (sample, buffer, target->name, error));
}

gboolean
copy_samples_prove (const GArray *samples, NbdClient *client, NbdTarget *target, guint64 max_bytes,
                    gint64 timeout_ms, GCancellable *cancellable, GError **error)
{
  g_autofree guint8 *buffer = g_malloc (COPY_SAMPLE_SIZE + 2 * NBD_MAX_MIN_BLOCK);
  guint n = (guint)MIN (samples->len, max_bytes / COPY_SAMPLE_SIZE);

  for (guint i = 0; i < n; i++)
    {
      const CopySample *sample = sample_at (samples, (guint)((guint64)i * samples->len / n));

      if (g_cancellable_set_error_if_cancelled (cancellable, error)
          || !prove_sample (sample, buffer, client, target, timeout_ms, cancellable, error))
        return FALSE;
    }
  return TRUE;
}
