/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "qmp/json-args.h"
#include "qmp/printable.h"

static JsonObject *
parse (const char *text)
{
  g_autoptr (JsonNode) node = json_from_string (text, NULL);

  return json_node_dup_object (node);
}

static void
test_build (void **state)
{
  g_autoptr (JsonObject) object
      = json_args ("s", "s", "x", "b", "b", TRUE, "i", "i", (gint64)1 << 40, "d", "d", 0.5, "o",
                   "o", json_object_new (), "a", "a", json_array_new (), "none", "s", NULL, "no-o",
                   "o", NULL, "no-a", "a", NULL, NULL);
  g_autoptr (JsonNode) node = json_node_init_object (json_node_alloc (), object);
  g_autofree char *text = json_to_string (node, FALSE);

  assert_string_equal (text,
                       "{\"s\":\"x\",\"b\":true,\"i\":1099511627776,\"d\":0.5,\"o\":{},\"a\":[]}");
}

static void
test_read (void **state)
{
  g_autoptr (JsonObject) object = parse ("{\"s\":\"x\",\"b\":true,\"i\":-7,\"d\":1.5,\"o\":{\"p\":{"
                                         "\"q\":\"deep\"}},\"a\":[{},\"e\"]}");
  const char *s = NULL;
  gboolean b = FALSE;
  gint64 i = 0;
  double d = 0;
  JsonObject *o = NULL;
  JsonArray *a = NULL;

  assert_true (json_get_string (object, "s", &s));
  assert_string_equal (s, "x");
  assert_true (json_get_bool (object, "b", &b) && b);
  assert_true (json_get_int (object, "i", &i) && i == -7);
  assert_true (json_get_double (object, "d", &d) && d == 1.5);
  assert_true (json_get_double (object, "i", &d) && d == -7);
  assert_true (json_get_object (object, "o", &o) && o != NULL);
  assert_true (json_get_array (object, "a", &a) && a != NULL);
  assert_non_null (json_array_get_object_or_null (a, 0));
  assert_null (json_array_get_string_or_null (a, 0));
  assert_string_equal (json_array_get_string_or_null (a, 1), "e");
  assert_string_equal (json_dig_string (object, "o", "p", "q", NULL), "deep");
  assert_string_equal (json_dig_string (object, "s", NULL), "x");
}

/* No reader takes a member of another type, whatever it is, and none touches its result. */
static void
test_wrong_types (void **state)
{
  g_autoptr (JsonObject) object
      = parse ("{\"s\":\"x\",\"b\":true,\"i\":1,\"d\":1.5,\"o\":{},\"a\":[],\"n\":null}");
  static const char *const names[] = { "s", "b", "i", "d", "o", "a", "n", "absent" };
  const char *untouched = "untouched";

  for (guint k = 0; k < G_N_ELEMENTS (names); k++)
    {
      const char *s = untouched, *name = names[k];
      gboolean b = 5;
      gint64 i = 5;
      double d = 5;
      JsonObject *o = (gpointer)untouched;
      JsonArray *a = (gpointer)untouched;

      assert_int_equal (json_get_string (object, name, &s), name[0] == 's');
      assert_int_equal (s != untouched, name[0] == 's');
      assert_int_equal (json_get_bool (object, name, &b), name[0] == 'b');
      assert_int_equal (b != 5, name[0] == 'b');
      assert_int_equal (json_get_int (object, name, &i), name[0] == 'i');
      assert_int_equal (i != 5, name[0] == 'i');
      assert_int_equal (json_get_double (object, name, &d), name[0] == 'i' || name[0] == 'd');
      assert_int_equal (json_get_object (object, name, &o), name[0] == 'o');
      assert_int_equal ((gpointer)o != (gpointer)untouched, name[0] == 'o');
      assert_int_equal (json_get_array (object, name, &a), strcmp (name, "a") == 0);
      assert_int_equal ((gpointer)a != (gpointer)untouched, strcmp (name, "a") == 0);
    }
}

static void
test_absent (void **state)
{
  g_autoptr (JsonObject) object = parse ("{\"o\":{\"s\":1},\"a\":[1,null,[]]}");
  JsonArray *a = NULL;

  assert_true (json_get_array (object, "a", &a));
  for (guint i = 0; i < 5; i++)
    {
      assert_null (json_array_get_object_or_null (a, i));
      assert_null (json_array_get_string_or_null (a, i));
    }
  assert_null (json_dig_string (object, "o", "s", NULL));
  assert_null (json_dig_string (object, "o", "s", "t", NULL));
  assert_null (json_dig_string (object, "a", "s", NULL));
  assert_null (json_dig_string (object, "x", "y", "z", NULL));
  assert_null (json_dig_string (NULL, "x", NULL));
}

static void
assert_printable (const char *text, gsize max, const char *expected)
{
  g_autofree char *shown = printable (text, max);

  assert_string_equal (shown, expected);
}

static void
test_printable (void **state)
{
  assert_printable (NULL, 10, "");
  assert_printable ("", 10, "");
  assert_printable ("Failed to get \"write\" lock \\o/", 100, "Failed to get \"write\" lock \\o/");
  assert_printable ("d\xc3\xa9j\xc3\xa0", 100, "d\xc3\xa9j\xc3\xa0");
  assert_printable ("a\nb\r\tc", 100, "a\\nb\\r\\tc");
  assert_printable ("\x1b[31mred\x7f", 100, "\\u001b[31mred\\u007f");
  assert_printable ("\xc2\x9b", 100, "\\u009b");
  assert_printable ("\xe2\x80\xae"
                    "evil",
                    100, "\\u202eevil");
  assert_printable ("\xff\xc3", 100, "\\xff\\xc3");
  assert_printable ("abcdef", 6, "abcdef");
  assert_printable ("abcdefg", 6, "abcdef...");
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_build),       cmocka_unit_test (test_read),
    cmocka_unit_test (test_wrong_types), cmocka_unit_test (test_absent),
    cmocka_unit_test (test_printable),
  };

  return cmocka_run_group_tests_name ("json-args", tests, NULL, NULL);
}
