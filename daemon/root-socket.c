/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/root-socket.h"

#include <gio/gio.h>
#include <stdio.h>
#include <string.h>

#define ESTABLISHED 1
#define ROOT 0

/* As the tables spell an address: its 32-bit words as this machine reads them, in hexadecimal. */
static char *
spell (const char *address)
{
  g_autoptr (GInetAddress) parsed = g_inet_address_new_from_string (address);
  GString *text = g_string_new (NULL);

  for (gsize i = 0; parsed && i < g_inet_address_get_native_size (parsed); i += 4)
    {
      guint32 word;

      memcpy (&word, g_inet_address_to_bytes (parsed) + i, 4);
      g_string_append_printf (text, "%08X", word);
    }
  return g_string_free (text, FALSE);
}

/* "  0: 0100007F:A2C4 0100007F:C040 01 00000000:00000000 00:00000000 00000000     0 ...":
 * number, local, remote, state, queues, timer, retransmissions, user. */
static gboolean
parse_line (const char *line, const char *address, guint *ret_local, guint *ret_remote)
{
  char remote[33];
  guint state, user;

  return sscanf (line, " %*u: %*[0-9A-F]:%x %32[0-9A-F]:%x %x %*x:%*x %*x:%*x %*x %u", ret_local,
                 remote, ret_remote, &state, &user)
             == 5
         && state == ESTABLISHED && user == ROOT && strcmp (remote, address) == 0;
}

gboolean
root_socket_find (const char *remote_address, guint16 remote_port, guint16 *ret_local_port)
{
  gboolean ipv6 = strchr (remote_address, ':') != NULL;
  g_autofree char *address = spell (remote_address);
  g_autofree char *text = NULL;
  g_auto (GStrv) lines = NULL;

  if (!g_file_get_contents (ipv6 ? "/proc/self/net/tcp6" : "/proc/self/net/tcp", &text, NULL, NULL))
    return FALSE;
  lines = g_strsplit (text, "\n", -1);
  for (guint i = 0; lines[i] != NULL; i++)
    {
      guint local, remote;

      if (!parse_line (lines[i], address, &local, &remote) || remote != remote_port)
        continue;
      *ret_local_port = local;
      return TRUE;
    }
  return FALSE;
}
