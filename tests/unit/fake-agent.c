/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/fake-agent.h"

#include <gio/gio.h>
#include <gio/gunixsocketaddress.h>
#include <glib/gstdio.h>
#include <string.h>

#define GREETING "{\"vmferry\": {\"protocol\": 1, \"version\": \"0.1.0\", \"host\": \"hostA\"}}"

struct FakeAgent
{
  char *dir, *path;
  GSocket *listener;
  GSocketConnection *connection;
  GDataInputStream *input;
  GThread *thread;
  FakeAgentScript script;
  JsonNode *command;
  JsonObject *no_arguments;
  gint64 id;
};

FakeAgent *
fake_agent_new (void)
{
  FakeAgent *agent = g_new0 (FakeAgent, 1);
  agent->dir = g_dir_make_tmp ("vmferry-test-XXXXXX", NULL);
  agent->path = g_build_filename (agent->dir, "control", NULL);
  agent->no_arguments = json_object_new ();
  agent->listener
      = g_socket_new (G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, NULL);
  g_autoptr (GSocketAddress) address = g_unix_socket_address_new (agent->path);
  g_assert_true (g_socket_bind (agent->listener, address, FALSE, NULL));
  g_assert_true (g_socket_listen (agent->listener, NULL));
  return agent;
}

static void
drop_connection (FakeAgent *agent)
{
  if (agent->connection != NULL)
    g_io_stream_close (G_IO_STREAM (agent->connection), NULL, NULL);
  g_clear_object (&agent->input);
  g_clear_object (&agent->connection);
}

void
fake_agent_free (FakeAgent *agent)
{
  if (agent == NULL)
    return;
  if (agent->thread != NULL)
    g_thread_join (agent->thread);
  drop_connection (agent);
  g_clear_object (&agent->listener);
  g_clear_pointer (&agent->command, json_node_unref);
  json_object_unref (agent->no_arguments);
  g_unlink (agent->path);
  g_rmdir (agent->dir);
  g_free (agent->path);
  g_free (agent->dir);
  g_free (agent);
}

const char *
fake_agent_get_path (FakeAgent *agent)
{
  return agent->path;
}

static gpointer
run_script (gpointer data)
{
  FakeAgent *agent = data;
  agent->script (agent);
  return NULL;
}

void
fake_agent_start (FakeAgent *agent, FakeAgentScript script)
{
  agent->script = script;
  agent->thread = g_thread_new ("fake-agent", run_script, agent);
}

static void
send_line (FakeAgent *agent, const char *text)
{
  g_autofree char *line = g_strdup_printf ("%s\n", text);
  GOutputStream *output = g_io_stream_get_output_stream (G_IO_STREAM (agent->connection));
  g_assert_true (g_output_stream_write_all (output, line, strlen (line), NULL, NULL, NULL));
}

void
fake_agent_accept (FakeAgent *agent, const char *greeting)
{
  drop_connection (agent);
  g_autoptr (GSocket) socket = g_socket_accept (agent->listener, NULL, NULL);
  g_assert_nonnull (socket);
  agent->connection = g_socket_connection_factory_create_connection (socket);
  agent->input
      = g_data_input_stream_new (g_io_stream_get_input_stream (G_IO_STREAM (agent->connection)));
  send_line (agent, greeting != NULL ? greeting : GREETING);
}

JsonObject *
fake_agent_expect (FakeAgent *agent, const char *command)
{
  g_autofree char *line = g_data_input_stream_read_line (agent->input, NULL, NULL, NULL);
  g_assert_nonnull (line);
  g_clear_pointer (&agent->command, json_node_unref);
  agent->command = json_from_string (line, NULL);
  JsonObject *object = json_node_get_object (agent->command);
  g_assert_cmpstr (json_object_get_string_member (object, "execute"), ==, command);
  agent->id = json_object_get_int_member (object, "id");
  return json_object_has_member (object, "arguments")
             ? json_object_get_object_member (object, "arguments")
             : agent->no_arguments;
}

void
fake_agent_expect_eof (FakeAgent *agent)
{
  g_assert_null (g_data_input_stream_read_line (agent->input, NULL, NULL, NULL));
}

void
fake_agent_return (FakeAgent *agent, const char *json)
{
  g_autofree char *text = g_strdup_printf ("{\"return\": %s, \"id\": %" G_GINT64_FORMAT "}",
                                           json != NULL ? json : "{}", agent->id);
  send_line (agent, text);
}

void
fake_agent_fail (FakeAgent *agent, const char *class, const char *desc)
{
  g_autofree char *text = g_strdup_printf (
      "{\"error\": {\"class\": \"%s\", \"desc\": \"%s\"}, \"id\": %" G_GINT64_FORMAT "}", class,
      desc, agent->id);
  send_line (agent, text);
}

void
fake_agent_event (FakeAgent *agent, const char *name, const char *data)
{
  g_autofree char *text
      = g_strdup_printf ("{\"event\": \"%s\", \"data\": %s, "
                         "\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": 0}}",
                         name, data);
  send_line (agent, text);
}

void
fake_agent_close (FakeAgent *agent, gboolean forever)
{
  if (forever)
    g_clear_object (&agent->listener);
  drop_connection (agent);
}
