/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>
#include <string.h>

#include "daemon/copy/checkpoint.h"
#include "daemon/journal-text.h"
#include "nbd/digest.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/journal-lines.h"

/* The journal of an interrupted copy, damaged, foreign or made up.  Input: its lines
 * (journal-lines.h).  What is read of it keeps the promises of checkpoint-state.h; a copy can go on
 * with it, and what that records is read again as it was. */

#define FILE_NAME "disk.vmferry-journal"
/* Digests of the largest disk, twice, and the records. */
#define MAX_MEMORY (64 * 1024 * 1024)

static void
check_left (const GArray *left, guint64 size, guint64 unit)
{
  guint64 floor = 0;

  FUZZ_REQUIRE (left->len <= CHECKPOINT_MAX_RANGES);
  for (guint i = 0; i < left->len; i++)
    {
      const WorkRange *range = &g_array_index (left, WorkRange, i);

      FUZZ_REQUIRE (range->start < range->end && range->end <= size);
      FUZZ_REQUIRE (i == 0 || range->start > floor);
      FUZZ_REQUIRE (range->start % unit == 0);
      FUZZ_REQUIRE (range->end % unit == 0 || range->end == size);
      floor = range->end;
    }
}

static void
check_samples (CopySamples *samples, const GArray *left, guint64 size)
{
  g_autoptr (GArray) all = copy_samples_get (samples, NULL);
  g_autoptr (GArray) finished = copy_samples_get (samples, left);

  FUZZ_REQUIRE (all->len <= COPY_SAMPLES_MAX && finished->len <= all->len);
  for (guint i = 0; i < all->len; i++)
    {
      const CopySample *sample = &g_array_index (all, CopySample, i);

      FUZZ_REQUIRE (sample->length > 0 && sample->length <= COPY_SAMPLE_SIZE);
      FUZZ_REQUIRE (sample->offset <= size && sample->length <= size - sample->offset);
      FUZZ_REQUIRE (i == 0 || g_array_index (all, CopySample, i - 1).offset < sample->offset);
    }
}

static void
check_state (const CheckpointState *state)
{
  const CheckpointHeader *header = &state->header;

  FUZZ_REQUIRE (header->source != NULL && header->target_format != NULL);
  FUZZ_REQUIRE (header->identity.uuid != NULL && g_uuid_string_is_valid (header->identity.uuid));
  FUZZ_REQUIRE ((state->digests != NULL) == (header->verify && header->size > 0));
  FUZZ_REQUIRE (state->n_digests <= NBD_DIGEST_MAX_SEGMENTS);
  check_left (state->left, header->size, NBD_DIGEST_BLOCK);
  check_samples (state->samples, state->left, header->size);
}

static gboolean
arrays_equal (const GArray *a, const GArray *b)
{
  return a->len == b->len
         && (a->len == 0
             || memcmp (a->data, b->data, a->len * g_array_get_element_size ((GArray *)a)) == 0);
}

static void
check_digests_equal (const CheckpointState *state, NbdDigest *digest)
{
  g_autoptr (NbdDigest) again = nbd_digest_new (state->header.size);

  FUZZ_REQUIRE (state->n_digests == nbd_digest_get_n_segments (digest));
  checkpoint_restore_digest (state, again);
  for (guint i = 0; i < state->n_digests; i++)
    FUZZ_REQUIRE (nbd_digest_get_segment (again, i) == nbd_digest_get_segment (digest, i));
}

/* Of what was appended. */
static void
check_again (const char *path, const CheckpointState *state, NbdDigest *digest)
{
  g_autoptr (CheckpointState) again = NULL;
  g_autoptr (Checkpoint) checkpoint = checkpoint_open (-1, path, &again, NULL);

  FUZZ_REQUIRE (checkpoint != NULL);
  check_state (again);
  FUZZ_REQUIRE (arrays_equal (again->left, state->left));
  if (digest != NULL)
    check_digests_equal (again, digest);
}

/* As copy-begin.c does. */
static void
go_on (Checkpoint *checkpoint, CheckpointState *state, const char *path)
{
  guint64 size = state->header.size, unit = NBD_DIGEST_BLOCK;
  g_autoptr (NbdDigest) digest = NULL;

  if (state->header.verify)
    {
      digest = nbd_digest_new (size);
      unit = nbd_digest_get_segment_size (digest);
    }
  checkpoint_align_left (state->left, unit, size);
  check_left (state->left, size, unit);
  if (digest != NULL)
    checkpoint_restore_digest (state, digest);
  checkpoint_resume (checkpoint, &state->header, state->samples, digest);
  FUZZ_REQUIRE (checkpoint_append (checkpoint, state->left, NULL));
  check_again (path, state, digest);
  g_array_set_size (state->left, state->left->len / 2);
  FUZZ_REQUIRE (checkpoint_append (checkpoint, state->left, NULL));
  check_again (path, state, digest);
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  g_autofree char *path = g_build_filename (journal_lines_get_dir (FILE_NAME), FILE_NAME, NULL);
  g_autoptr (GString) text = journal_lines_make (data, size);
  g_autoptr (CheckpointState) state = NULL;
  g_autoptr (Checkpoint) checkpoint = NULL;
  g_autoptr (GError) error = NULL;
  gsize before = fuzz_allocated ();

  FUZZ_REQUIRE (g_file_set_contents_full (path, text->str, (gssize)text->len,
                                          G_FILE_SET_CONTENTS_NONE, 0600, NULL));
  checkpoint = checkpoint_open (-1, path, &state, &error);
  FUZZ_REQUIRE (fuzz_allocated () < before + MAX_MEMORY);
  if (checkpoint == NULL)
    {
      FUZZ_REQUIRE (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA));
      return 0;
    }
  check_state (state);
  go_on (checkpoint, state, path);
  return 0;
}
