/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "qmp/json-client.h"
#include "qmp/qmp-commands.h"
#include "qmp/qmp-socket.h"
#include "tests/unit/fake-qmp.h"

/* What the fake answers, one after the other, and what it was asked. */
typedef struct
{
  FakeQmp *fake;
  QmpExecutor *qmp;
  GMutex lock;
  GQueue answers; /* JsonNode *; empty: the default */
  GString *asked; /* "COMMAND ARGS\n" */
  int fd;
} Script;

static JsonNode *
answer (FakeQmp *fake, const char *command, JsonObject *args, gpointer data)
{
  Script *script = data;
  JsonNode *node;

  g_mutex_lock (&script->lock);
  g_string_append (script->asked, command);
  if (args != NULL)
    {
      g_autoptr (JsonNode) root = json_node_init_object (json_node_alloc (), args);
      g_autofree char *text = json_to_string (root, FALSE);

      g_string_append_printf (script->asked, " %s", text);
    }
  g_string_append_c (script->asked, '\n');
  if (strcmp (command, "getfd") == 0)
    script->fd = fake_qmp_take_fd (fake);
  node = g_queue_pop_head (&script->answers);
  g_mutex_unlock (&script->lock);
  return node;
}

static Script *
script_new (void)
{
  Script *script = g_new0 (Script, 1);

  g_mutex_init (&script->lock);
  g_queue_init (&script->answers);
  script->asked = g_string_new (NULL);
  script->fd = -1;
  script->fake = fake_qmp_new (FAKE_QMP_GREETS, answer, script);
  script->qmp = qmp_socket_open (fake_qmp_get_path (script->fake), NULL, NULL, NULL,
                                 deadline_in (20000, NULL), NULL);
  assert_non_null (script->qmp);
  return script;
}

static void
script_free (Script *script)
{
  qmp_executor_free (script->qmp);
  fake_qmp_free (script->fake);
  assert_int_equal (g_queue_get_length (&script->answers), 0);
  g_string_free (script->asked, TRUE);
  g_mutex_clear (&script->lock);
  g_free (script);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Script, script_free)

/* Takes `node` over. */
static void
prepare (Script *script, JsonNode *node)
{
  g_mutex_lock (&script->lock);
  g_queue_push_tail (&script->answers, node);
  g_mutex_unlock (&script->lock);
}

static void
assert_asked (Script *script, const char *expected)
{
  g_mutex_lock (&script->lock);
  assert_string_equal (script->asked->str, expected);
  g_string_truncate (script->asked, 0);
  g_mutex_unlock (&script->lock);
}

static void
assert_unexpected (Script *script, GError *error, const char *rest)
{
  g_autofree char *line = g_strdup_printf ("%s: %s", script->qmp->name, rest);

  assert_non_null (error);
  assert_string_equal (error->message, line);
  assert_true (g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_UNEXPECTED));
}

static void
test_machine (void **state)
{
  g_autoptr (Script) script = script_new ();
  g_autofree char *status = NULL, *name = NULL, *none = NULL, *type = NULL;
  gboolean running = FALSE;

  prepare (script, fake_qmp_json ("{\"status\":\"running\",\"running\":true}"));
  assert_true (qmp_query_status (script->qmp, NULL, &status, &running, NULL));
  assert_string_equal (status, "running");
  assert_true (running);
  assert_true (qmp_cont (script->qmp, NULL, NULL));
  assert_true (qmp_stop (script->qmp, NULL, NULL));
  prepare (script, fake_qmp_json ("{\"name\":\"vm1\"}"));
  assert_true (qmp_query_name (script->qmp, NULL, &name, NULL));
  assert_string_equal (name, "vm1");
  assert_true (qmp_query_name (script->qmp, NULL, &none, NULL));
  assert_null (none);
  prepare (script, fake_qmp_string ("pc-q35-7.2-machine"));
  type = qmp_query_machine_type (script->qmp, NULL, NULL);
  assert_string_equal (type, "pc-q35-7.2");
  assert_asked (script, "query-status\ncont\nstop\nquery-name\nquery-name\n"
                        "qom-get {\"path\":\"/machine\",\"property\":\"type\"}\n");
}

