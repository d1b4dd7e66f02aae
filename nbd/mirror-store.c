/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/mirror-store.h"
#include "nbd/nbd-error.h"
#include "nbd/zero-scan.h"

/* One call of zero (): between two of them we can be cancelled. */
#define MAX_ZERO (G_GUINT64_CONSTANT (256) * 1024 * 1024)

gboolean
mirror_store_zero (const MirrorPassSpec *spec, guint64 offset, guint64 length, GError **error)
{
  NbdTarget *target = spec->target;

  /* An export is padded to whole sectors. */
  if (offset >= target->size)
    return TRUE;
  length = MIN (length, target->size - offset);
  while (length > 0 && !spec->zeroed)
    {
      guint64 n = MIN (length, MAX_ZERO);

      if (g_cancellable_set_error_if_cancelled (spec->cancellable, error)
          || !target->klass->zero (target, offset, n, error))
        return FALSE;
      offset += n;
      length -= n;
    }
  return TRUE;
}

/* Data up to the target's end; what is beyond it must be the padding of the last sector. */
static gboolean
store_clip (const MirrorPassSpec *spec, const NbdRequest *request, guint32 *ret_length,
            GError **error)
{
  guint64 end = spec->target->size;
  guint64 keep = request->length;

  if (request->offset + request->length > end)
    keep = request->offset < end ? end - request->offset : 0;
  if (!zero_scan_is_zero (request->data + keep, request->length - keep))
    {
      g_set_error (error, NBD_ERROR, NBD_ERROR_SIZE,
                   "%s: it has only %" G_GUINT64_FORMAT
                   " bytes, and %s has data beyond that which is not zero",
                   spec->target->name, end, nbd_client_get_name (spec->client));
      return FALSE;
    }
  *ret_length = (guint32)keep;
  return TRUE;
}

static gboolean
store_runs (const MirrorPassSpec *spec, const NbdRequest *request, guint32 length, GError **error)
{
  NbdTarget *target = spec->target;
  /* A target of zeroes stays sparse to the block; elsewhere only long runs are worth a hole. */
  gsize min_run = spec->zeroed ? 1 : ZERO_SCAN_LONG;
  guint32 pos = 0;

  while (pos < length)
    {
      const guint8 *data = request->data + pos;
      gsize n = zero_scan_data_run (data, length - pos, min_run);
      gsize zeroes = zero_scan_zero_run (data + n, length - pos - n);

      if (n > 0 && !target->klass->write (target, data, n, request->offset + pos, error))
        return FALSE;
      if (zeroes > 0 && !mirror_store_zero (spec, request->offset + pos + n, zeroes, error))
        return FALSE;
      pos += (guint32)(n + zeroes);
    }
  return TRUE;
}

gboolean
mirror_store_data (const MirrorPassSpec *spec, const NbdRequest *request, GError **error)
{
  const MirrorObserver *observer = spec->observer;
  guint32 length;

  if (request->hole_bytes == request->length)
    return mirror_store_zero (spec, request->offset, request->length, error);
  if (!store_clip (spec, request, &length, error) || !store_runs (spec, request, length, error))
    return FALSE;
  if (observer != NULL && observer->stored != NULL && length > 0)
    observer->stored (spec->user_data, request->data, length, request->offset);
  return TRUE;
}
