/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/options-private.h"

#include <string.h>

#define DEFAULT_URI "qemu:///system"
#define MAX_BANDWIDTH (1024 * 1024)

/* Why an option of virsh's can't be had: never ignored, because scripts rely on it. */
static const struct
{
  const char *name, *why;
} refused[] = {
  { "postcopy", "a guest that needs both hosts at once is lost with either" },
  { "postcopy-after-precopy", "a guest that needs both hosts at once is lost with either" },
  { "parallel", "the memory goes over one connection, which the destination holds" },
  { "parallel-connections", "the memory goes over one connection, which the destination holds" },
  { "tunnelled", "the memory goes from QEMU to QEMU, in TLS" },
  { "direct", "the memory goes peer-to-peer" },
  { "copy-storage-inc", "every disk is copied whole" },
  { "copy-storage-synchronous-writes", "the guest's writes never wait for the network" },
  { "migrateuri", "the agents agree on the port (ports= in vmferryd.conf)" },
  { "listen-address", "the agents agree on the address" },
  { "disks-uri", "the disks are read by the destination's agent" },
  { "disks-port", "the disks are read by the destination's agent" },
  { "graphicsuri", "not in this version yet" },
  { "offline", "only a guest that runs or is paused is moved" },
  { "change-protection", "it is always on with peer-to-peer migrations" },
  { "unsafe", "there is no unsafe way" },
  { "abort-on-error", "an error of a disk always ends the migration" },
  { "rdma-pin-all", "RDMA is not encrypted" },
  { "compressed", "not in this version yet" },
  { "comp-methods", "not in this version yet" },
  { "zerocopy", "not in this version yet" },
  { "timeout-suspend", "not in this version yet" },
  { "timeout-postcopy", "a guest that needs both hosts at once is lost with either" },
  { "xml", "not in this version yet: the disks' places are told by --disk" },
  { "persistent-xml", "not in this version yet: the disks' places are told by --disk" },
  { "migrate-disks", "not in this version yet: all writable disks are moved" },
};

static gboolean
refuse (const char *name, const char *value, gpointer data, GError **error)
{
  for (gsize i = 0; i < G_N_ELEMENTS (refused); i++)
    if (strcmp (name + strlen ("--"), refused[i].name) == 0)
      g_set_error (error, CLI_ERROR, CLI_ERROR_USAGE, "%s: %s", name, refused[i].why);
  return FALSE;
}

static void
add_refused (GOptionContext *context)
{
  GOptionEntry entries[G_N_ELEMENTS (refused) + 1] = { 0 };

  for (gsize i = 0; i < G_N_ELEMENTS (refused); i++)
    entries[i] = (GOptionEntry){ .long_name = refused[i].name,
                                 .flags = G_OPTION_FLAG_HIDDEN | G_OPTION_FLAG_OPTIONAL_ARG,
                                 .arg = G_OPTION_ARG_CALLBACK,
                                 .arg_data = (gpointer)(guintptr)refuse };
  g_option_context_add_main_entries (context, entries, NULL);
}

static void
add_accepted (GOptionContext *context, CliRaw *raw)
{
  static const char *const names[] = { "live", "p2p", "tls", "copy-storage-all" };
  GOptionEntry entries[G_N_ELEMENTS (names) + 1] = { 0 };

  for (gsize i = 0; i < G_N_ELEMENTS (names); i++)
    entries[i] = (GOptionEntry){ .long_name = names[i],
                                 .arg_data = &raw->accepted,
                                 .description = "Accepted: this is always so" };
  g_option_context_add_main_entries (context, entries, NULL);
}

void
cli_options_add_virsh (GOptionContext *context, CliRaw *raw)
{
  const GOptionEntry entries[] = {
    { "connect", 0, 0, G_OPTION_ARG_FILENAME, &raw->connect,
      "This host's libvirt (default, and the only one: " DEFAULT_URI ")", "URI" },
    { "desturi", 0, 0, G_OPTION_ARG_FILENAME, &raw->desturi,
      "HOST's libvirt, for this host's (default: qemu+tls://HOST/system)", "URI" },
    { "persistent", 0, 0, G_OPTION_ARG_NONE, &raw->persistent, "Define the domain at HOST", NULL },
    { "undefinesource", 0, 0, G_OPTION_ARG_NONE, &raw->undefine_source,
      "Undefine the domain here when it has been moved", NULL },
    { "suspend", 0, 0, G_OPTION_ARG_NONE, &raw->suspend, "Leave the guest paused at HOST", NULL },
    { "auto-converge", 0, 0, G_OPTION_ARG_NONE, &raw->auto_converge,
      "Slow the guest's CPUs down where its memory changes too fast", NULL },
    { "bandwidth", 0, 0, G_OPTION_ARG_FILENAME, &raw->bandwidth, "Limit of the memory alone, MiB/s",
      "MIB" },
    { "dname", 0, 0, G_OPTION_ARG_FILENAME, &raw->dname, "The domain's name at HOST", "NAME" },
    { "tls-destination", 0, 0, G_OPTION_ARG_FILENAME, &raw->tls_destination,
      "The name in the certificate of HOST's QEMU, where it isn't HOST", "NAME" },
    { NULL }
  };

  g_option_context_add_main_entries (context, entries, NULL);
  add_accepted (context, raw);
  add_refused (context);
}

static gboolean
has_libvirt_option (const CliRaw *raw)
{
  return raw->connect != NULL || raw->desturi != NULL || raw->dname != NULL
         || raw->tls_destination != NULL || raw->bandwidth != NULL || raw->persistent
         || raw->undefine_source || raw->suspend || raw->auto_converge || raw->accepted;
}

static gboolean
take_text (const char *option, const char *value, char **ret_text, GError **error)
{
  if (value != NULL && !cli_value_check_text (option, value, error))
    return FALSE;
  *ret_text = g_strdup (value);
  return TRUE;
}

gboolean
cli_options_take_virsh (CliOptions *options, const CliRaw *raw, GError **error)
{
  if (options->qmp != NULL)
    return !has_libvirt_option (raw)
           || cli_options_fail (error, "--qmp and --dest-qmp are for a QEMU without libvirt: they "
                                       "don't go together with options of libvirt");
  options->persistent = raw->persistent;
  options->undefine_source = raw->undefine_source;
  options->suspend = raw->suspend;
  options->auto_converge = raw->auto_converge;
  if (raw->bandwidth != NULL
      && !cli_value_parse_number ("--bandwidth", raw->bandwidth, "MiB/s", 1, MAX_BANDWIDTH,
                                  &options->bandwidth, error))
    return FALSE;
  return take_text ("--connect", raw->connect != NULL ? raw->connect : DEFAULT_URI,
                    &options->connect, error)
         && take_text ("--desturi", raw->desturi, &options->desturi, error)
         && take_text ("--dname", raw->dname, &options->dname, error)
         && take_text ("--tls-destination", raw->tls_destination, &options->tls_destination, error);
}
