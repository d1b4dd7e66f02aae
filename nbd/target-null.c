/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/target.h"

static gboolean
null_write (NbdTarget *target, const void *buf, gsize len, guint64 offset, GError **error)
{
  return TRUE;
}

static gboolean
null_zero (NbdTarget *target, guint64 offset, guint64 len, GError **error)
{
  return TRUE;
}

static gboolean
null_flush (NbdTarget *target, GError **error)
{
  return TRUE;
}

static void
null_free (NbdTarget *target)
{
  g_free (target->name);
  g_free (target);
}

static const NbdTargetClass null_class
    = { .write = null_write, .zero = null_zero, .flush = null_flush, .free = null_free };

NbdTarget *
nbd_target_new_null (guint64 size)
{
  NbdTarget *target = g_new0 (NbdTarget, 1);

  target->klass = &null_class;
  target->name = g_strdup ("null:");
  target->size = size;
  target->is_zero = TRUE;
  return target;
}
