/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define QMP "--qmp=/run/a.qmp", "--dest-qmp=/run/b.qmp"
#define ARGV(...) ((const char *const[]){ "vmferry", __VA_ARGS__, NULL })
#define PARSE(...) parse_good (ARGV (__VA_ARGS__))
#define CHECK_USAGE(expected, ...) check_usage (expected, ARGV (__VA_ARGS__))

static CliOptions *
parse_good (const char *const *argv)
{
  g_autoptr (GError) error = NULL;
  CliOptions *options = cli_options_parse (argv, &error);
  assert_null (error);
  assert_non_null (options);
  return options;
}

static void
check_usage (const char *expected, const char *const *argv)
{
  g_autoptr (GError) error = NULL;
  assert_null (cli_options_parse (argv, &error));
  assert_true (g_error_matches (error, CLI_ERROR, CLI_ERROR_USAGE));
  assert_string_equal (error->message, expected);
}

#define IN_MIGRATE " (see 'vmferry migrate --help')"

static void
test_migrate_takes_everything (void **state)
{
  g_autoptr (CliOptions) options = PARSE (
      "migrate", "vm1", "--disk", "d0=/srv/a,,b.raw", "--disk=d1=/x,format=qcow2,prealloc=falloc",
      "hostB", QMP, "--overwrite", "--max-downtime", "150", "--rate", "100M", "--full-speed",
      "--timeout=5", "--detach", "--json", "--socket", "/tmp/s");
  assert_int_equal (options->command, CLI_COMMAND_MIGRATE);
  assert_string_equal (options->guest, "vm1");
  assert_string_equal (options->host, "hostB");
  assert_string_equal (options->qmp, "/run/a.qmp");
  assert_string_equal (options->dest_qmp, "/run/b.qmp");
  assert_string_equal (options->socket, "/tmp/s");
  assert_int_equal (options->max_downtime_ms, 150);
  assert_int_equal (options->rate, 100 * 1024 * 1024);
  assert_int_equal (options->timeout_s, 5);
  assert_true (options->overwrite && options->full_speed && options->detach && options->json);
  assert_int_equal (options->disks->len, 2);
  const CliDisk *first = g_ptr_array_index (options->disks, 0);
  const CliDisk *second = g_ptr_array_index (options->disks, 1);
  assert_string_equal (first->name, "d0");
  assert_string_equal (first->path, "/srv/a,b.raw");
  assert_null (first->format);
  assert_null (first->prealloc);
  assert_string_equal (second->format, "qcow2");
  assert_string_equal (second->prealloc, "falloc");
}

static void
test_defaults (void **state)
{
  g_autoptr (CliOptions) options
      = PARSE ("migrate", "--qmp=a.qmp", "--dest-qmp=/b", "--", "-x", "hostB");
  assert_string_equal (options->guest, "-x");
  assert_string_equal (options->socket, "/run/vmferry/control");
  assert_true (g_path_is_absolute (options->qmp));
  assert_true (g_str_has_suffix (options->qmp, "/a.qmp"));
  assert_int_equal (options->max_downtime_ms, 0);
  assert_int_equal (options->rate, 0);
  assert_int_equal (options->timeout_s, 0);
  assert_int_equal (options->disks->len, 0);
}

static void
test_migrate_refuses (void **state)
{
  CHECK_USAGE ("an argument is missing: GUEST HOST" IN_MIGRATE, "migrate", "vm1", QMP);
  CHECK_USAGE ("one argument too many: 'c'" IN_MIGRATE, "migrate", "a", "b", "c", QMP);
  CHECK_USAGE ("--qmp and --dest-qmp are both needed for a QEMU without libvirt" IN_MIGRATE,
               "migrate", "a", "b", "--qmp=/x");
  CHECK_USAGE ("--dest-qmp must be an absolute path, at the destination" IN_MIGRATE, "migrate", "a",
               "b", "--qmp=/x", "--dest-qmp=y");
  CHECK_USAGE ("GUEST is empty" IN_MIGRATE, "migrate", "", "b", QMP);
  CHECK_USAGE ("HOST has a control character: b\\n" IN_MIGRATE, "migrate", "a", "b\n", QMP);
  CHECK_USAGE ("GUEST is not UTF-8: \\xff" IN_MIGRATE, "migrate", "\xff", "b", QMP);
  CHECK_USAGE ("Unknown option --alive" IN_MIGRATE, "migrate", "a", "b", QMP, "--alive");
}

