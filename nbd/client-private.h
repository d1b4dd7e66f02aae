/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "nbd/client.h"
#include "nbd/pending.h"
#include "nbd/wire.h"

/* What the two halves of a client share: client.c submits and sends, client-receive.c takes the
 * replies apart. */

/* Two TLS records.  Payload beyond what is in it goes straight to where it belongs. */
#define CLIENT_IN_SIZE 32768

typedef enum
{
  CLIENT_HEADER,
  CLIENT_SMALL, /* a hole or an error: its whole payload in one piece */
  CLIENT_DATA_OFFSET,
  CLIENT_DATA,
  CLIENT_STATUS_CONTEXT,
  CLIENT_STATUS
} ClientState;

struct NbdClient
{
  Channel *channel;
  NbdExport export;
  char *name;
  char *export_name; /* escaped */

  gboolean is_tcp;
  int low_water; /* SO_RCVLOWAT as it is set */
  guint low_water_pause;
  guint64 data_due; /* of READs that were submitted, and not received: bytes */

  NbdPending *slots[NBD_CLIENT_MAX_REQUESTS]; /* cookie % N is the slot */
  guint n_outstanding;
  guint64 serial;
  GQueue unsent; /* NbdPending */
  GQueue done;   /* NbdRequest */

  GByteArray *out; /* headers */
  gsize out_done;
  NbdPending *payload; /* the WRITE whose data comes after `out` */
  guint32 payload_done;

  guint8 in[CLIENT_IN_SIZE];
  gsize in_start;
  gsize in_end;
  gboolean drained; /* `in` holds no whole message, and the channel has nothing now */
  ClientState state;
  WireReply reply;
  NbdPending *current; /* whose reply is being received */
  guint8 *data;        /* CLIENT_DATA: where it goes */
  gsize left;          /* CLIENT_DATA, CLIENT_STATUS: bytes of payload to come */
  guint64 received;
  guint64 n_answered;
};

gboolean client_has_output (const NbdClient *client);
/* Whether replies are complete, or there is nothing more to receive now; FALSE: the connection is
 * of no more use. */
gboolean client_receive (NbdClient *client, GError **error);
/* Puts the export in front of what the channel says, which names the server alone. */
gboolean client_lost (NbdClient *client, GError **error);
