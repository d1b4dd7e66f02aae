/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/handshake.h"
#include "nbd/wire.h"

/* An NBD server that does everything right, as a state machine: bytes go in, frames come out, one
 * for each message, so that somebody else can break them.  No I/O, no thread. */
typedef struct HonestNbd HonestNbd;

#define HONEST_BLOCK 4096u

typedef struct
{
  guint64 size;
  const guint8 *data;
  const guint8 *state; /* NBD_STATE_ of base:allocation for each block; NULL: no such context */
  const guint8 *dirty; /* the same for qemu:dirty-bitmap:b */
  guint32 min_block;   /* 0: no block sizes are told */
  guint32 max_block;
  guint32 chunk;         /* reads are answered in chunks of it, a power of two; 0: in one */
  gboolean structured;   /* otherwise simple replies */
  gboolean holes;        /* chunks of zeroes are sent as holes */
  gboolean backwards;    /* the last chunk first */
  gboolean go;           /* otherwise only NBD_OPT_EXPORT_NAME */
  gboolean short_status; /* one extent a reply */
  gboolean multi_conn;
} HonestSpec;

typedef enum
{
  HONEST_HANDSHAKE,
  HONEST_CHUNK,
  HONEST_SIMPLE
} HonestKind;

/* One message of the server. */
typedef struct
{
  HonestKind kind;
  GByteArray *bytes;
} HonestFrame;

/* Callbacks; the frame is borrowed. */
typedef struct
{
  void (*emit) (gpointer user_data, const HonestFrame *frame);
  /* A request, before its answer. */
  void (*request) (gpointer user_data, const WireRequest *request);
} HonestHandlers;

/* `spec` and what it points to is borrowed.  Sends its greeting with the first call of feed (),
 * which may have no bytes. */
HonestNbd *honest_nbd_new (const HonestSpec *spec, const HonestHandlers *handlers,
                           gpointer user_data);
void honest_nbd_free (HonestNbd *server);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HonestNbd, honest_nbd_free)

/* What the client sent, cut anywhere. */
void honest_nbd_feed (HonestNbd *server, const guint8 *data, gsize len);

/* The client said goodbye. */
gboolean honest_nbd_is_over (const HonestNbd *server);
/* Requests that no client may send to this export, answered by EINVAL. */
guint honest_nbd_get_n_invalid (const HonestNbd *server);
/* What was agreed on, as the client should see it with the contexts "qemu:dirty-bitmap:b" and
 * "base:allocation". */
const NbdExport *honest_nbd_get_export (const HonestNbd *server);

/* For whoever makes frames. */
void honest_put_chunk (GByteArray *out, guint16 flags, guint16 type, guint64 cookie,
                       guint32 length);
void honest_put_error (GByteArray *out, guint64 cookie, guint32 error, const char *text);
void honest_put_u16 (GByteArray *out, guint16 value);
void honest_put_u32 (GByteArray *out, guint32 value);
void honest_put_u64 (GByteArray *out, guint64 value);
