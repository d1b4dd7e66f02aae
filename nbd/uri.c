/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/uri.h"

#include <string.h>

#include "nbd/protocol.h"
#include "tls/text.h"

#define DEFAULT_PORT 10809 /* IANA's */
#define TEXT_MAX_CHARS 1024

typedef struct
{
  const char *name;
  gboolean tls; /* it and everything said goes through TLS */
  gboolean unix_socket;
  const char *refusal; /* NULL: it is done here */
} Scheme;

static const Scheme schemes[] = {
  { "nbd", FALSE, FALSE, NULL },
  { "nbds", TRUE, FALSE, NULL },
  { "nbd+unix", FALSE, TRUE, NULL },
  { "nbds+unix", TRUE, TRUE, NULL },
  { "nbd+vsock", FALSE, FALSE, "vsock is not supported: use nbds:// or nbd+unix://" },
  { "nbds+vsock", TRUE, FALSE, "vsock is not supported: use nbds:// or nbds+unix://" },
  { "nbd+ssh", FALSE, FALSE,
    "ssh is not supported: forward the port or the socket with ssh -L and name that" },
  { "nbds+ssh", TRUE, FALSE,
    "ssh is not supported: forward the port or the socket with ssh -L and name that" },
};

/* Where a parameter's value goes. */
static const struct
{
  const char *name;
  gsize offset;
  gboolean tls; /* it means nothing without TLS */
} parameters[] = {
  { "socket", G_STRUCT_OFFSET (NbdUri, socket), FALSE },
  { "tls-certificates", G_STRUCT_OFFSET (NbdUri, tls_dir), TRUE },
  { "tls-psk-file", G_STRUCT_OFFSET (NbdUri, psk_file), TRUE },
  { "tls-hostname", G_STRUCT_OFFSET (NbdUri, tls_name), TRUE },
};

static gboolean fail (GError **error, const char *format, ...) G_GNUC_PRINTF (2, 3);

static gboolean
fail (GError **error, const char *format, ...)
{
  va_list args;

  va_start (args, format);
  g_autofree char *problem = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, problem);
  return FALSE;
}

/* The scheme, or NULL where `text` has none of ours with "://" behind it. */
static const Scheme *
find_scheme (const char *text)
{
  for (gsize i = 0; i < G_N_ELEMENTS (schemes); i++)
    {
      gsize len = strlen (schemes[i].name);
      if (g_ascii_strncasecmp (text, schemes[i].name, len) == 0
          && g_str_has_prefix (text + len, "://"))
        return &schemes[i];
    }
  return NULL;
}

gboolean
nbd_uri_is_uri (const char *text)
{
  return find_scheme (text) != NULL;
}

/* ---- percent encoding ---- */

/* UTF-8 without NUL, or NULL. */
static char *
decode (const char *encoded, gsize len, const char *what, GError **error)
{
  g_autoptr (GBytes) bytes = g_uri_unescape_bytes (encoded, (gssize)len, NULL, NULL);
  gsize n = 0;
  const char *data = bytes != NULL ? g_bytes_get_data (bytes, &n) : NULL;

  if (bytes == NULL)
    fail (error, "%s has a %% that two hexadecimal digits don't follow (%%25 is one)", what);
  else if (n > 0 && memchr (data, '\0', n) != NULL)
    fail (error, "%s has a zero byte (%%00)", what);
  else if (!g_utf8_validate_len (data, n, NULL))
    fail (error, "%s is not UTF-8", what);
  else
    return g_strndup (data, n);
  return NULL;
}

/* What is shown in messages as it is may not have what moves a terminal's cursor. */
static gboolean
check_printable (const char *text, const char *what, GError **error)
{
  for (const char *at = text; *at != '\0'; at = g_utf8_next_char (at))
    if (!g_unichar_isprint (g_utf8_get_char (at)))
      return fail (error, "%s has a control character", what);
  return TRUE;
}

static char *
decode_printable (const char *encoded, gsize len, const char *what, GError **error)
{
  g_autofree char *text = decode (encoded, len, what, error);

  if (text == NULL || !check_printable (text, what, error))
    return NULL;
  return g_steal_pointer (&text);
}

