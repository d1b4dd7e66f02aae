/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "daemon/libvirt/domain-xml.h"

#define DOMAIN(more)                                                                               \
  "<domain type='qemu' id='1'><name>vm1</name><uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>"   \
  "<devices>" DISKS more "</devices></domain>"
#define DISKS                                                                                      \
  "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/>"                \
  "<source file='/img/a&amp;b.qcow2' index='2'><seclabel model='dac' relabel='no'/></source>"      \
  "<backingStore type='file' index='3'><format type='raw'/><source file='/img/base.raw'/>"         \
  "<backingStore/></backingStore>"                                                                 \
  "<target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>"                            \
  "<disk type='block' device='disk'><driver name='qemu' type='raw'/>"                              \
  "<source dev='/dev/vg/lv'/><target dev='sda' bus='scsi'/><alias name='scsi0-0-0-0'/></disk>"     \
  "<disk type='file' device='cdrom'><source file='/iso/x.iso'/><target dev='sdb' bus='sata'/>"     \
  "<readonly/><alias name='sata0-0-1'/></disk>"                                                    \
  "<disk type='network' device='disk'><source protocol='nbd' name='e'><host name='h'/></source>"   \
  "<target dev='vdx'/><readonly/><alias name='virtio-disk9'/></disk>"                              \
  "<disk type='file' device='cdrom'><target dev='sdc'/><readonly/><alias name='x'/></disk>"

static void
test_disks (void **state)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (DomainXml) domain = domain_xml_parse (DOMAIN (""), &error);
  const DomainXmlDisk *disk;

  assert_null (error);
  assert_string_equal (domain->name, "vm1");
  assert_string_equal (domain->uuid, "c7a5fdbd-edaf-9455-926a-d65c16db1809");
  assert_int_equal (domain->disks->len, 2);
  disk = domain_xml_find_alias (domain, "virtio-disk0");
  assert_string_equal (disk->target, "vda");
  assert_string_equal (disk->path, "/img/a&b.qcow2");
  assert_string_equal (disk->format, "qcow2");
  disk = domain_xml_find_alias (domain, "scsi0-0-0-0");
  assert_string_equal (disk->target, "sda");
  assert_string_equal (disk->path, "/dev/vg/lv");
  assert_null (domain_xml_find_alias (domain, "sata0-0-1"));
  assert_int_equal (domain->stay->len, 2);
  assert_string_equal (domain->stay->pdata[0], "sdb (/iso/x.iso)");
  assert_string_equal (domain->stay->pdata[1], "vdx (e)");
}

static void
expect_refusal (const char *xml, const char *words)
{
  g_autoptr (GError) error = NULL;

  assert_null (domain_xml_parse (xml, &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED));
  if (!strstr (error->message, words))
    fail_msg ("\"%s\" has no \"%s\"", error->message, words);
}

#define DISK(type, inside)                                                                         \
  "<disk type='" type "' device='disk'><driver type='raw'/>" inside                                \
  "<target dev='vdz'/><alias name='virtio-disk5'/></disk>"

static void
test_refusals (void **state)
{
  expect_refusal (DOMAIN (DISK ("network", "<source protocol='rbd' name='p/i'/>")),
                  "disk vdz is neither a file nor a block device");
  expect_refusal (DOMAIN (DISK ("volume", "<source pool='p' volume='v'/>")), "disk vdz is neither");
  expect_refusal (DOMAIN (DISK ("file", "<source file='/a'/><shareable/>")), "vdz is shared");
  expect_refusal (DOMAIN (DISK ("file", "<source file='/a'/><transient/>")), "vdz is transient");
  expect_refusal (DOMAIN (DISK ("file", "<source file='/a'><encryption format='luks'/></source>")),
                  "vdz is encrypted");
  expect_refusal (DOMAIN (DISK ("file", "<source file='/a'/><encryption format='luks'/>")),
                  "vdz is encrypted");
  expect_refusal (DOMAIN (DISK ("file", "<source file='/a'/><mirror type='file'/>")),
                  "copied by another job");
  expect_refusal (DOMAIN (DISK ("file", "<source file='/a'><slices/></source>")), "slice");
  expect_refusal (DOMAIN ("<hostdev mode='subsystem'/>"), "devices of the host");
  expect_refusal (DOMAIN ("<tpm><backend type='emulator'/></tpm>"), "TPM");
  expect_refusal (DOMAIN ("<shmem name='s'/>"), "shmem");
  expect_refusal (DOMAIN ("<filesystem type='mount'/>"), "filesystem");
  expect_refusal (DOMAIN ("<memory model='nvdimm'/>"), "persistent memory");
  expect_refusal ("<domain><os><nvram>/x</nvram></os></domain>", "nvram");
  expect_refusal ("<domain><launchSecurity type='sev'/></domain>", "launchSecurity");
  expect_refusal ("<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
                  "<qemu:commandline/></domain>",
                  "commandline");
}

