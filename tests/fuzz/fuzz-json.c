/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "qmp/json-framer.h"
#include "tests/fuzz/fuzz.h"

/* Lines of JSON, as a monitor or an agent sends them.  Input: a byte that cuts the stream into
 * portions, then the stream.  What the framer takes has to survive a trip through its encoder, and
 * how the stream was cut must not matter. */

#define MAX_LINE 4096
#define MAX_DEPTH 16

typedef struct
{
  GPtrArray *objects;
  gboolean failed;
} Result;

static gboolean
run_take (JsonFramer *framer, Result *result)
{
  g_autoptr (GError) error = NULL;
  JsonObject *object;

  while ((object = json_framer_pop (framer, &error)) != NULL)
    g_ptr_array_add (result->objects, object);
  return error == NULL;
}

static void
run (const guint8 *data, gsize len, guint64 seed, Result *result)
{
  g_autoptr (JsonFramer) framer = json_framer_new (MAX_LINE, MAX_DEPTH);
  g_autoptr (GError) error = NULL;

  result->objects = g_ptr_array_new_with_free_func ((GDestroyNotify)json_object_unref);
  while (len > 0 && !result->failed)
    {
      gsize most = seed == 0 ? len : 1 + fuzz_random (&seed) % 16;
      gsize n = MIN (len, most);

      result->failed = !json_framer_push (framer, data, n, NULL) || !run_take (framer, result);
      data += n;
      len -= n;
    }
  /* Once bad, it stays so. */
  if (result->failed)
    FUZZ_REQUIRE (json_framer_pop (framer, &error) == NULL && error != NULL);
}

static char *
encode (JsonObject *object)
{
  gsize len;
  char *text = json_framer_encode (object, &len);

  FUZZ_REQUIRE (len == strlen (text) && memchr (text, '\n', len) == text + len - 1);
  return text;
}

/* What was read can be written, and what was written reads as the same. */
static void
check_trip (JsonObject *object)
{
  g_autofree char *first = encode (object);
  g_autofree char *second = NULL;
  g_autoptr (JsonFramer) framer = json_framer_new (16 * MAX_LINE, MAX_DEPTH);
  g_autoptr (JsonObject) again = NULL;

  FUZZ_REQUIRE (json_framer_push (framer, first, strlen (first), NULL));
  again = json_framer_pop (framer, NULL);
  FUZZ_REQUIRE (again != NULL && json_framer_is_empty (framer));
  second = encode (again);
  FUZZ_REQUIRE (strcmp (first, second) == 0);
}

static void
check_same (const Result *whole, const Result *cut)
{
  /* A bad line hides those before it only where they came with it: never the other way. */
  FUZZ_REQUIRE (whole->failed == cut->failed);
  FUZZ_REQUIRE (whole->objects->len <= cut->objects->len);
  FUZZ_REQUIRE (whole->failed || whole->objects->len == cut->objects->len);
  for (guint i = 0; i < whole->objects->len; i++)
    {
      g_autofree char *a = encode (g_ptr_array_index (whole->objects, i));
      g_autofree char *b = encode (g_ptr_array_index (cut->objects, i));

      FUZZ_REQUIRE (strcmp (a, b) == 0);
    }
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  FuzzInput input = { data, size };
  guint64 seed = (guint64)fuzz_input_u8 (&input) + 1;
  Result whole = { 0 }, cut = { 0 };

  run (input.data, input.left, 0, &whole);
  run (input.data, input.left, seed, &cut);
  check_same (&whole, &cut);
  for (guint i = 0; i < whole.objects->len; i++)
    check_trip (g_ptr_array_index (whole.objects, i));
  g_ptr_array_unref (whole.objects);
  g_ptr_array_unref (cut.objects);
  return 0;
}
