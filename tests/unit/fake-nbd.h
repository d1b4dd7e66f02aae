/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tls/channel.h"
#include "tls/credentials.h"

/* An NBD server in a thread of its own, over a socketpair, that speaks the real protocol from
 * memory, and breaks it in one chosen way. */

#define FAKE_BLOCK 4096u

typedef enum
{
  FAKE_HONEST,

  /* The handshake */
  FAKE_NOT_NBD,
  FAKE_OLDSTYLE,
  FAKE_NO_TLS,         /* refuses STARTTLS by policy, with a text full of escapes */
  FAKE_INJECT,         /* clear bytes right behind the STARTTLS reply */
  FAKE_HANG_UP_IN_TLS, /* closes after the TLS handshake */
  FAKE_BAD_OPTION_MAGIC,
  FAKE_WRONG_OPTION,
  FAKE_HUGE_OPTION_REPLY,
  FAKE_ENDLESS_INFO,
  FAKE_NO_EXPORT,
  FAKE_HUGE_SIZE,
  FAKE_BAD_BLOCK_SIZE,
  FAKE_FOREIGN_CONTEXT, /* selects a context that was not asked for */
  FAKE_NO_GO,           /* an old server: only NBD_OPT_EXPORT_NAME (harmless) */
  FAKE_SILENT_OPTION,
  FAKE_SILENT_GREETING,
  FAKE_SILENT_IN_TLS,    /* nothing more after the STARTTLS reply */
  FAKE_DRIP_OPTION,      /* a reply that comes byte by byte, without end */
  FAKE_ENDLESS_CONTEXTS, /* the same context again and again */
  FAKE_NO_INFO,          /* accepts NBD_OPT_GO without a word about the export */
  FAKE_SHORT_INFO,       /* an NBD_INFO_EXPORT without flags */
  FAKE_LONG_OPTION_TEXT, /* refuses with a text of 60000 bytes */
  FAKE_UGLY_OPTION_TEXT, /* refuses with a text of what no terminal should get */
  FAKE_NO_FIXED,         /* newstyle, but not the fixed one */
  FAKE_STRANGE_FLAGS,    /* flags of the server and the export that nobody knows (harmless) */
  FAKE_HANG_UP_AT_TLS,   /* closes after the STARTTLS reply */
  FAKE_TLS_GARBAGE,      /* a record of TLS without sense in it */
  FAKE_LONG_ACK,         /* an acknowledgement with data */
  FAKE_UNKNOWN_REPLY,    /* to an option: neither an end nor what belongs to it */
  FAKE_SHORT_CONTEXT,    /* 3 bytes */
  FAKE_TWO_SIZES,        /* the export has one size and then another one */
  FAKE_NO_FLAGS,         /* an export without NBD_FLAG_HAS_FLAGS */
  FAKE_GOING_DOWN,       /* refuses the export, for it shuts down */
  FAKE_EARLY_REPLY,      /* a reply right behind the handshake, to nothing */

  /* The transmission; from request number `at` on */
  FAKE_WRONG_COOKIE,
  FAKE_BAD_MAGIC,
  FAKE_CLOSE,
  FAKE_CLOSE_IN_DATA,
  FAKE_SILENT,
  FAKE_LONG_CHUNK,     /* more data than was asked for */
  FAKE_FOREIGN_CHUNK,  /* data of another place */
  FAKE_UNCOVERED,      /* success after half of the data */
  FAKE_OVERLAP,        /* the same data twice */
  FAKE_ENDLESS_CHUNKS, /* byte by byte */
  FAKE_SIMPLE,         /* a simple reply to a structured read */
  FAKE_UNKNOWN_CHUNK,
  FAKE_UNKNOWN_ERROR, /* an error of an unknown type (harmless: the request fails) */
  FAKE_EIO,
  FAKE_SHUTDOWN,
  FAKE_BAD_ERROR_OFFSET,
  FAKE_ZERO_ERROR,       /* an error that is none */
  FAKE_LYING_ERROR_TEXT, /* longer than its chunk */
  FAKE_UGLY_ERROR_TEXT,
  FAKE_SIMPLE_ERROR, /* not in a chunk */
  FAKE_EXTENDED,     /* a header of a kind that was not agreed on */
  FAKE_ECHO,         /* the request itself */
  FAKE_BYE,          /* the end of TLS, where there is TLS, before the answer */
  FAKE_LONG_ERROR_TEXT,
  FAKE_HOLE_BEYOND,
  FAKE_HUGE_CHUNK,      /* 4 GiB - 1 of data */
  FAKE_HUGE_ERROR,      /* an error of that size */
  FAKE_EMPTY_CHUNK,     /* data of 0 bytes */
  FAKE_ENDLESS_NOTHING, /* empty chunks without an end */
  FAKE_TWICE,           /* a second answer to the same request */
  FAKE_STATUS_FOR_DATA,
  FAKE_EMPTY_HOLE,
  FAKE_HUGE_HOLE,           /* 4 GiB - 1 */
  FAKE_WRAPPED_HOLE,        /* from before 0 to beyond it */
  FAKE_FULL_NOTHING,        /* a chunk of no content, with 4 bytes of it */
  FAKE_MIXED,               /* the first half in a chunk, the rest in a simple reply */
  FAKE_ERROR_AND_DATA,      /* an error, and all of the data (harmless: the request fails) */
  FAKE_DRIP_DATA,           /* byte by byte, with long pauses */
  FAKE_STRANGE_REPLY_FLAGS, /* that nobody knows (harmless) */
  FAKE_CUT,                 /* the socket is closed in the middle, for TLS without close_notify */
  FAKE_STALL,               /* the first half of the data, and then nothing */
  FAKE_EARLY_DONE,          /* the first half, and then an end that is no error */
  FAKE_EMPTY_EXTENT,
  FAKE_LONG_EXTENTS, /* goes on after the range is covered */
  FAKE_WRONG_CONTEXT,
  FAKE_NO_STATUS,     /* success without a status */
  FAKE_HUGE_STATUS,   /* 4 GiB - 1 of extents */
  FAKE_CONTEXT_TWICE, /* the same status twice in a reply */
  FAKE_UNEVEN_STATUS, /* half an extent */
  FAKE_DATA_FOR_STATUS,
  FAKE_STATUS_EIO,    /* (harmless: the request fails) */
  FAKE_LAST_EXTENT,   /* goes far beyond the end of the export (harmless) */
  FAKE_STRANGE_STATE, /* bits that nobody knows (harmless) */
  FAKE_CRUMBS,        /* extents of 16 bytes (harmless) */
  FAKE_TINY_STATUS,   /* one block a reply (harmless) */
  FAKE_N_FAULTS
} FakeFault;