static void
test_all_findings_at_once (void **state)
{
  expect_refusal (DOMAIN ("<shmem name='s'/><hostdev/>" DISK ("file", "<source file='/a'/>"
                                                                      "<shareable/>")),
                  "disk vdz is shared; devices of the host can't be moved; shared memory");
}

static void
test_malformed (void **state)
{
  static const DomainXmlMove none[1] = { { "vda", "/a", "raw" } };
  g_autoptr (GError) error = NULL;
  g_autoptr (GError) again = NULL;

  assert_null (domain_xml_parse ("<domain>", &error));
  assert_true (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA));
  assert_null (domain_xml_for_destination ("", none, 1, NULL, &again));
  assert_true (g_error_matches (again, G_IO_ERROR, G_IO_ERROR_INVALID_DATA));
}

static void
test_destination (void **state)
{
  static const DomainXmlMove moves[]
      = { { "vda", "/new/<a>.raw", "raw" }, { "sda", "/new/b.qcow2", "qcow2" } };
  g_autoptr (GError) error = NULL;
  g_autofree char *xml
      = domain_xml_for_destination (DOMAIN (""), moves, G_N_ELEMENTS (moves), "vm<2>", &error);
  g_autoptr (DomainXml) moved = xml ? domain_xml_parse (xml, &error) : NULL;
  const DomainXmlDisk *disk;

  assert_null (error);
  assert_string_equal (moved->name, "vm<2>");
  disk = domain_xml_find_alias (moved, "virtio-disk0");
  assert_string_equal (disk->path, "/new/<a>.raw");
  assert_string_equal (disk->format, "raw");
  disk = domain_xml_find_alias (moved, "scsi0-0-0-0");
  assert_string_equal (disk->path, "/new/b.qcow2");
  assert_string_equal (disk->format, "qcow2");
  assert_null (strstr (xml, "backingStore"));
  assert_null (strstr (xml, "seclabel"));
  assert_null (strstr (xml, "/dev/vg/lv"));
  assert_non_null (strstr (xml, "cache=\"none\""));
  assert_non_null (strstr (xml, "/iso/x.iso"));
}

static void
test_destination_device (void **state)
{
  static const DomainXmlMove moves[] = { { "vda", "/dev/vg/new", "raw" } };
  g_autoptr (GError) error = NULL;
  g_autofree char *xml = domain_xml_for_destination (DOMAIN (""), moves, 1, NULL, &error);

  assert_null (error);
  assert_non_null (strstr (xml, "<disk type=\"block\" device=\"disk\"><driver name=\"qemu\" "
                                "type=\"raw\" cache=\"none\"/><source dev=\"/dev/vg/new\"/>"));
  assert_non_null (strstr (xml, "<name>vm1</name>"));
  assert_non_null (strstr (xml, "/dev/vg/lv"));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_disks),
    cmocka_unit_test (test_refusals),
    cmocka_unit_test (test_all_findings_at_once),
    cmocka_unit_test (test_malformed),
    cmocka_unit_test (test_destination),
    cmocka_unit_test (test_destination_device),
  };

  return cmocka_run_group_tests_name ("domain-xml", tests, NULL, NULL);
}