static void
test_quit (void **state)
{
  g_autoptr (Script) one = script_new (), two = script_new ();

  assert_true (qmp_quit (one->qmp, NULL, NULL));
  prepare (two, fake_qmp_crash ());
  assert_true (qmp_quit (two->qmp, NULL, NULL));
}

static void
test_qom (void **state)
{
  g_autoptr (Script) script = script_new ();
  g_autoptr (GError) error = NULL;
  gboolean flag = FALSE, has = FALSE;
  gint64 number = 0;

  prepare (script, fake_qmp_json ("true"));
  assert_true (qmp_qom_get_bool (script->qmp, "/p", "b", NULL, &flag, NULL) && flag);
  prepare (script, fake_qmp_json ("17"));
  assert_true (qmp_qom_get_int (script->qmp, "/p", "i", NULL, &number, NULL) && number == 17);
  prepare (script, fake_qmp_json ("[]"));
  assert_false (qmp_qom_get_int (script->qmp, "/p", "i", NULL, &number, &error));
  assert_unexpected (script, error, "qom-get: unexpected reply: i of /p is no integer");
  prepare (script, fake_qmp_json ("[{\"name\":\"a\"},{\"name\":\"tls0\"}]"));
  assert_true (qmp_qom_list_has (script->qmp, "/objects", "tls0", NULL, &has, NULL) && has);
  prepare (script, fake_qmp_json ("[{\"name\":\"a\"},7,null]"));
  assert_true (qmp_qom_list_has (script->qmp, "/objects", "tls0", NULL, &has, NULL) && !has);
  has = TRUE;
  prepare (script, fake_qmp_error ("DeviceNotFound", "Device '/x' not found"));
  assert_true (qmp_qom_list_has (script->qmp, "/x", "y", NULL, &has, NULL) && !has);
  prepare (script, fake_qmp_error ("GenericError", "no"));
  assert_false (qmp_qom_list_has (script->qmp, "/x", "y", NULL, &has, NULL));
}

static void
test_objects (void **state)
{
  g_autoptr (Script) script = script_new ();
  g_autoptr (GError) error = NULL;
  g_autofree char *line = g_strdup_printf ("%s: object-del: it is in use", script->qmp->name);

  assert_true (qmp_tls_creds_add (script->qmp, "tls0", "/pki", "server", NULL, NULL));
  assert_true (qmp_authz_add (script->qmp, "az0", "O=mig,CN=src", NULL, NULL));
  assert_asked (script,
                "object-add {\"qom-type\":\"tls-creds-x509\",\"id\":\"tls0\",\"dir\":\"/pki\","
                "\"endpoint\":\"server\",\"verify-peer\":true,"
                "\"priority\":\"NORMAL:-VERS-TLS1.0:-VERS-TLS1.1\"}\n"
                "object-add {\"qom-type\":\"authz-simple\",\"id\":\"az0\","
                "\"identity\":\"O=mig,CN=src\"}\n");
  assert_true (qmp_object_del (script->qmp, "tls0", NULL, NULL));
  prepare (script, fake_qmp_error ("GenericError", "object 'az0' not found"));
  prepare (script, fake_qmp_json ("[{\"name\":\"type\",\"type\":\"string\"}]"));
  assert_true (qmp_object_del (script->qmp, "az0", NULL, NULL));
  prepare (script, fake_qmp_error ("GenericError", "it is in use"));
  prepare (script, fake_qmp_json ("[{\"name\":\"az0\",\"type\":\"child\"}]"));
  assert_false (qmp_object_del (script->qmp, "az0", NULL, &error));
  assert_string_equal (error->message, line);
}

