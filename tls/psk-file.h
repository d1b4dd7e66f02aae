/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <gnutls/gnutls.h>

/* A file of pre-shared keys as psktool(1) writes it: a line "USER:KEY" for each user, the key in
 * hexadecimal digits.  Of two lines for a user the first one counts. */

/* RFC 9257, section 6: a key that can be guessed gives everything away, also of the past. */
#define PSK_FILE_MIN_KEY_BYTES 16

/* The digits of `user`'s key; they lie within `text`, which is what the file `path` has in it.
 * Errors: TLS_ERROR_CREDENTIALS, "cannot use PATH: ...". */
gboolean psk_file_find_key (const gnutls_datum_t *text, const char *path, const char *user,
                            gnutls_datum_t *ret_hex, GError **error);
