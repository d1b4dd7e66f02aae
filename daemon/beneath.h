/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* Which path a peer may touch, and how it is reached without being led astray: openat2(2) beneath
 * the directory that allows it, through no symbolic link below that. */
typedef struct
{
  int parent; /* the directory that holds it (O_PATH), -1 for a device that is listed literally */
  char *name; /* in `parent`; for a device its whole path */
} Beneath;

void beneath_clear (Beneath *place);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Beneath, beneath_clear)

/* `dirs` are absolute directories, or literal device paths; NULL-terminated.  The file itself need
 * not exist.  `key` and `peer` are for messages: "target-dirs", "hostA".  FALSE with
 * G_IO_ERROR_PERMISSION_DENIED where nothing allows it, G_IO_ERROR_NOT_FOUND where its directory
 * isn't there.  On success end *ret_place with beneath_clear (). */
gboolean beneath_find (const char *const *dirs, const char *path, const char *key, const char *peer,
                       Beneath *ret_place, GError **error);
/* Opens it with O_PATH, following no link, except for a literally listed one.  -1 with errno. */
int beneath_open_path (const Beneath *place);
