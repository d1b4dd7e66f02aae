/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/help.h"

#include <string.h>

typedef struct
{
  const char *name;
  const char *words;
  const char *brief;
  const char *summary;
  const char *description; /* below the options; NULL: nothing */
} Help;

#define COPY_DESCRIPTION                                                                           \
  "URI is nbds://HOST[:PORT]/EXPORT or nbds+unix:///EXPORT?socket=PATH, with "                     \
  "tls-certificates=DIR,\n"                                                                        \
  "tls-psk-file=FILE (and USER@) or tls-hostname=NAME as parameters, as nbd_connect_uri(3) has\n"  \
  "them; nbd:// and nbd+unix:// are clear text.  TARGET is a file, a block device, the URI of\n"   \
  "another NBD server, or null: to throw the data away.\n\n"                                       \
  "A file is written as TARGET.vmferry-part and gets its name when it is whole; an interrupted\n"  \
  "copy leaves that and TARGET.vmferry-journal for --resume.\n\n"                                  \
  "Examples:\n"                                                                                    \
  "  vmferry copy nbds://hostA:10809/vda /backup/vm1.raw --verify\n"                               \
  "  vmferry copy nbds://hostA/vda /backup/vm1.qcow2 --target-format qcow2\n"                      \
  "  vmferry copy nbds://hostA/vda /backup/vm1.raw --bitmap since-monday\n"                        \
  "  vmferry copy 'nbd+unix:///?socket=/run/export.sock' /dev/vg/restored\n\n"                     \
  "Exit status: 0 the target is the export; 1 failed; 2 bad usage; 130 cancelled.\n"

static const Help helps[] = {
  { "migrate", "GUEST HOST", "move a running guest to HOST, with its disks",
    "Moves the running guest GUEST with its disks to HOST, a [peer] of vmferryd.conf(5) or its "
    "address, and\nfollows the job to its end.  Ctrl-C cancels while that is still possible; the "
    "guest then goes on here.\nGUEST is a domain of this host's libvirt, and its disks are named "
    "as "
    "there (vda); with --qmp and --dest-qmp\nit is a QEMU without libvirt, and its disks are named "
    "by their QEMU node names, or the ids of their\ndevices." },
  { "jobs", "", "list the jobs that this host's agent knows",
    "Lists the jobs that this host's agent knows, the oldest first." },
  { "status", "[JOB]", "show one job, or all, in detail",
    "Shows one job in detail, or all of them.  JOB may be abbreviated." },
  { "watch", "[JOB]", "follow one job, or all",
    "Follows a job to its end and returns its exit status; without JOB it follows all of them and "
    "goes on\nuntil it is interrupted.  Ctrl-C ends the watching, not the job." },
  { "cancel", "JOB", "cancel a job and wait until all is undone",
    "Cancels a job and waits until everything is undone: the guest goes on at the source." },
  { "resolve", "JOB", "decide who owns the guest of a job that needs the operator",
    "Records who owns the guest of a job in the state 'needs-operator'.  Make sure that the guest "
    "doesn't run\nat the other host, then give the same answer at both hosts." },
  { "copy", "URI TARGET", "copy a disk from an NBD server, over TLS; no agent needed",
    "Copies the export at URI to TARGET, which afterwards is exactly the same, to the byte: sparse "
    "where\nit is sparse, verified with --verify, and gone on with by --resume after any "
    "interruption.",
    COPY_DESCRIPTION },
};

static const char *const later[]
    = { "cutover", "pause", "resume", "forget", "check", "hook", NULL };

static const Help *
find (const char *command)
{
  for (guint i = 0; command != NULL && i < G_N_ELEMENTS (helps); i++)
    if (strcmp (helps[i].name, command) == 0)
      return &helps[i];
  return NULL;
}

char *
cli_help_get_program (void)
{
  GString *text = g_string_new ("Usage:\n  vmferry COMMAND [OPTION...]\n\n"
                                "Moves a running virtual machine and its disks to another host.\n\n"
                                "Commands:\n");
  for (guint i = 0; i < G_N_ELEMENTS (helps); i++)
    g_string_append_printf (text, "  %-8s %-11s %s\n", helps[i].name, helps[i].words,
                            helps[i].brief);
  g_string_append (
      text, "\nEvery command has --help, --version and --json, and all but copy --socket PATH.\n\n"
            "Exit status:\n"
            "  0    done\n"
            "  1    failed; the guest is at the source, as it was\n"
            "  2    bad usage\n"
            "  3    needs the operator: who owns the guest can't be told without one\n"
            "  130  cancelled\n");
  return g_string_free (text, FALSE);
}

const char *
cli_help_get_words (const char *command)
{
  const Help *help = find (command);
  return help != NULL ? help->words : NULL;
}

const char *
cli_help_get_summary (const char *command)
{
  const Help *help = find (command);
  return help != NULL ? help->summary : NULL;
}

const char *
cli_help_get_description (const char *command)
{
  const Help *help = find (command);
  return help != NULL ? help->description : NULL;
}

gboolean
cli_help_is_later (const char *command)
{
  return g_strv_contains (later, command);
}
