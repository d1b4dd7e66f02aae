/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* What goes wrong beside sockets (G_IO_ERROR) and certificates (TLS_ERROR).  Messages name the
 * server, the export and the range. */
#define NBD_ERROR (nbd_error_quark ())
GQuark nbd_error_quark (void);

typedef enum
{
  NBD_ERROR_PROTOCOL,   /* the server broke the protocol: nothing it said is to be relied on */
  NBD_ERROR_NO_TLS,     /* it offers none; nothing was sent in clear */
  NBD_ERROR_REFUSED,    /* it refused an option, the export's name or our certificate */
  NBD_ERROR_NO_CONTEXT, /* it does not have the dirty bitmap that was asked for */
  NBD_ERROR_IO,         /* it answered a request with an error */
  NBD_ERROR_SHUTDOWN,   /* it is going down */
  NBD_ERROR_SIZE        /* export and target do not fit each other */
} NbdError;

/* Text of a peer, fit for terminals and logs: printable ASCII, the rest as \xNN, at most about
 * 200 characters.  Free with g_free. */
char *nbd_text_escape (const void *text, gsize len);

/* "Input/output error" and so on for an error value of the protocol; never NULL. */
const char *nbd_errno_text (guint32 value);
/* "NBD_REP_ERR_POLICY" and so on for a reply type; never NULL. */
const char *nbd_option_error_text (guint32 type);
