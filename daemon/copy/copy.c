/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/copy/copy-private.h"

#include <string.h>

#include "nbd/nbd-error.h"

#define MAX_CONNECTIONS 16

static gboolean
spec_fail (const char *text, GError **error)
{
  g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, text);
  return FALSE;
}

static gboolean
spec_check (const CopySpec *spec, GError **error)
{
  gboolean lost = g_str_equal (spec->target, "null:");

  if (spec->n_connections > MAX_CONNECTIONS)
    return spec_fail ("a copy takes 1 to 16 connections", error);
  if (spec->resume && (lost || nbd_uri_is_uri (spec->target)))
    return spec_fail ("--resume works with files and block devices: whether null: or an NBD server "
                      "still holds what an earlier copy wrote can't be proven",
                      error);
  if (spec->verify && lost)
    return spec_fail ("--verify reads the target back, which null: can't do", error);
  if (spec->verify && spec->bitmap != NULL)
    return spec_fail ("--verify is about whole disks: it can't be used with --bitmap", error);
  return copy_target_check (spec->target, spec->target_format != NULL ? spec->target_format : "raw",
                            spec->bitmap != NULL, error);
}

/* QEMU encrypts in one thread, whatever comes of several connections; clear text comes faster than
 * one thread of ours writes it. */
static guint
choose_connections (const NbdUri *uri)
{
  return uri->tls ? 1 : 2;
}

/* The same for each way to write it, and nothing that is a secret. */
static char *
describe_source (const NbdUri *uri)
{
  if (uri->socket != NULL)
    return g_strdup_printf ("%s export %s", uri->socket, uri->export_name);
  return g_strdup_printf ("%s:%u export %s", uri->host, uri->port, uri->export_name);
}

Copy *
copy_new (const CopySpec *spec, GError **error)
{
  g_autoptr (NbdUri) uri = NULL;
  g_autoptr (NbdDialer) dialer = NULL;
  Copy *copy;

  if (!spec_check (spec, error))
    return NULL;
  uri = nbd_uri_parse (spec->uri, error);
  if (uri == NULL)
    return NULL;
  dialer = nbd_dialer_new (uri, spec->allow_plaintext, error);
  if (dialer == NULL)
    return NULL;
  copy = g_new0 (Copy, 1);
  g_mutex_init (&copy->lock);
  copy->dialer = g_steal_pointer (&dialer);
  copy->source = describe_source (uri);
  copy->target = g_strdup (spec->target);
  copy->target_format = g_strdup (spec->target_format != NULL ? spec->target_format : "raw");
  copy->bitmap = g_strdup (spec->bitmap);
  copy->n_connections = spec->n_connections > 0 ? spec->n_connections : choose_connections (uri);
  copy->rate = spec->rate;
  copy->timeout_ms = spec->timeout_ms;
  copy->resume = spec->resume;
  copy->verify = spec->verify;
  copy->allow_plaintext = spec->allow_plaintext;
  return copy;
}

void
copy_free (Copy *copy)
{
  if (copy == NULL)
    return;
  nbd_dialer_free (copy->dialer);
  work_list_free (copy->work);
  g_mutex_clear (&copy->lock);
  g_free (copy->target);
  g_free (copy->target_format);
  g_free (copy->bitmap);
  g_free (copy->source);
  g_free (copy);
}

void
copy_run_note (CopyRun *run, const char *format, ...)
{
  g_autofree char *text = NULL;
  va_list arguments;

  if (run->note == NULL)
    return;
  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_mutex_lock (&run->note_lock);
  run->note (run->user_data, text);
  g_mutex_unlock (&run->note_lock);
}

guint64
copy_run_count_bytes (const GArray *ranges)
{
  guint64 bytes = 0;

  for (guint i = 0; i < ranges->len; i++)
    bytes += g_array_index (ranges, WorkRange, i).end - g_array_index (ranges, WorkRange, i).start;
  return bytes;
}

static gboolean
run_verify (CopyRun *run, GError **error)
{
  Copy *copy = run->copy;
  g_autoptr (GError) local = NULL;

  if (run->digest == NULL)
    return TRUE;
  copy->phase = COPY_VERIFYING;
  if (nbd_digest_verify (run->digest, run->target, &copy->verified, run->cancellable, &local))
    return TRUE;
  run->spoiled = g_error_matches (local, NBD_ERROR, NBD_ERROR_IO);
  g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}

