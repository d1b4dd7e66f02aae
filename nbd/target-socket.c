/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/exchange.h"
#include "nbd/nbd-error.h"
#include "nbd/request-queue.h"
#include "nbd/target.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of one write of zeroes: a multiple of any cluster size, far from the 2 GiB at which QEMU stops.
 */
#define MAX_ZERO (1024u * 1024 * 1024)
/* After so many bytes that were read, the page cache of the server's file is dropped. */
#define MAX_CACHED (16u * 1024 * 1024)

typedef struct
{
  NbdTarget target;
  GMutex lock;  /* all that follows: the queue belongs to one thread at a time */
  GError *lost; /* what ended the connection or lost a write: told to every later call */
  RequestQueue *queue;
  gint64 timeout_ms;
  GCancellable *cancellable;
  int file;       /* the one behind the server, or -1 */
  guint64 cached; /* read since its page cache was dropped */
} SocketTarget;

/* Clean pages only: after a flush that is all of them. */
static void
socket_drop_cache (SocketTarget *self)
{
  if (self->file >= 0)
    posix_fadvise (self->file, 0, 0, POSIX_FADV_DONTNEED);
  self->cached = 0;
}

static const NbdExport *
socket_get_export (SocketTarget *self)
{
  return nbd_client_get_export (request_queue_get_client (self->queue));
}

static gboolean
socket_check_range (SocketTarget *self, guint64 offset, guint64 len, GError **error)
{
  if (offset <= self->target.size && len <= self->target.size - offset)
    return TRUE;
  g_set_error (error, NBD_ERROR, NBD_ERROR_SIZE,
               "%s: %" G_GUINT64_FORMAT " bytes at offset %" G_GUINT64_FORMAT
               " are beyond its size, %" G_GUINT64_FORMAT,
               self->target.name, len, offset, self->target.size);
  return FALSE;
}

static gboolean
socket_do_write (NbdTarget *target, const void *buf, gsize len, guint64 offset, GError **error)
{
  SocketTarget *self = (SocketTarget *)target;
  const NbdExport *export = socket_get_export (self);
  const guint8 *from = buf;

  if (!socket_check_range (self, offset, len, error))
    return FALSE;
  g_atomic_int_set (&target->is_zero, FALSE);
  while (len > 0)
    {
      NbdRequest request
          = { .command = NBD_CMD_WRITE,
              .offset = offset,
              .length = (guint32)MIN (len, MIN (export->max_payload, REQUEST_QUEUE_MAX_BYTES)),
              .data = (guint8 *)from };

      if (!request_queue_send (self->queue, &request, error))
        return FALSE;
      offset += request.length;
      from += request.length;
      len -= request.length;
    }
  return TRUE;
}

static gboolean
socket_do_zero (NbdTarget *target, guint64 offset, guint64 len, GError **error)
{
  SocketTarget *self = (SocketTarget *)target;

  if (!socket_check_range (self, offset, len, error))
    return FALSE;
  while (len > 0 && !target->is_zero)
    {
      NbdRequest request = { .command = NBD_CMD_WRITE_ZEROES,
                             .offset = offset,
                             .length = (guint32)MIN (len, MAX_ZERO) };

      if (!request_queue_send (self->queue, &request, error))
        return FALSE;
      offset += request.length;
      len -= request.length;
    }
  return TRUE;
}

/* A flush covers only what was answered before it. */
static gboolean
socket_do_flush (NbdTarget *target, GError **error)
{
  SocketTarget *self = (SocketTarget *)target;
  NbdRequest request = { .command = NBD_CMD_FLUSH };

  if (!request_queue_drain (self->queue, error))
    return FALSE;
  if (!(socket_get_export (self)->flags & NBD_FLAG_SEND_FLUSH))
    return TRUE;
  if (!request_queue_send (self->queue, &request, error)
      || !request_queue_drain (self->queue, error))
    return FALSE;
  socket_drop_cache (self);
  return TRUE;
}

static gboolean
socket_do_read (NbdTarget *target, void *buf, gsize len, guint64 offset, GError **error)
{
  SocketTarget *self = (SocketTarget *)target;

  if (!socket_check_range (self, offset, len, error) || !request_queue_drain (self->queue, error))
    return FALSE;
  if (!nbd_exchange_read (request_queue_get_client (self->queue), buf, len, offset,
                          self->timeout_ms, self->cancellable, error))
    {
      g_prefix_error (error, "%s: ", self->target.name);
      return FALSE;
    }
  self->cached += len;
  if (self->cached >= MAX_CACHED)
    socket_drop_cache (self);
  return TRUE;
}

