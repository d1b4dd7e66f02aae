/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sock-diag.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Bits of idiag_states, by TCP state. */
#define BIT(state) (1u << (state))
#define STATES_IN_USE (BIT (TCP_ESTABLISHED) | BIT (TCP_CLOSE_WAIT))
#define STATES_CLOSING                                                                             \
  (BIT (TCP_FIN_WAIT1) | BIT (TCP_FIN_WAIT2) | BIT (TCP_CLOSING) | BIT (TCP_LAST_ACK))

/* The kernel answers at once, unless it has dropped the answer. */
#define ANSWER_TIMEOUT_S 2

typedef struct
{
  struct nlmsghdr header;
  struct inet_diag_req_v2 body;
} Request;

typedef void (*Visit) (const struct inet_diag_msg *msg, gpointer data);

static gboolean
fail_errno (const char *what, int code, GError **error)
{
  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (code), "%s: %s", what, g_strerror (code));
  return FALSE;
}

static int
open_netlink (GError **error)
{
  const struct timeval timeout = { .tv_sec = ANSWER_TIMEOUT_S };
  int fd = socket (AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

  if (fd < 0)
    fail_errno ("cannot ask the kernel about its connections (NETLINK_SOCK_DIAG)", errno, error);
  else
    setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  return fd;
}

static gboolean
send_request (int fd, Request *request, GError **error)
{
  request->header.nlmsg_len = sizeof *request;
  if (send (fd, request, sizeof *request, 0) != sizeof *request)
    return fail_errno ("cannot ask the kernel about its connections (sock_diag)", errno, error);
  return TRUE;
}

static gboolean
is_in_use (const struct inet_diag_msg *msg)
{
  return (BIT (msg->idiag_state) & STATES_IN_USE) != 0 || msg->idiag_inode != 0;
}

/* Walks one datagram.  TRUE when the answer is complete or has failed (*ret_errno). */
static gboolean
walk (const void *buf, gsize len, guint16 port, Visit visit, gpointer data, int *ret_errno)
{
  const struct nlmsghdr *header = buf;

  for (; NLMSG_OK (header, len); header = NLMSG_NEXT (header, len))
    {
      const struct inet_diag_msg *msg = NLMSG_DATA (header);

      if (header->nlmsg_type == NLMSG_DONE)
        return TRUE;
      if (header->nlmsg_type == NLMSG_ERROR)
        {
          const struct nlmsgerr *failure = NLMSG_DATA (header);

          *ret_errno
              = header->nlmsg_len >= NLMSG_LENGTH (sizeof *failure) ? -failure->error : EPROTO;
          return TRUE;
        }
      if (header->nlmsg_type == SOCK_DIAG_BY_FAMILY
          && header->nlmsg_len >= NLMSG_LENGTH (sizeof *msg) && msg->id.idiag_sport == htons (port)
          && is_in_use (msg))
        visit (msg, data);
    }
  return FALSE;
}

static gboolean
receive (int fd, guint16 port, Visit visit, gpointer data, GError **error)
{
  /* As large as the kernel fills it (NLMSG_GOODSIZE and more). */
  g_autofree char *buf = g_malloc (65536);

  for (;;)
    {
      gssize n = recv (fd, buf, 65536, 0);
      int code = 0;

      if (n < 0 && errno == EINTR)
        continue;
      if (n <= 0)
        return fail_errno ("no answer from the kernel about its connections (sock_diag)",
                           n < 0 ? errno : EPIPE, error);
      if (!walk (buf, n, port, visit, data, &code))
        continue;
      return code == 0 || fail_errno ("the kernel refuses sock_diag", code, error);
    }
}

static gboolean
dump (int fd, guint8 family, guint16 port, Visit visit, gpointer data, GError **error)
{
  Request request = { .header = { .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                                  .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
                      .body = { .sdiag_family = family,
                                .sdiag_protocol = IPPROTO_TCP,
                                .idiag_states = STATES_IN_USE | STATES_CLOSING,
                                .id = { .idiag_sport = htons (port) } } };

  return send_request (fd, &request, error) && receive (fd, port, visit, data, error);
}

static gboolean
dump_all (int fd, guint16 port, Visit visit, gpointer data, GError **error)
{
  return dump (fd, AF_INET, port, visit, data, error)
         && dump (fd, AF_INET6, port, visit, data, error);
}

static void
visit_sum (const struct inet_diag_msg *msg, gpointer data)
{
  SockDiagSum *sum = data;

  sum->connections++;
  sum->unsent_bytes += msg->idiag_wqueue;
}

gboolean
sock_diag_query (guint16 port, SockDiagSum *ret_sum, GError **error)
{
  SockDiagSum sum = { 0 };
  int fd = open_netlink (error);
  gboolean good;

  if (fd < 0)
    return FALSE;
  good = dump_all (fd, port, visit_sum, &sum, error);
  close (fd);
  if (good)
    *ret_sum = sum;
  return good;
}

static void
visit_collect (const struct inet_diag_msg *msg, gpointer data)
{
  g_array_append_vals (data, msg, 1);
}

static void
visit_nothing (const struct inet_diag_msg *msg, gpointer data)
{
}

static gboolean
destroy_one (int fd, const struct inet_diag_msg *msg, GError **error)
{
  Request request
      = { .header = { .nlmsg_type = SOCK_DESTROY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK },
          .body = { .sdiag_family = msg->idiag_family,
                    .sdiag_protocol = IPPROTO_TCP,
                    .idiag_states = BIT (msg->idiag_state),
                    .id = msg->id } };
  g_autoptr (GError) local = NULL;

  if (send_request (fd, &request, &local) && receive (fd, 0, visit_nothing, NULL, &local))
    return TRUE;
  /* It ended by itself in between. */
  if (g_error_matches (local, G_IO_ERROR, G_IO_ERROR_NOT_FOUND))
    return TRUE;
  g_propagate_prefixed_error (error, g_steal_pointer (&local),
                              "cannot destroy a connection (SOCK_DESTROY): ");
  return FALSE;
}

gboolean
sock_diag_destroy (guint16 port, GError **error)
{
  g_autoptr (GArray) found = g_array_new (FALSE, FALSE, sizeof (struct inet_diag_msg));
  int fd = open_netlink (error);
  gboolean good;

  if (fd < 0)
    return FALSE;
  good = dump_all (fd, port, visit_collect, found, error);
  for (guint i = 0; good && i < found->len; i++)
    good = destroy_one (fd, &g_array_index (found, struct inet_diag_msg, i), error);
  close (fd);
  return good;
}
