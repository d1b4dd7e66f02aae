/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/mirror-pass.h"

/* The half of a pass that faces the target: data and zeroes go there, and what reads as zeroes
 * becomes holes where that is worth it. */

/* The range reads as zeroes afterwards. */
gboolean mirror_store_zero (const MirrorPassSpec *spec, guint64 offset, guint64 length,
                            GError **error);
/* The answer to a read is with the target, and the observer knows. */
gboolean mirror_store_data (const MirrorPassSpec *spec, const NbdRequest *request, GError **error);
