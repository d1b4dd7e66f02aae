/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* What libvirt's domain XML (libvirt.org/formatdomain.html) says of a guest that is to move, and
 * the XML that it gets at the destination.  Pure: text in, text out; nothing is opened. */

/* A disk that is moved: local, writable, with a medium. */
typedef struct
{
  char *target; /* "vda": what people call it */
  char *alias;  /* "virtio-disk0": its device's id in QEMU */
  char *path;   /* of the image or the block device at the source */
  char *format; /* "raw", "qcow2", ... */
} DomainXmlDisk;

typedef struct
{
  char *name, *uuid;
  GPtrArray *disks; /* DomainXmlDisk */
  GPtrArray *stay;  /* char *: "sda (/iso/x.iso)": read-only media, which are not moved */
} DomainXml;

/* `xml` of a running domain.  Everything that a migration would lose or leave in clear, or that
 * can't be handled yet, is refused by name: G_IO_ERROR_NOT_SUPPORTED, all findings in one line. */
DomainXml *domain_xml_parse (const char *xml, GError **error);
void domain_xml_free (DomainXml *domain);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (DomainXml, domain_xml_free)

/* Borrowed; NULL where there is none. */
const DomainXmlDisk *domain_xml_find_alias (const DomainXml *domain, const char *alias);

/* Where a disk is at the destination. */
typedef struct
{
  const char *target, *path, *format;
} DomainXmlMove;

/* `xml` (of the running domain, or its persistent one) with the disks of `moves` at their new
 * places, without a backing chain, because that is flattened.  A path beneath /dev is a block
 * device.  A disk of the persistent XML that isn't in `moves` stays as it is.  `name` (may be NULL)
 * is the domain's new one.  Free with g_free. */
char *domain_xml_for_destination (const char *xml, const DomainXmlMove *moves, gsize n_moves,
                                  const char *name, GError **error);
