/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "qmp/json-args.h"
#include "qmp/json-framer.h"

#define MAX_LINE 1000
#define MAX_DEPTH 8

static const char *const good_values[] = {
  "{}",
  "[]",
  " { } ",
  "\t[\r\n]\n",
  "null",
  "true",
  "false",
  "0",
  "-0",
  "-1",
  "0.5",
  "-0.5e-3",
  "1E5",
  "1e+5",
  "10",
  "9223372036854775807",
  "-9223372036854775808",
  "1.7976931348623157e308",
  "4.9e-324",
  "1e-400", /* nought, as near as a double gets */
  "\"\"",
  "\"a\\\"b\\\\c\\/\\b\\f\\n\\r\\t\"",
  "\"\\u00e9\\ud83d\\ude00\"",
  "\"\xc3\xa9\xf0\x9f\x98\x80\x7f\"",
  "[1, [2, {\"a\": [3]}], \"x\"]",
  "{\"a\": 1, \"a\": 2}",
  "{\"a\":{\"b\":{}},\"c\":[[],[]]}",
};

static const struct
{
  const char *text;
  const char *why;
} bad_values[] = {
  { "", "a value is expected" },
  { " ", "a value is expected" },
  { "{", "the name of a member is expected" },
  { "[", "a value is expected" },
  { "}", "a value is expected" },
  { "[1", "',' or the end of a list" },
  { "[1,", "a value is expected" },
  { "[1,]", "a value is expected" },
  { "[,1]", "a value is expected" },
  { "[1 2]", "',' or the end of a list" },
  { "[1}", "',' or the end of a list" },
  { "{\"a\"}", "':' is expected" },
  { "{\"a\":}", "a value is expected" },
  { "{\"a\":1,}", "the name of a member" },
  { "{\"a\":1]", "',' or the end of a list" },
  { "{a:1}", "the name of a member" },
  { "{1:1}", "the name of a member" },
  { "{}{}", "something follows" },
  { "1 2", "something follows" },
  { "'a'", "a value is expected" },
  { "var x = 1", "a value is expected" },
  { "nul", "a value is expected" },
  { "nulll", "something follows" },
  { "True", "a value is expected" },
  { "NaN", "a value is expected" },
  { "Infinity", "a value is expected" },
  { "// c\n1", "a value is expected" },
  { "1 /* c */", "something follows" },
  { "+1", "a value is expected" },
  { "-", "a digit is expected" },
  { "- 1", "a digit is expected" },
  { "01", "something follows" },
  { "0x10", "something follows" },
  { "1.", "a digit is expected" },
  { ".5", "a value is expected" },
  { "1e", "a digit is expected" },
  { "1e+", "a digit is expected" },
  { "9223372036854775808", "out of range" },
  { "-9223372036854775809", "out of range" },
  { "1e309", "out of range" },
  { "1e99999999999999999999", "out of range" },
  { "\"", "a string without an end" },
  { "\"\\", "an unknown escape" },
  { "\"\\x41\"", "an unknown escape" },
  { "\"\\u12\"", "four hexadecimal digits" },
  { "\"\\u0000\"", "\\u0000 is not accepted" },
  { "\"\\ud83d\"", "a lone surrogate" },
  { "\"\\ud83dx\"", "a lone surrogate" },
  { "\"\\ud83d\\n\"", "a lone surrogate" },
  { "\"\\ud83d\\u0041\"", "a lone surrogate" },
  { "\"\\ude00\"", "a lone surrogate" },
  { "\"\n\"", "a control character" },
  { "\"\x01\"", "a control character" },
  { "\"\xff\"", "not UTF-8" },
  { "\"\xc0\x80\"", "not UTF-8" },
  { "\"\xed\xa0\x80\"", "not UTF-8" },
  { "\"\xf0\x9f\x98\"", "not UTF-8" },
  { "\xef\xbb\xbf{}", "a value is expected" },
};

