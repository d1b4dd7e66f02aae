/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <glib/gstdio.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qmp/json-client.h"
#include "qmp/qmp-commands.h"
#include "qmp/qmp-socket.h"
#include "tests/unit/pki.h"

#define PATIENCE_MS 60000

static PkiDir *dir; /* of all tests: sockets, images, certificates */

static char *
in_dir (const char *name)
{
  return g_build_filename (dir, name, NULL);
}

/* One QEMU, its monitor, and the events that came. */
typedef struct
{
  GSubprocess *process;
  char *path;
  QmpExecutor *qmp;
  GMutex lock;
  GCond changed;
  GPtrArray *events;
  gboolean closed;
} Vm;

static void
on_event (const char *event, JsonObject *data, gpointer user_data)
{
  Vm *vm = user_data;

  g_mutex_lock (&vm->lock);
  g_ptr_array_add (vm->events, g_strdup (event));
  g_cond_broadcast (&vm->changed);
  g_mutex_unlock (&vm->lock);
}

static void
on_closed (const GError *error, gpointer user_data)
{
  Vm *vm = user_data;

  g_mutex_lock (&vm->lock);
  vm->closed = TRUE;
  g_cond_broadcast (&vm->changed);
  g_mutex_unlock (&vm->lock);
}

/* `event` NULL: the end of the connection. */
static void
wait_event (Vm *vm, const char *event)
{
  gint64 until = g_get_monotonic_time () + PATIENCE_MS * 1000;

  g_mutex_lock (&vm->lock);
  while (event != NULL ? !g_ptr_array_find_with_equal_func (vm->events, event, g_str_equal, NULL)
                       : !vm->closed)
    if (!g_cond_wait_until (&vm->changed, &vm->lock, until))
      g_error ("%s never came", event != NULL ? event : "the end");
  g_mutex_unlock (&vm->lock);
}

static void
vm_free (Vm *vm)
{
  if (vm == NULL)
    return;
  qmp_executor_free (vm->qmp);
  if (vm->process != NULL)
    {
      g_subprocess_force_exit (vm->process);
      g_subprocess_wait (vm->process, NULL, NULL);
      g_object_unref (vm->process);
    }
  g_ptr_array_unref (vm->events);
  g_free (vm->path);
  g_free (vm);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Vm, vm_free)

static gboolean
is_starting (const GError *error)
{
  return g_error_matches (error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)
         || g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CONNECTION_REFUSED);
}

static void
vm_connect (Vm *vm)
{
  Deadline deadline = deadline_in (PATIENCE_MS, NULL);

  while (vm->qmp == NULL)
    {
      g_autoptr (GError) error = NULL;

      vm->qmp = qmp_socket_open (vm->path, on_event, on_closed, vm, deadline, &error);
      if (error != NULL && (!is_starting (error) || !deadline_check (deadline, NULL)))
        fail_msg ("%s", error->message);
      g_usleep (2000);
    }
}

/* QEMU without a guest, stopped.  NULL where it isn't installed. */
static Vm *
vm_start (const char *machine, const char *const *args)
{
  static guint count;
  g_autoptr (Vm) vm = g_new0 (Vm, 1);
  g_autofree char *name = g_strdup_printf ("qmp%u", count++);
  g_autofree char *monitor = NULL;
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  g_autoptr (GError) error = NULL;

  vm->events = g_ptr_array_new_with_free_func (g_free);
  vm->path = in_dir (name);
  monitor = g_strdup_printf ("unix:%s,server=on,wait=off", vm->path);
  for (const char *const *arg
       = (const char *const[]){ "qemu-system-x86_64", "-machine", machine, "-nodefaults",
                                "-no-user-config", "-display", "none", "-S", "-name", "tiny",
                                "-qmp", monitor, NULL };
       *arg != NULL; arg++)
    g_ptr_array_add (argv, (gpointer)*arg);
  for (; args != NULL && *args != NULL; args++)
    g_ptr_array_add (argv, (gpointer)*args);
  g_ptr_array_add (argv, NULL);
  vm->process = g_subprocess_newv ((const char *const *)argv->pdata,
                                   G_SUBPROCESS_FLAGS_STDOUT_SILENCE, &error);
  if (g_error_matches (error, G_SPAWN_ERROR, G_SPAWN_ERROR_NOENT))
    return NULL;
  assert_non_null (vm->process);
  vm_connect (vm);
  return g_steal_pointer (&vm);
}