/* The length and the state of what begins at `offset`, out of one bounded query. */
static gboolean
socket_ask_status (SocketTarget *self, guint64 offset, guint64 *ret_length, gboolean *ret_zero,
                   GError **error)
{
  guint64 left = self->target.size - offset;
  NbdRequest request = { .command = NBD_CMD_BLOCK_STATUS,
                         .flags = NBD_CMD_FLAG_REQ_ONE,
                         .offset = offset,
                         .length = (guint32)MIN (left, MAX_ZERO) };
  const NbdExtent *extent;

  if (!nbd_exchange (request_queue_get_client (self->queue), &request, self->timeout_ms,
                     self->cancellable, error))
    return FALSE;
  if (request.extents[0] == NULL || request.extents[0]->len == 0)
    {
      nbd_request_clear (&request);
      *ret_length = left;
      *ret_zero = FALSE;
      return TRUE;
    }
  extent = &g_array_index (request.extents[0], NbdExtent, 0);
  *ret_length = MIN (extent->length, left);
  *ret_zero = (extent->flags & NBD_STATE_ZERO) != 0;
  nbd_request_clear (&request);
  return TRUE;
}

static gboolean
socket_do_find_data (NbdTarget *target, guint64 offset, guint64 *ret_start, guint64 *ret_end,
                     GError **error)
{
  SocketTarget *self = (SocketTarget *)target;
  guint64 length;
  gboolean zero;

  if (!socket_check_range (self, offset, 0, error) || !request_queue_drain (self->queue, error))
    return FALSE;
  for (; offset < target->size; offset += length)
    {
      if (!socket_ask_status (self, offset, &length, &zero, error))
        return FALSE;
      if (zero)
        continue;
      *ret_start = offset;
      *ret_end = offset + length;
      return TRUE;
    }
  *ret_start = *ret_end = target->size;
  return TRUE;
}

/* Takes the connection for one call.  FALSE: it is of no more use. */
static gboolean
socket_enter (NbdTarget *target, GError **error)
{
  SocketTarget *self = (SocketTarget *)target;

  g_mutex_lock (&self->lock);
  if (self->lost == NULL)
    return TRUE;
  if (error != NULL)
    *error = g_error_copy (self->lost);
  g_mutex_unlock (&self->lock);
  return FALSE;
}

static gboolean
socket_leave (NbdTarget *target, gboolean good, GError **local, GError **error)
{
  SocketTarget *self = (SocketTarget *)target;

  if (!good)
    self->lost = g_error_copy (*local);
  g_mutex_unlock (&self->lock);
  if (!good)
    g_propagate_error (error, g_steal_pointer (local));
  return good;
}

static gboolean
socket_write (NbdTarget *target, const void *buf, gsize len, guint64 offset, GError **error)
{
  GError *local = NULL;

  return socket_enter (target, error)
         && socket_leave (target, socket_do_write (target, buf, len, offset, &local), &local,
                          error);
}

static gboolean
socket_zero (NbdTarget *target, guint64 offset, guint64 len, GError **error)
{
  GError *local = NULL;

  return socket_enter (target, error)
         && socket_leave (target, socket_do_zero (target, offset, len, &local), &local, error);
}

static gboolean
socket_read (NbdTarget *target, void *buf, gsize len, guint64 offset, GError **error)
{
  GError *local = NULL;

  return socket_enter (target, error)
         && socket_leave (target, socket_do_read (target, buf, len, offset, &local), &local, error);
}

static gboolean
socket_find_data (NbdTarget *target, guint64 offset, guint64 *ret_start, guint64 *ret_end,
                  GError **error)
{
  GError *local = NULL;

  return socket_enter (target, error)
         && socket_leave (target, socket_do_find_data (target, offset, ret_start, ret_end, &local),
                          &local, error);
}

static gboolean
socket_flush (NbdTarget *target, GError **error)
{
  GError *local = NULL;

  return socket_enter (target, error)
         && socket_leave (target, socket_do_flush (target, &local), &local, error);
}

static void
socket_free (NbdTarget *target)
{
  SocketTarget *self = (SocketTarget *)target;

  request_queue_free (self->queue);
  socket_drop_cache (self);
  if (self->file >= 0)
    close (self->file);
  g_clear_object (&self->cancellable);
  g_clear_error (&self->lost);
  g_mutex_clear (&self->lock);
  g_free (target->name);
  g_free (self);
}