static void
test_descriptors (void **state)
{
  g_autoptr (Script) script = script_new ();
  int null_fd = open ("/dev/null", O_RDONLY | O_CLOEXEC);

  assert_true (qmp_getfd (script->qmp, "l", null_fd, NULL, NULL));
  close (null_fd);
  assert_true (script->fd >= 0);
  assert_int_equal (fcntl (script->fd, F_GETFL) & O_ACCMODE, O_RDONLY);
  close (script->fd);
  assert_true (qmp_closefd (script->qmp, "l", NULL, NULL));
  prepare (script, fake_qmp_error ("GenericError", "File descriptor named 'l' not found"));
  assert_true (qmp_closefd (script->qmp, "l", NULL, NULL));
  prepare (script, fake_qmp_error ("GenericError", "oh no"));
  assert_false (qmp_closefd (script->qmp, "l", NULL, NULL));
}

static void
test_bitmaps (void **state)
{
  g_autoptr (Script) script = script_new ();
  const QmpBitmapRef old[] = { { "d0", "b0", 4096 }, { "d1", "b0", 65536 } };
  const QmpBitmapRef new[] = { { "d0", "b1", 4096 }, { "d1", "b1", 65536 } };

  assert_true (qmp_bitmaps_add (script->qmp, old, 2, NULL, NULL));
  assert_asked (script, "transaction {\"actions\":["
                        "{\"type\":\"block-dirty-bitmap-add\","
                        "\"data\":{\"node\":\"d0\",\"name\":\"b0\",\"granularity\":4096}},"
                        "{\"type\":\"block-dirty-bitmap-add\","
                        "\"data\":{\"node\":\"d1\",\"name\":\"b0\",\"granularity\":65536}}]}\n");
  assert_true (qmp_bitmaps_rotate (script->qmp, new, old, 2, NULL, NULL));
  assert_asked (
      script,
      "transaction {\"actions\":["
      "{\"type\":\"block-dirty-bitmap-add\","
      "\"data\":{\"node\":\"d0\",\"name\":\"b1\",\"granularity\":4096}},"
      "{\"type\":\"block-dirty-bitmap-disable\",\"data\":{\"node\":\"d0\",\"name\":\"b0\"}},"
      "{\"type\":\"block-dirty-bitmap-add\","
      "\"data\":{\"node\":\"d1\",\"name\":\"b1\",\"granularity\":65536}},"
      "{\"type\":\"block-dirty-bitmap-disable\",\"data\":{\"node\":\"d1\",\"name\":\"b0\"}}]}\n");
  assert_true (qmp_bitmaps_disable (script->qmp, new, 1, NULL, NULL));
  assert_asked (
      script,
      "transaction {\"actions\":["
      "{\"type\":\"block-dirty-bitmap-disable\",\"data\":{\"node\":\"d0\",\"name\":\"b1\"}}]}\n");
}

static void
test_bitmap_remove (void **state)
{
  g_autoptr (Script) script = script_new ();

  assert_true (qmp_bitmap_remove (script->qmp, "d0", "b0", NULL, NULL));
  assert_asked (script, "block-dirty-bitmap-remove {\"node\":\"d0\",\"name\":\"b0\"}\n");
  prepare (script, fake_qmp_error ("GenericError", "Dirty bitmap 'b0' not found"));
  prepare (script, fake_qmp_json ("[{\"node-name\":\"d1\"},{\"node-name\":\"d0\","
                                  "\"dirty-bitmaps\":[{\"name\":\"x\"}]}]"));
  assert_true (qmp_bitmap_remove (script->qmp, "d0", "b0", NULL, NULL));
  prepare (script, fake_qmp_error ("GenericError", "Node 'd0' not found"));
  prepare (script, fake_qmp_json ("[{\"node-name\":\"d1\"}]"));
  assert_true (qmp_bitmap_remove (script->qmp, "d0", "b0", NULL, NULL));
  prepare (script, fake_qmp_error ("GenericError", "Bitmap 'b0' is currently in use"));
  prepare (script,
           fake_qmp_json ("[{\"node-name\":\"d0\",\"dirty-bitmaps\":[{\"name\":\"b0\"}]}]"));
  assert_false (qmp_bitmap_remove (script->qmp, "d0", "b0", NULL, NULL));
}

