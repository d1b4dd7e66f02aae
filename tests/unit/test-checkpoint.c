/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <glib/gstdio.h>

#include "daemon/copy/checkpoint.h"

#define MIB G_GUINT64_CONSTANT (0x100000)
#define SIZE (64 * MIB + 77)

static char *dir;
static char *path;

static int
setup (void **state)
{
  dir = g_dir_make_tmp ("vmferry-checkpoint-XXXXXX", NULL);
  path = g_build_filename (dir, "disk.vmferry-journal", NULL);
  return dir == NULL;
}

static int
teardown (void **state)
{
  g_unlink (path);
  g_rmdir (dir);
  g_clear_pointer (&path, g_free);
  g_clear_pointer (&dir, g_free);
  return 0;
}

static CheckpointHeader
header_of (guint64 size, gboolean verify)
{
  return (CheckpointHeader){ .identity = { .uuid = (char *)"8c0f4c1e-2f2d-4b3c-9a51-0d7d4be0f001",
                                           .device = 0xfd01,
                                           .inode = G_MAXUINT64,
                                           .birth_ns = 1700000000123456789,
                                           .size = size,
                                           .has_xattr = TRUE },
                             .source = (char *)"host:10809, export \"d\"",
                             .target_format = (char *)"raw",
                             .size = size,
                             .verify = verify };
}

static GArray *
ranges_of (guint n, const WorkRange *ranges)
{
  GArray *array = g_array_new (FALSE, FALSE, sizeof (WorkRange));

  if (n > 0)
    g_array_append_vals (array, ranges, n);
  return array;
}

static void
assert_left (const GArray *left, guint n, const WorkRange *ranges)
{
  assert_int_equal (left->len, n);
  for (guint i = 0; i < n; i++)
    {
      assert_int_equal (g_array_index (left, WorkRange, i).start, ranges[i].start);
      assert_int_equal (g_array_index (left, WorkRange, i).end, ranges[i].end);
    }
}

static CheckpointState *
read_back (void)
{
  CheckpointState *state = NULL;
  g_autoptr (GError) error = NULL;
  g_autoptr (Checkpoint) checkpoint = checkpoint_open (-1, path, &state, &error);

  if (checkpoint == NULL)
    fail_msg ("%s", error->message);
  return state;
}

static void
test_checkpoint_header (void **state)
{
  CheckpointHeader header = header_of (SIZE, TRUE);
  g_autoptr (CopySamples) samples = copy_samples_new ();
  g_autoptr (NbdDigest) digest = nbd_digest_new (SIZE);
  g_autoptr (CheckpointState) read = NULL;

  header.bitmap = (char *)"b\n\xc3\xa9";
  checkpoint_free (checkpoint_create (-1, path, &header, samples, digest, NULL));
  read = read_back ();
  assert_string_equal (read->header.identity.uuid, header.identity.uuid);
  assert_true (read->header.identity.device == 0xfd01);
  assert_true (read->header.identity.inode == G_MAXUINT64);
  assert_true (read->header.identity.birth_ns == header.identity.birth_ns);
  assert_true (read->header.identity.has_xattr);
  assert_int_equal (read->header.size, SIZE);
  assert_string_equal (read->header.source, header.source);
  assert_string_equal (read->header.target_format, "raw");
  assert_string_equal (read->header.bitmap, header.bitmap);
  assert_true (read->header.verify);
  assert_int_equal (read->n_digests, 65);
  assert_left (read->left, 1, &(WorkRange){ 0, SIZE });
}

static void
add_everything (CopySamples *samples, NbdDigest *digest, guint64 size)
{
  g_autofree guint8 *data = g_malloc (COPY_SAMPLE_SIZE);

  for (guint64 pos = 0; pos < size; pos += COPY_SAMPLE_SIZE)
    {
      gsize n = (gsize)MIN (COPY_SAMPLE_SIZE, size - pos);

      memset (data, (int)(1 + pos / COPY_SAMPLE_SIZE % 255), n);
      copy_samples_add (samples, data, n, pos);
      if (digest != NULL)
        nbd_digest_add (digest, data, n, pos);
    }
}

