/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/config.h"

#include <arpa/inet.h>
#include <string.h>

#include "daemon/config-file.h"
#include "daemon/config-host.h"

#define CONFIG_DEFAULT_PORT 10810
#define CONFIG_PORT_MIN 49216
#define CONFIG_PORT_MAX 49279

/* Where the parser stands, for its messages. */
typedef struct
{
  const char *path;
  GKeyFile *key_file;
  const char *group;
} Parser;

static void
config_peer_free (gpointer data)
{
  ConfigPeer *peer = data;

  g_free (peer->name);
  g_strfreev (peer->dns);
  g_free (peer->address);
  g_strfreev (peer->target_dirs);
  g_strfreev (peer->qmp_dirs);
  g_free (peer);
}

void
config_free (Config *config)
{
  if (config == NULL)
    return;
  g_free (config->listen_address);
  g_free (config->tls_dir);
  g_free (config->group);
  g_free (config->state_dir);
  g_free (config->runtime_dir);
  g_clear_pointer (&config->peers, g_ptr_array_unref);
  g_free (config);
}

/* Always FALSE, so that a caller can return it. */
static gboolean
fail_value (const Parser *parser, const char *key, const char *value, const char *why,
            GError **error)
{
  g_autofree char *shown = g_strescape (value, NULL);

  g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s: [%s] %s=%s: %s", parser->path,
               parser->group, key, shown, why);
  return FALSE;
}

/* The raw value: GKeyFile's own unescaping refuses the backslashes of a distinguished name. */
static char *
get_value (const Parser *parser, const char *key)
{
  char *value = g_key_file_get_value (parser->key_file, parser->group, key, NULL);

  return value != NULL ? g_strstrip (value) : NULL;
}

static gboolean
check_keys (const Parser *parser, const char *const *known, GError **error)
{
  g_auto (GStrv) keys = g_key_file_get_keys (parser->key_file, parser->group, NULL, NULL);

  for (guint i = 0; keys[i] != NULL; i++)
    if (!g_strv_contains (known, keys[i]))
      {
        g_autofree char *list = g_strjoinv (", ", (char **)known);
        g_autofree char *shown = g_strescape (keys[i], NULL);

        g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                     "%s: [%s] has an unknown key \"%s\": known are %s", parser->path,
                     parser->group, shown, list);
        return FALSE;
      }
  return TRUE;
}

/* Splits at ';'.  A backslash protects the character after it and stays, because it belongs to
 * the spelling of a distinguished name (RFC 4514).  Empty pieces are dropped. */
static char **
split_list (const char *text)
{
  g_autoptr (GPtrArray) list = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GString) piece = g_string_new (NULL);

  for (const char *p = text;; p++)
    {
      if (*p == ';' || *p == '\0')
        {
          char *copy = g_strstrip (g_strdup (piece->str));

          if (*copy != '\0')
            g_ptr_array_add (list, copy);
          else
            g_free (copy);
          g_string_truncate (piece, 0);
          if (*p == '\0')
            break;
          continue;
        }
      if (*p == '\\' && p[1] != '\0')
        g_string_append_c (piece, *p++);
      g_string_append_c (piece, *p);
    }
  g_ptr_array_add (list, NULL);
  return (char **)g_ptr_array_free (g_steal_pointer (&list), FALSE);
}

static gboolean
parse_path (const Parser *parser, const char *key, const char *value, char **ret_path,
            GError **error)
{
  if (!g_path_is_absolute (value))
    return fail_value (parser, key, value, "expected an absolute path", error);
  g_free (*ret_path);
  *ret_path = g_canonicalize_filename (value, "/");
  return TRUE;
}

static gboolean
parse_paths (const Parser *parser, const char *key, char ***ret_paths, GError **error)
{
  g_autofree char *value = get_value (parser, key);
  g_auto (GStrv) paths = split_list (value != NULL ? value : "");

  for (guint i = 0; paths[i] != NULL; i++)
    {
      g_autofree char *path = NULL;

      if (!parse_path (parser, key, paths[i], &path, error))
        return FALSE;
      g_free (paths[i]);
      paths[i] = g_steal_pointer (&path);
    }
  *ret_paths = g_steal_pointer (&paths);
  return TRUE;
}