#define EXPORT "{\"id\":\"x\",\"type\":\"nbd\",\"node-name\":\"d0\",\"shutting-down\":true}"

static void
test_exports (void **state)
{
  g_autoptr (Script) script = script_new ();
  static const char *const bitmaps[] = { "b0", "b1", NULL };
  g_autoptr (GPtrArray) exports = NULL;

  assert_true (qmp_nbd_server_start_fd (script->qmp, "l", "tls0", "az0", 3, NULL, NULL));
  assert_true (qmp_export_add (script->qmp, "x", "d0", "n", NULL, NULL, NULL));
  assert_true (qmp_export_add (script->qmp, "x", "d0", "n", bitmaps, NULL, NULL));
  assert_asked (
      script, "nbd-server-start {\"addr\":{\"type\":\"fd\",\"data\":{\"str\":\"l\"}},"
              "\"tls-creds\":\"tls0\",\"tls-authz\":\"az0\",\"max-connections\":3}\n"
              "block-export-add {\"type\":\"nbd\",\"id\":\"x\",\"node-name\":\"d0\",\"name\":\"n\","
              "\"writable\":false}\n"
              "block-export-add {\"type\":\"nbd\",\"id\":\"x\",\"node-name\":\"d0\",\"name\":\"n\","
              "\"writable\":false,\"bitmaps\":[\"b0\",\"b1\"]}\n");
  prepare (script, fake_qmp_json ("[" EXPORT "]"));
  exports = qmp_query_exports (script->qmp, NULL, NULL);
  assert_int_equal (exports->len, 1);
  assert_string_equal (((QmpExport *)g_ptr_array_index (exports, 0))->node_name, "d0");
  assert_true (qmp_nbd_server_stop (script->qmp, NULL, NULL));
  prepare (script, fake_qmp_error ("GenericError", "NBD server not running"));
  assert_true (qmp_nbd_server_stop (script->qmp, NULL, NULL));
}

static void
test_export_del (void **state)
{
  g_autoptr (Script) script = script_new ();
  g_autoptr (GError) error = NULL;

  /* It is gone only at the third look. */
  prepare (script, fake_qmp_json ("{}"));
  prepare (script, fake_qmp_json ("[" EXPORT "]"));
  prepare (script, fake_qmp_json ("[" EXPORT "]"));
  assert_true (qmp_export_del_hard (script->qmp, "x", NULL, NULL));
  assert_asked (script, "block-export-del {\"id\":\"x\",\"mode\":\"hard\"}\n"
                        "query-block-exports\nquery-block-exports\nquery-block-exports\n");
  prepare (script, fake_qmp_error ("GenericError", "Export 'x' is not found"));
  assert_true (qmp_export_del_hard (script->qmp, "x", NULL, NULL));
  prepare (script, fake_qmp_error ("GenericError", "no"));
  prepare (script, fake_qmp_json ("[" EXPORT "]"));
  assert_false (qmp_export_del_hard (script->qmp, "x", NULL, &error));
  assert_true (g_str_has_suffix (error->message, ": block-export-del: no"));
}

static JsonNode *
always_exported (FakeQmp *fake, const char *command, JsonObject *args, gpointer data)
{
  return strcmp (command, "query-block-exports") == 0 ? fake_qmp_json ("[" EXPORT "]") : NULL;
}

static void
test_export_stays (void **state)
{
  g_autoptr (FakeQmp) fake = fake_qmp_new (FAKE_QMP_GREETS, always_exported, NULL);
  g_autoptr (QmpExecutor) qmp = qmp_socket_open (fake_qmp_get_path (fake), NULL, NULL, NULL,
                                                 deadline_in (20000, NULL), NULL);
  g_autoptr (GError) error = NULL;

  qmp->call_timeout_ms = 300;
  assert_false (qmp_export_del_hard (qmp, "x", NULL, &error));
  assert_true (g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_TIMEOUT));
}

