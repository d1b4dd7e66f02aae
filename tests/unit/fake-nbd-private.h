/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tests/unit/fake-nbd.h"

#include "nbd/wire.h"

#define ALLOCATION_ID 7
#define BITMAP_ID 9
/* Control characters, the sequences of a terminal, what isn't UTF-8, and a text that runs to the
 * left. */
#define UGLY                                                                                       \
  "\r\n\x1b]0;owned\x07\x1b[2J\x9b"                                                                \
  "1m\xff\xfe\xc0\xaf\xe2\x80\xaetxet\b\x7f\"\\"

struct FakeNbd
{
  FakeNbdSpec spec;
  GThread *thread;
  GCancellable *stop;
  Deadline deadline;
  int listener;
  Channel *channel;
  gboolean structured;
  gboolean has_allocation;
  gboolean has_bitmap;
  guint n_requests;
  guint n_by_command[8];
  guint64 data_sent;
  guint clear_options;
  gboolean goodbye;
};

gboolean fake_write (FakeNbd *fake, const GByteArray *out);
/* Never answers; ends when the client hangs up or the test is over: FALSE. */
gboolean fake_be_silent (FakeNbd *fake);
/* Goes on until the client has enough of it: FALSE. */
gboolean fake_drip (FakeNbd *fake);

/* FALSE: the connection ends here. */
gboolean fake_handshake (FakeNbd *fake);
gboolean fake_answer (FakeNbd *fake, const WireRequest *request);

void put_u16 (GByteArray *out, guint16 value);
void put_u32 (GByteArray *out, guint32 value);
void put_u64 (GByteArray *out, guint64 value);
void put_chunk (GByteArray *out, guint16 flags, guint16 type, guint64 cookie, guint32 length);
