/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/session-limits.h"

#include "nbd/client.h"
#include "nbd/mirror.h"
#include "nbd/protocol.h"
#include "tests/fuzz/fuzz.h"

#define MAX_READS 64
#define CLIENT_BLOCK 4096 /* what reads are multiples of */

/* A request, until its answer is sent. */
typedef struct
{
  guint64 end;    /* of the answer, in bytes of the server; G_MAXUINT64: it is not made yet */
  guint32 length; /* of a READ, or 0 */
} Open;

struct SessionLimits
{
  GArray *open;      /* Open */
  GHashTable *asked; /* blocks that were asked for */
};

SessionLimits *
session_limits_new (void)
{
  SessionLimits *limits = g_new0 (SessionLimits, 1);

  limits->open = g_array_new (FALSE, FALSE, sizeof (Open));
  limits->asked = g_hash_table_new (NULL, NULL);
  return limits;
}

void
session_limits_free (SessionLimits *limits)
{
  if (limits == NULL)
    return;
  g_array_unref (limits->open);
  g_hash_table_unref (limits->asked);
  g_free (limits);
}

void
session_limits_end_answer (SessionLimits *limits, guint64 end)
{
  GArray *open = limits->open;

  if (open->len > 0 && g_array_index (open, Open, open->len - 1).end == G_MAXUINT64)
    g_array_index (open, Open, open->len - 1).end = end;
}

/* Forgets those whose answers have been sent. */
static void
check_open (SessionLimits *limits, const WireRequest *request, guint64 n_sent, gboolean count)
{
  guint n_reads = 0, n = 0;
  guint64 bytes = 0;

  for (guint i = 0; i < limits->open->len; i++)
    {
      Open open = g_array_index (limits->open, Open, i);

      if (open.end <= n_sent)
        continue;
      g_array_index (limits->open, Open, n++) = open;
      n_reads += open.length > 0 ? 1 : 0;
      bytes += open.length;
    }
  g_array_set_size (limits->open, n);
  if (!count)
    return;
  FUZZ_REQUIRE (n < NBD_CLIENT_MAX_REQUESTS);
  if (request->command == NBD_CMD_READ && n_reads > 0)
    FUZZ_REQUIRE (n_reads < MAX_READS && bytes + request->length <= MIRROR_MAX_IN_FLIGHT);
}

static void
check_asked (SessionLimits *limits, const WireRequest *request)
{
  guint64 end = request->offset + request->length;

  for (guint64 at = request->offset / CLIENT_BLOCK; at * CLIENT_BLOCK < end; at++)
    FUZZ_REQUIRE (g_hash_table_add (limits->asked, GSIZE_TO_POINTER (at + 1)));
}

void
session_limits_add_request (SessionLimits *limits, const WireRequest *request, guint64 n_sent,
                            gboolean count)
{
  gboolean is_read = request->command == NBD_CMD_READ;
  const Open open = { G_MAXUINT64, is_read ? request->length : 0 };

  FUZZ_REQUIRE (is_read || request->command == NBD_CMD_BLOCK_STATUS);
  FUZZ_REQUIRE (request->length > 0);
  check_open (limits, request, n_sent, count);
  g_array_append_val (limits->open, open);
  if (is_read)
    check_asked (limits, request);
}
