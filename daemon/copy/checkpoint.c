/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/copy/checkpoint.h"

#include <string.h>

#include "daemon/journal.h"

/* What it may grow by before it is written anew, beside once its size. */
#define GROWTH (4 * 1024 * 1024)
/* Next to each other in one record. */
#define MAX_ZEROES 4

struct Checkpoint
{
  Journal *journal;
  CheckpointHeader header;
  CopySamples *samples;
  NbdDigest *digest;    /* NULL: none */
  guint8 *has_digest;   /* for each segment: its digest is in the journal */
  guint64 compact_size; /* of the journal, when it was written anew; 0: it has to be */
};

static void
header_copy (CheckpointHeader *to, const CheckpointHeader *from)
{
  *to = *from;
  to->identity.uuid = g_strdup (from->identity.uuid);
  to->source = g_strdup (from->source);
  to->target_format = g_strdup (from->target_format);
  to->bitmap = g_strdup (from->bitmap);
}

void
checkpoint_resume (Checkpoint *checkpoint, const CheckpointHeader *header, CopySamples *samples,
                   NbdDigest *digest)
{
  header_copy (&checkpoint->header, header);
  checkpoint->samples = samples;
  checkpoint->digest = digest;
  if (digest != NULL)
    checkpoint->has_digest = g_malloc0 (MAX (nbd_digest_get_n_segments (digest), 1));
}

Checkpoint *
checkpoint_create (int dir, const char *path, const CheckpointHeader *header, CopySamples *samples,
                   NbdDigest *digest, GError **error)
{
  g_autoptr (Checkpoint) checkpoint = g_new0 (Checkpoint, 1);
  g_autoptr (JsonObject) record = checkpoint_encode_header (header);

  checkpoint->journal = journal_create_at (dir, path, error);
  if (checkpoint->journal == NULL)
    return NULL;
  checkpoint_resume (checkpoint, header, samples, digest);
  if (!journal_append (checkpoint->journal, record, error))
    {
      journal_remove (checkpoint->journal, NULL);
      return NULL;
    }
  checkpoint->compact_size = journal_get_size (checkpoint->journal);
  return g_steal_pointer (&checkpoint);
}

Checkpoint *
checkpoint_open (int dir, const char *path, CheckpointState **ret_state, GError **error)
{
  g_autoptr (Checkpoint) checkpoint = g_new0 (Checkpoint, 1);
  g_autoptr (GPtrArray) records = NULL;
  CheckpointState *state;

  checkpoint->journal = journal_open_at (dir, path, &records, error);
  if (checkpoint->journal == NULL)
    return NULL;
  state = checkpoint_state_decode (path, records, error);
  if (state == NULL)
    return NULL;
  *ret_state = state;
  return g_steal_pointer (&checkpoint);
}

void
checkpoint_free (Checkpoint *checkpoint)
{
  if (checkpoint == NULL)
    return;
  journal_free (checkpoint->journal);
  checkpoint_header_clear (&checkpoint->header);
  g_free (checkpoint->has_digest);
  g_free (checkpoint);
}

void
checkpoint_align_left (GArray *left, guint64 unit, guint64 size)
{
  guint n = 0;

  for (guint i = 0; i < left->len; i++)
    {
      WorkRange range = g_array_index (left, WorkRange, i);
      WorkRange *last = n > 0 ? &g_array_index (left, WorkRange, n - 1) : NULL;

      range.start &= ~(unit - 1);
      range.end = (range.end & (unit - 1)) == 0 ? range.end : (range.end | (unit - 1)) + 1;
      range.end = MIN (range.end, size);
      if (last != NULL && range.start <= last->end)
        last->end = range.end;
      else
        g_array_index (left, WorkRange, n++) = range;
    }
  g_array_set_size (left, n);
}

/* Walks through `left` along with ascending segments: whether nothing is left of it. */
static gboolean
is_complete (const NbdDigest *digest, guint segment, const GArray *left, guint *next)
{
  guint64 size = nbd_digest_get_segment_size (digest);

  while (*next < left->len && g_array_index (left, WorkRange, *next).end <= segment * size)
    (*next)++;
  /* As a difference: the end of the last segment may be beyond what 64 bits hold. */
  return *next == left->len
         || (g_array_index (left, WorkRange, *next).start > segment * size
             && g_array_index (left, WorkRange, *next).start - segment * size >= size);
}

