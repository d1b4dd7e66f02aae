/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tls/credentials.h"
#include "tls/psk-file.h"

/* The file of pre-shared keys.  Input: the user's name up to the first zero, then the file. */

static gboolean
begins_line (const char *text, const char *at)
{
  return at == text || at[-1] == '\n';
}

static void
check_key (const gnutls_datum_t *text, const char *user, const gnutls_datum_t *key)
{
  const char *start = (const char *)text->data, *end = start + text->size;
  const char *digits = (const char *)key->data;
  gsize user_len = strlen (user);

  FUZZ_REQUIRE (digits > start && digits <= end && key->size <= (gsize)(end - digits));
  FUZZ_REQUIRE (key->size % 2 == 0 && key->size >= 2 * PSK_FILE_MIN_KEY_BYTES);
  for (guint i = 0; i < key->size; i++)
    FUZZ_REQUIRE (g_ascii_isxdigit (digits[i]));
  /* The whole rest of a line that is this user's. */
  FUZZ_REQUIRE (digits + key->size == end || digits[key->size] == '\n'
                || digits[key->size] == '\r');
  FUZZ_REQUIRE (digits[-1] == ':' && (gsize)(digits - 1 - start) >= user_len);
  FUZZ_REQUIRE (memcmp (digits - 1 - user_len, user, user_len) == 0);
  FUZZ_REQUIRE (begins_line (start, digits - 1 - user_len));
}

static void
check_error (const GError *error)
{
  FUZZ_REQUIRE (g_error_matches (error, TLS_ERROR, TLS_ERROR_CREDENTIALS));
  FUZZ_REQUIRE (g_utf8_validate (error->message, -1, NULL));
  for (const char *at = error->message; *at != '\0'; at++)
    FUZZ_REQUIRE ((guint8)*at >= 0x20 && *at != 0x7f);
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  const guint8 *zero = size > 0 ? memchr (data, 0, size) : NULL;
  g_autofree char *user = g_strndup ((const char *)data, zero != NULL ? (gsize)(zero - data) : 0);
  gsize len = zero != NULL ? size - (gsize)(zero + 1 - data) : size;
  /* Not a byte more than there is: a sanitizer sees what reads beyond it. */
  g_autofree guint8 *file = g_memdup2 (zero != NULL ? zero + 1 : data, len);
  const gnutls_datum_t text = { file, (guint)len };
  gnutls_datum_t key;
  g_autoptr (GError) error = NULL;

  if (psk_file_find_key (&text, "keys.psk", user, &key, &error))
    check_key (&text, user, &key);
  else
    check_error (error);
  return 0;
}