#define VM_OR_SKIP(variable, machine, args)                                                        \
  g_autoptr (Vm) variable = vm_start (machine, args);                                              \
  if (variable == NULL)                                                                            \
    {                                                                                              \
      print_message ("qemu-system-x86_64 is not installed\n");                                     \
      skip ();                                                                                     \
    }

/* Fails the test with the words of a failed step. */
static void
check (gboolean ok, const GError *error)
{
  if (!ok)
    fail_msg ("%s", error != NULL ? error->message : "no error was set");
}

#define CHECK(call)                                                                                \
  do                                                                                               \
    {                                                                                              \
      g_autoptr (GError) error = NULL;                                                             \
      check (call, error);                                                                         \
    }                                                                                              \
  while (0)

static void
run (const char *const *argv)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GSubprocess) process = g_subprocess_newv (argv, G_SUBPROCESS_FLAGS_NONE, &error);

  check (process != NULL && g_subprocess_wait_check (process, NULL, &error), error);
}

static void
test_machine (void **state)
{
  VM_OR_SKIP (vm, "q35,accel=tcg", NULL);
  g_autofree char *status = NULL, *name = NULL, *type = NULL;
  gboolean running = TRUE, has = FALSE;

  assert_in_range (qmp_socket_get_version (vm->qmp), 70000, 1000000);
  assert_int_equal (qmp_socket_get_pid (vm->qmp), atoi (g_subprocess_get_identifier (vm->process)));
  CHECK (qmp_query_status (vm->qmp, NULL, &status, &running, &error));
  assert_string_equal (status, "prelaunch");
  assert_false (running);
  CHECK (qmp_query_name (vm->qmp, NULL, &name, &error));
  assert_string_equal (name, "tiny");
  CHECK ((type = qmp_query_machine_type (vm->qmp, NULL, &error)) != NULL);
  assert_true (g_str_has_prefix (type, "pc-q35-"));
  assert_false (g_str_has_suffix (type, "-machine"));
  CHECK (qmp_qom_list_has (vm->qmp, "/machine", "type", NULL, &has, &error));
  assert_true (has);
  CHECK (qmp_qom_list_has (vm->qmp, "/no/such/thing", "type", NULL, &has, &error));
  assert_false (has);
  CHECK (qmp_cont (vm->qmp, NULL, &error));
  wait_event (vm, "RESUME");
  CHECK (qmp_stop (vm->qmp, NULL, &error));
  wait_event (vm, "STOP");
  CHECK (qmp_announce_self (vm->qmp, NULL, &error));
  CHECK (qmp_quit (vm->qmp, NULL, &error));
  wait_event (vm, NULL);
}

static void
test_in_use (void **state)
{
  VM_OR_SKIP (vm, "none", NULL);
  g_autofree char *expected = g_strdup_printf (
      "%s: no greeting within * ms: the monitor is in use by another client", vm->path);
  g_autoptr (GError) error = NULL;

  assert_null (qmp_socket_open (vm->path, NULL, NULL, NULL, deadline_in (100, NULL), &error));
  assert_true (g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_BUSY));
  assert_true (g_pattern_match_simple (expected, error->message));
}

/* The human monitor speaks as soon as one connects, but no JSON. */
static void
test_human_monitor (void **state)
{
  g_autofree char *path = in_dir ("human");
  g_autofree char *monitor = g_strdup_printf ("unix:%s,server=on,wait=off", path);
  const char *args[] = { "-monitor", monitor, NULL };
  VM_OR_SKIP (vm, "none", args);
  g_autoptr (GError) error = NULL;

  assert_null (qmp_socket_open (path, NULL, NULL, NULL, deadline_in (PATIENCE_MS, NULL), &error));
  assert_true (g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_GREETING));
}

static void
test_killed (void **state)
{
  VM_OR_SKIP (vm, "none", NULL);
  g_autoptr (GError) error = NULL;

  g_subprocess_force_exit (vm->process);
  wait_event (vm, NULL);
  assert_false (qmp_stop (vm->qmp, NULL, &error));
  assert_true (g_error_matches (error, JSON_CLIENT_ERROR, JSON_CLIENT_ERROR_LOST));
}

typedef struct
{
  Vm *vm;
  guint i;
} Passing;

static gpointer
pass_descriptor (gpointer data)
{
  const Passing *passing = data;
  g_autofree char *name = g_strdup_printf ("fd%u", passing->i), *path = in_dir (name);
  g_autoptr (GError) error = NULL;
  int fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

  if (!qmp_getfd (passing->vm->qmp, name, fd, NULL, &error))
    g_error ("%s", error->message);
  close (fd);
  return NULL;
}

