/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/qemu-img.h"

#include "daemon/tool.h"
#include "qmp/json-args.h"
#include "qmp/json-framer.h"

#define TIMEOUT_MS 120000
#define MAX_DEPTH 32
/* The descriptor that the child finds the image at. */
#define CHILD_FILE "/proc/self/fd/3"

static const char *const formats[] = { "qcow2", "qed", "vdi", "vhdx", "vmdk", "vpc", NULL };

gboolean
qemu_img_knows_format (const char *format)
{
  return g_strv_contains (formats, format);
}

/* Its messages name the file as the child sees it. */
static void
name_file (GError **error, const char *path)
{
  g_autoptr (GString) text = NULL;

  if (error == NULL || *error == NULL)
    return;
  text = g_string_new ((*error)->message);
  if (g_string_replace (text, CHILD_FILE, path, 0) > 0)
    {
      g_free ((*error)->message);
      (*error)->message = g_strdup (text->str);
    }
  else
    g_prefix_error (error, "%s: ", path);
}

static gboolean
run (const char *const *argv, int fd, const char *path, char **ret_output, GError **error)
{
  const ToolSpec spec = { .argv = argv, .fds = &fd, .n_fds = 1 };

  if (tool_run (&spec, deadline_in (TIMEOUT_MS, NULL), ret_output, error))
    return TRUE;
  name_file (error, path);
  return FALSE;
}

gboolean
qemu_img_create (int fd, const char *path, const char *format, guint64 size, gboolean prealloc,
                 GError **error)
{
  g_autofree char *size_text = g_strdup_printf ("%" G_GUINT64_FORMAT, size);
  const char *argv[10] = { "qemu-img", "create", "-q", "-f", format };
  guint n = 5;

  if (prealloc && !g_str_equal (format, "qcow2"))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                   "%s: prealloc=falloc is for raw and qcow2, not for %s", path, format);
      return FALSE;
    }
  if (prealloc || g_str_equal (format, "vpc"))
    {
      argv[n++] = "-o";
      /* vpc rounds to a disk geometry otherwise. */
      argv[n++] = prealloc ? "preallocation=falloc" : "force_size=on";
    }
  argv[n++] = CHILD_FILE;
  argv[n++] = size_text;
  return run (argv, fd, path, NULL, error);
}

/* Runs `qemu-img info` or `map`: neither guesses the format. */
static JsonNode *
ask (const char *command, int fd, const char *path, const char *format, GError **error)
{
  g_autofree char *options
      = g_strdup_printf ("driver=%s,file.driver=file,file.filename=" CHILD_FILE, format);
  const char *const argv[]
      = { "qemu-img", command, "--output=json", "--image-opts", options, NULL };
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autofree char *output = NULL;

  if (!run (argv, fd, path, &output, error))
    return NULL;
  if (!json_framer_scan (output, strlen (output), MAX_DEPTH, error)
      || !json_parser_load_from_data (parser, output, -1, error))
    {
      g_prefix_error (error, "%s: qemu-img %s: ", path, command);
      return NULL;
    }
  return json_parser_steal_root (parser);
}

/* What `info` tells that an empty target must not have; NULL: nothing. */
static const char *
find_extra (JsonObject *info)
{
  JsonArray *snapshots = NULL;
  gboolean encrypted = FALSE;

  if (json_object_has_member (info, "backing-filename")
      || json_object_has_member (info, "full-backing-filename"))
    return "has a backing file";
  if (json_get_bool (info, "encrypted", &encrypted) && encrypted)
    return "is encrypted";
  if (json_dig_string (info, "format-specific", "data", "data-file", NULL) != NULL)
    return "has an external data file";
  if (json_get_array (info, "snapshots", &snapshots) && json_array_get_length (snapshots) > 0)
    return "has snapshots";
  return NULL;
}

static gboolean
fail_used (const char *path, const char *what, GError **error)
{
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_EXISTS, "%s %s: --overwrite to replace it", path,
               what);
  return FALSE;
}

static gboolean
check_info (int fd, const char *path, const char *format, guint64 size, GError **error)
{
  g_autoptr (JsonNode) node = ask ("info", fd, path, format, error);
  const char *extra;
  gint64 found;

  if (node == NULL)
    return FALSE;
  if (!JSON_NODE_HOLDS_OBJECT (node)
      || !json_get_int (json_node_get_object (node), "virtual-size", &found))
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s: qemu-img info tells no size",
                   path);
      return FALSE;
    }
  extra = find_extra (json_node_get_object (node));
  if (extra != NULL)
    return fail_used (path, extra, error);
  if ((guint64)found == size)
    return TRUE;
  g_set_error (error, G_IO_ERROR, G_IO_ERROR_EXISTS,
               "%s holds %" G_GINT64_FORMAT " bytes, the disk has %" G_GUINT64_FORMAT
               ": --overwrite to replace it",
               path, found, size);
  return FALSE;
}

static gboolean
check_map (int fd, const char *path, const char *format, GError **error)
{
  g_autoptr (GError) local = NULL;
  g_autoptr (JsonNode) node = ask ("map", fd, path, format, &local);
  JsonArray *map;

  /* A map so long has data in it. */
  if (g_error_matches (local, G_IO_ERROR, G_IO_ERROR_MESSAGE_TOO_LARGE))
    return fail_used (path, "has data", error);
  if (node == NULL)
    {
      g_propagate_error (error, g_steal_pointer (&local));
      return FALSE;
    }
  map = JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
  for (guint i = 0; map != NULL && i < json_array_get_length (map); i++)
    {
      JsonObject *range = json_array_get_object_or_null (map, i);
      gboolean data = TRUE, zero = FALSE;

      if (range == NULL || !json_get_bool (range, "data", &data)
          || !json_get_bool (range, "zero", &zero) || data || !zero)
        return fail_used (path, "has data", error);
    }
  return map != NULL || fail_used (path, "can't be proven empty", error);
}

gboolean
qemu_img_check_empty (int fd, const char *path, const char *format, guint64 size, GError **error)
{
  /* Images of other formats may lie in several files, and nothing tells. */
  if (!g_str_equal (format, "qcow2"))
    return fail_used (path, "can't be proven empty", error);
  return check_info (fd, path, format, size, error) && check_map (fd, path, format, error);
}
