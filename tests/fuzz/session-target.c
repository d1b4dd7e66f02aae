/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/session-target.h"

#include <string.h>

#include "tests/fuzz/fuzz.h"

static gboolean
target_put (NbdTarget *base, const guint8 *data, gsize len, guint64 offset, GError **error)
{
  SessionTarget *target = (SessionTarget *)base;
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&target->lock);

  FUZZ_REQUIRE (len > 0 && offset < base->size && len <= base->size - offset);
  if (++target->n_calls == target->failing_call)
    {
      target->failed = TRUE;
      g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_NO_SPACE, "memory: full");
      return FALSE;
    }
  if (data != NULL)
    memcpy (target->data + offset, data, len);
  else
    memset (target->data + offset, 0, len);
  return TRUE;
}

static gboolean
target_write (NbdTarget *target, const void *buf, gsize len, guint64 offset, GError **error)
{
  return target_put (target, buf, len, offset, error);
}

static gboolean
target_zero (NbdTarget *target, guint64 offset, guint64 len, GError **error)
{
  return target_put (target, NULL, len, offset, error);
}

static gboolean
target_flush (NbdTarget *target, GError **error)
{
  return TRUE;
}

static const NbdTargetClass target_class
    = { .write = target_write, .zero = target_zero, .flush = target_flush };

void
session_target_init (SessionTarget *target, guint8 *data, guint64 size, gboolean is_zero,
                     guint failing_call)
{
  *target = (SessionTarget){
    .base = { .klass = &target_class, .name = (char *)"memory", .size = size, .is_zero = is_zero },
    .data = data,
    .failing_call = failing_call
  };
  g_mutex_init (&target->lock);
}

void
session_target_clear (SessionTarget *target)
{
  g_mutex_clear (&target->lock);
}
