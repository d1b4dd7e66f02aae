/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/protocol.h"

/* Encoding and decoding of NBD messages: pure functions over buffers, no I/O.  A decoder returns
 * FALSE, with nothing set, for bytes that the protocol does not allow. */

#define WIRE_MAX_REPLY_HEADER sizeof (NbdWireChunk)
/* The longest payload that is held as a whole: an error chunk with its text and offset. */
#define WIRE_MAX_ERROR_PAYLOAD (6 + NBD_MAX_STRING + 8)

/* The server's first 18 bytes. */
typedef enum
{
  WIRE_GREETING_NEWSTYLE,
  WIRE_GREETING_OLDSTYLE,
  WIRE_GREETING_NOT_NBD
} WireGreetingKind;
WireGreetingKind wire_get_greeting (const guint8 *buf, guint16 *ret_flags);

/* Options: `out` grows by the message. */
void wire_put_client_flags (GByteArray *out, guint32 flags);
void wire_put_option (GByteArray *out, guint32 option, const GByteArray *data);
/* The data of NBD_OPT_GO, asking for block sizes. */
void wire_put_go_data (GByteArray *out, const char *export_name);
/* The data of NBD_OPT_SET_META_CONTEXT. */
void wire_put_meta_context_data (GByteArray *out, const char *export_name,
                                 const char *const *contexts);

typedef struct
{
  guint32 option;
  guint32 type;
  guint32 length; /* of the data that follows */
} WireOptionReply;
gboolean wire_get_option_reply (const guint8 *buf, WireOptionReply *ret_reply);

/* The data of NBD_REP_INFO and NBD_REP_META_CONTEXT. */
gboolean wire_get_info_type (const guint8 *buf, gsize len, guint16 *ret_type);
gboolean wire_get_info_export (const guint8 *buf, gsize len, guint64 *ret_size, guint16 *ret_flags);
gboolean wire_get_info_block_size (const guint8 *buf, gsize len, guint32 *ret_min,
                                   guint32 *ret_preferred, guint32 *ret_max);
/* `ret_name` points into `buf` and is not terminated. */
gboolean wire_get_meta_context (const guint8 *buf, gsize len, guint32 *ret_id,
                                const char **ret_name, gsize *ret_name_len);

typedef struct
{
  guint16 flags;
  guint16 command;
  guint64 cookie;
  guint64 offset;
  guint32 length;
} WireRequest;
void wire_put_request (GByteArray *out, const WireRequest *request);

typedef struct
{
  gboolean structured;
  guint64 cookie;
  guint32 error;  /* simple replies */
  guint16 flags;  /* chunks: NBD_REPLY_FLAG_ */
  guint16 type;   /* chunks: NBD_REPLY_TYPE_ */
  guint32 length; /* chunks: of the payload */
} WireReply;
/* How many bytes a header takes that starts with these four; 0: none does. */
gsize wire_reply_header_size (const guint8 *buf);
void wire_get_reply (const guint8 *buf, WireReply *ret_reply);

guint64 wire_get_u64 (const guint8 *buf);
guint32 wire_get_u32 (const guint8 *buf);
guint16 wire_get_u16 (const guint8 *buf);

typedef struct
{
  guint32 error;
  const guint8 *text; /* in the payload; not terminated */
  gsize text_len;
  gboolean has_offset;
  guint64 offset;
} WireErrorChunk;
/* The whole payload of a chunk whose type has NBD_REPLY_TYPE_FLAG_ERROR, unknown types included. */
gboolean wire_get_error_chunk (guint16 type, const guint8 *buf, gsize len,
                               WireErrorChunk *ret_chunk);
