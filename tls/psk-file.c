/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/psk-file.h"

#include <string.h>

#include "tls/credentials.h"
#include "tls/text.h"

static gsize
line_length (const char *line, const char *end)
{
  const char *newline = memchr (line, '\n', (gsize)(end - line));

  return (gsize)((newline != NULL ? newline : end) - line);
}

/* The key on this line, with what may follow it, if it is `user`'s; else NULL. */
static const char *
match_line (const char *line, gsize len, const char *user)
{
  gsize user_len = strlen (user);

  if (len <= user_len || memcmp (line, user, user_len) != 0 || line[user_len] != ':')
    return NULL;
  return line + user_len + 1;
}

static gboolean
check_key (const char *key, gsize len, const char *path, const char *shown, GError **error)
{
  gsize digits = 0;

  while (digits < len && g_ascii_isxdigit (key[digits]))
    digits++;
  if (digits != len || len % 2 != 0 || len == 0)
    g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS,
                 "cannot use %s: the key of user \"%s\" is not made of pairs of hexadecimal "
                 "digits: make one with psktool",
                 path, shown);
  else if (len / 2 < PSK_FILE_MIN_KEY_BYTES)
    g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS,
                 "cannot use %s: the key of user \"%s\" has only %zu bytes, which can be guessed, "
                 "at least %d are needed: make one with psktool",
                 path, shown, len / 2, PSK_FILE_MIN_KEY_BYTES);
  else
    return TRUE;
  return FALSE;
}

gboolean
psk_file_find_key (const gnutls_datum_t *text, const char *path, const char *user,
                   gnutls_datum_t *ret_hex, GError **error)
{
  const char *at = (const char *)text->data;
  const char *end = at + text->size;
  g_autofree char *shown = text_escape_name (user);

  while (at < end)
    {
      gsize len = line_length (at, end);
      const char *key = match_line (at, len, user);
      if (key != NULL)
        {
          gsize n = (gsize)(at + len - key);
          if (n > 0 && key[n - 1] == '\r')
            n--;
          if (!check_key (key, n, path, shown, error))
            return FALSE;
          *ret_hex = (gnutls_datum_t){ .data = (guchar *)key, .size = (guint)n };
          return TRUE;
        }
      at += len + (at + len < end ? 1 : 0);
    }
  g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS,
               "cannot use %s: it has no key of user \"%s\": name another user, or make a key with "
               "psktool and give it to the server, too",
               path, shown);
  return FALSE;
}