static void
test_bounds (void **state)
{
  CHECK_USAGE ("--max-downtime 0: must be a number of milliseconds from 1 to 2000000" IN_MIGRATE,
               "migrate", "a", "b", QMP, "--max-downtime=0");
  CHECK_USAGE ("--timeout x: must be a number of seconds from 1 to 86400" IN_MIGRATE, "migrate",
               "a", "b", QMP, "--timeout=x");
  CHECK_USAGE ("--rate 1K: must be from 64.0 KiB to 1.00 TiB" IN_MIGRATE, "migrate", "a", "b", QMP,
               "--rate=1K");
  CHECK_USAGE ("--rate 99999999999G: must be from 64.0 KiB to 1.00 TiB" IN_MIGRATE, "migrate", "a",
               "b", QMP, "--rate=99999999999G");
  CHECK_USAGE ("--rate 5X: not a number of bytes (a suffix K, M or G is allowed)" IN_MIGRATE,
               "migrate", "a", "b", QMP, "--rate=5X");
  CHECK_USAGE ("--rate -1: not a number of bytes (a suffix K, M or G is allowed)" IN_MIGRATE,
               "migrate", "a", "b", QMP, "--rate=-1");
}

static void
test_disks_refused (void **state)
{
  CHECK_USAGE ("--disk d0: must be NAME=/PATH, with an absolute path" IN_MIGRATE, "migrate", "a",
               "b", QMP, "--disk=d0");
  CHECK_USAGE ("--disk d0=x: must be NAME=/PATH, with an absolute path" IN_MIGRATE, "migrate", "a",
               "b", QMP, "--disk=d0=x");
  CHECK_USAGE ("--disk d0=/x,y: 'y' is neither format= nor prealloc= "
               "(a comma in a path is written twice)" IN_MIGRATE,
               "migrate", "a", "b", QMP, "--disk=d0=/x,y");
  CHECK_USAGE ("--disk d0=/x,prealloc=full: prealloc is 'off' or 'falloc', not 'full'" IN_MIGRATE,
               "migrate", "a", "b", QMP, "--disk=d0=/x,prealloc=full");
  CHECK_USAGE ("--disk d0=/x,format=: '' is no image format" IN_MIGRATE, "migrate", "a", "b", QMP,
               "--disk=d0=/x,format=");
  CHECK_USAGE ("--disk names d0 twice" IN_MIGRATE, "migrate", "a", "b", QMP, "--disk=d0=/x",
               "--disk=d0=/y");
  CHECK_USAGE ("--disk names /x twice" IN_MIGRATE, "migrate", "a", "b", QMP, "--disk=d0=/x",
               "--disk=d1=/x");
}

static void
test_not_yet (void **state)
{
  static const char *const options[] = { "--hold", "--at", "--throttle", "--verify" };
  static const char *const commands[] = { "cutover", "pause", "resume", "forget", "check", "hook" };
  for (guint i = 0; i < G_N_ELEMENTS (options); i++)
    {
      g_autofree char *text
          = g_strdup_printf ("%s: not in this version yet" IN_MIGRATE, options[i]);
      CHECK_USAGE (text, "migrate", "a", "b", options[i]);
    }
  CHECK_USAGE ("--at: not in this version yet" IN_MIGRATE, "migrate", "a", "b", "--at=12:00");
  for (guint i = 0; i < G_N_ELEMENTS (commands); i++)
    {
      g_autofree char *text
          = g_strdup_printf ("%s: not in this version yet (see 'vmferry --help')", commands[i]);
      CHECK_USAGE (text, commands[i], "x");
    }
}

static void
test_libvirt (void **state)
{
  g_autoptr (CliOptions) plain = PARSE ("migrate", "vm1", "hostB");
  g_autoptr (CliOptions) all
      = PARSE ("migrate", "--live", "--p2p", "--tls", "--copy-storage-all", "--persistent",
               "--undefinesource", "--suspend", "--auto-converge", "--bandwidth", "100",
               "--dname=vm2", "--tls-destination", "b.test", "--connect=qemu:///system", "vm1",
               "hostB", "--desturi=qemu+tls://b/system", "--disk", "vda=/x");

  assert_null (plain->qmp);
  assert_string_equal (plain->connect, "qemu:///system");
  assert_null (plain->desturi);
  assert_false (plain->persistent || plain->undefine_source || plain->suspend);
  assert_true (all->persistent && all->undefine_source && all->suspend && all->auto_converge);
  assert_int_equal (all->bandwidth, 100);
  assert_string_equal (all->dname, "vm2");
  assert_string_equal (all->tls_destination, "b.test");
  assert_string_equal (all->desturi, "qemu+tls://b/system");
  CHECK_USAGE ("--qmp and --dest-qmp are for a QEMU without libvirt: they don't go together with "
               "options of libvirt" IN_MIGRATE,
               "migrate", "a", "b", QMP, "--persistent");
  CHECK_USAGE ("--bandwidth 0: must be a number of MiB/s from 1 to 1048576" IN_MIGRATE, "migrate",
               "a", "b", "--bandwidth=0");
}

