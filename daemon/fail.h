/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* Sets "PATH: WHAT: strerror" with the G_IO_ERROR that errno stands for.  Always FALSE, to be
 * returned. */
gboolean fail_errno (const char *path, const char *what, GError **error);