typedef struct
{
  guint64 size;
  const guint8 *data;      /* of the export; written to by NBD_CMD_WRITE */
  const guint8 *state;     /* NBD_STATE_ of base:allocation for each block; NULL: no such context */
  const guint8 *dirty;     /* the same for the bitmap */
  const char *bitmap;      /* its name; NULL: none */
  guint32 min_block;       /* 0: no block sizes are told */
  guint32 preferred_block; /* 0: 4096 */
  guint32 max_payload;     /* 0: 32 MiB */
  gboolean multi_conn;
  gboolean simple; /* refuses structured replies */
  gboolean holes;  /* READ sends blocks of zeroes as holes, and chunks in reverse order */
  gboolean read_only;
  Credentials *credentials; /* NULL: no TLS */
  FakeFault fault;
  guint at;
} FakeNbdSpec;

typedef struct FakeNbd FakeNbd;

/* `spec` and what it points to must outlive the server.  `ret_channel`: the client's end. */
FakeNbd *fake_nbd_new (const FakeNbdSpec *spec, Channel **ret_channel);
/* Over a connected socket; takes `fd` over. */
FakeNbd *fake_nbd_new_fd (const FakeNbdSpec *spec, int fd);
/* The same on a UNIX socket at `path`; serves one client. */
FakeNbd *fake_nbd_new_listening (const FakeNbdSpec *spec, const char *path);
/* "wrong-cookie" and so on; NULL where there is no such fault. */
const char *fake_fault_get_name (FakeFault fault);
/* Ends the thread, whatever the client does. */
void fake_nbd_free (FakeNbd *fake);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FakeNbd, fake_nbd_free)

/* Valid after fake_nbd_join (), which waits for the client to hang up. */
void fake_nbd_join (FakeNbd *fake);
guint fake_nbd_get_n (const FakeNbd *fake, guint16 command);
guint64 fake_nbd_get_data_sent (const FakeNbd *fake);
gboolean fake_nbd_got_goodbye (const FakeNbd *fake);
/* In clear, before TLS: options that were sent. */
guint fake_nbd_get_clear_options (const FakeNbd *fake);
