/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/pending.h"
#include "nbd/nbd-error.h"

#include <string.h>

typedef struct
{
  guint64 start;
  guint64 end;
} Range;

NbdPending *
nbd_pending_new (NbdRequest *request, guint64 cookie)
{
  NbdPending *pending = g_new0 (NbdPending, 1);

  pending->request = request;
  pending->cookie = cookie;
  pending->data_left = request->command == NBD_CMD_READ ? request->length : 0;
  return pending;
}

void
nbd_pending_free (NbdPending *pending)
{
  if (pending == NULL)
    return;
  g_clear_pointer (&pending->covered, g_array_unref);
  g_free (pending);
}

char *
nbd_request_describe (const NbdRequest *request)
{
  static const char *const names[] = { "read", "write", "disconnect",      "flush",
                                       "trim", "cache", "write of zeroes", "block status" };
  const char *name = request->command < G_N_ELEMENTS (names) ? names[request->command] : "request";

  if (request->command == NBD_CMD_FLUSH)
    return g_strdup (name);
  return g_strdup_printf ("%s of %u bytes at offset %" G_GUINT64_FORMAT, name, request->length,
                          request->offset);
}

G_GNUC_PRINTF (3, 4)
static gboolean
pending_fail (NbdPending *pending, GError **error, const char *format, ...)
{
  g_autofree char *what = nbd_request_describe (pending->request);
  g_autofree char *text = NULL;
  va_list args;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (error, NBD_ERROR, NBD_ERROR_PROTOCOL, "%s: the server %s", what, text);
  return FALSE;
}

/* Servers are told to cut replies at multiples of 512 bytes; the limit keeps one that doesn't from
 * answering without end. */
static guint
pending_max_chunks (const NbdPending *pending)
{
  return pending->request->command == NBD_CMD_READ ? pending->request->length / 512 + 16 : 16;
}

static gboolean
pending_check_simple (NbdPending *pending, const WireReply *reply, const NbdExport *export,
                      GError **error)
{
  guint16 command = pending->request->command;
  gboolean has_data
      = command == NBD_CMD_READ || (command == NBD_CMD_BLOCK_STATUS && reply->error == 0);

  if (has_data && (export->structured || command == NBD_CMD_BLOCK_STATUS))
    return pending_fail (pending, error, "sent a simple reply where chunks were agreed on");
  return TRUE;
}

static gboolean
pending_check_chunk (NbdPending *pending, const WireReply *reply, GError **error)
{
  const NbdRequest *request = pending->request;
  gboolean good = FALSE;

  switch (reply->type)
    {
    case NBD_REPLY_TYPE_NONE:
      good = reply->length == 0 && (reply->flags & NBD_REPLY_FLAG_DONE);
      break;
    case NBD_REPLY_TYPE_OFFSET_DATA:
      good = request->command == NBD_CMD_READ && reply->length > 8
             && reply->length - 8 <= request->length;
      break;
    case NBD_REPLY_TYPE_OFFSET_HOLE:
      good = request->command == NBD_CMD_READ && reply->length == 12;
      break;
    case NBD_REPLY_TYPE_BLOCK_STATUS:
      good = request->command == NBD_CMD_BLOCK_STATUS && reply->length >= 12
             && (reply->length - 4) % 8 == 0 && (reply->length - 4) / 8 <= NBD_MAX_STATUS_EXTENTS;
      break;
    default:
      good = (reply->type & NBD_REPLY_TYPE_FLAG_ERROR) && reply->length <= WIRE_MAX_ERROR_PAYLOAD;
      break;
    }
  if (!good)
    return pending_fail (pending, error, "answered with a chunk of type %u and %u bytes",
                         reply->type, reply->length);
  return TRUE;
}

gboolean
nbd_pending_check_header (NbdPending *pending, const WireReply *reply, const NbdExport *export,
                          GError **error)
{
  if (!pending->request->sent)
    return pending_fail (pending, error, "answered before it was asked");
  if (!reply->structured)
    {
      if (pending->n_chunks > 0)
        return pending_fail (pending, error, "mixed a simple reply with chunks");
      return pending_check_simple (pending, reply, export, error);
    }
  if (!export->structured)
    return pending_fail (pending, error, "sent a chunk where simple replies were agreed on");
  if (++pending->n_chunks > pending_max_chunks (pending))
    return pending_fail (pending, error, "answers in more chunks than make sense");
  return pending_check_chunk (pending, reply, error);
}

/* FALSE: some of it is covered already. */
static gboolean
ranges_add (GArray *ranges, Range range)
{
  guint i = ranges->len;
  Range *before, *after;

  /* Nearly always the new range goes on where the last one ended. */
  while (i > 0 && g_array_index (ranges, Range, i - 1).start >= range.end)
    i--;
  before = i > 0 ? &g_array_index (ranges, Range, i - 1) : NULL;
  after = i < ranges->len ? &g_array_index (ranges, Range, i) : NULL;
  if (before != NULL && before->end > range.start)
    return FALSE;
  if (before != NULL && before->end == range.start)
    {
      before->end = range.end;
      if (after != NULL && after->start == range.end)
        {
          before->end = after->end;
          g_array_remove_index (ranges, i);
        }
    }
  else if (after != NULL && after->start == range.end)
    after->start = range.start;
  else
    g_array_insert_val (ranges, i, range);
  return TRUE;
}

