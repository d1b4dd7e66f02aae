/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/names.h"

#include <string.h>

#include "tls/text.h"

/* How many of a certificate's names are looked at, and how many a message lists. */
#define NAMES_MAX 1024
#define NAMES_LISTED 6
#define NAME_BYTES_MAX 1024
#define NAME_SHOWN_CHARS 100

typedef struct
{
  int type; /* gnutls_x509_subject_alt_name_t */
  guint8 bytes[NAME_BYTES_MAX];
  size_t len;
} AltName;

/* FALSE after the last name.  A name that is too long comes with length 0 and matches nothing. */
static gboolean
read_alt_name (gnutls_x509_crt_t cert, guint i, AltName *ret_name)
{
  guint type = 0;

  ret_name->len = sizeof ret_name->bytes;
  int rc = gnutls_x509_crt_get_subject_alt_name2 (cert, i, ret_name->bytes, &ret_name->len, &type,
                                                  NULL);
  if (rc == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE || i >= NAMES_MAX)
    return FALSE;
  ret_name->type = rc < 0 ? -1 : rc;
  if (rc < 0)
    ret_name->len = 0;
  return TRUE;
}

static gsize
length_without_dot (const char *host)
{
  gsize len = strlen (host);

  return len > 0 && host[len - 1] == '.' ? len - 1 : len;
}

static gboolean
equal_n (const char *a, gsize a_len, const char *b, gsize b_len)
{
  return a_len == b_len && g_ascii_strncasecmp (a, b, a_len) == 0;
}

gboolean
names_match_dns (const char *pattern, const char *host)
{
  gsize pattern_len = length_without_dot (pattern);
  gsize host_len = length_without_dot (host);

  if (host_len == 0 || memchr (host, '*', host_len) != NULL)
    return FALSE;
  if (!g_str_has_prefix (pattern, "*."))
    return equal_n (pattern, pattern_len, host, host_len);

  const char *suffix = pattern + 1;
  const char *dot = memchr (host, '.', host_len);
  if (pattern_len < 3 || memchr (suffix + 1, '.', pattern_len - 2) == NULL || dot == NULL
      || dot == host)
    return FALSE;
  return equal_n (suffix, pattern_len - 1, dot, host_len - (gsize)(dot - host));
}

/* A name with a zero byte in it would be cut short by string functions: it matches nothing. */
static gboolean
match_dns (const AltName *alt, const char *host)
{
  if (alt->type != GNUTLS_SAN_DNSNAME || memchr (alt->bytes, '\0', alt->len) != NULL)
    return FALSE;
  g_autofree char *pattern = g_strndup ((const char *)alt->bytes, alt->len);
  return names_match_dns (pattern, host);
}

static gboolean
match_address (const AltName *alt, GInetAddress *address)
{
  gsize len = g_inet_address_get_native_size (address);

  return alt->type == GNUTLS_SAN_IPADDRESS && alt->len == len
         && memcmp (alt->bytes, g_inet_address_to_bytes (address), len) == 0;
}

/* NULL for a DNS name.  The zone of a link-local address is of this host only. */
static GInetAddress *
parse_address (const char *name)
{
  const char *zone = strchr (name, '%');
  g_autofree char *bare = zone != NULL ? g_strndup (name, (gsize)(zone - name)) : g_strdup (name);

  return g_inet_address_new_from_string (bare);
}

gboolean
names_match (gnutls_x509_crt_t cert, const char *name)
{
  g_autoptr (GInetAddress) address = parse_address (name);
  g_autofree char *host = g_hostname_to_ascii (name);
  AltName alt;

  for (guint i = 0; read_alt_name (cert, i, &alt); i++)
    if (address != NULL ? match_address (&alt, address) : host != NULL && match_dns (&alt, host))
      return TRUE;
  return FALSE;
}

/* NULL for kinds that a host isn't called by (e-mail, URI). */
static char *
describe_alt_name (const AltName *alt)
{
  if (alt->type == GNUTLS_SAN_DNSNAME)
    return text_escape (alt->bytes, alt->len, NAME_SHOWN_CHARS);
  if (alt->type != GNUTLS_SAN_IPADDRESS || (alt->len != 4 && alt->len != 16))
    return NULL;
  g_autoptr (GInetAddress) address = g_inet_address_new_from_bytes (
      alt->bytes, alt->len == 4 ? G_SOCKET_FAMILY_IPV4 : G_SOCKET_FAMILY_IPV6);
  return g_inet_address_to_string (address);
}

char *
names_describe (gnutls_x509_crt_t cert)
{
  g_autoptr (GString) list = g_string_new (NULL);
  guint n = 0;
  AltName alt;

  for (guint i = 0; read_alt_name (cert, i, &alt); i++)
    {
      g_autofree char *shown = describe_alt_name (&alt);
      if (shown == NULL || ++n > NAMES_LISTED)
        continue;
      g_string_append_printf (list, "%s\"%s\"", n > 1 ? ", " : "", shown);
    }
  if (n == 0)
    return NULL;
  if (n > NAMES_LISTED)
    g_string_append_printf (list, " and %u more", n - NAMES_LISTED);
  return g_string_free (g_steal_pointer (&list), FALSE);
}