/* Whether the process has a file open that is called `path`. */
static gboolean
has_open (pid_t pid, const char *path)
{
  g_autofree char *fds = g_strdup_printf ("/proc/%d/fd", (int)pid);
  g_autoptr (GDir) list = g_dir_open (fds, 0, NULL);
  const char *fd;

  while ((fd = g_dir_read_name (list)) != NULL)
    {
      g_autofree char *link = g_build_filename (fds, fd, NULL);
      g_autofree char *target = g_file_read_link (link, NULL);

      if (g_strcmp0 (target, path) == 0)
        return TRUE;
    }
  return FALSE;
}

/* Sent from many threads at once, none gets lost: QEMU keeps only the newest that it has not been
 * asked for. */
static void
test_descriptors (void **state)
{
  VM_OR_SKIP (vm, "none", NULL);
  pid_t pid = qmp_socket_get_pid (vm->qmp);
  GThread *threads[8];
  Passing passing[8];

  for (guint i = 0; i < 8; i++)
    {
      passing[i] = (Passing){ vm, i };
      threads[i] = g_thread_new ("getfd", pass_descriptor, &passing[i]);
    }
  for (guint i = 0; i < 8; i++)
    g_thread_join (threads[i]);
  for (guint i = 0; i < 8; i++)
    {
      g_autofree char *name = g_strdup_printf ("fd%u", i), *path = in_dir (name);

      assert_true (has_open (pid, path));
      CHECK (qmp_closefd (vm->qmp, name, NULL, &error));
      assert_false (has_open (pid, path));
      CHECK (qmp_closefd (vm->qmp, name, NULL, &error));
    }
}

static void
test_objects (void **state)
{
  VM_OR_SKIP (vm, "none", NULL);
  g_autoptr (GError) refusal = NULL;
  gboolean has = FALSE;

  CHECK (qmp_tls_creds_add (vm->qmp, "tls0", dir, "server", NULL, &error));
  CHECK (qmp_tls_creds_add (vm->qmp, "tls1", dir, "client", NULL, &error));
  CHECK (qmp_authz_add (vm->qmp, "az0", "O=vmferry,CN=hostA", NULL, &error));
  CHECK (qmp_qom_list_has (vm->qmp, "/objects", "az0", NULL, &has, &error));
  assert_true (has);
  assert_false (qmp_authz_add (vm->qmp, "az0", "x", NULL, &refusal));
  assert_string_equal (json_client_error_class (refusal), "GenericError");
  for (guint i = 0; i < 2; i++)
    {
      CHECK (qmp_object_del (vm->qmp, "az0", NULL, &error));
      CHECK (qmp_object_del (vm->qmp, "tls0", NULL, &error));
      CHECK (qmp_object_del (vm->qmp, "tls1", NULL, &error));
    }
  CHECK (qmp_qom_list_has (vm->qmp, "/objects", "az0", NULL, &has, &error));
  assert_false (has);
}

static int
listen_tcp (void)
{
  struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr = { htonl (INADDR_LOOPBACK) } };
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  assert_int_equal (bind (fd, (struct sockaddr *)&addr, sizeof addr), 0);
  assert_int_equal (listen (fd, 5), 0);
  return fd;
}

static gboolean
has_qemu_img (void)
{
  g_autofree char *path = g_find_program_in_path ("qemu-img");

  if (path == NULL)
    print_message ("qemu-img is not installed\n");
  return path != NULL;
}

static char *
make_image (const char *name, const char *format, const char *size)
{
  char *path = in_dir (name);

  run ((const char *const[]){ "qemu-img", "create", "-q", "-f", format, path, size, NULL });
  return path;
}

static void
start_server (Vm *vm)
{
  int listener = listen_tcp ();

  CHECK (qmp_tls_creds_add (vm->qmp, "tls0", dir, "server", NULL, &error));
  CHECK (qmp_authz_add (vm->qmp, "az0", "O=vmferry,CN=hostA", NULL, &error));
  CHECK (qmp_getfd (vm->qmp, "l", listener, NULL, &error));
  CHECK (qmp_nbd_server_start_fd (vm->qmp, "l", "tls0", "az0", 3, NULL, &error));
  close (listener);
}

