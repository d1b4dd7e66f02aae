/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/nbd-error.h"
#include "nbd/protocol.h"

#define ESCAPE_LIMIT 200

G_DEFINE_QUARK (nbd - error - quark, nbd_error)

char *
nbd_text_escape (const void *text, gsize len)
{
  const guint8 *bytes = text;
  GString *out = g_string_new (NULL);

  for (gsize i = 0; i < len; i++)
    {
      if (out->len >= ESCAPE_LIMIT)
        {
          g_string_append (out, "...");
          break;
        }
      if (bytes[i] == '\\' || bytes[i] == '"')
        g_string_append_printf (out, "\\%c", bytes[i]);
      else if (bytes[i] >= 0x20 && bytes[i] < 0x7f)
        g_string_append_c (out, (char)bytes[i]);
      else
        g_string_append_printf (out, "\\x%02x", bytes[i]);
    }
  return g_string_free (out, FALSE);
}

const char *
nbd_errno_text (guint32 value)
{
  switch (value)
    {
    case NBD_EPERM:
      return "Operation not permitted";
    case NBD_EIO:
      return "Input/output error";
    case NBD_ENOMEM:
      return "Cannot allocate memory";
    case NBD_EINVAL:
      return "Invalid argument";
    case NBD_ENOSPC:
      return "No space left on device";
    case NBD_EOVERFLOW:
      return "Value too large";
    case NBD_ENOTSUP:
      return "Operation not supported";
    case NBD_ESHUTDOWN:
      return "Server is shutting down";
    default:
      return "error that the protocol does not define";
    }
}

const char *
nbd_option_error_text (guint32 type)
{
  switch (type)
    {
    case NBD_REP_ERR_UNSUP:
      return "NBD_REP_ERR_UNSUP";
    case NBD_REP_ERR_POLICY:
      return "NBD_REP_ERR_POLICY";
    case NBD_REP_ERR_INVALID:
      return "NBD_REP_ERR_INVALID";
    case NBD_REP_ERR_PLATFORM:
      return "NBD_REP_ERR_PLATFORM";
    case NBD_REP_ERR_TLS_REQD:
      return "NBD_REP_ERR_TLS_REQD";
    case NBD_REP_ERR_UNKNOWN:
      return "NBD_REP_ERR_UNKNOWN";
    case NBD_REP_ERR_SHUTDOWN:
      return "NBD_REP_ERR_SHUTDOWN";
    case NBD_REP_ERR_BLOCK_SIZE_REQD:
      return "NBD_REP_ERR_BLOCK_SIZE_REQD";
    case NBD_REP_ERR_TOO_BIG:
      return "NBD_REP_ERR_TOO_BIG";
    default:
      return "an unknown error";
    }
}
