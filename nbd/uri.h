/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* Where an export is, as nbd_connect_uri(3) and the NBD URI specification (doc/uri.md) spell it:
 *   nbd[s]://[USER@]HOST[:PORT]/[EXPORT][?PARAMETERS]     IPv6 addresses in brackets
 *   nbd[s]+unix://[USER@]/[EXPORT]?socket=PATH[&PARAMETERS]
 * with tls-certificates=DIR, tls-psk-file=FILE and tls-hostname=NAME.  Pure. */
typedef struct
{
  char *text;        /* what was typed, escaped for a terminal */
  gboolean tls;      /* nbds */
  char *host;        /* without brackets; NULL: a UNIX socket */
  guint16 port;      /* 10809 where none is given */
  char *socket;      /* NULL: TCP */
  char *export_name; /* decoded: UTF-8 without NUL, at most 4096 bytes, may be "" */
  char *user;        /* for TLS-PSK; NULL: none given */
  char *tls_dir;     /* NULL: none given */
  char *psk_file;    /* NULL: none given */
  char *tls_name;    /* that the server's certificate must have; NULL: none, not even a host */
} NbdUri;

/* Errors: G_IO_ERROR_INVALID_ARGUMENT, one line that shows the URI and what is wrong with it.
 * What is valid there but not done here (vsock, ssh, tls-verify-peer=false, other parameters) is
 * refused by name: an ignored parameter would be a promise that isn't kept. */
NbdUri *nbd_uri_parse (const char *text, GError **error);
void nbd_uri_free (NbdUri *uri);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (NbdUri, nbd_uri_free)

/* Whether `text` begins with a scheme of an NBD URI. */
gboolean nbd_uri_is_uri (const char *text);
