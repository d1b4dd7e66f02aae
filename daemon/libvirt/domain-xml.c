/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/libvirt/domain-xml.h"

#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <string.h>

/* Nothing is fetched, no entity is expanded; what is wrong is told by the error alone. */
#define PARSE_OPTIONS (XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING)

G_DEFINE_AUTOPTR_CLEANUP_FUNC (xmlDoc, xmlFreeDoc)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (xmlXPathContext, xmlXPathFreeContext)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (xmlXPathObject, xmlXPathFreeObject)

/* Anywhere in the domain: what a migration of this version would lose or break. */
static const struct
{
  const char *path, *why;
} refusals[] = {
  { "/domain/os/nvram", "UEFI variables (nvram) can't be moved yet" },
  { "/domain/devices/tpm[backend/@type='emulator']", "the state of a TPM can't be moved yet" },
  { "/domain/devices/tpm[backend/@type='passthrough']", "a TPM of the host can't be moved" },
  { "/domain/launchSecurity", "a guest with launchSecurity can't be moved" },
  { "/domain/devices/hostdev", "devices of the host can't be moved" },
  { "/domain/devices/memory[@model='nvdimm' or @model='virtio-pmem']",
    "persistent memory can't be moved yet" },
  { "/domain/devices/shmem", "shared memory (shmem) can't be moved" },
  { "/domain/devices/filesystem", "shared directories (filesystem) can't be moved" },
  { "/domain/*[local-name()='commandline']", "QEMU arguments of its own (qemu:commandline) may "
                                             "name files that can't be moved" },
};

/* Of a disk that would be moved. */
static const struct
{
  const char *path, *why;
} disk_refusals[] = {
  { "self::disk[@type!='file' and @type!='block']", "is neither a file nor a block device" },
  { "self::disk[@device='lun']", "is a passed-through LUN" },
  { "shareable", "is shared" },
  { "transient", "is transient" },
  { "encryption|source/encryption", "is encrypted: its copy would be in clear" },
  { "source/dataStore", "has an external data file" },
  { "source/slices", "is a slice of an image" },
  { "source/reservations", "has persistent reservations" },
  { "mirror", "is being copied by another job" },
};

static xmlDoc *
parse (const char *xml, GError **error)
{
  xmlDoc *doc = strlen (xml) < G_MAXINT
                    ? xmlReadMemory (xml, strlen (xml), "domain.xml", NULL, PARSE_OPTIONS)
                    : NULL;

  if (doc)
    return doc;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "the domain's XML is malformed");
  return NULL;
}

/* The first node that matches beneath `node`; NULL: none. */
static xmlNode *
find (xmlDoc *doc, xmlNode *node, const char *path)
{
  g_autoptr (xmlXPathContext) context = xmlXPathNewContext (doc);
  g_autoptr (xmlXPathObject) found = NULL;

  context->node = node;
  found = xmlXPathEval ((const xmlChar *)path, context);
  return found && found->nodesetval && found->nodesetval->nodeNr > 0 ? found->nodesetval->nodeTab[0]
                                                                     : NULL;
}

/* What string (PATH) gives: "" where nothing matches.  Free with g_free. */
static char *
get (xmlDoc *doc, xmlNode *node, const char *path)
{
  g_autofree char *expression = g_strdup_printf ("string(%s)", path);
  g_autoptr (xmlXPathContext) context = xmlXPathNewContext (doc);
  g_autoptr (xmlXPathObject) found = NULL;

  context->node = node;
  found = xmlXPathEval ((const xmlChar *)expression, context);
  return g_strdup (found && found->stringval ? (const char *)found->stringval : "");
}

static GPtrArray *
find_disks (xmlDoc *doc)
{
  g_autoptr (xmlXPathContext) context = xmlXPathNewContext (doc);
  g_autoptr (xmlXPathObject) found
      = xmlXPathEval ((const xmlChar *)"/domain/devices/disk", context);
  GPtrArray *disks = g_ptr_array_new ();

  for (int i = 0; found && found->nodesetval && i < found->nodesetval->nodeNr; i++)
    g_ptr_array_add (disks, found->nodesetval->nodeTab[i]);
  return disks;
}

static void
disk_free (DomainXmlDisk *disk)
{
  g_free (disk->target);
  g_free (disk->alias);
  g_free (disk->path);
  g_free (disk->format);
  g_free (disk);
}

static void add_finding (GString *findings, const char *format, ...) G_GNUC_PRINTF (2, 3);

static void
add_finding (GString *findings, const char *format, ...)
{
  va_list args;

  if (findings->len > 0)
    g_string_append (findings, "; ");
  va_start (args, format);
  g_string_append_vprintf (findings, format, args);
  va_end (args);
}

/* The medium of a disk that stays, in words; NULL: a drive without one. */
static char *
describe_medium (xmlDoc *doc, xmlNode *node, const char *target)
{
  g_autofree char *type = get (doc, node, "@type");
  g_autofree char *medium = get (doc, node, "source/@file|source/@dev|source/@name");

  if (!find (doc, node, "source/@*"))
    return NULL;
  return g_strdup_printf ("%s (%s)", target, *medium != '\0' ? medium : type);
}

