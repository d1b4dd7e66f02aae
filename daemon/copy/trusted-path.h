/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* Paths that nobody else can lead astray: walked component by component, through a symbolic link
 * only where root or this user owns it (as fs.protected_symlinks judges), at most 40 of them. */

/* Opens the directory of `path` (O_PATH).  `ret_name` gets the last component, which is not looked
 * at; free with g_free.  -1 on failure. */
int trusted_path_open_parent (const char *path, char **ret_name, GError **error);
/* Opens what `path` leads to (O_PATH), through a trusted link at its end, too.  -1 on failure. */
int trusted_path_open (const char *path, GError **error);
