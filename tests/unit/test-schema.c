/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "qmp/json-args.h"
#include "qmp/schema.h"
#include "tests/unit/fake-qmp.h"
#include "tests/unit/schema-check.h"

static QmpSchema *
load (void)
{
  g_autoptr (JsonArray) entries = fake_qmp_load_schema ();

  return qmp_schema_new (entries);
}

static void
test_has (void **state)
{
  static const char *const there[] = {
    "block-export-add",
    "block-export-add/writable", /* in a variant of a flat union */
    "block-export-add/bitmaps",
    "block-export-add/node-name",
    "block-export-add/type/nbd", /* an enum's value */
    "migrate-set-parameters/tls-authz",
    "nbd-server-start/addr/type/fd",
    "nbd-server-start/addr/data/str",                      /* through two levels of variants */
    "transaction/actions/type/block-dirty-bitmap-disable", /* through an array */
    "transaction/actions/data/granularity",
    "object-add/identity",
  };
  static const char *const absent[] = {
    "",
    "/",
    "no-such-command",
    "0", /* a type, not a command */
    "block-export-add/allow-inactive",
    "block-export-add/writable/x",
    "block-export-add/type/nbdd",
    "cont/x",
    "block-export-add/",
  };
  g_autoptr (QmpSchema) schema = load ();

  for (guint i = 0; i < G_N_ELEMENTS (there); i++)
    if (!qmp_schema_has (schema, there[i]))
      fail_msg ("not found: %s", there[i]);
  for (guint i = 0; i < G_N_ELEMENTS (absent); i++)
    if (qmp_schema_has (schema, absent[i]))
      fail_msg ("found: %s", absent[i]);
}

static void
test_nothing_missing (void **state)
{
  g_autoptr (QmpSchema) schema = load ();
  g_auto (GStrv) missing = qmp_schema_missing (schema);

  assert_null (missing);
}

static void
test_missing (void **state)
{
  g_autoptr (JsonArray) all = fake_qmp_load_schema ();
  g_autoptr (JsonArray) fewer = json_array_new ();
  g_autoptr (QmpSchema) schema = NULL;
  g_auto (GStrv) missing = NULL;

  for (guint i = 0; i < json_array_get_length (all); i++)
    {
      JsonObject *entry = json_array_get_object_element (all, i);

      if (strcmp (json_object_get_string_member (entry, "name"), "getfd") != 0)
        json_array_add_object_element (fewer, json_object_ref (entry));
    }
  schema = qmp_schema_new (fewer);
  missing = qmp_schema_missing (schema);
  assert_non_null (missing);
  assert_int_equal (g_strv_length (missing), 1);
  assert_string_equal (missing[0], "getfd");
}

/* What a hostile server may call its schema. */
static void
test_hostile (void **state)
{
  static const char *const texts[] = {
    "[]",
    "[null, 1, \"x\", []]",
    "[{}]",
    "[{\"name\":1}]",
    "[{\"name\":\"getfd\"}]",
    "[{\"name\":\"getfd\",\"meta-type\":\"command\"}]",
    "[{\"name\":\"getfd\",\"meta-type\":\"command\",\"arg-type\":\"getfd\"}]",
    "[{\"name\":\"getfd\",\"meta-type\":\"command\",\"arg-type\":\"1\"},"
    "{\"name\":\"1\",\"element-type\":\"1\"}]",
    "[{\"name\":\"getfd\",\"meta-type\":\"command\",\"arg-type\":\"1\"},"
    "{\"name\":\"1\",\"variants\":[{\"type\":\"1\"},{\"type\":\"1\"},7]}]",
    "[{\"name\":\"getfd\",\"meta-type\":\"command\",\"arg-type\":\"1\"},"
    "{\"name\":\"1\",\"members\":[{\"name\":\"x\",\"type\":\"9\"}],\"values\":[1,null,[]]}]",
  };

  for (guint i = 0; i < G_N_ELEMENTS (texts); i++)
    {
      g_autoptr (JsonNode) node = fake_qmp_json (texts[i]);
      g_autoptr (QmpSchema) schema = qmp_schema_new (json_node_get_array (node));
      g_auto (GStrv) missing = qmp_schema_missing (schema);

      assert_false (qmp_schema_has (schema, "getfd/fdname"));
      assert_non_null (missing);
    }
}

static void
assert_checked (JsonArray *schema, const char *command, const char *args, const char *wrong)
{
  g_autoptr (JsonNode) node = args != NULL ? fake_qmp_json (args) : NULL;
  g_autofree char *said
      = schema_check_command (schema, command, node != NULL ? json_node_get_object (node) : NULL);

  if (wrong == NULL && said != NULL)
    fail_msg ("%s %s: %s", command, args, said);
  if (wrong != NULL && (said == NULL || strstr (said, wrong) == NULL))
    fail_msg ("%s %s: %s", command, args, said != NULL ? said : "accepted");
}

/* The fake's own check refuses what QEMU refuses. */
static void
test_check_command (void **state)
{
  g_autoptr (JsonArray) schema = fake_qmp_load_schema ();

  assert_checked (schema, "cont", NULL, NULL);
  assert_checked (schema, "cont", "{\"x\":1}", "'x' is unexpected");
  assert_checked (schema, "conk", NULL, "has not been found");
  assert_checked (schema, "getfd", "{}", "'fdname' is missing");
  assert_checked (schema, "getfd", "{\"fdname\":1}", "type string is expected");
  assert_checked (schema, "block-export-add",
                  "{\"type\":\"nbd\",\"id\":\"a\",\"node-name\":\"b\",\"writable\":false,"
                  "\"bitmaps\":[\"x\"]}",
                  NULL);
  assert_checked (schema, "block-export-add",
                  "{\"type\":\"nbd\",\"id\":\"a\",\"node-name\":\"b\",\"bitmap\":\"x\"}",
                  "'bitmap' is unexpected");
  assert_checked (schema, "block-export-add", "{\"type\":\"ndb\",\"id\":\"a\",\"node-name\":\"b\"}",
                  "no possible value");
  assert_checked (schema, "block-export-del", "{\"id\":\"a\",\"mode\":\"harder\"}",
                  "no possible value");
  assert_checked (schema, "transaction",
                  "{\"actions\":[{\"type\":\"block-dirty-bitmap-add\",\"data\":{\"node\":\"a\"}}]}",
                  "'name' is missing");
  assert_checked (schema, "migrate-set-parameters", "{\"tls-authz\":null}", NULL);
  assert_checked (schema, "migrate-set-parameters", "{\"tls-authz\":1}", "is expected");
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_has),           cmocka_unit_test (test_nothing_missing),
    cmocka_unit_test (test_missing),       cmocka_unit_test (test_hostile),
    cmocka_unit_test (test_check_command),
  };

  return cmocka_run_group_tests_name ("schema", tests, NULL, NULL);
}