/* ---- the parts ---- */

static gboolean
set_user (NbdUri *uri, const char *encoded, GError **error)
{
  if (encoded == NULL)
    return TRUE;
  if (!uri->tls)
    return fail (error, "a user name means nothing without TLS: use nbds");
  if (strchr (encoded, ':') != NULL)
    return fail (error, "a password has no place in it: put the key into the file that "
                        "tls-psk-file names");
  uri->user = decode_printable (encoded, strlen (encoded), "the user name", error);
  if (uri->user == NULL)
    return FALSE;
  return *uri->user != '\0' || fail (error, "the user name before \"@\" is empty");
}

static gboolean
set_host (NbdUri *uri, GUri *parts, gboolean unix_socket, GError **error)
{
  const char *host = g_uri_get_host (parts);
  gboolean empty = host == NULL || *host == '\0';
  int port = g_uri_get_port (parts);

  if (unix_socket)
    return (empty && port < 0)
           || fail (error, "a UNIX socket has no host and no port: write three slashes");
  if (empty)
    return fail (error, "it names no host");
  if (port == 0)
    return fail (error, "0 is not a port");
  uri->host = g_strdup (host); /* GUri has decoded it */
  uri->port = port < 0 ? DEFAULT_PORT : (guint16)port;
  return g_utf8_validate (host, -1, NULL) ? check_printable (host, "the host", error)
                                          : fail (error, "the host is not UTF-8");
}

static gboolean
set_export_name (NbdUri *uri, const char *path, GError **error)
{
  const char *encoded = *path == '/' ? path + 1 : path;

  uri->export_name = decode (encoded, strlen (encoded), "the name of the export", error);
  if (uri->export_name == NULL)
    return FALSE;
  gsize len = strlen (uri->export_name);
  return len <= NBD_MAX_STRING
         || fail (error, "the name of the export has %zu bytes, at most %d are allowed", len,
                  NBD_MAX_STRING);
}

/* That the server is verified needs no switch here; that it isn't can't be had. */
static gboolean
check_verify_peer (const char *value, GError **error)
{
  return strcmp (value, "1") == 0 || strcmp (value, "true") == 0
         || fail (error, "tls-verify-peer can't be switched off: the server is always verified");
}

static gboolean
set_parameter (NbdUri *uri, const char *name, char *value, GError **error)
{
  g_autofree char *owned = value;

  if (strcmp (name, "tls-verify-peer") == 0)
    return check_verify_peer (value, error);
  for (gsize i = 0; i < G_N_ELEMENTS (parameters); i++)
    {
      char **field = G_STRUCT_MEMBER_P (uri, parameters[i].offset);
      if (strcmp (name, parameters[i].name) != 0)
        continue;
      if (*value == '\0')
        return fail (error, "%s has no value", name);
      if (*field != NULL)
        return fail (error, "%s is given twice", name);
      if (parameters[i].tls && !uri->tls)
        return fail (error, "%s means nothing without TLS: use nbds", name);
      *field = g_steal_pointer (&owned);
      return TRUE;
    }
  g_autofree char *shown = text_escape_name (name);
  return fail (error,
               "the parameter \"%s\" is not supported (known are socket, tls-certificates, "
               "tls-psk-file and tls-hostname)",
               shown);
}

static gboolean
set_parameters (NbdUri *uri, const char *query, GError **error)
{
  g_auto (GStrv) pairs = g_strsplit (query != NULL ? query : "", "&", -1);

  for (guint i = 0; pairs[i] != NULL; i++)
    {
      const char *equals = strchr (pairs[i], '=');
      gsize n_name = equals != NULL ? (gsize)(equals - pairs[i]) : strlen (pairs[i]);
      const char *value = equals != NULL ? equals + 1 : "";

      if (*pairs[i] == '\0')
        continue;
      g_autofree char *name = decode (pairs[i], n_name, "the name of a parameter", error);
      g_autofree char *shown = name != NULL ? text_escape_name (name) : NULL;
      char *decoded = name != NULL ? decode_printable (value, strlen (value), shown, error) : NULL;
      if (decoded == NULL || !set_parameter (uri, name, decoded, error))
        return FALSE;
    }
  return TRUE;
}