static gboolean
parse_listen (const Parser *parser, Config *config, GError **error)
{
  g_autofree char *value = get_value (parser, "listen");
  g_autofree char *host = NULL;
  struct in_addr ipv4;
  guint16 port;

  if (value == NULL)
    return TRUE;
  if (!config_split_host (value, &host, &port, NULL)
      || (!config_host_is_ipv6 (host) && inet_pton (AF_INET, host, &ipv4) != 1))
    return fail_value (parser, "listen", value,
                       "expected an address, as [::]:10810 or 192.0.2.1:10810", error);
  g_free (config->listen_address);
  config->listen_address = g_steal_pointer (&host);
  if (port != 0)
    config->listen_port = port;
  return TRUE;
}

static gboolean
parse_ports (const Parser *parser, Config *config, GError **error)
{
  g_autofree char *value = get_value (parser, "ports");
  g_auto (GStrv) ends = NULL;

  if (value == NULL)
    return TRUE;
  ends = g_strsplit (value, "-", -1);
  if (g_strv_length (ends) != 2 || !config_host_parse_port (g_strstrip (ends[0]), &config->port_min)
      || !config_host_parse_port (g_strstrip (ends[1]), &config->port_max)
      || config->port_min > config->port_max)
    return fail_value (parser, "ports", value, "expected FIRST-LAST, as 49216-49279", error);
  return TRUE;
}

static gboolean
parse_agent (const Parser *parser, Config *config, GError **error)
{
  static const char *const known[] = { "listen", "ports", "tls-dir", "group", NULL };
  g_autofree char *tls_dir = get_value (parser, "tls-dir");
  g_autofree char *group = get_value (parser, "group");

  if (!check_keys (parser, known, error) || !parse_listen (parser, config, error)
      || !parse_ports (parser, config, error))
    return FALSE;
  if (tls_dir != NULL && !parse_path (parser, "tls-dir", tls_dir, &config->tls_dir, error))
    return FALSE;
  if (group == NULL)
    return TRUE;
  if (*group == '\0')
    return fail_value (parser, "group", group, "expected the name of a group", error);
  g_free (config->group);
  config->group = g_steal_pointer (&group);
  return TRUE;
}

static gboolean
parse_peer_address (const Parser *parser, ConfigPeer *peer, GError **error)
{
  g_autofree char *host = NULL;
  guint16 port;

  peer->address = get_value (parser, "address");
  if (peer->address == NULL || config_split_host (peer->address, &host, &port, NULL))
    return TRUE;
  return fail_value (parser, "address", peer->address,
                     "expected NAME, NAME:PORT, IPV4:PORT or [IPV6]:PORT", error);
}

static gboolean
parse_peer (const Parser *parser, Config *config, GError **error)
{
  static const char *const known[] = { "dn", "address", "target-dirs", "qmp-dirs", NULL };
  g_autofree char *dn = get_value (parser, "dn");
  ConfigPeer *peer = g_new0 (ConfigPeer, 1);
  guint16 port;

  g_ptr_array_add (config->peers, peer);
  if (!config_split_host (parser->group + strlen ("peer "), &peer->name, &port, NULL) || port != 0)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                   "%s: [%s]: expected the name of a host, as [peer hostB]", parser->path,
                   parser->group);
      return FALSE;
    }
  peer->dns = split_list (dn != NULL ? dn : "");
  if (peer->dns[0] == NULL)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                   "%s: [%s] has no dn: give the distinguished name of its certificate, as "
                   "dn=O=example,CN=%s",
                   parser->path, parser->group, peer->name);
      return FALSE;
    }
  return check_keys (parser, known, error) && parse_peer_address (parser, peer, error)
         && parse_paths (parser, "target-dirs", &peer->target_dirs, error)
         && parse_paths (parser, "qmp-dirs", &peer->qmp_dirs, error);
}