void
checkpoint_restore_digest (const CheckpointState *state, NbdDigest *digest)
{
  guint next = 0;

  for (guint i = 0; i < state->n_digests; i++)
    if (is_complete (digest, i, state->left, &next))
      nbd_digest_set_segment (digest, i, state->digests[i]);
}

/* One record for new digests from `first` on.  Zero is what a digest is without a record: a few of
 * them are cheaper than another record, more of them end it. */
static guint
checkpoint_take_run (Checkpoint *checkpoint, guint first, const guint8 *is_new, GPtrArray *records)
{
  guint n_segments = nbd_digest_get_n_segments (checkpoint->digest);
  g_autoptr (GArray) values = g_array_new (FALSE, FALSE, sizeof (guint64));
  guint n = 0, i;

  for (i = first; i < n_segments && is_new[i] && i - first < CHECKPOINT_MAX_DIGESTS; i++)
    {
      guint64 value = nbd_digest_get_segment (checkpoint->digest, i);

      g_array_append_val (values, value);
      if (value != 0)
        n = values->len;
      else if (values->len - n > MAX_ZEROES)
        break;
    }
  if (n > 0)
    g_ptr_array_add (records,
                     checkpoint_encode_digests (first, (const guint64 *)(void *)values->data, n));
  return MAX (i, first + 1);
}

/* Appends records for the digests of segments that are complete and, unless `all`, not in the
 * journal yet.  They may be ahead of the ranges that the journal tells: those don't count. */
static void
checkpoint_take_digests (Checkpoint *checkpoint, const GArray *left, gboolean all,
                         GPtrArray *records)
{
  guint n = checkpoint->digest != NULL ? nbd_digest_get_n_segments (checkpoint->digest) : 0;
  g_autofree guint8 *is_new = g_malloc0 (n + 1);
  guint next = 0;

  for (guint i = 0; i < n; i++)
    if (is_complete (checkpoint->digest, i, left, &next) && (all || !checkpoint->has_digest[i]))
      is_new[i] = checkpoint->has_digest[i] = 1;
  for (guint i = 0; i < n;)
    i = checkpoint_take_run (checkpoint, i, is_new, records);
}

static gboolean
checkpoint_append_new (Checkpoint *checkpoint, const GArray *left, GError **error)
{
  g_autoptr (GPtrArray) records
      = g_ptr_array_new_with_free_func ((GDestroyNotify)json_object_unref);
  g_autoptr (GArray) samples = copy_samples_record (checkpoint->samples, left);

  checkpoint_take_digests (checkpoint, left, FALSE, records);
  g_ptr_array_add (records, checkpoint_encode_left (left, samples));
  for (guint i = 0; i < records->len; i++)
    if (!journal_append (checkpoint->journal, records->pdata[i], error))
      return FALSE;
  return TRUE;
}

static gboolean
checkpoint_compact (Checkpoint *checkpoint, const GArray *left, GError **error)
{
  g_autoptr (GPtrArray) records
      = g_ptr_array_new_with_free_func ((GDestroyNotify)json_object_unref);
  g_autoptr (GArray) new = copy_samples_record (checkpoint->samples, left);
  g_autoptr (GArray) samples = copy_samples_get (checkpoint->samples, left);

  g_ptr_array_add (records, checkpoint_encode_header (&checkpoint->header));
  checkpoint_take_digests (checkpoint, left, TRUE, records);
  g_ptr_array_add (records, checkpoint_encode_left (left, samples));
  if (!journal_rewrite (checkpoint->journal, records, error))
    return FALSE;
  checkpoint->compact_size = journal_get_size (checkpoint->journal);
  return TRUE;
}

gboolean
checkpoint_append (Checkpoint *checkpoint, const GArray *left, GError **error)
{
  guint64 size = journal_get_size (checkpoint->journal);
  gboolean small = checkpoint->compact_size > 0 && size <= 2 * checkpoint->compact_size + GROWTH;

  if (small ? checkpoint_append_new (checkpoint, left, error)
            : checkpoint_compact (checkpoint, left, error))
    return TRUE;
  /* What counts as recorded may not be. */
  checkpoint->compact_size = 0;
  return FALSE;
}

gboolean
checkpoint_remove (Checkpoint *checkpoint, GError **error)
{
  return journal_remove (checkpoint->journal, error);
}
