/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/wire.h"

/* What one connection may ask for: so much at the same time, and nothing twice. */
typedef struct SessionLimits SessionLimits;

SessionLimits *session_limits_new (void);
void session_limits_free (SessionLimits *limits);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (SessionLimits, session_limits_free)

/* The client has sent a request, and has been sent `n_sent` bytes of answers.  `count`: whether
 * these make room as they should; where answers are broken that can't be told. */
void session_limits_add_request (SessionLimits *limits, const WireRequest *request, guint64 n_sent,
                                 gboolean count);
/* The answer to the last request ends with byte number `end` of the answers. */
void session_limits_end_answer (SessionLimits *limits, guint64 end);
