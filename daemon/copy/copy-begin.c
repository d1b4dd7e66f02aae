/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/copy/copy-private.h"

#include <errno.h>

#include <glib/gstdio.h>

#define MAX_PROOF (G_GUINT64_CONSTANT (64) * 1024 * 1024)

static gboolean
run_connect (CopyRun *run, GError **error)
{
  Copy *copy = run->copy;
  g_auto (GStrv) contexts = pull_get_contexts (copy->bitmap);
  const NbdExport *export;

  copy->phase = COPY_CONNECTING;
  run->client = nbd_dialer_connect (copy->dialer, (const char *const *)contexts,
                                    deadline_in (copy->timeout_ms, run->cancellable), error);
  if (run->client == NULL || !pull_check_bitmap (run->client, copy->bitmap, error))
    return FALSE;
  export = nbd_client_get_export (run->client);
  copy->size = export->size;
  run->block = MAX (export->min_block, PULL_BLOCK);
  return TRUE;
}

static gboolean
run_find_target (CopyRun *run, GError **error)
{
  Copy *copy = run->copy;
  CopyTargetSpec spec = { .text = copy->target,
                          .format = copy->target_format,
                          .size = copy->size,
                          .in_place = copy->bitmap != NULL,
                          .allow_plaintext = copy->allow_plaintext,
                          .timeout_ms = copy->timeout_ms,
                          .cancellable = run->cancellable };

  run->place = copy_target_find (&spec, error);
  return run->place != NULL;
}

static void
run_set_target (CopyRun *run, NbdTarget *target)
{
  run->target = target;
  g_free (run->target_name);
  run->target_name = g_strdup (target->name);
}

/* Why an earlier copy isn't this one, or NULL. */
static char *
describe_difference (const Copy *copy, const CheckpointHeader *header)
{
  if (g_strcmp0 (header->source, copy->source) != 0)
    return g_strdup_printf ("it was a copy of %s", header->source);
  if (header->size != copy->size)
    return g_strdup_printf ("the export had %" G_GUINT64_FORMAT
                            " bytes, and now has %" G_GUINT64_FORMAT,
                            header->size, copy->size);
  if (g_strcmp0 (header->target_format, copy->target_format) != 0)
    return g_strdup_printf ("its target's format was %s", header->target_format);
  if (g_strcmp0 (header->bitmap, copy->bitmap) != 0)
    return header->bitmap != NULL ? g_strdup_printf ("it copied bitmap %s", header->bitmap)
                                  : g_strdup ("it copied without a bitmap");
  return NULL;
}

/* Errors that say that there is nothing to go on with; any other may be gone with the next try, and
 * is no reason to throw away what was copied. */
static gboolean
is_refutation (const GError *error)
{
  return g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA)
         || g_error_matches (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)
         || g_error_matches (error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED);
}

static gboolean
check_header (const Copy *copy, const CheckpointHeader *header, GError **error)
{
  g_autofree char *difference = describe_difference (copy, header);

  if (difference != NULL)
    {
      g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, difference);
      return FALSE;
    }
  if (copy->verify && !header->verify)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                   "%s: the interrupted copy was begun without --verify and has no digests: go on "
                   "with --resume alone, or begin anew with --verify alone",
                   copy->target);
      return FALSE;
    }
  return TRUE;
}

static gboolean
run_prove (CopyRun *run, const CheckpointState *state, GError **error)
{
  g_autoptr (GArray) samples = copy_samples_get (state->samples, state->left);

  run->copy->phase = COPY_PROVING;
  if (samples->len == 0 && copy_run_count_bytes (state->left) < run->copy->size)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                   "it has copied nothing but zeroes, which prove nothing");
      return FALSE;
    }
  return copy_samples_prove (samples, run->client, run->target, MAX_PROOF, run->copy->timeout_ms,
                             run->cancellable, error);
}

/* Takes over what is proven. */
static void
run_take_state (CopyRun *run, Checkpoint *checkpoint, CheckpointState *state)
{
  Copy *copy = run->copy;
  guint64 unit = run->block;

  if (copy->verify)
    {
      run->digest = nbd_digest_new (copy->size);
      unit = MAX (unit, nbd_digest_get_segment_size (run->digest));
    }
  checkpoint_align_left (state->left, unit, copy->size);
  if (copy->verify)
    checkpoint_restore_digest (state, run->digest);
  state->header.verify = copy->verify;
  run->left = g_steal_pointer (&state->left);
  run->samples = g_steal_pointer (&state->samples);
  run->checkpoint = checkpoint;
  checkpoint_resume (checkpoint, &state->header, run->samples, run->digest);
}

static gboolean
run_resume (CopyRun *run, GError **error)
{
  int dir;
  const char *path = copy_target_get_journal (run->place, &dir);
  g_autoptr (CheckpointState) state = NULL;
  g_autoptr (Checkpoint) checkpoint = checkpoint_open (dir, path, &state, error);
  NbdTarget *target;

  if (checkpoint == NULL || !check_header (run->copy, &state->header, error))
    return FALSE;
  target = copy_target_reopen (run->place, &state->header.identity, error);
  if (target == NULL)
    return FALSE;
  run_set_target (run, target);
  if (!run_prove (run, state, error))
    return FALSE;
  run_take_state (run, g_steal_pointer (&checkpoint), state);
  return TRUE;
}

static gboolean
run_make_checkpoint (CopyRun *run, const CopyIdentity *identity, GError **error)
{
  Copy *copy = run->copy;
  int dir;
  const char *path = copy_target_get_journal (run->place, &dir);
  CheckpointHeader header = { .identity = *identity,
                              .source = copy->source,
                              .target_format = copy->target_format,
                              .bitmap = copy->bitmap,
                              .size = copy->size,
                              .verify = copy->verify };

  if (path == NULL)
    return TRUE;
  run->checkpoint = checkpoint_create (dir, path, &header, run->samples, run->digest, error);
  return run->checkpoint != NULL;
}

static gboolean
run_create (CopyRun *run, GError **error)
{
  Copy *copy = run->copy;
  CopyIdentity identity = { 0 };
  WorkRange all = { 0, copy->size };
  NbdTarget *target = copy_target_create (run->place, &identity, error);
  gboolean good;

  if (target == NULL)
    return FALSE;
  run_set_target (run, target);
  run->made = TRUE;
  run->samples = copy_samples_new ();
  run->digest = copy->verify ? nbd_digest_new (copy->size) : NULL;
  run->left = g_array_new (FALSE, FALSE, sizeof (WorkRange));
  if (copy->size > 0)
    g_array_append_val (run->left, all);
  good = run_make_checkpoint (run, &identity, error);
  copy_identity_clear (&identity);
  return good;
}

static void
run_tell_why (CopyRun *run, const GError *why)
{
  if (g_error_matches (why, G_IO_ERROR, G_IO_ERROR_NOT_FOUND))
    copy_run_note (run, "%s: nothing of an earlier copy to go on with: starting from the beginning",
                   run->copy->target);
  else
    copy_run_note (run, "starting over: the interrupted copy can't be gone on with: %s",
                   why->message);
}

gboolean
copy_run_begin (CopyRun *run, GError **error)
{
  g_autoptr (GError) why = NULL;

  if (!run_connect (run, error) || !run_find_target (run, error))
    return FALSE;
  if (!run->copy->resume)
    return run_create (run, error);
  if (run_resume (run, &why))
    return TRUE;
  if (!is_refutation (why))
    {
      g_propagate_error (error, g_steal_pointer (&why));
      return FALSE;
    }
  run_tell_why (run, why);
  return run_create (run, error);
}