static void
test_migration_tls (void **state)
{
  g_autoptr (Script) script = script_new ();
  g_autoptr (GError) error = NULL;
  JsonObject *wanted = json_args ("tls-creds", "s", "t", "max-bandwidth", "i", (gint64)1, NULL);

  prepare (script, fake_qmp_json ("{}"));
  prepare (script, fake_qmp_json ("{\"tls-creds\":\"t\",\"max-bandwidth\":2}"));
  assert_true (qmp_migrate_ensure_parameters (script->qmp, json_object_ref (wanted), NULL, NULL));
  prepare (script, fake_qmp_json ("{}"));
  prepare (script, fake_qmp_json ("{\"tls-creds\":\"\",\"max-bandwidth\":1}"));
  assert_false (qmp_migrate_ensure_parameters (script->qmp, wanted, NULL, &error));
  assert_non_null (strstr (error->message, "tls-creds"));
}

static void
test_migration (void **state)
{
  g_autoptr (Script) script = script_new ();
  static const char *const capabilities[] = { "events", "pause-before-switchover", NULL };
  g_autoptr (JsonObject) parameters = NULL;

  assert_true (qmp_migrate_set_capabilities (script->qmp, capabilities, TRUE, NULL, NULL));
  assert_true (qmp_migrate_set_parameters (
      script->qmp, json_args ("tls-creds", "s", "t", "max-bandwidth", "i", (gint64)1, NULL), NULL,
      NULL));
  assert_true (qmp_migrate (script->qmp, "tcp:h:1", NULL, NULL));
  assert_true (qmp_migrate_incoming (script->qmp, "tcp:h:1", NULL, NULL));
  assert_true (qmp_migrate_continue (script->qmp, NULL, NULL));
  assert_true (qmp_migrate_cancel (script->qmp, NULL, NULL));
  assert_true (qmp_announce_self (script->qmp, NULL, NULL));
  assert_asked (
      script,
      "migrate-set-capabilities {\"capabilities\":[{\"capability\":\"events\",\"state\":true},"
      "{\"capability\":\"pause-before-switchover\",\"state\":true}]}\n"
      "migrate-set-parameters {\"tls-creds\":\"t\",\"max-bandwidth\":1}\n"
      "migrate {\"uri\":\"tcp:h:1\"}\nmigrate-incoming {\"uri\":\"tcp:h:1\"}\n"
      "migrate-continue {\"state\":\"pre-switchover\"}\nmigrate_cancel\n"
      "announce-self {\"initial\":50,\"max\":550,\"rounds\":5,\"step\":100}\n");
  prepare (script, fake_qmp_json ("{\"tls-creds\":\"t\"}"));
  parameters = qmp_query_migrate_parameters (script->qmp, NULL, NULL);
  assert_string_equal (json_dig_string (parameters, "tls-creds", NULL), "t");
}

static void
test_query_migrate (void **state)
{
  g_autoptr (Script) script = script_new ();
  g_autoptr (QmpMigration) none = qmp_query_migrate (script->qmp, NULL, NULL), active = NULL;

  assert_string_equal (none->status, "none");
  assert_int_equal (none->ram_total, -1);
  assert_null (none->blocked_reasons);
  prepare (script,
           fake_qmp_json (
               "{\"status\":\"failed\",\"error-desc\":\"why\",\"total-time\":9,\"downtime\":8,"
               "\"expected-downtime\":7,\"blocked-reasons\":[\"a\",5],"
               "\"ram\":{\"transferred\":1,\"remaining\":2,\"total\":3,\"mbps\":1.5,"
               "\"dirty-pages-rate\":4,\"page-size\":4096}}"));
  active = qmp_query_migrate (script->qmp, NULL, NULL);
  assert_string_equal (active->status, "failed");
  assert_string_equal (active->error_desc, "why");
  assert_int_equal (active->ram_transferred, 1);
  assert_int_equal (active->ram_remaining, 2);
  assert_int_equal (active->ram_total, 3);
  assert_int_equal (active->dirty_pages_rate, 4);
  assert_int_equal (active->page_size, 4096);
  assert_true (active->mbps == 1.5);
  assert_int_equal (active->total_time_ms, 9);
  assert_int_equal (active->downtime_ms, 8);
  assert_int_equal (active->expected_downtime_ms, 7);
  assert_int_equal (g_strv_length (active->blocked_reasons), 2);
  assert_string_equal (active->blocked_reasons[0], "a");
}

