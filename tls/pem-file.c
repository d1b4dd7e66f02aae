/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls/pem-file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tls/credentials.h"

#define FILE_BYTES_MAX (1024 * 1024)

static gboolean
check_stat (const struct stat *st, PemFileKind kind, const char *path, GError **error)
{
  guint mode = st->st_mode & 07777;

  if (!S_ISREG (st->st_mode))
    g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS, "cannot use %s: it is not a file", path);
  else if (kind == PEM_FILE_SECRET && (mode & 0007) != 0)
    g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS,
                 "cannot use %s: others may %s it (mode %04o): chmod 0600 it", path,
                 (mode & 0004) != 0 ? "read" : "write or run", mode);
  else if (st->st_size > FILE_BYTES_MAX)
    g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS,
                 "cannot use %s: it has %" G_GINT64_FORMAT " bytes, at most %d are accepted", path,
                 (gint64)st->st_size, FILE_BYTES_MAX);
  else if (st->st_size == 0)
    g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS, "cannot use %s: it is empty", path);
  else
    return TRUE;
  return FALSE;
}

/* Reads to the end or to `size` bytes; returns how many, or -1. */
static gssize
read_up_to (int fd, guint8 *buf, gsize size)
{
  gsize done = 0;

  while (done < size)
    {
      ssize_t n = read (fd, buf + done, size - done);
      if (n < 0 && errno == EINTR)
        continue;
      if (n < 0)
        return -1;
      if (n == 0)
        break;
      done += (gsize)n;
    }
  return (gssize)done;
}

/* The mode is that of the opened file, so that nobody can exchange it between look and use. */
static gboolean
read_open_file (int fd, const char *path, PemFileKind kind, gnutls_datum_t *ret_pem, GError **error)
{
  struct stat st;

  if (fstat (fd, &st) == 0)
    {
      if (!check_stat (&st, kind, path, error))
        return FALSE;
      g_auto (gnutls_datum_t) pem
          = { .data = g_malloc0 ((gsize)st.st_size + 1), .size = (guint)st.st_size };
      gssize n = read_up_to (fd, pem.data, pem.size);
      if (n >= 0)
        {
          ret_pem->data = g_steal_pointer (&pem.data);
          ret_pem->size = (guint)n;
          return TRUE;
        }
    }
  int saved = errno;
  g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS, "cannot use %s: %s", path,
               g_strerror (saved));
  return FALSE;
}

gboolean
pem_file_read (const char *path, PemFileKind kind, const char *cure, gnutls_datum_t *ret_pem,
               GError **error)
{
  /* a FIFO in its place must not block us */
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

  if (fd < 0)
    {
      int saved = errno;
      if (saved == ENOENT || saved == ENOTDIR)
        g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS,
                     "cannot use %s: it does not exist: %s", path, cure);
      else
        g_set_error (error, TLS_ERROR, TLS_ERROR_CREDENTIALS, "cannot use %s: %s", path,
                     g_strerror (saved));
      return FALSE;
    }
  gboolean ok = read_open_file (fd, path, kind, ret_pem, error);
  close (fd);
  return ok;
}

void
pem_file_clear (gnutls_datum_t *pem)
{
  if (pem->data != NULL)
    explicit_bzero (pem->data, pem->size);
  g_free (pem->data);
  *pem = (gnutls_datum_t){ 0 };
}