static void
test_checkpoint_round_trip (void **state)
{
  const WorkRange first[] = { { 2 * MIB, 3 * MIB }, { 5 * MIB + 4096, SIZE } };
  const WorkRange second[] = { { 64 * MIB + 0, SIZE } };
  CheckpointHeader header = header_of (SIZE, TRUE);
  g_autoptr (CopySamples) samples = copy_samples_new ();
  g_autoptr (NbdDigest) digest = nbd_digest_new (SIZE);
  g_autoptr (Checkpoint) checkpoint = checkpoint_create (-1, path, &header, samples, digest, NULL);
  g_autoptr (GArray) left = ranges_of (2, first);
  g_autoptr (GArray) later = ranges_of (1, second);
  g_autoptr (CheckpointState) read = NULL;
  g_autoptr (CheckpointState) again = NULL;
  g_autoptr (GArray) kept = NULL;

  add_everything (samples, digest, SIZE);
  assert_true (checkpoint_append (checkpoint, left, NULL));
  read = read_back ();
  assert_left (read->left, 2, first);
  kept = copy_samples_get (read->samples, NULL);
  for (guint i = 0; i < kept->len; i++)
    {
      const CopySample *sample = &g_array_index (kept, CopySample, i);

      assert_true (
          sample->offset + sample->length <= 2 * MIB
          || (sample->offset >= 3 * MIB && sample->offset + sample->length <= 5 * MIB + 4096));
    }
  assert_true (kept->len >= 8);
  for (guint i = 0; i < 65; i++)
    assert_true (read->digests[i]
                 == (i < 2 || i == 3 || i == 4 ? nbd_digest_get_segment (digest, i) : 0));
  assert_true (checkpoint_append (checkpoint, later, NULL));
  again = read_back ();
  assert_left (again->left, 1, second);
  for (guint i = 0; i < 64; i++)
    assert_true (again->digests[i] == nbd_digest_get_segment (digest, i));
  assert_true (again->digests[64] == 0);
}

/* It must not grow with the number of checkpoints. */
static void
test_checkpoint_compaction (void **state)
{
  CheckpointHeader header = header_of (256 * MIB, TRUE);
  g_autoptr (CopySamples) samples = copy_samples_new ();
  g_autoptr (NbdDigest) digest = nbd_digest_new (256 * MIB);
  g_autoptr (Checkpoint) checkpoint = checkpoint_create (-1, path, &header, samples, digest, NULL);
  g_autoptr (GArray) left = ranges_of (0, NULL);
  g_autoptr (GArray) none = ranges_of (0, NULL);
  g_autoptr (CheckpointState) read = NULL;
  struct stat info;

  add_everything (samples, digest, 256 * MIB);
  for (guint64 i = 0; i < CHECKPOINT_MAX_RANGES + 5; i++)
    {
      WorkRange range = { i * 8192, i * 8192 + 4096 };

      g_array_append_val (left, range);
    }
  for (guint i = 0; i < 80; i++)
    assert_true (checkpoint_append (checkpoint, left, NULL));
  assert_int_equal (stat (path, &info), 0);
  assert_true (info.st_size < (off_t)(5 * MIB));
  assert_true (checkpoint_append (checkpoint, none, NULL));
  read = read_back ();
  assert_int_equal (read->left->len, 0);
  for (guint i = 0; i < 256; i++)
    assert_true (read->digests[i] == nbd_digest_get_segment (digest, i));
}

/* A full disk costs nothing but the checkpoint that didn't fit. */
static void
test_checkpoint_full_disk (void **state)
{
  CheckpointHeader header = header_of (SIZE, TRUE);
  g_autoptr (CopySamples) samples = copy_samples_new ();
  g_autoptr (NbdDigest) digest = nbd_digest_new (SIZE);
  g_autoptr (Checkpoint) checkpoint = checkpoint_create (-1, path, &header, samples, digest, NULL);
  g_autoptr (GArray) left = ranges_of (1, &(WorkRange){ 10 * MIB, SIZE });
  g_autoptr (GArray) kept = NULL;
  g_autoptr (CheckpointState) read = NULL;
  struct rlimit old, small;

  add_everything (samples, digest, SIZE);
  signal (SIGXFSZ, SIG_IGN);
  getrlimit (RLIMIT_FSIZE, &old);
  small = old;
  small.rlim_cur = 700;
  assert_int_equal (setrlimit (RLIMIT_FSIZE, &small), 0);
  assert_false (checkpoint_append (checkpoint, left, NULL));
  assert_false (checkpoint_append (checkpoint, left, NULL));
  assert_int_equal (setrlimit (RLIMIT_FSIZE, &old), 0);
  assert_true (checkpoint_append (checkpoint, left, NULL));
  read = read_back ();
  assert_left (read->left, 1, &(WorkRange){ 10 * MIB, SIZE });
  kept = copy_samples_get (read->samples, NULL);
  assert_true (kept->len >= 10);
  for (guint i = 0; i < 10; i++)
    assert_true (read->digests[i] == nbd_digest_get_segment (digest, i));
}