static void
take_disk (DomainXml *domain, xmlDoc *doc, xmlNode *node, GString *findings)
{
  DomainXmlDisk *disk = g_new0 (DomainXmlDisk, 1);
  gboolean refused = FALSE;
  char *medium;

  disk->target = get (doc, node, "target/@dev");
  disk->alias = get (doc, node, "alias/@name");
  disk->path = get (doc, node, "source/@file|source/@dev");
  disk->format = get (doc, node, "driver/@type");
  medium = describe_medium (doc, node, disk->target);
  if (!medium || find (doc, node, "readonly"))
    {
      if (medium)
        g_ptr_array_add (domain->stay, medium);
      disk_free (disk);
      return;
    }
  g_free (medium);
  g_ptr_array_add (domain->disks, disk);
  for (gsize i = 0; i < G_N_ELEMENTS (disk_refusals); i++)
    if (find (doc, node, disk_refusals[i].path))
      {
        add_finding (findings, "disk %s %s", disk->target, disk_refusals[i].why);
        refused = TRUE;
      }
  if (!refused && (*disk->alias == '\0' || *disk->path == '\0'))
    add_finding (findings, "disk %s has no alias or no source", disk->target);
}

DomainXml *
domain_xml_parse (const char *xml, GError **error)
{
  g_autoptr (DomainXml) domain = g_new0 (DomainXml, 1);
  g_autoptr (GString) findings = g_string_new (NULL);
  g_autoptr (GPtrArray) nodes = NULL;
  g_autoptr (xmlDoc) doc = parse (xml, error);

  if (!doc)
    return NULL;
  domain->name = get (doc, NULL, "/domain/name");
  domain->uuid = get (doc, NULL, "/domain/uuid");
  domain->disks = g_ptr_array_new_with_free_func ((GDestroyNotify)disk_free);
  domain->stay = g_ptr_array_new_with_free_func (g_free);
  nodes = find_disks (doc);
  for (guint i = 0; i < nodes->len; i++)
    take_disk (domain, doc, nodes->pdata[i], findings);
  for (gsize i = 0; i < G_N_ELEMENTS (refusals); i++)
    if (find (doc, NULL, refusals[i].path))
      add_finding (findings, "%s", refusals[i].why);
  if (findings->len == 0)
    return g_steal_pointer (&domain);
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED, "domain %s: %s", domain->name,
               findings->str);
  return NULL;
}

void
domain_xml_free (DomainXml *domain)
{
  if (!domain)
    return;
  g_free (domain->name);
  g_free (domain->uuid);
  g_clear_pointer (&domain->disks, g_ptr_array_unref);
  g_clear_pointer (&domain->stay, g_ptr_array_unref);
  g_free (domain);
}

const DomainXmlDisk *
domain_xml_find_alias (const DomainXml *domain, const char *alias)
{
  for (guint i = 0; i < domain->disks->len; i++)
    {
      const DomainXmlDisk *disk = domain->disks->pdata[i];
      if (g_str_equal (disk->alias, alias))
        return disk;
    }
  return NULL;
}

static void
remove_all (xmlDoc *doc, xmlNode *node, const char *path)
{
  xmlNode *found;

  while ((found = find (doc, node, path)))
    {
      xmlUnlinkNode (found);
      xmlFreeNode (found);
    }
}

static xmlNode *
ensure_child (xmlDoc *doc, xmlNode *node, const char *name)
{
  xmlNode *child = find (doc, node, name);

  return child ? child : xmlNewChild (node, NULL, (const xmlChar *)name, NULL);
}

static void
set (xmlNode *node, const char *name, const char *value)
{
  xmlSetProp (node, (const xmlChar *)name, (const xmlChar *)value);
}

static void
move_disk (xmlDoc *doc, xmlNode *node, const DomainXmlMove *move)
{
  gboolean device = g_str_has_prefix (move->path, "/dev/");
  xmlNode *source = ensure_child (doc, node, "source");

  set (node, "type", device ? "block" : "file");
  xmlUnsetProp (source, (const xmlChar *)(device ? "file" : "dev"));
  /* The index and the labels are of the source's chain. */
  xmlUnsetProp (source, (const xmlChar *)"index");
  remove_all (doc, source, "seclabel|privateData");
  remove_all (doc, node, "backingStore");
  set (source, device ? "dev" : "file", move->path);
  set (ensure_child (doc, node, "driver"), "type", move->format);
}

char *
domain_xml_for_destination (const char *xml, const DomainXmlMove *moves, gsize n_moves,
                            const char *name, GError **error)
{
  g_autoptr (xmlDoc) doc = parse (xml, error);
  g_autoptr (GPtrArray) nodes = NULL;
  xmlChar *text = NULL;
  char *copy;
  int len;

  if (!doc)
    return NULL;
  nodes = find_disks (doc);
  for (guint i = 0; i < nodes->len; i++)
    {
      g_autofree char *target = get (doc, nodes->pdata[i], "target/@dev");
      for (gsize k = 0; k < n_moves; k++)
        if (g_str_equal (moves[k].target, target))
          move_disk (doc, nodes->pdata[i], &moves[k]);
    }
  if (name && find (doc, NULL, "/domain/name"))
    {
      xmlNode *old = find (doc, NULL, "/domain/name");
      xmlNodeSetContent (old, NULL);
      xmlNodeAddContent (old, (const xmlChar *)name);
    }
  xmlDocDumpMemory (doc, &text, &len);
  copy = g_strndup ((const char *)text, len);
  xmlFree (text);
  return copy;
}