static void
stop_server (Vm *vm)
{
  for (guint i = 0; i < 2; i++)
    {
      CHECK (qmp_nbd_server_stop (vm->qmp, NULL, &error));
      CHECK (qmp_object_del (vm->qmp, "az0", NULL, &error));
      CHECK (qmp_object_del (vm->qmp, "tls0", NULL, &error));
    }
}

/* What a guest would do. */
static void
write_at (Vm *vm, const char *device, const char *range)
{
  g_autofree char *line = g_strdup_printf ("qemu-io -d %s \"write %s\"", device, range);

  CHECK (qmp_call (vm->qmp, "human-monitor-command", json_args ("command-line", "s", line, NULL),
                   -1, NULL, NULL, &error));
}

static const QmpBitmap *
find_bitmap (GPtrArray *devices, const char *node, const char *name)
{
  QmpBlockDevice *device = qmp_block_find_node (devices, node);

  assert_non_null (device);
  return qmp_block_find_bitmap (device, name);
}

static GPtrArray *
query_block (Vm *vm)
{
  GPtrArray *devices;

  CHECK ((devices = qmp_query_block (vm->qmp, NULL, &error)) != NULL);
  return devices;
}

/* Two disks, as a migration has them. */
static Vm *
start_with_disks (void)
{
  g_autofree char *raw = make_image ("d0.raw", "raw", "1M");
  g_autofree char *qcow2 = make_image ("d1.qcow2", "qcow2", "2M");
  g_autofree char *drive0
      = g_strdup_printf ("raw,node-name=d0,file.driver=file,file.filename=%s", raw);
  g_autofree char *drive1
      = g_strdup_printf ("qcow2,node-name=d1,file.driver=file,file.filename=%s", qcow2);
  const char *args[] = { "-blockdev", drive0, "-device", "virtio-blk-pci,drive=d0,id=vd0",
                         "-blockdev", drive1, "-device", "virtio-blk-pci,drive=d1,id=vd1",
                         NULL };

  return vm_start ("q35,accel=tcg", args);
}

#define VD0 "/machine/peripheral/vd0/virtio-backend"

static void
check_pass (Vm *vm, const QmpBitmapRef *b0, const QmpBitmapRef *b1)
{
  static const char *const names[] = { "b0", NULL };
  g_autoptr (GPtrArray) during = NULL, after = NULL, exports = NULL;
  g_autoptr (GError) refusal = NULL;

  CHECK (qmp_export_add (vm->qmp, "x0", "d0", "x0", names, NULL, &error));
  CHECK (qmp_export_add (vm->qmp, "x1", "d1", "x1", NULL, NULL, &error));
  during = query_block (vm);
  assert_true (find_bitmap (during, "d0", "b0")->busy);
  CHECK ((exports = qmp_query_exports (vm->qmp, NULL, &error)) != NULL);
  assert_int_equal (exports->len, 2);
  assert_false (qmp_bitmap_remove (vm->qmp, "d0", "b0", NULL, &refusal));
  for (guint i = 0; i < 2; i++)
    {
      CHECK (qmp_export_del_hard (vm->qmp, "x0", NULL, &error));
      CHECK (qmp_export_del_hard (vm->qmp, "x1", NULL, &error));
      CHECK (qmp_bitmap_remove (vm->qmp, "d0", "b0", NULL, &error));
      CHECK (qmp_bitmap_remove (vm->qmp, "d1", "b0", NULL, &error));
      CHECK (qmp_bitmap_remove (vm->qmp, "nowhere", "b0", NULL, &error));
    }
  after = query_block (vm);
  assert_null (find_bitmap (after, "d0", "b0"));
  assert_non_null (find_bitmap (after, "d0", "b1"));
}

