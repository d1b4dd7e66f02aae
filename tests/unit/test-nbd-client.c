/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "nbd/client.h"
#include "nbd/nbd-error.h"
#include "tests/unit/fake-nbd.h"

#define SIZE (1024 * 1024)

static guint8 data[SIZE];
static guint8 blocks[SIZE / FAKE_BLOCK];
static guint8 buf[SIZE];

static const char *const contexts[] = { "base:allocation", NULL };

typedef struct
{
  FakeNbdSpec spec;
  FakeNbd *fake;
  NbdClient *client;
} World;

static int
fill_data (void **state)
{
  for (guint i = 0; i < SIZE; i++)
    data[i] = (guint8)(i * 7 + i / 4096);
  memset (data + 8 * FAKE_BLOCK, 0, 4 * FAKE_BLOCK);
  memset (blocks + 8, NBD_STATE_HOLE | NBD_STATE_ZERO, 4);
  return 0;
}

static void
world_open (World *world, FakeFault fault, guint at)
{
  NbdHandshake handshake = { .export_name = "data", .contexts = contexts };
  NbdExport export;
  Channel *channel;

  world->spec.size = SIZE;
  world->spec.data = data;
  world->spec.state = blocks;
  world->spec.fault = fault;
  world->spec.at = at;
  world->fake = fake_nbd_new (&world->spec, &channel);
  channel = nbd_handshake_run (channel, &handshake, deadline_in (20 * 1000, NULL), &export, NULL);
  assert_non_null (channel);
  world->client = nbd_client_new (channel, &export, "data");
  memset (buf, 0xaa, sizeof buf);
}

static void
world_close (World *world)
{
  nbd_client_free (world->client);
  fake_nbd_free (world->fake);
}

/* Until one more request is complete. */
static NbdRequest *
world_next (World *world, GError **error)
{
  gint64 until = g_get_monotonic_time () + 20 * G_USEC_PER_SEC;
  NbdRequest *request;

  while ((request = nbd_client_pop (world->client)) == NULL)
    {
      assert_true (g_get_monotonic_time () < until);
      if (!nbd_client_pump (world->client, error)
          || !nbd_client_wait (world->client, until, NULL, error))
        return NULL;
    }
  return request;
}

static NbdRequest
read_request (guint64 offset, guint32 length)
{
  return (NbdRequest){
    .command = NBD_CMD_READ, .offset = offset, .length = length, .data = buf + offset
  };
}

static void
read_everything (World *world)
{
  NbdRequest requests[32];
  guint32 part = SIZE / G_N_ELEMENTS (requests);

  for (guint i = 0; i < G_N_ELEMENTS (requests); i++)
    {
      requests[i] = read_request (i * part, part);
      nbd_client_submit (world->client, &requests[i]);
    }
  assert_int_equal (nbd_client_get_outstanding (world->client), G_N_ELEMENTS (requests));
  for (guint i = 0; i < G_N_ELEMENTS (requests); i++)
    {
      NbdRequest *request = world_next (world, NULL);

      assert_non_null (request);
      assert_null (request->error);
    }
  assert_int_equal (nbd_client_get_outstanding (world->client), 0);
  assert_memory_equal (buf, data, SIZE);
}

static void
test_reads (void **state)
{
  World world = { 0 };

  world_open (&world, FAKE_HONEST, 0);
  read_everything (&world);
  assert_true (nbd_client_get_received (world.client) > SIZE);
  nbd_client_disconnect (world.client);
  fake_nbd_join (world.fake);
  assert_true (fake_nbd_got_goodbye (world.fake));
  world_close (&world);
}

static void
test_reads_simple (void **state)
{
  World world = { .spec.simple = TRUE };

  world_open (&world, FAKE_HONEST, 0);
  read_everything (&world);
  world_close (&world);
}

static void
test_reads_holes_in_reverse (void **state)
{
  World world = { .spec.holes = TRUE };
  NbdRequest request = read_request (7 * FAKE_BLOCK, 6 * FAKE_BLOCK);

  world_open (&world, FAKE_HONEST, 0);
  read_everything (&world);
  nbd_client_submit (world.client, &request);
  assert_ptr_equal (world_next (&world, NULL), &request);
  assert_int_equal (request.hole_bytes, 4 * FAKE_BLOCK);
  world_close (&world);
}

static void
test_status (void **state)
{
  World world = { 0 };
  NbdRequest request
      = { .command = NBD_CMD_BLOCK_STATUS, .offset = 4 * FAKE_BLOCK, .length = 6 * FAKE_BLOCK };

  world_open (&world, FAKE_HONEST, 0);
  nbd_client_submit (world.client, &request);
  assert_ptr_equal (world_next (&world, NULL), &request);
  assert_non_null (request.extents[0]);
  assert_null (request.extents[1]);
  assert_int_equal (request.extents[0]->len, 2);
  assert_int_equal (g_array_index (request.extents[0], NbdExtent, 0).length, 4 * FAKE_BLOCK);
  assert_int_equal (g_array_index (request.extents[0], NbdExtent, 1).flags, 3);
  nbd_request_clear (&request);
  world_close (&world);
}

typedef struct
{
  FakeFault fault;
  const char *message;
} Case;