/* The rest of query-block is checked against a real QEMU. */
static void
test_query_block (void **state)
{
  g_autoptr (Script) script = script_new ();
  g_autoptr (GPtrArray) devices = NULL;
  const QmpBlockDevice *disk;

  prepare (
      script,
      fake_qmp_json (
          "[{\"device\":\"\",\"removable\":true,\"qdev\":\"cd0\"},"
          "{\"device\":\"\",\"removable\":false,\"qdev\":\"vd0\",\"inserted\":{\"drv\":\"qcow2\","
          "\"file\":\"/f\",\"ro\":false,\"encrypted\":false,\"node-name\":\"d0\","
          "\"backing_file\":\"/b\",\"image\":{\"virtual-size\":512,\"snapshots\":[{},{}],"
          "\"format-specific\":{\"type\":\"qcow2\",\"data\":{\"data-file\":\"/d\","
          "\"encrypt\":{},\"bitmaps\":[{\"name\":\"p\"},{\"name\":\"q\"},3]}}},"
          "\"dirty-bitmaps\":[{\"count\":0},{\"name\":\"p\",\"count\":8192,\"granularity\":4096,"
          "\"recording\":true,\"busy\":false,\"persistent\":true}]}}]"));
  devices = qmp_query_block (script->qmp, NULL, NULL);
  assert_int_equal (devices->len, 2);
  assert_false (qmp_block_find_qdev (devices, "cd0")->inserted);
  assert_null (qmp_block_find_node (devices, "d1"));
  disk = qmp_block_find_node (devices, "d0");
  assert_string_equal (disk->qdev, "vd0");
  assert_string_equal (disk->backing_file, "/b");
  assert_true (disk->has_data_file && disk->encrypted);
  assert_int_equal (disk->n_snapshots, 2);
  assert_int_equal (disk->virtual_size, 512);
  assert_int_equal (disk->persistent_bitmaps->len, 2);
  assert_int_equal (disk->bitmaps->len, 1);
  assert_int_equal (qmp_block_find_bitmap (disk, "p")->dirty, 8192);
  assert_null (qmp_block_find_bitmap (disk, "q"));
}

typedef gpointer (*QueryFunc) (QmpExecutor *qmp, GCancellable *cancellable, GError **error);

static gpointer
query_status (QmpExecutor *qmp, GCancellable *cancellable, GError **error)
{
  g_assert (!qmp_query_status (qmp, cancellable, NULL, NULL, error));
  return NULL;
}

static gpointer
query_type (QmpExecutor *qmp, GCancellable *cancellable, GError **error)
{
  return qmp_query_machine_type (qmp, cancellable, error);
}

#define BLOCK(inserted)                                                                            \
  "[{\"device\":\"\",\"removable\":false,\"inserted\":{\"drv\":\"raw\",\"file\":\"/f\","           \
  "\"ro\":false,\"encrypted\":false," inserted "}}]"