gboolean
nbd_pending_cover (NbdPending *pending, guint64 offset, guint64 length, GError **error)
{
  const NbdRequest *request = pending->request;

  if (length == 0 || offset < request->offset || offset - request->offset > request->length
      || length > request->length - (offset - request->offset))
    return pending_fail (pending, error,
                         "answered with %" G_GUINT64_FORMAT " bytes at offset %" G_GUINT64_FORMAT,
                         length, offset);
  if (pending->covered == NULL)
    pending->covered = g_array_new (FALSE, FALSE, sizeof (Range));
  if (!ranges_add (pending->covered, (Range){ offset, offset + length }))
    return pending_fail (pending, error, "answered bytes at offset %" G_GUINT64_FORMAT " twice",
                         offset);
  return TRUE;
}

guint8 *
nbd_pending_get_data (NbdPending *pending)
{
  NbdRequest *request = pending->request;

  if (request->data == NULL)
    request->data = request->take_data (request);
  return request->data;
}

gboolean
nbd_pending_add_hole (NbdPending *pending, const guint8 *payload, GError **error)
{
  NbdRequest *request = pending->request;
  guint64 offset = wire_get_u64 (payload);
  guint32 length = wire_get_u32 (payload + 8);

  if (!nbd_pending_cover (pending, offset, length, error))
    return FALSE;
  if (length < request->length || request->data != NULL)
    memset (nbd_pending_get_data (pending) + (offset - request->offset), 0, length);
  request->hole_bytes += length;
  return TRUE;
}

static void
pending_set_error (NbdPending *pending, guint32 value, const char *name, const char *where,
                   const char *text)
{
  g_autofree char *what = nbd_request_describe (pending->request);
  int code = value == NBD_ESHUTDOWN ? NBD_ERROR_SHUTDOWN : NBD_ERROR_IO;

  /* The first one tells the cause. */
  if (pending->request->error == NULL)
    g_set_error (&pending->request->error, NBD_ERROR, code, "%s: %s: the server says: %s (%u)%s%s",
                 name, what, nbd_errno_text (value), value, where, text);
}

gboolean
nbd_pending_add_error (NbdPending *pending, guint16 type, const guint8 *payload, gsize len,
                       const char *name, GError **error)
{
  const NbdRequest *request = pending->request;
  g_autofree char *text = NULL;
  g_autofree char *quoted = NULL;
  g_autofree char *where = NULL;
  WireErrorChunk chunk;

  if (!wire_get_error_chunk (type, payload, len, &chunk))
    return pending_fail (pending, error, "sent a malformed error");
  if (chunk.has_offset
      && (chunk.offset < request->offset || chunk.offset - request->offset >= request->length))
    return pending_fail (pending, error, "sent an error for offset %" G_GUINT64_FORMAT,
                         chunk.offset);
  text = nbd_text_escape (chunk.text, chunk.text_len);
  quoted = chunk.text_len > 0 ? g_strdup_printf (", \"%s\"", text) : g_strdup ("");
  where = chunk.has_offset ? g_strdup_printf (" at offset %" G_GUINT64_FORMAT, chunk.offset)
                           : g_strdup ("");
  pending_set_error (pending, chunk.error, name, where, quoted);
  return TRUE;
}

void
nbd_pending_set_errno (NbdPending *pending, guint32 value, const char *name)
{
  pending_set_error (pending, value, name, "", "");
}

gboolean
nbd_pending_begin_status (NbdPending *pending, guint32 context_id, const NbdExport *export,
                          GError **error)
{
  NbdRequest *request = pending->request;

  for (guint i = 0; i < NBD_MAX_CONTEXTS; i++)
    {
      if (!export->has_context[i] || export->context_id[i] != context_id)
        continue;
      if (request->extents[i] != NULL)
        return pending_fail (pending, error, "told the status of context %u twice", context_id);
      request->extents[i] = g_array_new (FALSE, FALSE, sizeof (NbdExtent));
      pending->context = i;
      pending->status_bytes = 0;
      pending->status_full = FALSE;
      return TRUE;
    }
  return pending_fail (pending, error, "told the status of context %u, which was not agreed on",
                       context_id);
}

gboolean
nbd_pending_add_extent (NbdPending *pending, const guint8 *descriptor, GError **error)
{
  const NbdRequest *request = pending->request;
  GArray *extents = request->extents[pending->context];
  NbdExtent extent = { wire_get_u32 (descriptor), wire_get_u32 (descriptor + 4) };
  gboolean one = (request->flags & NBD_CMD_FLAG_REQ_ONE) != 0;

  /* Only the last extent may reach beyond the request, and with REQ_ONE not even that. */
  if (extent.length == 0 || pending->status_bytes >= request->length
      || (one && (extents->len > 0 || extent.length > request->length)))
    return pending_fail (pending, error, "told an extent of %u bytes after %" G_GUINT64_FORMAT,
                         extent.length, pending->status_bytes);
  pending->status_bytes += extent.length;
  if (extents->len >= NBD_CLIENT_MAX_EXTENTS)
    pending->status_full = TRUE;
  if (!pending->status_full)
    g_array_append_val (extents, extent);
  return TRUE;
}

gboolean
nbd_pending_finish (NbdPending *pending, const NbdExport *export, GError **error)
{
  const NbdRequest *request = pending->request;
  const Range *range;

  if (request->error != NULL)
    return TRUE;
  if (request->command == NBD_CMD_READ)
    {
      range = pending->covered != NULL && pending->covered->len == 1
                  ? &g_array_index (pending->covered, Range, 0)
                  : NULL;
      if (range == NULL || range->end - range->start != request->length)
        return pending_fail (pending, error, "claims success without sending all the data");
    }
  if (request->command == NBD_CMD_BLOCK_STATUS)
    for (guint i = 0; i < NBD_MAX_CONTEXTS; i++)
      if (export->has_context[i] && request->extents[i] == NULL)
        return pending_fail (pending, error, "claims success without the status");
  return TRUE;
}