#define PREFIX "fake:10809, export \"data\": "
#define READ PREFIX "read of 8192 bytes at offset 4096: the server "
#define STATUS PREFIX "block status of 8192 bytes at offset 4096: the server "

/* The connection is of no more use. */
static void
test_broken_protocol (void **state)
{
  static const Case cases[] = {
    { FAKE_WRONG_COOKIE, PREFIX "the server answered a request that was not made (cookie 0x" },
    { FAKE_BAD_MAGIC,
      PREFIX "the server sent garbage (magic number 0xdeadbeef) where a reply belongs" },
    { FAKE_LONG_CHUNK, READ "answered with a chunk of type 1 and 8201 bytes" },
    { FAKE_FOREIGN_CHUNK, READ "answered with 8192 bytes at offset 4608" },
    { FAKE_UNCOVERED, READ "claims success without sending all the data" },
    { FAKE_OVERLAP, READ "answered bytes at offset 8191 twice" },
    { FAKE_ENDLESS_CHUNKS, READ "answers in more chunks than make sense" },
    { FAKE_SIMPLE, READ "sent a simple reply where chunks were agreed on" },
    { FAKE_UNKNOWN_CHUNK, READ "answered with a chunk of type 99 and 0 bytes" },
    { FAKE_BAD_ERROR_OFFSET, READ "sent an error for offset 12288" },
    { FAKE_LONG_ERROR_TEXT, READ "answered with a chunk of type 32769 and 5006 bytes" },
    { FAKE_HOLE_BEYOND, READ "answered with 1 bytes at offset 12288" },
    { FAKE_EMPTY_EXTENT, STATUS "told an extent of 0 bytes after 0" },
    { FAKE_LONG_EXTENTS, STATUS "told an extent of 4096 bytes after 8192" },
    { FAKE_WRONG_CONTEXT, STATUS "told the status of context 77, which was not agreed on" },
    { FAKE_NO_STATUS, STATUS "claims success without the status" },
    { FAKE_CLOSE, PREFIX "the server closed the connection with 1 requests unanswered" },
    { FAKE_CLOSE_IN_DATA, PREFIX "the server closed the connection with 1 requests unanswered" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      World world = { 0 };
      NbdRequest request = read_request (FAKE_BLOCK, 2 * FAKE_BLOCK);
      g_autoptr (GError) error = NULL;

      if (cases[i].fault >= FAKE_EMPTY_EXTENT)
        request.command = NBD_CMD_BLOCK_STATUS;
      world_open (&world, cases[i].fault, 0);
      nbd_client_submit (world.client, &request);
      assert_null (world_next (&world, &error));
      assert_non_null (error);
      if (!g_str_has_prefix (error->message, cases[i].message))
        assert_string_equal (error->message, cases[i].message);
      nbd_client_abandon (world.client);
      assert_ptr_equal (nbd_client_pop (world.client), &request);
      nbd_request_clear (&request);
      world_close (&world);
    }
}

/* Only the request fails. */
static void
test_errors (void **state)
{
  static const Case cases[] = {
    { FAKE_EIO, PREFIX "read of 8192 bytes at offset 4096: the server says: Input/output error (5) "
                       "at offset 4608, \"bad\\x1b sector\"" },
    { FAKE_UNKNOWN_ERROR, PREFIX
      "read of 8192 bytes at offset 4096: the server says: error that the protocol does not define "
      "(4242), \"strange\"" },
    { FAKE_SHUTDOWN,
      PREFIX "read of 8192 bytes at offset 4096: the server says: Server is shutting down (108)" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      World world = { 0 };
      NbdRequest request = read_request (FAKE_BLOCK, 2 * FAKE_BLOCK);
      int code = cases[i].fault == FAKE_SHUTDOWN ? NBD_ERROR_SHUTDOWN : NBD_ERROR_IO;

      world_open (&world, cases[i].fault, 0);
      nbd_client_submit (world.client, &request);
      assert_ptr_equal (world_next (&world, NULL), &request);
      assert_non_null (request.error);
      assert_string_equal (request.error->message, cases[i].message);
      assert_true (g_error_matches (request.error, NBD_ERROR, code));
      nbd_request_clear (&request);
      world_close (&world);
    }
}

static void
test_cancel (void **state)
{
  World world = { 0 };
  NbdRequest request = read_request (0, FAKE_BLOCK);
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;

  world_open (&world, FAKE_SILENT, 0);
  nbd_client_submit (world.client, &request);
  assert_true (nbd_client_pump (world.client, NULL));
  assert_true (nbd_client_wait (world.client, g_get_monotonic_time () + 1000, cancellable, NULL));
  g_cancellable_cancel (cancellable);
  assert_false (nbd_client_wait (world.client, G_MAXINT64, cancellable, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED));
  world_close (&world);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_reads),
    cmocka_unit_test (test_reads_simple),
    cmocka_unit_test (test_reads_holes_in_reverse),
    cmocka_unit_test (test_status),
    cmocka_unit_test (test_broken_protocol),
    cmocka_unit_test (test_errors),
    cmocka_unit_test (test_cancel),
  };

  return cmocka_run_group_tests_name ("nbd-client", tests, fill_data, NULL);
}
