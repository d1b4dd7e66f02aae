/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "daemon/source/private.h"
#include "tests/unit/agent-lab.h"
#include "tests/unit/fake-qmp.h"

/* A device as query-block tells of it; `more` goes into what is inserted, `image` into its image.
 */
#define DEVICE(qdev, node, file, more, image)                                                      \
  "{\"device\": \"\", \"removable\": false, \"qdev\": \"" qdev                                     \
  "\", \"inserted\": {\"drv\": \"raw\", \"file\": \"" file                                         \
  "\", \"ro\": false, \"node-name\": \"" node                                                      \
  "\", \"encrypted\": false, \"image\": {\"virtual-size\": 1048576" image "}" more "}}"
#define DISK(node)                                                                                 \
  DEVICE ("/machine/peripheral/v" node "/virtio-backend", node, "/srv/" node, "", "")
#define BITMAP(uuid, recording, count)                                                             \
  ", \"dirty-bitmaps\": [{\"name\": \"vmferry-" uuid "-bm0\", \"count\": " count                   \
  ", \"granularity\": 4096, \"recording\": " recording                                             \
  ", \"busy\": false, \"persistent\": false}]"

static AgentLab *lab;
static FakeQmp *fake;
static SourceJob *job;
static GString *notices;
static GMutex lock;
static char *block; /* the answer to query-block; "%U" stands for the job's short name */

static JsonNode *
answer (FakeQmp *qmp, const char *command, JsonObject *args, gpointer data)
{
  g_autoptr (GString) text = NULL;
  g_autofree char *short_name = NULL;

  if (!g_str_equal (command, "query-block"))
    return NULL;
  g_mutex_lock (&lock);
  text = g_string_new (block);
  short_name = g_strndup (job->base.uuid, 8);
  g_mutex_unlock (&lock);
  g_string_replace (text, "%U", short_name, 0);
  return fake_qmp_json (text->str);
}

static void
on_log (const char *domain, GLogLevelFlags level, const char *message, gpointer data)
{
  g_mutex_lock (&lock);
  g_string_append_printf (notices, "%s\n", message);
  g_mutex_unlock (&lock);
}

static int
setup_group (void **state)
{
  notices = g_string_new (NULL);
  g_log_set_default_handler (on_log, NULL);
  lab = agent_lab_new ();
  return 0;
}

static int
teardown_group (void **state)
{
  agent_lab_free (lab);
  g_string_free (notices, TRUE);
  return 0;
}

static void
set_block (const char *text)
{
  g_mutex_lock (&lock);
  g_free (block);
  block = g_strdup (text);
  g_mutex_unlock (&lock);
}

static void
begin (const char *disks)
{
  g_autofree char *text
      = g_strdup_printf ("{\"guest\": \"vm1\", \"host\": \"hostA\", \"qmp\": \"/q\", "
                         "\"dest-qmp\": \"/d\", \"disks\": [%s]}",
                         disks);
  g_autoptr (JsonObject) args = agent_lab_json (text);
  g_autoptr (GError) error = NULL;

  job = (SourceJob *)source_new (lab->agent, args, &error);
  if (!job)
    fail_msg ("%s", error->message);
  job->vm = vm_open (fake_qmp_get_path (fake), deadline_in (20000, NULL), &error);
  if (!job->vm)
    fail_msg ("%s", error->message);
  g_string_truncate (notices, 0);
}

static void
do_nothing (gpointer data)
{
}

static int
setup (void **state)
{
  fake = fake_qmp_new (FAKE_QMP_GREETS, answer, NULL);
  return 0;
}

static int
teardown (void **state)
{
  /* What the job has said is on its way to the main thread. */
  agent_lab_invoke (lab, do_nothing, NULL);
  job_free (&job->base);
  fake_qmp_free (fake);
  g_clear_pointer (&block, g_free);
  return 0;
}

static void
expect_refused (const char *devices, const char *pattern)
{
  g_autoptr (GError) error = NULL;

  set_block (devices);
  assert_false (source_find_disks (job, &error));
  if (!g_pattern_match_simple (pattern, error->message))
    fail_msg ("%s", error->message);
}

