/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/nbd-error.h"
#include "nbd/pull.h"

#define BITMAP_PREFIX "qemu:dirty-bitmap:"
#define ALLOCATION "base:allocation"

char **
pull_get_contexts (const char *bitmap)
{
  g_autoptr (GStrvBuilder) builder = g_strv_builder_new ();
  g_autofree char *name = g_strconcat (BITMAP_PREFIX, bitmap, NULL);

  /* With a bitmap base:allocation is asked for, too: ranges that the guest has discarded since are
   * not read but zeroed. */
  if (bitmap != NULL)
    g_strv_builder_add (builder, name);
  g_strv_builder_add (builder, ALLOCATION);
  return g_strv_builder_end (builder);
}

gboolean
pull_check_bitmap (NbdClient *client, const char *bitmap, GError **error)
{
  if (bitmap == NULL || nbd_client_get_export (client)->has_context[0])
    return TRUE;
  g_set_error (error, NBD_ERROR, NBD_ERROR_NO_CONTEXT,
               "%s: the server does not offer the dirty bitmap \"%s\" with it",
               nbd_client_get_name (client), bitmap);
  return FALSE;
}