static void
test_scan_accepts (void **state)
{
  for (guint i = 0; i < G_N_ELEMENTS (good_values); i++)
    {
      g_autoptr (GError) error = NULL;

      if (!json_framer_scan (good_values[i], strlen (good_values[i]), MAX_DEPTH, &error))
        fail_msg ("%s: %s", good_values[i], error->message);
    }
}

static void
test_scan_refuses (void **state)
{
  for (guint i = 0; i < G_N_ELEMENTS (bad_values); i++)
    {
      g_autoptr (GError) error = NULL;
      gsize len = strlen (bad_values[i].text);
      /* In a block of just that size, where a sanitizer sees each byte read too far. */
      g_autofree char *text = g_memdup2 (bad_values[i].text, len);

      if (json_framer_scan (text, len, MAX_DEPTH, &error))
        fail_msg ("accepted: %s", bad_values[i].text);
      assert_true (g_error_matches (error, JSON_FRAMER_ERROR, JSON_FRAMER_ERROR_SYNTAX));
      if (strstr (error->message, bad_values[i].why) == NULL)
        fail_msg ("%s: %s", bad_values[i].text, error->message);
    }
}

static void
test_scan_refuses_nul (void **state)
{
  assert_false (json_framer_scan ("\0", 1, MAX_DEPTH, NULL));
  assert_false (json_framer_scan ("1\0", 2, MAX_DEPTH, NULL));
  assert_false (json_framer_scan ("\"\0\"", 3, MAX_DEPTH, NULL));
  assert_false (json_framer_scan ("\"\\\0\"", 4, MAX_DEPTH, NULL));
}

/* Each beginning of a good value is bad, except where a number ends earlier. */
static void
test_scan_truncated (void **state)
{
  const char *text = "{\"a\": [true, -1.5e3, \"\\ud83d\\ude00\\n\"], \"b\": null}";

  for (gsize len = 0; len < strlen (text); len++)
    {
      g_autofree char *part = g_memdup2 (text, len);

      assert_false (json_framer_scan (part, len, MAX_DEPTH, NULL));
    }
  assert_true (json_framer_scan (text, strlen (text), MAX_DEPTH, NULL));
}

static void
test_scan_depth (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *deep = g_strnfill (1000000, '[');

  assert_true (json_framer_scan ("[[[[[[[[]]]]]]]]", 16, MAX_DEPTH, NULL));
  assert_false (json_framer_scan ("[[[[[[[[[]]]]]]]]]", 18, MAX_DEPTH, &error));
  assert_true (g_error_matches (error, JSON_FRAMER_ERROR, JSON_FRAMER_ERROR_TOO_DEEP));
  assert_string_equal (error->message, "nested more than 8 levels deep");
  assert_false (json_framer_scan (deep, 1000000, MAX_DEPTH, NULL));
  assert_false (json_framer_scan ("{}", 2, 0, NULL));
  assert_true (json_framer_scan ("1", 1, 0, NULL));
}

static void
test_scan_too_many_values (void **state)
{
  g_autoptr (GString) text = g_string_new ("[0");
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < 500000; i++)
    g_string_append (text, ",0");
  g_string_append_c (text, ']');
  assert_false (json_framer_scan (text->str, text->len, MAX_DEPTH, &error));
  assert_non_null (strstr (error->message, "too many values"));
}

/* Whatever the scanner lets through, json-glib must read as it is meant. */
static void
test_numbers_arrive (void **state)
{
  g_autoptr (JsonFramer) framer = json_framer_new (MAX_LINE, MAX_DEPTH);
  const char *line = "{\"min\":-9223372036854775808,\"max\":9223372036854775807,\"half\":0.5,"
                     "\"exp\":1E5,\"neg\":-0.25e-1,\"zero\":-0,\"tiny\":4.9e-324,\"o\":0e1}\n";
  g_autoptr (JsonObject) object = NULL;
  gint64 i = 1;
  double d = 1;

  assert_true (json_framer_push (framer, line, strlen (line), NULL));
  object = json_framer_pop (framer, NULL);
  assert_non_null (object);
  assert_true (json_get_int (object, "min", &i) && i == G_MININT64);
  assert_true (json_get_int (object, "max", &i) && i == G_MAXINT64);
  assert_true (json_get_double (object, "half", &d) && d == 0.5);
  assert_true (json_get_double (object, "exp", &d) && d == 1e5);
  assert_true (json_get_double (object, "neg", &d) && d == -0.025);
  assert_true (json_get_int (object, "zero", &i) && i == 0);
  assert_true (json_get_double (object, "tiny", &d) && d == 4.9e-324);
  assert_true (json_get_double (object, "o", &d) && d == 0);
}