static void
find (const char *devices)
{
  g_autoptr (GError) error = NULL;

  set_block (devices);
  if (!source_find_disks (job, &error))
    fail_msg ("%s", error->message);
}

static void
test_found (void **state)
{
  const SourceDisk *disk;

  begin (
      "{\"disk\": \"vd1\", \"path\": \"/new\", \"format\": \"qcow2\", \"prealloc\": \"falloc\"}");
  find ("[" DISK ("d0") "," DISK (
      "d1") ", "
            /* empty, read-only, of no guest's: left alone */
            "{\"device\": \"\", \"removable\": true, \"qdev\": \"cd0\"},"
            "{\"device\": \"\", \"removable\": true, \"qdev\": \"cd1\", \"inserted\": {\"drv\": "
            "\"raw\", \"file\": \"/iso\", \"ro\": true, \"encrypted\": false, \"image\": "
            "{\"virtual-size\": 5}}},"
            "{\"device\": \"spare\", \"removable\": false}]");
  assert_int_equal (job->disks->len, 2);
  assert_int_equal (job->n_writable, 2);
  disk = source_disk (job, 0);
  assert_string_equal (disk->name, "d0");
  assert_string_equal (disk->qdev, "/machine/peripheral/vd0/virtio-backend");
  assert_string_equal (disk->node, "d0");
  assert_string_equal (disk->file, "/srv/d0");
  assert_string_equal (disk->path, "/srv/d0");
  assert_string_equal (disk->format, "raw");
  assert_string_equal (disk->prealloc, "off");
  assert_int_equal (disk->size, 1048576);
  assert_int_equal (disk->granularity, 4096);
  disk = source_disk (job, 1);
  assert_string_equal (disk->path, "/new");
  assert_string_equal (disk->format, "qcow2");
  assert_string_equal (disk->prealloc, "falloc");
  assert_int_equal (job->base.view.disks->len, 2);
  assert_string_equal (g_array_index (job->base.view.disks, JobDisk, 1).target, "/new");
}

/* Names that QEMU made up are no names for people. */
static void
test_names (void **state)
{
  begin ("");
  find ("[" DEVICE ("/machine/peripheral/vd0/virtio-backend", "#block123", "/a", "", "") "]");
  assert_string_equal (source_disk (job, 0)->name, "vd0");
  assert_string_equal (source_disk (job, 0)->node, "#block123");
}

static void
test_no_disks (void **state)
{
  begin ("");
  find ("[]");
  assert_int_equal (job->disks->len, 0);
}

static void
test_encrypted (void **state)
{
  begin ("");
  expect_refused ("[" DEVICE ("v", "d0", "/a", "", ", \"encrypted\": true") "]",
                  "disk d0 (/a) is encrypted: *");
  expect_refused ("[" DEVICE ("v", "d0", "/a", "",
                              ", \"format-specific\": {\"type\": \"qcow2\", \"data\": "
                              "{\"encrypt\": {}}}") "]",
                  "disk d0 (/a) is encrypted: its copy would be in clear text, so it is not moved");
}

static void
test_data_file (void **state)
{
  begin ("");
  expect_refused ("[" DEVICE ("v", "d0", "/a", "",
                              ", \"format-specific\": {\"type\": \"qcow2\", \"data\": "
                              "{\"data-file\": \"/b\"}}") "]",
                  "disk d0 (/a) has an external data-file, which can't be moved yet");
}

static void
test_no_node (void **state)
{
  begin ("");
  expect_refused ("[{\"device\": \"ide0\", \"removable\": false, \"qdev\": \"v\", \"inserted\": "
                  "{\"drv\": \"raw\", \"file\": \"/a\", \"ro\": false, \"encrypted\": false, "
                  "\"image\": {\"virtual-size\": 5}}}]",
                  "disk ide0 (/a) has no block node that could be copied");
}

static void
test_no_file (void **state)
{
  begin ("");
  expect_refused ("[" DEVICE ("v", "d0", "nbd://x", "", "") "]",
                  "disk d0 (nbd://x) is not a plain file or device: say where it goes with --disk "
                  "NAME=/PATH");
}