static void
test_checkpoint_align (void **state)
{
  const WorkRange ranges[] = { { 4096, 8192 },
                               { MIB - 4096, MIB },
                               { 3 * MIB + 4096, 3 * MIB + 8192 },
                               { 4 * MIB, 4 * MIB + 4096 },
                               { 64 * MIB + 0, SIZE } };
  const WorkRange aligned[] = { { 0, MIB }, { 3 * MIB, 5 * MIB }, { 64 * MIB, SIZE } };
  g_autoptr (GArray) left = ranges_of (G_N_ELEMENTS (ranges), ranges);

  checkpoint_align_left (left, MIB, SIZE);
  assert_left (left, G_N_ELEMENTS (aligned), aligned);
}

/* Ranges that are copied again add to digests of nothing. */
static void
test_checkpoint_restore_digest (void **state)
{
  CheckpointHeader header = header_of (SIZE, TRUE);
  g_autoptr (CopySamples) samples = copy_samples_new ();
  g_autoptr (NbdDigest) digest = nbd_digest_new (SIZE);
  g_autoptr (NbdDigest) other = nbd_digest_new (SIZE);
  g_autoptr (Checkpoint) checkpoint = checkpoint_create (-1, path, &header, samples, digest, NULL);
  g_autoptr (GArray) left = ranges_of (0, NULL);
  g_autoptr (CheckpointState) read = NULL;
  WorkRange again = { 7 * MIB, 9 * MIB };

  add_everything (samples, digest, SIZE);
  assert_true (checkpoint_append (checkpoint, left, NULL));
  read = read_back ();
  g_array_append_val (read->left, again);
  checkpoint_restore_digest (read, other);
  for (guint i = 0; i < 65; i++)
    assert_true (nbd_digest_get_segment (other, i)
                 == (i == 7 || i == 8 ? 0 : nbd_digest_get_segment (digest, i)));
}

static void
expect_nonsense (JsonObject *header, JsonObject *record)
{
  g_autoptr (GPtrArray) records
      = g_ptr_array_new_with_free_func ((GDestroyNotify)json_object_unref);
  g_autoptr (GError) error = NULL;

  g_ptr_array_add (records, header);
  g_ptr_array_add (records, record);
  assert_null (checkpoint_state_decode ("j", records, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA));
  assert_true (g_str_has_prefix (error->message, "j: record 2 makes no sense"));
}

static JsonObject *
object_of (const char *text)
{
  g_autoptr (JsonNode) node = json_from_string (text, NULL);

  assert_non_null (node);
  return json_node_dup_object (node);
}

static void
test_checkpoint_nonsense (void **state)
{
  static const char *const records[] = {
    "{\"record\": \"other\"}",
    "{\"left\": [], \"samples\": []}",
    "{\"record\": \"checkpoint\", \"left\": []}",
    "{\"record\": \"checkpoint\", \"left\": [0], \"samples\": []}",
    "{\"record\": \"checkpoint\", \"left\": [0, 0], \"samples\": []}",
    "{\"record\": \"checkpoint\", \"left\": [1, 4096], \"samples\": []}",
    "{\"record\": \"checkpoint\", \"left\": [-4096, 4096], \"samples\": []}",
    "{\"record\": \"checkpoint\", \"left\": [0, 134217728], \"samples\": []}",
    "{\"record\": \"checkpoint\", \"left\": [0, 4096, 4096, 8192], \"samples\": []}",
    "{\"record\": \"checkpoint\", \"left\": [8192, 12288, 0, 4096], \"samples\": []}",
    "{\"record\": \"checkpoint\", \"left\": [\"0\", {}], \"samples\": []}",
    "{\"record\": \"checkpoint\", \"left\": [], \"samples\": [0, 4096]}",
    "{\"record\": \"checkpoint\", \"left\": [], \"samples\": [0, 0, \"0123456789abcdef\"]}",
    "{\"record\": \"checkpoint\", \"left\": [], \"samples\": [0, 4096, \"0123456789abcdeg\"]}",
    "{\"record\": \"checkpoint\", \"left\": [], \"samples\": [0, 4096, 7]}",
    "{\"record\": \"checkpoint\", \"left\": [], \"samples\": [0, 1048576, \"0123456789abcdef\"]}",
    "{\"record\": \"checkpoint\", \"left\": [], \"samples\": [67108864, 4096, "
    "\"0123456789abcdef\"]}",
    "{\"record\": \"digests\", \"first\": 65, \"values\": \"0123456789abcdef\"}",
    "{\"record\": \"digests\", \"first\": -1, \"values\": \"0123456789abcdef\"}",
    "{\"record\": \"digests\", \"first\": 9223372036854775807, \"values\": \"\"}",
    "{\"record\": \"digests\", \"first\": 0, \"values\": \"0123\"}",
  };
  CheckpointHeader header = header_of (SIZE, TRUE);

  for (guint i = 0; i < G_N_ELEMENTS (records); i++)
    expect_nonsense (checkpoint_encode_header (&header), object_of (records[i]));
  header.verify = FALSE;
  expect_nonsense (checkpoint_encode_header (&header),
                   checkpoint_encode_digests (0, (guint64[]){ 1 }, 1));
}