static void
test_strings_arrive (void **state)
{
  g_autoptr (JsonFramer) framer = json_framer_new (MAX_LINE, MAX_DEPTH);
  const char *line = "{\"s\":\"\\ud83d\\ude00\\u00e9\\\"\\\\\\/\\n\xc3\xa9\",\"\":1}\n";
  g_autoptr (JsonObject) object = NULL;
  g_autoptr (GError) error = NULL;
  const char *s = NULL;

  assert_true (json_framer_push (framer, line, strlen (line), NULL));
  object = json_framer_pop (framer, &error);
  if (object == NULL)
    fail_msg ("%s", error->message);
  assert_true (json_get_string (object, "s", &s));
  assert_string_equal (s, "\xf0\x9f\x98\x80\xc3\xa9\"\\/\n\xc3\xa9");
}

static void
assert_next (JsonFramer *framer, gint64 expected)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonObject) object = json_framer_pop (framer, &error);
  gint64 n = -1;

  assert_null (error);
  if (expected < 0)
    {
      assert_null (object);
      return;
    }
  assert_non_null (object);
  assert_true (json_get_int (object, "n", &n));
  assert_int_equal (n, expected);
}

static void
test_lines (void **state)
{
  g_autoptr (JsonFramer) framer = json_framer_new (MAX_LINE, MAX_DEPTH);
  const char *bytes = "{\"n\":1}\r\n\n \t\r\n{\"n\":2}\n{\"n\"";

  assert_true (json_framer_is_empty (framer));
  assert_next (framer, -1);
  assert_true (json_framer_push (framer, bytes, strlen (bytes), NULL));
  assert_next (framer, 1);
  assert_next (framer, 2);
  assert_next (framer, -1);
  assert_false (json_framer_is_empty (framer));
  assert_true (json_framer_push (framer, ":3}", 3, NULL));
  assert_next (framer, -1);
  assert_true (json_framer_push (framer, "\n", 1, NULL));
  assert_next (framer, 3);
  assert_true (json_framer_is_empty (framer));
}

static void
test_byte_by_byte (void **state)
{
  g_autoptr (JsonFramer) framer = json_framer_new (MAX_LINE, MAX_DEPTH);
  const char *line = "{\"n\": 7, \"x\": \"\xc3\xa9\"}\n";

  for (guint round = 0; round < 3; round++)
    {
      for (const char *p = line; *p != '\0'; p++)
        {
          assert_next (framer, -1);
          assert_true (json_framer_push (framer, p, 1, NULL));
        }
      assert_next (framer, 7);
    }
}

static void
test_too_long (void **state)
{
  g_autoptr (JsonFramer) framer = json_framer_new (MAX_LINE, MAX_DEPTH);
  g_autofree char *spaces = g_strnfill (MAX_LINE, ' ');
  g_autoptr (GError) error = NULL, again = NULL;

  assert_true (json_framer_push (framer, spaces, MAX_LINE, NULL));
  assert_true (json_framer_push (framer, "\n", 1, NULL));
  assert_true (json_framer_push (framer, spaces, MAX_LINE, NULL));
  assert_false (json_framer_push (framer, " ", 1, &error));
  assert_true (g_error_matches (error, JSON_FRAMER_ERROR, JSON_FRAMER_ERROR_TOO_LONG));
  assert_string_equal (error->message, "a line is longer than 1000 bytes");
  assert_null (json_framer_pop (framer, &again));
  assert_non_null (again);
}

