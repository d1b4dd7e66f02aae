/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/fake-nbd-private.h"

#include "nbd/protocol.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DRIP_MS 50

gboolean
fake_write (FakeNbd *fake, const GByteArray *out)
{
  return channel_write_all (fake->channel, out->data, out->len, fake->deadline, NULL);
}

void
put_u16 (GByteArray *out, guint16 value)
{
  value = GUINT16_TO_BE (value);
  g_byte_array_append (out, (guint8 *)&value, sizeof value);
}

void
put_u32 (GByteArray *out, guint32 value)
{
  value = GUINT32_TO_BE (value);
  g_byte_array_append (out, (guint8 *)&value, sizeof value);
}

void
put_u64 (GByteArray *out, guint64 value)
{
  value = GUINT64_TO_BE (value);
  g_byte_array_append (out, (guint8 *)&value, sizeof value);
}

void
put_chunk (GByteArray *out, guint16 flags, guint16 type, guint64 cookie, guint32 length)
{
  put_u32 (out, NBD_STRUCTURED_REPLY_MAGIC);
  put_u16 (out, flags);
  put_u16 (out, type);
  put_u64 (out, cookie);
  put_u32 (out, length);
}

gboolean
fake_be_silent (FakeNbd *fake)
{
  guint8 byte;

  while (channel_read_all (fake->channel, &byte, 1, fake->deadline, NULL))
    ;
  return FALSE;
}

gboolean
fake_drip (FakeNbd *fake)
{
  guint8 byte = 0;

  while (channel_write_all (fake->channel, &byte, 1, fake->deadline, NULL))
    deadline_poll (deadline_sooner (fake->deadline, DRIP_MS), -1, 0, NULL);
  return FALSE;
}

static gboolean
fake_read_request (FakeNbd *fake, WireRequest *request)
{
  guint8 buf[sizeof (NbdWireRequest)];

  if (!channel_read_all (fake->channel, buf, sizeof buf, fake->deadline, NULL))
    return FALSE;
  g_assert_cmphex (wire_get_u32 (buf), ==, NBD_REQUEST_MAGIC);
  request->flags = wire_get_u16 (buf + 4);
  request->command = wire_get_u16 (buf + 6);
  request->cookie = wire_get_u64 (buf + 8);
  request->offset = wire_get_u64 (buf + 16);
  request->length = wire_get_u32 (buf + 24);
  /* What every client owes to a server. */
  g_assert_cmpuint (request->command, <=, NBD_CMD_BLOCK_STATUS);
  g_assert_cmpuint (request->offset, <=, fake->spec.size);
  g_assert_cmpuint (request->length, <=, fake->spec.size - request->offset);
  if (fake->spec.min_block != 0)
    g_assert_cmpuint (request->offset % fake->spec.min_block, ==, 0);
  return TRUE;
}

static gpointer
fake_thread (gpointer data)
{
  FakeNbd *fake = data;
  WireRequest request;

  if (fake->listener >= 0)
    {
      int fd;

      if (!deadline_poll (fake->deadline, fake->listener, POLLIN, NULL))
        return NULL;
      fd = accept (fake->listener, NULL, NULL);
      g_assert_cmpint (fd, >=, 0);
      fake->channel = channel_new_fd (fd, "client");
    }
  if (fake_handshake (fake))
    while (fake_read_request (fake, &request))
      {
        fake->n_by_command[request.command]++;
        fake->goodbye = request.command == NBD_CMD_DISC;
        if (fake->goodbye || !fake_answer (fake, &request))
          break;
        fake->n_requests++;
      }
  g_clear_pointer (&fake->channel, channel_free);
  return NULL;
}

static FakeNbd *
fake_new (const FakeNbdSpec *spec)
{
  FakeNbd *fake = g_new0 (FakeNbd, 1);

  fake->spec = *spec;
  fake->stop = g_cancellable_new ();
  fake->deadline = deadline_in (-1, fake->stop);
  fake->listener = -1;
  return fake;
}

FakeNbd *
fake_nbd_new (const FakeNbdSpec *spec, Channel **ret_channel)
{
  FakeNbd *fake = fake_new (spec);
  int fds[2];

  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
  fake->channel = channel_new_fd (fds[0], "client");
  *ret_channel = channel_new_fd (fds[1], "fake:10809");
  fake->thread = g_thread_new ("fake-nbd", fake_thread, fake);
  return fake;
}

FakeNbd *
fake_nbd_new_fd (const FakeNbdSpec *spec, int fd)
{
  FakeNbd *fake = fake_new (spec);

  fake->channel = channel_new_fd (fd, "client");
  fake->thread = g_thread_new ("fake-nbd", fake_thread, fake);
  return fake;
}

FakeNbd *
fake_nbd_new_listening (const FakeNbdSpec *spec, const char *path)
{
  FakeNbd *fake = fake_new (spec);
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  fake->listener = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  g_assert_cmpint (bind (fake->listener, (struct sockaddr *)&address, sizeof address), ==, 0);
  g_assert_cmpint (listen (fake->listener, 1), ==, 0);
  fake->thread = g_thread_new ("fake-nbd", fake_thread, fake);
  return fake;
}

void
fake_nbd_join (FakeNbd *fake)
{
  g_thread_join (g_steal_pointer (&fake->thread));
}

void
fake_nbd_free (FakeNbd *fake)
{
  if (fake == NULL)
    return;
  g_cancellable_cancel (fake->stop);
  if (fake->thread != NULL)
    fake_nbd_join (fake);
  if (fake->listener >= 0)
    close (fake->listener);
  g_object_unref (fake->stop);
  g_free (fake);
}

guint
fake_nbd_get_n (const FakeNbd *fake, guint16 command)
{
  return fake->n_by_command[command];
}

guint64
fake_nbd_get_data_sent (const FakeNbd *fake)
{
  return fake->data_sent;
}

gboolean
fake_nbd_got_goodbye (const FakeNbd *fake)
{
  return fake->goodbye;
}

guint
fake_nbd_get_clear_options (const FakeNbd *fake)
{
  return fake->clear_options;
}
