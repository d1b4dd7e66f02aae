/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "daemon/config.h"

static char *path;

static int
setup (void **state)
{
  int fd = g_file_open_tmp ("vmferryd-XXXXXX.conf", &path, NULL);

  g_unsetenv ("STATE_DIRECTORY");
  g_unsetenv ("RUNTIME_DIRECTORY");
  return fd < 0 || close (fd);
}

static int
teardown (void **state)
{
  g_unlink (path);
  g_clear_pointer (&path, g_free);
  return 0;
}

static Config *
load (const char *text, GError **error)
{
  assert_true (g_file_set_contents (path, text, -1, NULL));
  return config_load (path, error);
}

static void
assert_refused (const char *text, const char *message)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *expected = g_strdup_printf ("%s%s", path, message);

  assert_null (load (text, &error));
  assert_string_equal (error->message, expected);
}

static void
test_defaults (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Config) config = load ("", &error);

  assert_null (error);
  assert_string_equal (config->listen_address, "::");
  assert_int_equal (config->listen_port, 10810);
  assert_int_equal (config->port_min, 49216);
  assert_int_equal (config->port_max, 49279);
  assert_string_equal (config->tls_dir, "/etc/pki/qemu");
  assert_string_equal (config->group, "vmferry");
  assert_string_equal (config->state_dir, "/var/lib/vmferry");
  assert_string_equal (config->runtime_dir, "/run/vmferry");
  assert_int_equal (config->peers->len, 0);
  assert_null (config_find_peer (config, "hostB"));
  assert_null (config_find_peer_by_dn (config, "CN=x"));
}

static void
test_all_keys (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Config) config
      = load ("# comment\n[agent]\nlisten=[2001:db8::1]:99\nports = 5000-5001\ntls-dir=/a/b/\n"
              "group=operators\n"
              "[peer hostB]\ndn = O=mig,CN=hostB ; O=A\\, B\\;C,CN=q\naddress=192.0.2.7:11\n"
              "target-dirs=/srv/vm/;/dev/vg/lv\nqmp-dirs=/run/qemu\n"
              "[peer 2001:db8::2]\ndn=CN=c\n",
              &error);
  const ConfigPeer *peer;

  assert_null (error);
  assert_string_equal (config->listen_address, "2001:db8::1");
  assert_int_equal (config->listen_port, 99);
  assert_int_equal (config->port_min, 5000);
  assert_int_equal (config->port_max, 5001);
  assert_string_equal (config->tls_dir, "/a/b");
  assert_string_equal (config->group, "operators");
  peer = config_find_peer (config, "HOSTB");
  assert_non_null (peer);
  assert_ptr_equal (config_find_peer_by_dn (config, "O=A\\, B\\;C,CN=q"), peer);
  assert_true (config_peer_allows_dn (peer, "O=mig,CN=hostB"));
  assert_false (config_peer_allows_dn (peer, "O=mig,CN=hostb"));
  assert_string_equal (peer->address, "192.0.2.7:11");
  assert_string_equal (peer->target_dirs[0], "/srv/vm");
  assert_string_equal (peer->target_dirs[1], "/dev/vg/lv");
  assert_null (peer->target_dirs[2]);
  assert_string_equal (peer->qmp_dirs[0], "/run/qemu");
  peer = config_find_peer (config, "2001:db8::2");
  assert_null (peer->address);
  assert_null (peer->target_dirs[0]);
}

static void
test_refused (void **state)
{
  assert_refused ("[agent]\nhooks-dir=/x\n",
                  ": [agent] has an unknown key \"hooks-dir\": known are listen, ports, tls-dir, "
                  "group");
  assert_refused ("[hook]\nunmanaged=allow\n",
                  ": unknown group [hook]: known are [agent] and [peer NAME]");
  assert_refused ("[agent]\nlisten=host:1\n",
                  ": [agent] listen=host:1: expected an address, as [::]:10810 or "
                  "192.0.2.1:10810");
  assert_refused ("[agent]\nports=9-8\n",
                  ": [agent] ports=9-8: expected FIRST-LAST, as 49216-49279");
  assert_refused ("[agent]\nports=1-65536\n",
                  ": [agent] ports=1-65536: expected FIRST-LAST, as 49216-49279");
  assert_refused ("[agent]\ntls-dir=pki\n", ": [agent] tls-dir=pki: expected an absolute path");
  assert_refused ("[agent]\ngroup=\n", ": [agent] group=: expected the name of a group");
  assert_refused ("[peer b]\ntarget-dirs=/x\n",
                  ": [peer b] has no dn: give the distinguished name of its certificate, as "
                  "dn=O=example,CN=b");
  assert_refused ("[peer b]\ndn=CN=b\ntarget-dirs=/x;y\n",
                  ": [peer b] target-dirs=y: expected an absolute path");
  assert_refused ("[peer b]\ndn=CN=b\naddress=b:0\n",
                  ": [peer b] address=b:0: expected NAME, NAME:PORT, IPV4:PORT or [IPV6]:PORT");
  assert_refused ("[peer b:1]\ndn=CN=b\n",
                  ": [peer b:1]: expected the name of a host, as [peer hostB]");
  assert_refused ("[peer b]\ndn=CN=x\n[peer c]\ndn=CN=y;CN=x\n",
                  ": dn CN=x is in [peer b] and in [peer c]: it can belong to one only");
}