/* A long line in one piece with its newline is too long all the same. */
static void
test_too_long_at_once (void **state)
{
  g_autoptr (JsonFramer) framer = json_framer_new (MAX_LINE, MAX_DEPTH);
  g_autofree char *spaces = g_strnfill (MAX_LINE + 1, ' ');
  g_autofree char *line = g_strconcat ("{}\n", spaces, "\n{}\n", NULL);

  assert_false (json_framer_push (framer, line, strlen (line), NULL));
}

static void
test_stays_bad (void **state)
{
  static const char *const lines[] = { "nonsense\n", "[1]\n", "\"x\"\n", "{}}\n" };

  for (guint i = 0; i < G_N_ELEMENTS (lines); i++)
    {
      g_autoptr (JsonFramer) framer = json_framer_new (MAX_LINE, MAX_DEPTH);
      g_autoptr (GError) error = NULL;

      assert_true (json_framer_push (framer, lines[i], strlen (lines[i]), NULL));
      assert_null (json_framer_pop (framer, &error));
      assert_true (g_error_matches (error, JSON_FRAMER_ERROR, JSON_FRAMER_ERROR_SYNTAX));
      assert_false (json_framer_push (framer, "{\"n\":1}\n", 8, NULL));
      assert_null (json_framer_pop (framer, NULL));
    }
}

static void
test_encode (void **state)
{
  g_autoptr (JsonObject) object = json_args ("s", "s", "a\n\"b\"", "i", "i", (gint64)-5, NULL);
  gsize len = 0;
  g_autofree char *line = json_framer_encode (object, &len);
  g_autoptr (JsonFramer) framer = json_framer_new (MAX_LINE, MAX_DEPTH);
  g_autoptr (JsonObject) back = NULL;
  const char *s = NULL;

  assert_int_equal (len, strlen (line));
  assert_ptr_equal (strchr (line, '\n'), line + len - 1);
  assert_true (json_framer_push (framer, line, len, NULL));
  back = json_framer_pop (framer, NULL);
  assert_non_null (back);
  assert_true (json_get_string (back, "s", &s));
  assert_string_equal (s, "a\n\"b\"");
}

/* Numbers that json-glib writes with an exponent, beside strings that look like one. */
static void
test_encode_exponents (void **state)
{
  const char *text = "{\"e+1.0\":[2e+38,-1e-07,2.5e+300,\"\\\"2e+38.0\",1.0,true],\"b\":5e-324}";
  g_autoptr (JsonFramer) framer = json_framer_new (MAX_LINE, MAX_DEPTH);
  g_autoptr (JsonObject) object = NULL;
  g_autofree char *line = NULL;
  gsize len;

  assert_true (json_framer_push (framer, text, strlen (text), NULL));
  assert_true (json_framer_push (framer, "\n", 1, NULL));
  object = json_framer_pop (framer, NULL);
  assert_non_null (object);
  line = json_framer_encode (object, &len);
  assert_int_equal (len, strlen (line));
  assert_string_equal (line, "{\"e+1.0\":[2e+38,-9.9999999999999995e-08,2.5000000000000001e+300,"
                             "\"\\\"2e+38.0\",1.0,true],\"b\":4.9406564584124654e-324}\n");
  assert_true (json_framer_scan (line, len, MAX_DEPTH, NULL));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_scan_accepts),
    cmocka_unit_test (test_scan_refuses),
    cmocka_unit_test (test_scan_refuses_nul),
    cmocka_unit_test (test_scan_truncated),
    cmocka_unit_test (test_scan_depth),
    cmocka_unit_test (test_scan_too_many_values),
    cmocka_unit_test (test_numbers_arrive),
    cmocka_unit_test (test_strings_arrive),
    cmocka_unit_test (test_lines),
    cmocka_unit_test (test_byte_by_byte),
    cmocka_unit_test (test_too_long),
    cmocka_unit_test (test_too_long_at_once),
    cmocka_unit_test (test_stays_bad),
    cmocka_unit_test (test_encode),
    cmocka_unit_test (test_encode_exponents),
  };

  return cmocka_run_group_tests_name ("json-framer", tests, NULL, NULL);
}