static void
test_passes (void **state)
{
  const QmpBitmapRef b0[] = { { "d0", "b0", 4096 }, { "d1", "b0", 65536 } };
  const QmpBitmapRef b1[] = { { "d0", "b1", 4096 }, { "d1", "b1", 65536 } };
  const QmpBitmapRef bad[] = { { "d0", "b2", 4096 }, { "nowhere", "b2", 4096 } };
  g_autoptr (Vm) vm = has_qemu_img () ? start_with_disks () : NULL;
  g_autoptr (GPtrArray) devices = NULL, rotated = NULL;
  g_autoptr (GError) refusal = NULL;

  if (vm == NULL)
    skip ();
  start_server (vm);
  CHECK (qmp_bitmaps_add (vm->qmp, b0, 2, NULL, &error));
  /* All or none. */
  assert_false (qmp_bitmaps_add (vm->qmp, bad, 2, NULL, &refusal));
  write_at (vm, VD0, "4096 4096");
  write_at (vm, VD0, "65536 1");
  devices = query_block (vm);
  assert_null (find_bitmap (devices, "d0", "b2"));
  assert_int_equal (find_bitmap (devices, "d0", "b0")->dirty, 8192);
  assert_int_equal (find_bitmap (devices, "d0", "b0")->granularity, 4096);
  assert_int_equal (find_bitmap (devices, "d1", "b0")->dirty, 0);
  assert_int_equal (find_bitmap (devices, "d1", "b0")->granularity, 65536);
  assert_true (find_bitmap (devices, "d0", "b0")->recording);

  CHECK (qmp_bitmaps_rotate (vm->qmp, b1, b0, 2, NULL, &error));
  write_at (vm, VD0, "0 512");
  rotated = query_block (vm);
  assert_false (find_bitmap (rotated, "d0", "b0")->recording);
  assert_int_equal (find_bitmap (rotated, "d0", "b0")->dirty, 8192);
  assert_true (find_bitmap (rotated, "d0", "b1")->recording);
  assert_int_equal (find_bitmap (rotated, "d0", "b1")->dirty, 4096);
  check_pass (vm, b0, b1);
  CHECK (qmp_bitmaps_disable (vm->qmp, b1, 2, NULL, &error));
  stop_server (vm);
}

static void
make_special_images (char **ret_top, char **ret_external, char **ret_luks)
{
  g_autofree char *base = make_image ("base.qcow2", "qcow2", "1M"), *data = in_dir ("data.raw");
  g_autofree char *data_option = g_strdup_printf ("data_file=%s,data_file_raw=on", data);

  *ret_top = in_dir ("top.qcow2");
  *ret_external = in_dir ("external.qcow2");
  *ret_luks = in_dir ("secret.luks");
  run ((const char *const[]){ "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2",
                              *ret_top, NULL });
  run ((const char *const[]){ "qemu-img", "snapshot", "-c", "s1", *ret_top, NULL });
  run ((const char *const[]){ "qemu-img", "bitmap", "--add", *ret_top, "kept", NULL });
  run ((const char *const[]){ "qemu-img", "create", "-q", "-f", "qcow2", "-o", data_option,
                              *ret_external, "1M", NULL });
  run ((const char *const[]){ "qemu-img", "create", "-q", "-f", "luks", "--object",
                              "secret,id=s,data=abc", "-o", "key-secret=s,iter-time=10", *ret_luks,
                              "1M", NULL });
}

static void
check_special (Vm *vm, const char *top)
{
  g_autoptr (GPtrArray) devices = query_block (vm), stats = NULL, jobs = NULL;
  const QmpBlockDevice *device = qmp_block_find_node (devices, "top");

  assert_string_equal (device->qdev, "/machine/peripheral/vd0/virtio-backend");
  assert_string_equal (device->driver, "qcow2");
  assert_string_equal (device->file, top);
  assert_true (g_str_has_suffix (device->backing_file, "/base.qcow2"));
  assert_int_equal (device->virtual_size, 1 << 20);
  assert_int_equal (device->n_snapshots, 1);
  assert_int_equal (device->persistent_bitmaps->len, 1);
  assert_string_equal (g_ptr_array_index (device->persistent_bitmaps, 0), "kept");
  assert_false (device->encrypted || device->has_data_file || device->read_only);
  assert_true (qmp_block_find_node (devices, "external")->has_data_file);
  assert_true (qmp_block_find_node (devices, "external")->read_only);
  assert_true (qmp_block_find_node (devices, "secret")->encrypted);
  assert_true (qmp_block_find_qdev (devices, "cd0")->removable);
  assert_false (qmp_block_find_qdev (devices, "cd0")->inserted);
  CHECK ((stats = qmp_query_blockstats (vm->qmp, NULL, &error)) != NULL);
  assert_int_equal (stats->len, devices->len);
  CHECK ((jobs = qmp_query_block_jobs (vm->qmp, NULL, &error)) != NULL);
  assert_int_equal (jobs->len, 0);
}