static const NbdTargetClass socket_class = { .write = socket_write,
                                             .zero = socket_zero,
                                             .read = socket_read,
                                             .flush = socket_flush,
                                             .free = socket_free };

static const NbdTargetClass mapped_class = { .write = socket_write,
                                             .zero = socket_zero,
                                             .read = socket_read,
                                             .find_data = socket_find_data,
                                             .flush = socket_flush,
                                             .free = socket_free };

static gboolean
socket_check_export (SocketTarget *self, const NbdExport *export, GError **error)
{
  const char *what = NULL;

  if (export->flags & NBD_FLAG_READ_ONLY)
    what = "is read-only";
  else if (!(export->flags & NBD_FLAG_SEND_WRITE_ZEROES))
    what = "can't write zeroes";
  else if (export->min_block > 512)
    what = "takes only blocks of more than 512 bytes";
  if (what == NULL)
    return TRUE;
  g_set_error (error, NBD_ERROR, NBD_ERROR_REFUSED, "%s: the export %s",
               nbd_client_get_name (request_queue_get_client (self->queue)), what);
  return FALSE;
}

void
nbd_target_set_file (NbdTarget *target, int fd)
{
  SocketTarget *self = (SocketTarget *)target;
  g_autofree char *path = g_strdup_printf ("/proc/self/fd/%d", fd);

  g_return_if_fail (self->file < 0);
  self->file = open (path, O_RDONLY | O_CLOEXEC);
}

static SocketTarget *
socket_new (const char *name, gboolean is_zero, gint64 timeout_ms, GCancellable *cancellable)
{
  SocketTarget *self = g_new0 (SocketTarget, 1);

  self->target.klass = &socket_class;
  self->target.name = g_strdup (name);
  self->target.is_zero = is_zero;
  self->file = -1;
  g_mutex_init (&self->lock);
  self->timeout_ms = timeout_ms;
  self->cancellable = cancellable != NULL ? g_object_ref (cancellable) : NULL;
  return self;
}

static gboolean
socket_take (SocketTarget *self, NbdClient *client, GError **error)
{
  const NbdExport *export = nbd_client_get_export (client);

  self->queue = request_queue_new (client, self->target.name, self->timeout_ms, self->cancellable);
  self->target.size = export->size;
  if (export->has_context[0])
    self->target.klass = &mapped_class;
  return socket_check_export (self, export, error);
}

NbdTarget *
nbd_target_new_client (NbdClient *client, const char *name, gboolean is_zero, gint64 timeout_ms,
                       GCancellable *cancellable, GError **error)
{
  SocketTarget *self = socket_new (name, is_zero, timeout_ms, cancellable);
  g_autoptr (NbdTarget) target = &self->target;

  return socket_take (self, client, error) ? g_steal_pointer (&target) : NULL;
}

static gboolean
socket_connect (SocketTarget *self, const char *path, const char *export_name, GError **error)
{
  static const char *const contexts[] = { "base:allocation", NULL };
  NbdHandshake handshake = { .export_name = export_name, .contexts = contexts };
  Deadline deadline = deadline_in (self->timeout_ms, self->cancellable);
  NbdExport export;
  Channel *channel = channel_connect_unix (path, deadline, error);
  int size = REQUEST_QUEUE_MAX_BYTES / 2;

  if (channel == NULL)
    return FALSE;
  /* So that a write returns as soon as its data is on its way; the privileged form goes beyond
   * the system's default limit, where it is allowed. */
  if (setsockopt (channel_get_fd (channel), SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
    setsockopt (channel_get_fd (channel), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  channel = nbd_handshake_run (channel, &handshake, deadline, &export, error);
  if (channel == NULL)
    return FALSE;
  return socket_take (self, nbd_client_new (channel, &export, export_name), error);
}

NbdTarget *
nbd_target_new_socket (const char *path, const char *export_name, const char *name,
                       gboolean is_zero, gint64 timeout_ms, GCancellable *cancellable,
                       GError **error)
{
  SocketTarget *self = socket_new (name, is_zero, timeout_ms, cancellable);
  g_autoptr (NbdTarget) target = &self->target;

  if (!socket_connect (self, path, export_name, error))
    {
      g_prefix_error (error, "%s: ", name);
      return NULL;
    }
  return g_steal_pointer (&target);
}
