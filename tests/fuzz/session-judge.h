/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tests/fuzz/session-server.h"

/* Whether a copy holds nothing but what the servers have said of it, however they lied. */
typedef struct
{
  const guint8 *target; /* afterwards */
  guint64 size;
  guint8 before;   /* what all of it held */
  gboolean bitmap; /* what the first context tells to be clean is left alone */
} SessionCopy;

/* Bytes of `copy` that somebody has told, as 1: as data, as zeroes, or as clean.  Free with
 * g_free (). */
guint8 *session_judge_find_told (const SessionServer *server, const SessionCopy *copy);
