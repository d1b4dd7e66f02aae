/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tests/fuzz/honest-nbd.h"
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/oracle.h"

/* Servers at a UNIX socket, one for each client that comes: an honest one, whose messages are
 * broken as a script says, and an oracle that listens.  No thread: they work when they are told to.
 */
typedef struct SessionServer SessionServer;

/* What a client meets. */
typedef struct
{
  HonestSpec spec;
  FuzzInput script; /* mutator.h; empty: honest */
} SessionVisit;

/* `visits` is borrowed: of the first clients; all others meet `usual`.  The script of the first one
 * begins with the handshake, those of the others behind it.  `seed` decides in what portions bytes
 * are sent; 0: in one. */
SessionServer *session_server_new (const SessionVisit *visits, guint n_visits,
                                   const HonestSpec *usual, guint64 seed);
void session_server_free (SessionServer *server);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (SessionServer, session_server_free)

/* Where to connect to, the same each time. */
const char *session_server_get_path (void);

/* Accepts, reads, answers, sends, closes: all that is possible now. */
void session_server_serve (SessionServer *server);

/* The first client has come through the handshake and believes that this was agreed on; its socket
 * is `fd`.  Before it sends a request. */
void session_server_begin (SessionServer *server, const NbdExport *export, int fd);

/* After the session: the oracles hear the rest. */
void session_server_end (SessionServer *server);

/* How far all that was sent can be believed. */
MutatorTruth session_server_get_truth (const SessionServer *server);
/* Requests that an honest server would not expect. */
guint session_server_get_n_invalid (const SessionServer *server);
guint session_server_get_n_clients (const SessionServer *server);
/* Of each client that came through the handshake; NULL of others. */
const Oracle *session_server_get_oracle (const SessionServer *server, guint client);
