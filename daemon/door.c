/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/door.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <string.h>
#include <sys/socket.h>

/* Offsets in the IP header, which SKF_NET_OFF finds in front of what a TCP socket sees. */
#define IPV4_SOURCE 12
#define IPV6_SOURCE 8
/* A smaller number would cut the packet. */
#define WHOLE_PACKET 0x7fffffff

static gboolean
attach (int fd, struct sock_filter *code, guint len, GError **error)
{
  const struct sock_fprog program = { .len = len, .filter = code };
  int saved;

  if (setsockopt (fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0)
    return TRUE;
  saved = errno;
  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (saved),
               "cannot put a filter on the listening socket: %s", g_strerror (saved));
  return FALSE;
}

/* A dual-stack socket gets both: the version, the first nibble, is looked at before the address. */
static void
add_version_check (struct sock_filter *code, guint *len, guint32 version, guint8 to_drop)
{
  code[(*len)++] = (struct sock_filter)BPF_STMT (BPF_LD | BPF_B | BPF_ABS, (guint32)SKF_NET_OFF);
  code[(*len)++] = (struct sock_filter)BPF_STMT (BPF_ALU | BPF_RSH | BPF_K, 4);
  code[(*len)++] = (struct sock_filter)BPF_JUMP (BPF_JMP | BPF_JEQ | BPF_K, version, 0, to_drop);
}

/* `words` 32-bit words of the source address at `offset` of the IP header. */
static gboolean
attach_address (int fd, guint32 version, guint32 offset, const guint8 *bytes, guint words,
                GError **error)
{
  struct sock_filter code[3 + 4 * 2 + 2];
  guint len = 0;

  add_version_check (code, &len, version, 2 * words + 1);
  for (guint i = 0; i < words; i++)
    {
      guint32 word;

      memcpy (&word, bytes + 4 * i, 4);
      code[len++] = (struct sock_filter)BPF_STMT (BPF_LD | BPF_W | BPF_ABS,
                                                  (guint32)SKF_NET_OFF + offset + 4 * i);
      code[len++] = (struct sock_filter)BPF_JUMP (BPF_JMP | BPF_JEQ | BPF_K, ntohl (word), 0,
                                                  2 * (words - 1 - i) + 1);
    }
  code[len++] = (struct sock_filter)BPF_STMT (BPF_RET | BPF_K, WHOLE_PACKET);
  code[len++] = (struct sock_filter)BPF_STMT (BPF_RET | BPF_K, 0);
  return attach (fd, code, len, error);
}

gboolean
door_open_for (int fd, const char *address, GError **error)
{
  g_autofree char *plain = g_strndup (address, strcspn (address, "%"));
  struct in_addr ipv4;
  struct in6_addr ipv6;

  if (inet_pton (AF_INET, plain, &ipv4) == 1)
    return attach_address (fd, 4, IPV4_SOURCE, (const guint8 *)&ipv4, 1, error);
  if (inet_pton (AF_INET6, plain, &ipv6) != 1)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "\"%s\" is not an IP address",
                   plain);
      return FALSE;
    }
  if (IN6_IS_ADDR_V4MAPPED (&ipv6))
    return attach_address (fd, 4, IPV4_SOURCE, ipv6.s6_addr + 12, 1, error);
  return attach_address (fd, 6, IPV6_SOURCE, ipv6.s6_addr, 4, error);
}

gboolean
door_close (int fd, GError **error)
{
  struct sock_filter code[] = { BPF_STMT (BPF_RET | BPF_K, 0) };

  return attach (fd, code, G_N_ELEMENTS (code), error);
}