static void
test_checkpoint_bad_header (void **state)
{
  static const char *const names[]
      = { "record", "version", "uuid",          "device", "inode", "birth",
          "xattr",  "source",  "target-format", "size",   "verify" };
  CheckpointHeader header = header_of (SIZE, TRUE);

  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      g_autoptr (GPtrArray) records
          = g_ptr_array_new_with_free_func ((GDestroyNotify)json_object_unref);
      g_autoptr (CheckpointState) decoded = NULL;
      JsonObject *object = checkpoint_encode_header (&header);

      json_object_remove_member (object, names[i]);
      g_ptr_array_add (records, object);
      assert_null (checkpoint_state_decode ("j", records, NULL));
      json_object_set_int_member (object, names[i], -1);
      decoded = checkpoint_state_decode ("j", records, NULL);
      assert_int_equal (decoded != NULL, g_str_equal (names[i], "birth"));
    }
}

static void
test_samples_are_bounded_and_spread (void **state)
{
  const guint64 size = 1024 * MIB;
  g_autoptr (CopySamples) samples = copy_samples_new ();
  g_autoptr (GArray) kept = NULL;
  guint64 before = 0;

  add_everything (samples, NULL, size);
  kept = copy_samples_get (samples, NULL);
  assert_true (kept->len > COPY_SAMPLES_MAX / 4 && kept->len <= COPY_SAMPLES_MAX);
  for (guint i = 0; i < kept->len; i++)
    {
      guint64 offset = g_array_index (kept, CopySample, i).offset;

      assert_true (offset - before <= 4 * size / COPY_SAMPLES_MAX);
      before = offset;
    }
  assert_true (size - before <= 4 * size / COPY_SAMPLES_MAX);
}

static guint n_reads;

static gboolean
memory_read (NbdTarget *target, void *buf, gsize len, guint64 offset, GError **error)
{
  memset (buf, (int)(1 + offset / COPY_SAMPLE_SIZE % 255), len);
  if (offset >= 32 * MIB && target->is_zero)
    memset (buf, 0, len);
  n_reads++;
  return TRUE;
}

static void
test_samples_prove (void **state)
{
  static const NbdTargetClass klass = { .read = memory_read };
  NbdTarget target = { .klass = &klass, .name = (char *)"disk", .size = SIZE };
  g_autoptr (CopySamples) samples = copy_samples_new ();
  g_autoptr (GArray) kept = NULL;
  g_autoptr (GError) error = NULL;

  add_everything (samples, NULL, SIZE);
  kept = copy_samples_get (samples, NULL);
  n_reads = 0;
  assert_true (copy_samples_prove (kept, NULL, &target, 64 * MIB, 1000, NULL, &error));
  assert_int_equal (n_reads, kept->len);
  n_reads = 0;
  assert_true (copy_samples_prove (kept, NULL, &target, MIB, 1000, NULL, &error));
  assert_int_equal (n_reads, 4);
  target.is_zero = TRUE;
  assert_false (copy_samples_prove (kept, NULL, &target, MIB, 1000, NULL, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA));
  assert_true (g_str_has_prefix (error->message, "disk: the 262144 bytes at offset "));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown (test_checkpoint_header, setup, teardown),
    cmocka_unit_test_setup_teardown (test_checkpoint_round_trip, setup, teardown),
    cmocka_unit_test_setup_teardown (test_checkpoint_compaction, setup, teardown),
    cmocka_unit_test_setup_teardown (test_checkpoint_full_disk, setup, teardown),
    cmocka_unit_test_setup_teardown (test_checkpoint_align, setup, teardown),
    cmocka_unit_test_setup_teardown (test_checkpoint_restore_digest, setup, teardown),
    cmocka_unit_test (test_checkpoint_nonsense),
    cmocka_unit_test (test_checkpoint_bad_header),
    cmocka_unit_test (test_samples_are_bounded_and_spread),
    cmocka_unit_test (test_samples_prove),
  };

  return cmocka_run_group_tests_name ("checkpoint", tests, NULL, NULL);
}
