/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "nbd/client.h"
#include "nbd/wire.h"
#include "tests/fuzz/memory-channel.h"
#include "tests/fuzz/oracle.h"
#include "tests/fuzz/fuzz.h"

/* The transmission phase of the client.  Input: what was agreed on, some requests, then what the
 * server sends.  What the client hands back has to be what a second reading of the same bytes
 * finds (oracle.h). */

#define EXPORT_SIZE (1024 * 1024)
#define MAX_REQUESTS 16
/* A status of two contexts of the longest kind for each of some requests. */
#define MAX_MEMORY (16 * 1024 * 1024)

typedef struct
{
  FuzzInput input;
  NbdExport export;
  Oracle *oracle;
  GByteArray *sent; /* of the client, not yet understood */
  gsize skip;       /* payload of a WRITE */
  NbdRequest requests[MAX_REQUESTS];
  gboolean popped[MAX_REQUESTS];
  guint n_requests;
  guint n_asked;
} Run;

/* The server's side of the channel */

static void
on_sent (gpointer user_data, const guint8 *data, gsize len)
{
  Run *run = user_data;

  g_byte_array_append (run->sent, data, (guint)len);
  for (;;)
    {
      gsize skip = MIN (run->skip, run->sent->len);
      WireRequest request;

      g_byte_array_remove_range (run->sent, 0, (guint)skip);
      run->skip -= skip;
      if (run->sent->len < sizeof (NbdWireRequest))
        return;
      FUZZ_REQUIRE (wire_get_u32 (run->sent->data) == NBD_REQUEST_MAGIC);
      request = (WireRequest){ .flags = wire_get_u16 (run->sent->data + 4),
                               .command = wire_get_u16 (run->sent->data + 6),
                               .cookie = wire_get_u64 (run->sent->data + 8),
                               .offset = wire_get_u64 (run->sent->data + 16),
                               .length = wire_get_u32 (run->sent->data + 24) };
      oracle_add_request (run->oracle, &request);
      run->n_asked++;
      run->skip = request.command == NBD_CMD_WRITE ? request.length : 0;
      g_byte_array_remove_range (run->sent, 0, sizeof (NbdWireRequest));
    }
}

static ChannelStatus
on_give (gpointer user_data, guint8 *buf, gsize len, gsize *ret_n)
{
  Run *run = user_data;

  /* The oracle learns the cookies from the requests: they all come first. */
  if (run->n_asked < run->n_requests || run->skip > 0)
    return CHANNEL_AGAIN;
  if (run->input.left == 0)
    return CHANNEL_EOF;
  *ret_n = MIN (len, run->input.left);
  memcpy (buf, run->input.data, *ret_n);
  oracle_feed (run->oracle, buf, *ret_n);
  run->input.data += *ret_n;
  run->input.left -= *ret_n;
  return CHANNEL_OK;
}

static const MemoryPeer peer = { on_sent, on_give };

/* The requests */

static void
make_request (Run *run, NbdRequest *request)
{
  static const guint16 commands[]
      = { NBD_CMD_READ, NBD_CMD_READ, NBD_CMD_BLOCK_STATUS, NBD_CMD_WRITE, NBD_CMD_FLUSH };
  guint8 kind = fuzz_input_u8 (&run->input);
  guint64 offset = (guint64)fuzz_input_u8 (&run->input) * 4096;
  guint32 length = 1u + fuzz_input_u16 (&run->input);

  request->command = commands[kind % G_N_ELEMENTS (commands)];
  if (request->command == NBD_CMD_BLOCK_STATUS && run->export.n_contexts == 0)
    request->command = NBD_CMD_READ;
  if (request->command == NBD_CMD_FLUSH)
    return;
  if (request->command == NBD_CMD_BLOCK_STATUS && kind & 0x80)
    request->flags = NBD_CMD_FLAG_REQ_ONE;
  request->offset = offset;
  request->length = (guint32)MIN (length, EXPORT_SIZE - offset);
  if (request->command == NBD_CMD_READ || request->command == NBD_CMD_WRITE)
    request->data = g_malloc0 (request->length);
}

static void
check_extents (const GArray *extents, const GByteArray *told)
{
  FUZZ_REQUIRE ((extents == NULL) == (told == NULL));
  if (extents == NULL)
    return;
  FUZZ_REQUIRE (extents->len == MIN (told->len / 8, NBD_CLIENT_MAX_EXTENTS));
  for (guint i = 0; i < extents->len; i++)
    {
      const NbdExtent *extent = &g_array_index (extents, NbdExtent, i);

      FUZZ_REQUIRE (extent->length == wire_get_u32 (told->data + (gsize)i * 8));
      FUZZ_REQUIRE (extent->flags == wire_get_u32 (told->data + (gsize)i * 8 + 4));
    }
}