static void
test_file (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GError) open_error = NULL;
  g_autofree char *expected = g_strdup_printf ("%s may be written by others: chmod o-w", path);

  assert_null (config_load ("/nonexistent/vmferryd.conf", &error));
  assert_int_equal (error->code, G_IO_ERROR_NOT_FOUND);
  assert_string_equal (error->message, "/nonexistent/vmferryd.conf: No such file or directory");
  assert_int_equal (chmod (path, 0666), 0);
  assert_null (config_load (path, &open_error));
  assert_string_equal (open_error->message, expected);
}

static void
test_malformed (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GError) bytes_error = NULL;

  assert_null (load ("listen=1\n", &error));
  assert_int_equal (error->code, G_IO_ERROR_INVALID_DATA);
  assert_true (g_str_has_prefix (error->message, path));
  assert_null (load ("[agent]\ngroup=\xff\n", &bytes_error));
  assert_non_null (strstr (bytes_error->message, "is not UTF-8"));
}

static void
test_directories (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (Config) config = NULL;

  g_setenv ("STATE_DIRECTORY", "/x/state:/x/other", TRUE);
  g_setenv ("RUNTIME_DIRECTORY", "/x/run", TRUE);
  config = load ("", NULL);
  assert_string_equal (config->state_dir, "/x/state");
  assert_string_equal (config->runtime_dir, "/x/run");
  g_setenv ("STATE_DIRECTORY", "state", TRUE);
  assert_null (load ("", &error));
  assert_string_equal (error->message, "$STATE_DIRECTORY=state: expected an absolute path");
}

static void
test_split_host (void **state)
{
  static const struct
  {
    const char *text, *host;
    guint16 port;
  } good[] = { { "hostB", "hostB", 0 },
               { "host-b.example:1", "host-b.example", 1 },
               { "1.2.3.4:5", "1.2.3.4", 5 },
               { "[::1]:65535", "::1", 65535 },
               { "[::1]", "::1", 0 },
               { "::1", "::1", 0 },
               { "fe80::1%eth0", "fe80::1%eth0", 0 } };
  static const char *const bad[]
      = { "",        ":1",       "host:",  "host:0", "host:65536", "host:1x", "[::1",
          "[::1]x",  "[host]:1", "::1::2", "a b",    "a/b",        "-x",      "[]:1",
          "host: 1", "[::1]:",   "a:1:2",  "ho\nst", ".x",         "host:+1" };

  for (guint i = 0; i < G_N_ELEMENTS (good); i++)
    {
      g_autofree char *host = NULL;
      guint16 port = 1;

      assert_true (config_split_host (good[i].text, &host, &port, NULL));
      assert_string_equal (host, good[i].host);
      assert_int_equal (port, good[i].port);
    }
  for (guint i = 0; i < G_N_ELEMENTS (bad); i++)
    {
      g_autoptr (GError) error = NULL;
      char *host = NULL;
      guint16 port = 7;

      if (config_split_host (bad[i], &host, &port, &error))
        fail_msg ("\"%s\" was taken for a host", bad[i]);
      assert_null (host);
      assert_int_equal (port, 7);
      assert_non_null (strstr (error->message, "is not a host: expected"));
    }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown (test_defaults, setup, teardown),
    cmocka_unit_test_setup_teardown (test_all_keys, setup, teardown),
    cmocka_unit_test_setup_teardown (test_refused, setup, teardown),
    cmocka_unit_test_setup_teardown (test_file, setup, teardown),
    cmocka_unit_test_setup_teardown (test_malformed, setup, teardown),
    cmocka_unit_test_setup_teardown (test_directories, setup, teardown),
    cmocka_unit_test (test_split_host),
  };

  return cmocka_run_group_tests_name ("config", tests, NULL, NULL);
}
