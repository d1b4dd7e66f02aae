/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/session-judge.h"

#include "nbd/protocol.h"

static void
add_data (const SessionCopy *copy, const OracleAnswer *answer, guint8 *told)
{
  guint64 offset = answer->request.offset;

  for (guint32 i = 0; i < answer->request.length && offset + i < copy->size; i++)
    told[offset + i] |= copy->target[offset + i] == answer->data[i];
}

/* What holds `value` in an extent whose flags are `flags`, as far as `mask` goes. */
static void
add_extents (const SessionCopy *copy, const OracleAnswer *answer, guint context, guint32 mask,
             guint32 flags, guint8 value, guint8 *told)
{
  const GByteArray *extents = answer->extents[context];
  guint64 at = answer->request.offset;

  for (guint i = 0; extents != NULL && i + 8 <= extents->len; i += 8)
    {
      guint64 end = at + wire_get_u32 (extents->data + i);

      if ((wire_get_u32 (extents->data + i + 4) & mask) == flags)
        for (guint64 pos = at; pos < MIN (end, copy->size); pos++)
          told[pos] |= copy->target[pos] == value;
      at = end;
    }
}

guint8 *
session_judge_find_told (const SessionServer *server, const SessionCopy *copy)
{
  guint8 *told = g_malloc0 (copy->size + 1);

  for (guint i = 0; i < session_server_get_n_clients (server); i++)
    {
      const Oracle *oracle = session_server_get_oracle (server, i);
      const OracleAnswer *answer;

      for (guint n = 0; oracle != NULL && (answer = oracle_get_answer (oracle, n)) != NULL; n++)
        {
          if (!answer->over || answer->failed)
            continue;
          if (answer->request.command == NBD_CMD_READ)
            add_data (copy, answer, told);
          add_extents (copy, answer, copy->bitmap ? 1 : 0, NBD_STATE_ZERO, NBD_STATE_ZERO, 0, told);
          if (copy->bitmap)
            add_extents (copy, answer, 0, NBD_STATE_DIRTY, 0, copy->before, told);
        }
    }
  return told;
}