/* A certificate must lead to one peer only, or which directories are its own is left to chance. */
static gboolean
check_dns_unique (const Config *config, const char *path, GError **error)
{
  for (guint i = 0; i < config->peers->len; i++)
    {
      const ConfigPeer *peer = g_ptr_array_index (config->peers, i);

      for (guint k = 0; peer->dns[k] != NULL; k++)
        {
          const ConfigPeer *first = config_find_peer_by_dn (config, peer->dns[k]);

          if (first == peer)
            continue;
          g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                       "%s: dn %s is in [peer %s] and in [peer %s]: it can belong to one only",
                       path, peer->dns[k], first->name, peer->name);
          return FALSE;
        }
    }
  return TRUE;
}

static gboolean
parse_groups (Parser *parser, Config *config, GError **error)
{
  g_auto (GStrv) groups = g_key_file_get_groups (parser->key_file, NULL);

  for (guint i = 0; groups[i] != NULL; i++)
    {
      gboolean good;

      parser->group = groups[i];
      if (g_str_equal (groups[i], "agent"))
        good = parse_agent (parser, config, error);
      else if (g_str_has_prefix (groups[i], "peer "))
        good = parse_peer (parser, config, error);
      else
        {
          g_autofree char *shown = g_strescape (groups[i], NULL);

          g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                       "%s: unknown group [%s]: known are [agent] and [peer NAME]", parser->path,
                       shown);
          good = FALSE;
        }
      if (!good)
        return FALSE;
    }
  return check_dns_unique (config, parser->path, error);
}

/* systemd sets these for StateDirectory= and RuntimeDirectory=; several are joined with ':'. */
static gboolean
get_directory (const char *variable, const char *fallback, char **ret_dir, GError **error)
{
  const char *value = g_getenv (variable);

  if (value == NULL || *value == '\0')
    value = fallback;
  if (!g_path_is_absolute (value))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "$%s=%s: expected an absolute path",
                   variable, value);
      return FALSE;
    }
  *ret_dir = g_strndup (value, strcspn (value, ":"));
  return TRUE;
}

static Config *
config_new_default (GError **error)
{
  g_autoptr (Config) config = g_new0 (Config, 1);

  config->listen_address = g_strdup ("::");
  config->listen_port = CONFIG_DEFAULT_PORT;
  config->port_min = CONFIG_PORT_MIN;
  config->port_max = CONFIG_PORT_MAX;
  config->tls_dir = g_strdup ("/etc/pki/qemu");
  config->group = g_strdup ("vmferry");
  config->peers = g_ptr_array_new_with_free_func (config_peer_free);
  if (!get_directory ("STATE_DIRECTORY", "/var/lib/vmferry", &config->state_dir, error)
      || !get_directory ("RUNTIME_DIRECTORY", "/run/vmferry", &config->runtime_dir, error))
    return NULL;
  return g_steal_pointer (&config);
}

Config *
config_load (const char *path, GError **error)
{
  g_autoptr (GKeyFile) key_file = g_key_file_new ();
  Parser parser = { .path = path, .key_file = key_file };
  g_autoptr (Config) config = config_new_default (error);
  g_autofree char *text = NULL;
  g_autoptr (GError) local = NULL;

  if (config == NULL || !config_file_read (path, &text, error))
    return NULL;
  if (!g_key_file_load_from_data (key_file, text, strlen (text), G_KEY_FILE_NONE, &local)
      && !g_error_matches (local, G_KEY_FILE_ERROR, G_KEY_FILE_ERROR_NOT_FOUND))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s: %s", path, local->message);
      return NULL;
    }
  if (!parse_groups (&parser, config, error))
    return NULL;
  return g_steal_pointer (&config);
}

const ConfigPeer *
config_find_peer (const Config *config, const char *name)
{
  for (guint i = 0; i < config->peers->len; i++)
    {
      const ConfigPeer *peer = g_ptr_array_index (config->peers, i);

      if (g_ascii_strcasecmp (peer->name, name) == 0)
        return peer;
    }
  return NULL;
}

const ConfigPeer *
config_find_peer_by_dn (const Config *config, const char *dn)
{
  for (guint i = 0; i < config->peers->len; i++)
    {
      const ConfigPeer *peer = g_ptr_array_index (config->peers, i);

      if (config_peer_allows_dn (peer, dn))
        return peer;
    }
  return NULL;
}

gboolean
config_peer_allows_dn (const ConfigPeer *peer, const char *dn)
{
  return g_strv_contains ((const char *const *)peer->dns, dn);
}
