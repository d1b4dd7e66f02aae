/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "nbd/protocol.h"
#include "nbd/uri.h"
#include "tests/fuzz/fuzz.h"

/* The parser of NBD URIs.  Input: the URI. */

static void
check_plain (const char *text)
{
  FUZZ_REQUIRE (g_utf8_validate (text, -1, NULL));
  for (const char *at = text; *at != '\0'; at++)
    FUZZ_REQUIRE ((guint8)*at >= 0x20 && *at != 0x7f);
}

static void
check_uri (const char *text, const NbdUri *uri)
{
  FUZZ_REQUIRE (nbd_uri_is_uri (text));
  check_plain (uri->text);
  FUZZ_REQUIRE (g_str_has_prefix (text, "nbds") || g_ascii_strncasecmp (text, "nbds", 4) == 0
                || !uri->tls);
  FUZZ_REQUIRE ((uri->host == NULL) != (uri->socket == NULL));
  FUZZ_REQUIRE (uri->host == NULL || uri->host[0] != '\0');
  FUZZ_REQUIRE (uri->host == NULL || uri->port != 0);
  FUZZ_REQUIRE (uri->socket == NULL || uri->socket[0] != '\0');
  FUZZ_REQUIRE (uri->export_name != NULL);
  FUZZ_REQUIRE (strlen (uri->export_name) <= NBD_MAX_STRING);
  FUZZ_REQUIRE (g_utf8_validate (uri->export_name, -1, NULL));
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  g_autofree char *text = g_strndup ((const char *)data, size);
  g_autoptr (GError) error = NULL;
  g_autoptr (NbdUri) uri = nbd_uri_parse (text, &error);

  if (uri != NULL)
    {
      check_uri (text, uri);
      return 0;
    }
  FUZZ_REQUIRE (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT));
  check_plain (error->message);
  return 0;
}