static void
check_answer (Run *run, NbdRequest *request)
{
  guint index = (guint)(request - run->requests);
  const OracleAnswer *answer;

  FUZZ_REQUIRE (index < run->n_requests && !run->popped[index]);
  run->popped[index] = TRUE;
  answer = oracle_get_answer (run->oracle, index);
  FUZZ_REQUIRE (answer != NULL && answer->over);
  FUZZ_REQUIRE (answer->failed == (request->error != NULL));
  if (request->error != NULL)
    {
      FUZZ_REQUIRE (g_utf8_validate (request->error->message, -1, NULL));
      FUZZ_REQUIRE (strchr (request->error->message, '\n') == NULL);
      return;
    }
  if (request->command == NBD_CMD_READ)
    {
      FUZZ_REQUIRE (memcmp (request->data, answer->data, request->length) == 0);
      FUZZ_REQUIRE (request->hole_bytes == answer->hole_bytes);
    }
  for (guint i = 0; i < NBD_MAX_CONTEXTS; i++)
    check_extents (request->extents[i], answer->extents[i]);
}

/* TRUE when the connection has ended. */
static gboolean
step (Run *run, NbdClient *client)
{
  g_autoptr (GError) error = NULL;
  gboolean good = nbd_client_pump (client, &error);
  NbdRequest *request;

  while ((request = nbd_client_pop (client)) != NULL)
    check_answer (run, request);
  if (nbd_client_get_outstanding (client) == 0)
    return TRUE;
  if (good)
    {
      FUZZ_REQUIRE (nbd_client_wait (client, G_MAXINT64, NULL, NULL));
      return FALSE;
    }
  FUZZ_REQUIRE (error != NULL && g_utf8_validate (error->message, -1, NULL));
  /* The client has read it all: had something been wrong with it, it would have said so. */
  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED))
    FUZZ_REQUIRE (!oracle_is_broken (run->oracle));
  return TRUE;
}

static void
run_client (Run *run, guint64 seed)
{
  g_autoptr (NbdClient) client
      = nbd_client_new (memory_channel_new (&peer, run, seed), &run->export, "x");
  gsize before = fuzz_allocated ();

  for (guint i = 0; i < run->n_requests; i++)
    nbd_client_submit (client, &run->requests[i]);
  while (!step (run, client))
    FUZZ_REQUIRE (fuzz_allocated () < before + MAX_MEMORY);
  /* What is given up is handed back as well, once. */
  nbd_client_abandon (client);
  for (NbdRequest *request; (request = nbd_client_pop (client)) != NULL;)
    {
      FUZZ_REQUIRE (!run->popped[request - run->requests]);
      run->popped[request - run->requests] = TRUE;
    }
  for (guint i = 0; i < run->n_requests; i++)
    FUZZ_REQUIRE (run->popped[i]);
}

static void
run_init (Run *run)
{
  guint8 settings = fuzz_input_u8 (&run->input);

  run->export = (NbdExport){ .size = EXPORT_SIZE,
                             .flags = NBD_FLAG_HAS_FLAGS,
                             .min_block = 1,
                             .max_payload = NBD_DEFAULT_MAX_PAYLOAD,
                             .structured = !(settings & 1) };
  for (guint i = 0; i < NBD_MAX_CONTEXTS && run->export.structured; i++)
    if (!(settings & 2u << i))
      {
        run->export.has_context[i] = TRUE;
        run->export.context_id[i] = 7 + 2 * i;
        run->export.n_contexts++;
      }
  run->oracle = oracle_new (&run->export);
  run->sent = g_byte_array_new ();
  run->n_requests = 1 + (settings >> 3) % MAX_REQUESTS;
  for (guint i = 0; i < run->n_requests; i++)
    make_request (run, &run->requests[i]);
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  Run run = { .input = { data, size } };
  guint64 seed = fuzz_input_u8 (&run.input);

  run_init (&run);
  run_client (&run, seed);
  for (guint i = 0; i < run.n_requests; i++)
    {
      nbd_request_clear (&run.requests[i]);
      g_free (run.requests[i].data);
    }
  oracle_free (run.oracle);
  g_byte_array_unref (run.sent);
  return 0;
}
