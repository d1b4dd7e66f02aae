/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/zero-scan.h"

#include <string.h>

gboolean
zero_scan_is_zero (const guint8 *buf, gsize len)
{
  gsize head = MIN (len, 16);

  for (gsize i = 0; i < head; i++)
    if (buf[i] != 0)
      return FALSE;
  /* Each byte is equal to the one 16 before it, and so zero: memcmp() is the fastest loop there is.
   */
  return len <= 16 || memcmp (buf, buf + 16, len - 16) == 0;
}

gsize
zero_scan_zero_run (const guint8 *buf, gsize len)
{
  gsize pos = 0;

  while (pos < len)
    {
      gsize n = MIN (len - pos, ZERO_SCAN_BLOCK);

      if (!zero_scan_is_zero (buf + pos, n))
        break;
      pos += n;
    }
  return pos;
}

gsize
zero_scan_data_run (const guint8 *buf, gsize len, gsize min_run)
{
  gsize pos = 0;

  while (pos < len)
    {
      gsize zeroes = zero_scan_zero_run (buf + pos, len - pos);

      if (zeroes >= min_run)
        return pos;
      pos = MIN (len, pos + zeroes + ZERO_SCAN_BLOCK);
    }
  return len;
}
