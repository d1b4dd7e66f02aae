/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "nbd/handshake.h"
#include "nbd/protocol.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory-channel.h"

/* The client's handshake.  Input: a byte of settings, a byte that cuts the stream into portions,
 * then what the server sends.  (STARTTLS is no part of it: behind it everything is GnuTLS's.) */

/* Whatever the server says, memory stays below this. */
#define MAX_MEMORY (256 * 1024)

static void
check_export (const NbdExport *export, const char *const *contexts)
{
  guint wanted = contexts != NULL ? g_strv_length ((char **)contexts) : 0;
  guint n = 0;

  FUZZ_REQUIRE (export->size <= G_MAXINT64);
  FUZZ_REQUIRE (export->flags & NBD_FLAG_HAS_FLAGS);
  FUZZ_REQUIRE (export->min_block > 0 && (export->min_block & (export->min_block - 1)) == 0);
  FUZZ_REQUIRE (export->min_block <= NBD_MAX_MIN_BLOCK);
  FUZZ_REQUIRE (export->preferred_block >= export->min_block);
  FUZZ_REQUIRE ((export->preferred_block & (export->preferred_block - 1)) == 0);
  FUZZ_REQUIRE (export->max_payload >= export->min_block);
  for (guint i = 0; i < NBD_MAX_CONTEXTS; i++)
    {
      FUZZ_REQUIRE (!export->has_context[i] || i < wanted);
      n += export->has_context[i] ? 1 : 0;
    }
  FUZZ_REQUIRE (n == export->n_contexts);
  FUZZ_REQUIRE (n == 0 || export->structured);
  if (n == NBD_MAX_CONTEXTS)
    FUZZ_REQUIRE (export->context_id[0] != export->context_id[1]);
}

static void
check_error (const GError *error)
{
  FUZZ_REQUIRE (error != NULL);
  FUZZ_REQUIRE (g_utf8_validate (error->message, -1, NULL));
  /* The server's text is escaped: one line, nothing that a terminal acts on. */
  for (const char *at = error->message; *at != '\0'; at++)
    FUZZ_REQUIRE ((guint8)*at >= 0x20 && *at != 0x7f);
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static const char *const all[] = { "qemu:dirty-bitmap:b", "base:allocation", NULL };
  FuzzInput input = { data, size };
  guint8 settings = fuzz_input_u8 (&input);
  guint64 seed = fuzz_input_u8 (&input);
  const char *const *contexts = settings & 1 ? NULL : settings & 2 ? all + 1 : all;
  NbdHandshake handshake
      = { .export_name = settings & 4 ? "a \"name\"" : "", .contexts = contexts };
  g_autoptr (Channel) channel = NULL;
  g_autoptr (GError) error = NULL;
  gsize before = fuzz_allocated ();
  NbdExport export;

  memset (&export, 0xee, sizeof export);
  channel = nbd_handshake_run (memory_channel_new_fixed (input.data, input.left, seed), &handshake,
                               DEADLINE_NEVER, &export, &error);
  if (channel != NULL)
    check_export (&export, contexts);
  else
    check_error (error);
  FUZZ_REQUIRE (fuzz_allocated () < before + MAX_MEMORY);
  return 0;
}