/* Replies of the wrong shape: an error that says what is wrong, never a crash. */
static void
test_hostile_replies (void **state)
{
  const struct
  {
    QueryFunc query;
    const char *reply;
    const char *error;
  } cases[] = {
    { query_status, "[]", "query-status: unexpected reply: not an object" },
    { query_status, "7", "query-status: unexpected reply: not an object" },
    { query_status, "null", "query-status: unexpected reply: not an object" },
    { query_status, "{}", "query-status: unexpected reply: no string \"status\"" },
    { query_status, "{\"status\":[]}", "query-status: unexpected reply: no string \"status\"" },
    { query_status, "{\"status\":\"x\",\"running\":1}",
      "query-status: unexpected reply: no boolean \"running\"" },
    { (QueryFunc)qmp_query_block_jobs, "{}", "query-block-jobs: unexpected reply: not a list" },
    { query_type, "{}", "qom-get: unexpected reply: type of /machine is no string" },
    { (QueryFunc)qmp_query_block, "{}", "query-block: unexpected reply: not a list" },
    { (QueryFunc)qmp_query_block, "[null]",
      "query-block: unexpected reply: not a list of objects" },
    { (QueryFunc)qmp_query_block, "[{\"removable\":true}]",
      "query-block: unexpected reply: no string \"device\"" },
    { (QueryFunc)qmp_query_block, BLOCK ("\"image\":[]"),
      "query-block: unexpected reply: no object \"image\"" },
    { (QueryFunc)qmp_query_block, BLOCK ("\"image\":{}"),
      "query-block: unexpected reply: no natural number \"virtual-size\"" },
    { (QueryFunc)qmp_query_block, BLOCK ("\"image\":{\"virtual-size\":-1}"),
      "query-block: unexpected reply: no natural number \"virtual-size\"" },
    { (QueryFunc)qmp_query_block, BLOCK ("\"image\":{\"virtual-size\":1},\"dirty-bitmaps\":[7]"),
      "query-block: unexpected reply: dirty-bitmaps is no list of objects" },
    { (QueryFunc)qmp_query_block,
      BLOCK ("\"image\":{\"virtual-size\":1},\"dirty-bitmaps\":[{\"name\":\"b\",\"count\":1.5}]"),
      "query-block: unexpected reply: no natural number \"count\"" },
    { (QueryFunc)qmp_query_blockstats, "[{}]",
      "query-blockstats: unexpected reply: no object \"stats\"" },
    { (QueryFunc)qmp_query_blockstats, "[{\"stats\":{\"rd_operations\":\"1\"}}]",
      "query-blockstats: unexpected reply: no natural number \"rd_operations\"" },
    { (QueryFunc)qmp_query_exports, "[{\"id\":\"x\"}]",
      "query-block-exports: unexpected reply: no string \"type\"" },
    { (QueryFunc)qmp_query_migrate, "{\"status\":7}",
      "query-migrate: unexpected reply: no string \"status\"" },
    { (QueryFunc)qmp_query_migrate, "{\"ram\":[]}",
      "query-migrate: unexpected reply: no object \"ram\"" },
    { (QueryFunc)qmp_query_migrate, "{\"ram\":{\"transferred\":-5}}",
      "query-migrate: unexpected reply: no natural number \"transferred\"" },
    { (QueryFunc)qmp_query_migrate, "{\"blocked-reasons\":{}}",
      "query-migrate: unexpected reply: blocked-reasons is no list" },
    { (QueryFunc)qmp_query_migrate_parameters, "[]",
      "query-migrate-parameters: unexpected reply: not an object" },
  };
  g_autoptr (Script) script = script_new ();

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (GError) error = NULL;

      prepare (script, fake_qmp_json (cases[i].reply));
      assert_null (cases[i].query (script->qmp, NULL, &error));
      assert_unexpected (script, error, cases[i].error);
    }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_machine),
    cmocka_unit_test (test_quit),
    cmocka_unit_test (test_qom),
    cmocka_unit_test (test_objects),
    cmocka_unit_test (test_descriptors),
    cmocka_unit_test (test_bitmaps),
    cmocka_unit_test (test_bitmap_remove),
    cmocka_unit_test (test_exports),
    cmocka_unit_test (test_export_del),
    cmocka_unit_test (test_export_stays),
    cmocka_unit_test (test_migration_tls),
    cmocka_unit_test (test_migration),
    cmocka_unit_test (test_query_migrate),
    cmocka_unit_test (test_query_block),
    cmocka_unit_test (test_hostile_replies),
  };

  return cmocka_run_group_tests_name ("qmp-commands", tests, NULL, NULL);
}
