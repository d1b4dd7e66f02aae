/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* Reads a configuration file: regular, at most 1 MiB of UTF-8, and not writable by others, because
 * it says who may do what as root.  Errors name the file and what to do. */
gboolean config_file_read (const char *path, char **ret_text, GError **error);