static void
test_no_file_but_path (void **state)
{
  begin ("{\"disk\": \"d0\", \"path\": \"/new\"}");
  find ("[" DEVICE ("v", "d0", "nbd://x", "", "") "]");
  assert_null (source_disk (job, 0)->file);
  assert_string_equal (source_disk (job, 0)->path, "/new");
}

static void
test_unknown_disk (void **state)
{
  begin ("{\"disk\": \"sda\"}, {\"disk\": \"d1\"}");
  expect_refused ("[" DISK ("d0") "," DISK ("d1") "]",
                  "--disk sda: the guest has no such writable disk; it has: d0, d1");
}

/* What is lost on the way is said, and is no reason to stop. */
static void
test_reported (void **state)
{
  begin ("");
  find ("[" DEVICE ("v", "d0", "/a", ", \"backing_file\": \"/base\"",
                    ", \"snapshots\": [{}, {}], \"format-specific\": {\"type\": \"qcow2\", "
                    "\"data\": {\"bitmaps\": [{\"name\": \"backup\"}]}}") "]");
  g_mutex_lock (&lock);
  assert_non_null (strstr (notices->str, "disk d0: its backing chain is flattened: the target has "
                                         "no /base\n"));
  assert_non_null (strstr (notices->str, "disk d0: 2 internal snapshots stay behind\n"));
  assert_non_null (
      strstr (notices->str, "disk d0: 1 persistent bitmaps stay behind (backup, …)\n"));
  g_mutex_unlock (&lock);
}

#define WATCHED(node, more, size)                                                                  \
  "{\"device\": \"\", \"removable\": false, \"qdev\": \"v\", \"inserted\": {\"drv\": \"raw\", "    \
  "\"file\": \"/a\", \"ro\": false, \"node-name\": \"" node                                        \
  "\", \"encrypted\": false, \"image\": {\"virtual-size\": " size "}" more "}}"

static void
expect_noticed (const char *devices, const char *pattern)
{
  g_autoptr (GError) error = NULL;
  guint64 dirty = 77;

  set_block (devices);
  assert_false (source_check_disks (job, &dirty, &error));
  if (!g_pattern_match_simple (pattern, error->message))
    fail_msg ("%s", error->message);
}

static void
test_watched (void **state)
{
  guint64 dirty = 0;

  begin ("");
  find ("[" WATCHED ("d0", "", "4096") "]");
  set_block ("[" WATCHED ("d0", BITMAP ("%U", "true", "8192"), "4096") "]");
  assert_true (source_check_disks (job, &dirty, NULL));
  assert_int_equal (dirty, 8192);
  assert_true (source_check_disks (job, NULL, NULL));

  expect_noticed ("[" WATCHED ("snap", BITMAP ("%U", "true", "0"), "4096") "]",
                  "disk d0: the guest writes to node snap now, not to d0 any more: *");
  expect_noticed ("[" WATCHED ("d0", BITMAP ("%U", "true", "0"), "8192") "]",
                  "disk d0 was resized during the migration, from 4096 to 8192 bytes: *");
  expect_noticed ("[" WATCHED ("d0", BITMAP ("%U", "false", "0"), "4096") "]",
                  "disk d0: our dirty bitmap vmferry-*-bm0 is gone from node d0");
  expect_noticed ("[" WATCHED ("d0", BITMAP ("other", "true", "0"), "4096") "]",
                  "disk d0: our dirty bitmap *");
  expect_noticed ("[]", "disk d0 was unplugged during the migration");
  expect_noticed ("[{\"device\": \"\", \"removable\": true, \"qdev\": \"v\"}]",
                  "disk d0 was unplugged during the migration");
  expect_noticed ("[" WATCHED ("d0", BITMAP ("%U", "true", "0"), "4096") "," DISK ("d1") "]",
                  "a disk was plugged in during the migration: there were 1, now there are 2");
}

#define TEST(name) cmocka_unit_test_setup_teardown (test_##name, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (found),        TEST (names),    TEST (no_disks), TEST (encrypted),
    TEST (data_file),    TEST (no_node),  TEST (no_file),  TEST (no_file_but_path),
    TEST (unknown_disk), TEST (reported), TEST (watched),
  };

  return cmocka_run_group_tests_name ("source-disks", tests, setup_group, teardown_group);
}
