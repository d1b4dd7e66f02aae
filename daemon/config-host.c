/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/config-host.h"

#include <arpa/inet.h>
#include <string.h>

#include "daemon/config.h"

gboolean
config_host_parse_port (const char *text, guint16 *ret_port)
{
  guint64 port;

  if (!g_ascii_string_to_unsigned (text, 10, 1, G_MAXUINT16, &port, NULL))
    return FALSE;
  *ret_port = port;
  return TRUE;
}

gboolean
config_host_is_ipv6 (const char *text)
{
  g_autofree char *address = g_strndup (text, strcspn (text, "%"));
  struct in6_addr binary;

  return inet_pton (AF_INET6, address, &binary) == 1;
}

static gboolean
is_host_name (const char *text)
{
  gsize len = strlen (text);

  return len > 0 && len <= 253 && text[0] != '-' && text[0] != '.'
         && strspn (text, G_CSET_a_2_z G_CSET_A_2_Z G_CSET_DIGITS "-._") == len;
}

gboolean
config_split_host (const char *text, char **ret_host, guint16 *ret_port, GError **error)
{
  const char *colon = strrchr (text, ':');
  g_autofree char *host = NULL;
  const char *port_text = NULL;
  guint16 port = 0;
  gboolean good;

  if (text[0] == '[')
    {
      const char *end = strchr (text, ']');

      host = g_strndup (text + 1, end != NULL ? (gsize)(end - text - 1) : 0);
      good = config_host_is_ipv6 (host) && (end[1] == '\0' || end[1] == ':');
      port_text = good && end[1] == ':' ? end + 2 : NULL;
    }
  else if (colon != NULL && strchr (text, ':') != colon)
    {
      host = g_strdup (text);
      good = config_host_is_ipv6 (host);
    }
  else
    {
      host = g_strndup (text, colon != NULL ? (gsize)(colon - text) : strlen (text));
      good = is_host_name (host);
      port_text = colon != NULL ? colon + 1 : NULL;
    }
  if (!good || (port_text != NULL && !config_host_parse_port (port_text, &port)))
    {
      g_autofree char *shown = g_strescape (text, NULL);

      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                   "\"%s\" is not a host: expected NAME, NAME:PORT, IPV4:PORT or [IPV6]:PORT",
                   shown);
      return FALSE;
    }
  *ret_host = g_steal_pointer (&host);
  *ret_port = port;
  return TRUE;
}