static gboolean
run_finish (CopyRun *run, GError **error)
{
  g_autoptr (GError) local = NULL;

  run->copy->phase = COPY_FLUSHING;
  run->target = NULL;
  if (!copy_target_finish (run->place, error))
    return FALSE;
  /* The copy is whole: a journal that stays behind harms nobody. */
  if (run->checkpoint != NULL && !checkpoint_remove (run->checkpoint, &local))
    copy_run_note (run, "%s", local->message);
  run->copy->phase = COPY_DONE;
  return TRUE;
}

static gboolean
run_phases (CopyRun *run, GError **error)
{
  Copy *copy = run->copy;

  if (!copy_run_begin (run, error))
    return FALSE;
  copy->resumed = copy->size - copy_run_count_bytes (run->left);
  copy->phase = COPY_COPYING;
  if (copy_run_pull (run, error) && run_verify (run, error) && run_finish (run, error))
    return TRUE;
  /* It is the kernel's word by now, and not about what was typed. */
  if (g_error_matches (*error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT))
    (*error)->code = G_IO_ERROR_FAILED;
  return FALSE;
}

/* Nothing stays of a copy that nobody can go on with, and what stays is told. */
static void
run_fail (CopyRun *run, GError **error)
{
  guint64 size = run->copy->size, left;

  if (run->left == NULL || run->target_name == NULL)
    return;
  left = copy_run_count_bytes (run->left);
  if (run->spoiled || (run->made && left == size))
    {
      if (run->checkpoint != NULL)
        checkpoint_remove (run->checkpoint, NULL);
      copy_target_discard (run->place);
      return;
    }
  if (run->checkpoint != NULL && error != NULL)
    {
      g_autofree char *text
          = g_strdup_printf ("%s; %s holds %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT
                             " bytes: --resume goes on with it",
                             (*error)->message, run->target_name, size - left, size);

      g_free ((*error)->message);
      (*error)->message = g_steal_pointer (&text);
    }
}

/* The same words, whoever saw it first. */
static void
name_cancelling (GError *error)
{
  if (!g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return;
  g_free (error->message);
  error->message = g_strdup ("cancelled");
}

static void
run_clear (CopyRun *run)
{
  nbd_client_free (run->client);
  copy_target_free (run->place);
  checkpoint_free (run->checkpoint);
  copy_samples_free (run->samples);
  nbd_digest_free (run->digest);
  g_clear_pointer (&run->left, g_array_unref);
  g_free (run->target_name);
  g_mutex_clear (&run->note_lock);
}

gboolean
copy_run (Copy *copy, void (*note) (gpointer user_data, const char *text), gpointer user_data,
          GCancellable *cancellable, GError **error)
{
  CopyRun run = { .copy = copy, .note = note, .user_data = user_data, .cancellable = cancellable };
  GError *local = NULL;
  gboolean good;

  g_mutex_init (&run.note_lock);
  good = run_phases (&run, &local);
  if (!good)
    {
      name_cancelling (local);
      run_fail (&run, &local);
      g_propagate_error (error, local);
    }
  run_clear (&run);
  return good;
}

/* Beyond the marked parts of a bitmap, nobody counts what is passed over. */
static guint64
get_done (Copy *copy)
{
  guint64 done = copy->resumed + copy->state.done;

  if (copy->bitmap != NULL)
    {
      G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&copy->lock);
      g_autoptr (GArray) left = copy->work != NULL ? work_list_get_left (copy->work) : NULL;

      done = left != NULL ? copy->size - copy_run_count_bytes (left) : 0;
    }
  return MIN (done, copy->size);
}

void
copy_get_progress (Copy *copy, CopyProgress *ret_progress)
{
  *ret_progress = (CopyProgress){ .phase = copy->phase,
                                  .size = copy->size,
                                  .resumed_bytes = copy->resumed,
                                  .done_bytes = get_done (copy),
                                  .read_bytes = copy->state.read_bytes,
                                  .zero_bytes = copy->state.zero_bytes,
                                  .verified_bytes = copy->verified,
                                  .n_reconnects = copy->n_reconnects };
}