/* Scripts that say virsh's options are told why they can't have one: none is ignored. */
static void
test_virsh_options_refused (void **state)
{
  static const char *const options[]
      = { "--postcopy",       "--parallel",  "--tunnelled", "--copy-storage-inc", "--migrateuri",
          "--listen-address", "--disks-uri", "--xml",       "--persistent-xml",   "--migrate-disks",
          "--unsafe",         "--offline",   "--compressed" };

  for (guint i = 0; i < G_N_ELEMENTS (options); i++)
    {
      g_autoptr (GError) error = NULL;

      assert_null (cli_options_parse (ARGV ("migrate", "a", "b", options[i]), &error));
      assert_true (g_error_matches (error, CLI_ERROR, CLI_ERROR_USAGE));
      assert_true (g_str_has_prefix (error->message, options[i]));
      assert_null (strstr (error->message, "Unknown"));
    }
  CHECK_USAGE ("--migrateuri: the agents agree on the port (ports= in vmferryd.conf)" IN_MIGRATE,
               "migrate", "a", "b", "--migrateuri=tcp:x");
}

static void
test_jobs (void **state)
{
  g_autoptr (CliOptions) all = PARSE ("watch");
  assert_int_equal (all->command, CLI_COMMAND_WATCH);
  assert_null (all->job);
  g_autoptr (CliOptions) one = PARSE ("cancel", "8c0f");
  assert_string_equal (one->job, "8c0f");
  g_autoptr (CliOptions) resolve = PARSE ("resolve", "8c0f", "--owner", "source");
  assert_string_equal (resolve->owner, "source");
  CHECK_USAGE ("an argument is missing: JOB (see 'vmferry cancel --help')", "cancel");
  CHECK_USAGE ("JOB is empty (see 'vmferry status --help')", "status", "");
  CHECK_USAGE ("--owner is needed: source or destination (see 'vmferry resolve --help')", "resolve",
               "8c0f");
  CHECK_USAGE ("--owner is either source or destination (see 'vmferry resolve --help')", "resolve",
               "8c0f", "--owner=me");
}

static void
test_program (void **state)
{
  CHECK_USAGE ("a command is missing (see 'vmferry --help')", NULL);
  CHECK_USAGE ("there is no command 'mograte' (see 'vmferry --help')", "mograte");
  CHECK_USAGE ("there is no command '\\u001b[2J' (see 'vmferry --help')", "\033[2J");
}

static void
test_help (void **state)
{
  static const char *const commands[]
      = { "migrate", "jobs", "status", "watch", "cancel", "resolve" };
  g_autoptr (CliOptions) program = PARSE ("--help");
  for (guint i = 0; i < G_N_ELEMENTS (commands); i++)
    {
      assert_non_null (strstr (program->info, commands[i]));
      g_autoptr (CliOptions) help = PARSE (commands[i], "--help");
      assert_int_equal (help->command, CLI_COMMAND_NONE);
      assert_non_null (strstr (help->info, commands[i]));
      assert_non_null (strstr (help->info, "--socket"));
      assert_null (strstr (help->info, "--hold"));
      g_autoptr (CliOptions) version = PARSE (commands[i], "--version");
      assert_string_equal (version->info, "vmferry " VMFERRY_VERSION "\n");
    }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_migrate_takes_everything),
    cmocka_unit_test (test_defaults),
    cmocka_unit_test (test_migrate_refuses),
    cmocka_unit_test (test_bounds),
    cmocka_unit_test (test_disks_refused),
    cmocka_unit_test (test_not_yet),
    cmocka_unit_test (test_libvirt),
    cmocka_unit_test (test_virsh_options_refused),
    cmocka_unit_test (test_jobs),
    cmocka_unit_test (test_program),
    cmocka_unit_test (test_help),
  };
  return cmocka_run_group_tests (tests, NULL, NULL);
}
