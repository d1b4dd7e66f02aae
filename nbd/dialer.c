/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/dialer.h"

#include <unistd.h>

#include "nbd/nbd-error.h"
#include "tls/credentials.h"

#define LOGIN_MAX 256 /* bytes of LOGIN_NAME_MAX, with the zero */

struct NbdDialer
{
  char *host, *socket; /* the one that is not NULL */
  guint16 port;
  char *export_name;
  char *tls_name;
  Credentials *credentials; /* NULL: clear text */
  gint *accepted;           /* atomic: a server has taken the credentials */
};

/* ---- credentials ---- */

/* libnbd's places and then QEMU's. */
static GPtrArray *
list_default_dirs (void)
{
  GPtrArray *dirs = g_ptr_array_new_with_free_func (g_free);
  const char *home = geteuid () != 0 ? g_getenv ("HOME") : NULL;

  if (home != NULL)
    {
      g_ptr_array_add (dirs, g_build_filename (home, ".pki", "libnbd", NULL));
      g_ptr_array_add (dirs, g_build_filename (home, ".config", "pki", "libnbd", NULL));
    }
  g_ptr_array_add (dirs, g_strdup ("/etc/pki/libnbd"));
  g_ptr_array_add (dirs, g_strdup ("/etc/pki/qemu"));
  return dirs;
}

static gboolean
has_ca (const char *dir)
{
  g_autofree char *file = g_build_filename (dir, "ca-cert.pem", NULL);

  return g_file_test (file, G_FILE_TEST_EXISTS);
}

static Credentials *
load_default_dir (const NbdUri *uri, GError **error)
{
  g_autoptr (GPtrArray) dirs = list_default_dirs ();
  g_autoptr (GString) tried = g_string_new (NULL);

  for (guint i = 0; i < dirs->len; i++)
    {
      const char *dir = dirs->pdata[i];
      if (has_ca (dir))
        return credentials_load_client (dir, error);
      g_string_append_printf (tried, "%s%s", i > 0 ? ", " : "", dir);
    }
  g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS,
               "%s names no certificates, and there is no ca-cert.pem in %s: put the CA of the "
               "server into one of them, or add tls-certificates=DIR or tls-psk-file=FILE",
               uri->text, tried->str);
  return NULL;
}

/* As libnbd has it: $LOGNAME first, for there may be no terminal to ask. */
static char *
get_login (void)
{
  const char *name = g_getenv ("LOGNAME");
  char login[LOGIN_MAX] = "";

  if (name != NULL && *name != '\0')
    return g_strdup (name);
  return getlogin_r (login, sizeof login) == 0 ? g_strdup (login) : NULL;
}

static Credentials *
load_psk (const NbdUri *uri, GError **error)
{
  g_autofree char *user = uri->user != NULL ? g_strdup (uri->user) : get_login ();

  if (user != NULL)
    return credentials_load_psk (uri->psk_file, user, error);
  g_set_error (
      error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
      "%s names no user for its tls-psk-file, and nobody has logged in: write USER@ before "
      "the host",
      uri->text);
  return NULL;
}

static Credentials *
load_credentials (const NbdUri *uri, GError **error)
{
  if (uri->psk_file != NULL)
    return load_psk (uri, error);
  if (uri->tls_dir != NULL)
    return credentials_load_client (uri->tls_dir, error);
  return load_default_dir (uri, error);
}

static gboolean
check_plaintext (const NbdUri *uri, gboolean allow_plaintext, GError **error)
{
  if (uri->socket != NULL || allow_plaintext)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
               "%s: nbd:// over TCP is clear text, which everybody on the way can read and change: "
               "use nbds://, or --allow-plaintext",
               uri->text);
  return FALSE;
}

NbdDialer *
nbd_dialer_new (const NbdUri *uri, gboolean allow_plaintext, GError **error)
{
  g_autoptr (NbdDialer) dialer = g_new0 (NbdDialer, 1);

  dialer->accepted = g_new0 (gint, 1);
  if (uri->tls)
    dialer->credentials = load_credentials (uri, error);
  if (uri->tls ? dialer->credentials == NULL : !check_plaintext (uri, allow_plaintext, error))
    return NULL;
  dialer->host = g_strdup (uri->host);
  dialer->socket = g_strdup (uri->socket);
  dialer->port = uri->port;
  dialer->export_name = g_strdup (uri->export_name);
  dialer->tls_name = g_strdup (uri->tls_name);
  return g_steal_pointer (&dialer);
}

void
nbd_dialer_free (NbdDialer *dialer)
{
  if (dialer == NULL)
    return;
  g_free (dialer->host);
  g_free (dialer->socket);
  g_free (dialer->export_name);
  g_free (dialer->tls_name);
  credentials_unref (dialer->credentials);
  g_free (dialer->accepted);
  g_free (dialer);
}

/* ---- connecting ---- */

/* Who took the credentials before and now hangs up has ended, or its host has. */
static void
judge_failure (const NbdDialer *dialer, GError *failure)
{
  if (g_error_matches (failure, TLS_ERROR, TLS_ERROR_HUNG_UP)
      && g_atomic_int_get (dialer->accepted))
    {
      failure->domain = G_IO_ERROR;
      failure->code = G_IO_ERROR_CONNECTION_CLOSED;
    }
}

NbdClient *
nbd_dialer_connect (const NbdDialer *dialer, const char *const *contexts, Deadline deadline,
                    GError **error)
{
  const NbdHandshake handshake = { .export_name = dialer->export_name,
                                   .credentials = dialer->credentials,
                                   .tls_name = dialer->tls_name,
                                   .contexts = contexts };
  NbdExport export;
  GError *failure = NULL;
  Channel *channel = dialer->socket != NULL
                         ? channel_connect_unix (dialer->socket, deadline, &failure)
                         : channel_connect_tcp (dialer->host, dialer->port, deadline, &failure);

  if (channel != NULL)
    channel = nbd_handshake_run (channel, &handshake, deadline, &export, &failure);
  if (channel == NULL)
    {
      judge_failure (dialer, failure);
      g_propagate_error (error, failure);
      return NULL;
    }
  g_atomic_int_set (dialer->accepted, TRUE);
  return nbd_client_new (channel, &export, dialer->export_name);
}

gboolean
nbd_error_is_lost (const GError *error)
{
  static const GIOErrorEnum lost[] = {
    G_IO_ERROR_CONNECTION_CLOSED, G_IO_ERROR_CONNECTION_REFUSED, G_IO_ERROR_TIMED_OUT,
    G_IO_ERROR_HOST_UNREACHABLE,  G_IO_ERROR_HOST_NOT_FOUND,     G_IO_ERROR_NETWORK_UNREACHABLE,
    G_IO_ERROR_NOT_FOUND, /* the path of a UNIX socket: the server may be about to start again */
  };

  if (g_error_matches (error, NBD_ERROR, NBD_ERROR_SHUTDOWN))
    return TRUE;
  for (gsize i = 0; i < G_N_ELEMENTS (lost); i++)
    if (g_error_matches (error, G_IO_ERROR, (gint)lost[i]))
      return TRUE;
  return FALSE;
}
