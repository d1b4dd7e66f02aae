/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/target.h"

/* A target in memory, which may fail.  On the stack of its user, as all that it holds. */
typedef struct
{
  NbdTarget base;
  GMutex lock;
  guint8 *data;
  guint failing_call; /* the n-th write or zero fails, from 1; 0: none does */
  guint n_calls;
  gboolean failed;
} SessionTarget;

/* `data` is borrowed, `size` bytes; `failing_call` as above. */
void session_target_init (SessionTarget *target, guint8 *data, guint64 size, gboolean is_zero,
                          guint failing_call);
void session_target_clear (SessionTarget *target);
