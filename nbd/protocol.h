/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* The NBD protocol on the wire: magic numbers, flags, types and layouts as doc/proto.md of
 * NetworkBlockDevice/nbd gives them.  All integers are big-endian there; only wire.c looks into
 * these structs. */

#define NBD_INIT_MAGIC G_GUINT64_CONSTANT (0x4e42444d41474943)   /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC G_GUINT64_CONSTANT (0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_OLDSTYLE_MAGIC G_GUINT64_CONSTANT (0x0000420281861253)
#define NBD_OPTION_REPLY_MAGIC G_GUINT64_CONSTANT (0x0003e889045565a9)
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC 0x67446698u
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efu

/* Handshake flags of the server, and those of the client: the same two bits. */
#define NBD_FLAG_FIXED_NEWSTYLE (1u << 0)
#define NBD_FLAG_NO_ZEROES (1u << 1)

/* Transmission flags. */
#define NBD_FLAG_HAS_FLAGS (1u << 0)
#define NBD_FLAG_READ_ONLY (1u << 1)
#define NBD_FLAG_SEND_FLUSH (1u << 2)
#define NBD_FLAG_SEND_FUA (1u << 3)
#define NBD_FLAG_SEND_WRITE_ZEROES (1u << 6)
#define NBD_FLAG_SEND_DF (1u << 7)
#define NBD_FLAG_CAN_MULTI_CONN (1u << 8)

enum
{
  NBD_OPT_EXPORT_NAME = 1,
  NBD_OPT_ABORT = 2,
  NBD_OPT_STARTTLS = 5,
  NBD_OPT_INFO = 6,
  NBD_OPT_GO = 7,
  NBD_OPT_STRUCTURED_REPLY = 8,
  NBD_OPT_SET_META_CONTEXT = 10
};

#define NBD_REP_FLAG_ERROR (1u << 31)
enum
{
  NBD_REP_ACK = 1,
  NBD_REP_SERVER = 2,
  NBD_REP_INFO = 3,
  NBD_REP_META_CONTEXT = 4
};
#define NBD_REP_ERR_UNSUP (NBD_REP_FLAG_ERROR | 1)
#define NBD_REP_ERR_POLICY (NBD_REP_FLAG_ERROR | 2)
#define NBD_REP_ERR_INVALID (NBD_REP_FLAG_ERROR | 3)
#define NBD_REP_ERR_PLATFORM (NBD_REP_FLAG_ERROR | 4)
#define NBD_REP_ERR_TLS_REQD (NBD_REP_FLAG_ERROR | 5)
#define NBD_REP_ERR_UNKNOWN (NBD_REP_FLAG_ERROR | 6)
#define NBD_REP_ERR_SHUTDOWN (NBD_REP_FLAG_ERROR | 7)
#define NBD_REP_ERR_BLOCK_SIZE_REQD (NBD_REP_FLAG_ERROR | 8)
#define NBD_REP_ERR_TOO_BIG (NBD_REP_FLAG_ERROR | 9)

enum
{
  NBD_INFO_EXPORT = 0,
  NBD_INFO_NAME = 1,
  NBD_INFO_DESCRIPTION = 2,
  NBD_INFO_BLOCK_SIZE = 3
};

enum
{
  NBD_CMD_READ = 0,
  NBD_CMD_WRITE = 1,
  NBD_CMD_DISC = 2,
  NBD_CMD_FLUSH = 3,
  NBD_CMD_TRIM = 4,
  NBD_CMD_CACHE = 5,
  NBD_CMD_WRITE_ZEROES = 6,
  NBD_CMD_BLOCK_STATUS = 7
};

#define NBD_CMD_FLAG_FUA (1u << 0)
#define NBD_CMD_FLAG_NO_HOLE (1u << 1)
#define NBD_CMD_FLAG_DF (1u << 2)
#define NBD_CMD_FLAG_REQ_ONE (1u << 3)

#define NBD_REPLY_FLAG_DONE (1u << 0)
enum
{
  NBD_REPLY_TYPE_NONE = 0,
  NBD_REPLY_TYPE_OFFSET_DATA = 1,
  NBD_REPLY_TYPE_OFFSET_HOLE = 2,
  NBD_REPLY_TYPE_BLOCK_STATUS = 5
};
#define NBD_REPLY_TYPE_FLAG_ERROR (1u << 15)
#define NBD_REPLY_TYPE_ERROR (NBD_REPLY_TYPE_FLAG_ERROR | 1)
#define NBD_REPLY_TYPE_ERROR_OFFSET (NBD_REPLY_TYPE_FLAG_ERROR | 2)

/* base:allocation; HOLE alone says nothing about what a read gives. */
#define NBD_STATE_HOLE (1u << 0)
#define NBD_STATE_ZERO (1u << 1)
/* qemu:dirty-bitmap:NAME (QEMU docs/interop/nbd.txt). */
#define NBD_STATE_DIRTY (1u << 0)

enum
{
  NBD_EPERM = 1,
  NBD_EIO = 5,
  NBD_ENOMEM = 12,
  NBD_EINVAL = 22,
  NBD_ENOSPC = 28,
  NBD_EOVERFLOW = 75,
  NBD_ENOTSUP = 95,
  NBD_ESHUTDOWN = 108
};

#define NBD_MAX_STRING 4096      /* "no string may be longer" */
#define NBD_MAX_MIN_BLOCK 65536u /* minimum block sizes are at most this */
#define NBD_DEFAULT_MAX_PAYLOAD (32u * 1024 * 1024)
#define NBD_MAX_STATUS_EXTENTS (1u << 20) /* in one chunk */

typedef struct __attribute__ ((packed))
{
  guint64 init_magic;
  guint64 option_magic;
  guint16 flags;
} NbdWireGreeting;

typedef struct __attribute__ ((packed))
{
  guint64 magic;
  guint32 option;
  guint32 length;
} NbdWireOption;

typedef struct __attribute__ ((packed))
{
  guint64 magic;
  guint32 option;
  guint32 type;
  guint32 length;
} NbdWireOptionReply;

typedef struct __attribute__ ((packed))
{
  guint32 magic;
  guint16 flags;
  guint16 type;
  guint64 cookie;
  guint64 offset;
  guint32 length;
} NbdWireRequest;

typedef struct __attribute__ ((packed))
{
  guint32 magic;
  guint32 error;
  guint64 cookie;
} NbdWireSimpleReply;

typedef struct __attribute__ ((packed))
{
  guint32 magic;
  guint16 flags;
  guint16 type;
  guint64 cookie;
  guint32 length;
} NbdWireChunk;

G_STATIC_ASSERT (sizeof (NbdWireGreeting) == 18);
G_STATIC_ASSERT (sizeof (NbdWireOption) == 16);
G_STATIC_ASSERT (sizeof (NbdWireOptionReply) == 20);
G_STATIC_ASSERT (sizeof (NbdWireRequest) == 28);
G_STATIC_ASSERT (sizeof (NbdWireSimpleReply) == 16);
G_STATIC_ASSERT (sizeof (NbdWireChunk) == 20);
