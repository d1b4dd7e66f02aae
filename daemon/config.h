/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* vmferryd.conf(5), a GKeyFile.  Immutable once loaded. */
typedef struct
{
  char *name;         /* HOST: the certificates of that host must have it */
  char **dns;         /* distinguished names that are accepted, QEMU's spelling; at least one */
  char *address;      /* where it is reached, NULL: by its name; may hold :port */
  char **target_dirs; /* absolute: directories, or literal device paths; may be empty */
  char **qmp_dirs;    /* absolute; may be empty */
} ConfigPeer;

typedef struct
{
  char *listen_address; /* without brackets; "::" for any */
  guint16 listen_port;
  guint16 port_min, port_max; /* NBD, migration, gate */
  char *tls_dir;
  char *group;      /* of the control socket; "vmferry" */
  char *state_dir;  /* $STATE_DIRECTORY or /var/lib/vmferry */
  char *runtime_dir; /* $RUNTIME_DIRECTORY or /run/vmferry */
  GPtrArray *peers; /* ConfigPeer */
} Config;

/* An unknown group or key, a malformed value, a relative path: an error that names file, group,
 * key and value.  A file that is absent is an error too. */
Config *config_load (const char *path, GError **error);
void config_free (Config *config);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Config, config_free)

/* NULL where there is none. */
const ConfigPeer *config_find_peer (const Config *config, const char *name);
const ConfigPeer *config_find_peer_by_dn (const Config *config, const char *dn);
gboolean config_peer_allows_dn (const ConfigPeer *peer, const char *dn);

/* "name", "name:port", "1.2.3.4:port", "[::1]:port", "::1".  Port 0 where none is given. */
gboolean config_split_host (const char *text, char **ret_host, guint16 *ret_port, GError **error);