static void
test_kinds_of_disks (void **state)
{
  g_autofree char *top = NULL, *external = NULL, *luks = NULL;
  g_autofree char *drive0 = NULL, *drive1 = NULL, *drive2 = NULL;

  if (!has_qemu_img ())
    skip ();
  make_special_images (&top, &external, &luks);
  drive0 = g_strdup_printf ("qcow2,node-name=top,file.driver=file,file.filename=%s", top);
  drive1 = g_strdup_printf (
      "qcow2,node-name=external,read-only=on,file.driver=file,file.filename=%s", external);
  drive2 = g_strdup_printf ("luks,node-name=secret,key-secret=s,file.driver=file,file.filename=%s",
                            luks);
  const char *args[] = { "-object",   "secret,id=s,data=abc",
                         "-blockdev", drive0,
                         "-device",   "virtio-blk-pci,drive=top,id=vd0",
                         "-blockdev", drive1,
                         "-device",   "virtio-blk-pci,drive=external,id=vd1",
                         "-blockdev", drive2,
                         "-device",   "virtio-blk-pci,drive=secret,id=vd2",
                         "-device",   "ide-cd,id=cd0",
                         NULL };
  VM_OR_SKIP (vm, "q35,accel=tcg", args);

  check_special (vm, top);
}

static void
wait_migration (Vm *vm, const char *status)
{
  Deadline deadline = deadline_in (PATIENCE_MS, NULL);

  for (;;)
    {
      g_autoptr (QmpMigration) migration = NULL;

      CHECK ((migration = qmp_query_migrate (vm->qmp, NULL, &error)) != NULL);
      if (strcmp (migration->status, status) == 0)
        return;
      if (strcmp (migration->status, "failed") == 0 || !deadline_check (deadline, NULL))
        fail_msg ("%s instead of %s: %s", migration->status, status, migration->error_desc);
      g_usleep (2000);
    }
}

static void
test_migration (void **state)
{
  static const char *const pausing[] = { "events", "pause-before-switchover", NULL };
  static const char *const late[] = { "events", "late-block-activate", NULL };
  const char *defer[] = { "-m", "16", "-incoming", "defer", NULL }, *small[] = { "-m", "16", NULL };
  g_autofree char *socket = in_dir ("migration"), *uri = g_strconcat ("unix:", socket, NULL);
  g_autofree char *status = NULL;
  g_autoptr (QmpMigration) migration = NULL;
  g_autoptr (JsonObject) parameters = NULL;
  gint64 limit = 0;
  VM_OR_SKIP (source, "q35,accel=tcg", small);
  VM_OR_SKIP (destination, "q35,accel=tcg", defer);

  CHECK (qmp_migrate_cancel (source->qmp, NULL, &error));
  CHECK (qmp_migrate_set_capabilities (source->qmp, pausing, TRUE, NULL, &error));
  CHECK (qmp_migrate_set_capabilities (destination->qmp, late, TRUE, NULL, &error));
  CHECK (qmp_migrate_set_parameters (
      source->qmp, json_args ("downtime-limit", "i", (gint64)250, NULL), NULL, &error));
  CHECK ((parameters = qmp_query_migrate_parameters (source->qmp, NULL, &error)) != NULL);
  assert_true (json_get_int (parameters, "downtime-limit", &limit));
  assert_int_equal (limit, 250);
  CHECK (qmp_migrate_incoming (destination->qmp, uri, NULL, &error));
  CHECK (qmp_migrate (source->qmp, uri, NULL, &error));
  wait_migration (source, "pre-switchover");
  CHECK (qmp_migrate_continue (source->qmp, NULL, &error));
  wait_migration (source, "completed");
  wait_migration (destination, "completed");
  wait_event (source, "MIGRATION");
  CHECK ((migration = qmp_query_migrate (source->qmp, NULL, &error)) != NULL);
  assert_true (migration->ram_total >= 16 << 20);
  assert_true (migration->downtime_ms >= 0);
  assert_null (migration->blocked_reasons);
  CHECK (qmp_query_status (source->qmp, NULL, &status, NULL, &error));
  assert_string_equal (status, "postmigrate");
  CHECK (qmp_cont (destination->qmp, NULL, &error));
}

static int
make_dir (void **state)
{
  dir = pki_dir_new_for ("hostA");
  return 0;
}

static int
remove_dir (void **state)
{
  pki_dir_free (dir);
  return 0;
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_machine),       cmocka_unit_test (test_in_use),
    cmocka_unit_test (test_human_monitor), cmocka_unit_test (test_killed),
    cmocka_unit_test (test_descriptors),   cmocka_unit_test (test_objects),
    cmocka_unit_test (test_passes),        cmocka_unit_test (test_kinds_of_disks),
    cmocka_unit_test (test_migration),
  };

  return cmocka_run_group_tests_name ("qmp", tests, make_dir, remove_dir);
}
