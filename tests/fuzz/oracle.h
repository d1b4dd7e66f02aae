/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/handshake.h"
#include "nbd/wire.h"

/* A second, slow reading of the transmission phase, written against the specification and not
 * against the client: which requests were answered, and what the answers say about the disk.  It
 * keeps every byte, which the client cannot. */
typedef struct Oracle Oracle;

typedef struct
{
  WireRequest request;
  gboolean over;                         /* the last chunk came, and the answer is complete */
  gboolean failed;                       /* ... and it is an error */
  guint8 *data;                          /* READ: what was told; `length` bytes */
  guint8 *covered;                       /* READ: 1 for each byte that was told */
  guint32 hole_bytes;                    /* READ */
  GByteArray *extents[NBD_MAX_CONTEXTS]; /* BLOCK_STATUS: descriptors as they came, or NULL */
} OracleAnswer;

/* `export` is copied: what the client believes that was agreed on. */
Oracle *oracle_new (const NbdExport *export);
void oracle_free (Oracle *oracle);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Oracle, oracle_free)

/* The client sent a request. */
void oracle_add_request (Oracle *oracle, const WireRequest *request);
/* The server sent bytes.  After the first violation of the protocol nothing is looked at. */
void oracle_feed (Oracle *oracle, const guint8 *data, gsize len);

gboolean oracle_is_broken (const Oracle *oracle);
/* Requests without a complete answer. */
guint oracle_get_n_open (const Oracle *oracle);
/* By the number of the request, from 0; NULL beyond the last one. */
const OracleAnswer *oracle_get_answer (const Oracle *oracle, guint index);