/* ---- the whole ---- */

/* A zone ("fe80::1%eth0") is of this host, no certificate has it. */
static char *
name_of_host (const char *host)
{
  const char *zone = strchr (host, ':') != NULL ? strchr (host, '%') : NULL;

  return zone != NULL ? g_strndup (host, (gsize)(zone - host)) : g_strdup (host);
}

static gboolean
check_whole (NbdUri *uri, gboolean unix_socket, GError **error)
{
  if (unix_socket && uri->socket == NULL)
    return fail (error, "the parameter socket=PATH is missing");
  if (!unix_socket && uri->socket != NULL)
    return fail (error, "socket=PATH needs nbd+unix or nbds+unix");
  if (uri->tls_dir != NULL && uri->psk_file != NULL)
    return fail (error, "tls-certificates and tls-psk-file exclude each other");
  if (uri->tls && uri->psk_file == NULL && uri->tls_name == NULL && uri->host != NULL)
    uri->tls_name = name_of_host (uri->host);
  if (uri->tls && uri->psk_file == NULL && uri->tls_name == NULL)
    return fail (error, "the server's certificate can't be checked without a name: add "
                        "tls-hostname=NAME, one that the certificate has");
  return TRUE;
}

/* Not g_uri_parse (), which takes the dots of a name ("a/../b") for a way. */
static GUri *
parse_parts (const char *text, GError **error)
{
  g_autofree char *scheme = NULL, *user = NULL, *host = NULL;
  g_autofree char *path = NULL, *query = NULL, *fragment = NULL;
  int port;

  if (!g_uri_split (text, G_URI_FLAGS_ENCODED, &scheme, &user, &host, &port, &path, &query,
                    &fragment, error))
    return NULL;
  return g_uri_build (G_URI_FLAGS_ENCODED, scheme, user, host, port, path, query, fragment);
}

static gboolean
fill (NbdUri *uri, const char *text, GError **error)
{
  const Scheme *scheme = find_scheme (text);

  if (scheme == NULL)
    return fail (error, "it doesn't begin with nbd://, nbds://, nbd+unix:// or nbds+unix://");
  if (scheme->refusal != NULL)
    return fail (error, "%s", scheme->refusal);
  g_autoptr (GError) local = NULL;
  g_autoptr (GUri) parts = parse_parts (text, &local);
  if (parts == NULL)
    {
      g_autofree char *shown = text_escape_name (local->message);
      return fail (error, "%s", shown);
    }
  if (g_uri_get_fragment (parts) != NULL)
    return fail (error, "it has a fragment: a \"#\" in a name is written %%23");
  uri->tls = scheme->tls;
  return set_user (uri, g_uri_get_userinfo (parts), error)
         && set_host (uri, parts, scheme->unix_socket, error)
         && set_export_name (uri, g_uri_get_path (parts), error)
         && set_parameters (uri, g_uri_get_query (parts), error)
         && check_whole (uri, scheme->unix_socket, error);
}

NbdUri *
nbd_uri_parse (const char *text, GError **error)
{
  g_autoptr (NbdUri) uri = g_new0 (NbdUri, 1);
  g_autoptr (GError) local = NULL;

  uri->text = text_escape (text, strlen (text), TEXT_MAX_CHARS);
  if (fill (uri, text, &local))
    return g_steal_pointer (&uri);
  g_autofree char *shown = text_escape_name (text);
  fail (error, "the NBD URI \"%s\": %s", shown, local->message);
  return NULL;
}

void
nbd_uri_free (NbdUri *uri)
{
  if (uri == NULL)
    return;
  g_free (uri->text);
  g_free (uri->host);
  g_free (uri->socket);
  g_free (uri->export_name);
  g_free (uri->user);
  g_free (uri->tls_dir);
  g_free (uri->psk_file);
  g_free (uri->tls_name);
  g_free (uri);
}
