/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/fuzz.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

/* There with AddressSanitizer, which has an allocator of its own. */
extern size_t __sanitizer_get_current_allocated_bytes (void) __attribute__ ((weak));

void
fuzz_fail (const char *file, int line, const char *what)
{
  fprintf (stderr, "%s:%d: this must hold: %s\n", file, line, what);
  abort ();
}

guint8
fuzz_input_u8 (FuzzInput *input)
{
  if (input->left == 0)
    return 0;
  input->left--;
  return *input->data++;
}

guint16
fuzz_input_u16 (FuzzInput *input)
{
  guint16 high = fuzz_input_u8 (input);

  return (guint16)(high << 8 | fuzz_input_u8 (input));
}

guint32
fuzz_input_u32 (FuzzInput *input)
{
  guint32 high = fuzz_input_u16 (input);

  return high << 16 | fuzz_input_u16 (input);
}

guint64
fuzz_input_u64 (FuzzInput *input)
{
  guint64 high = fuzz_input_u32 (input);

  return high << 32 | fuzz_input_u32 (input);
}

guint64
fuzz_random (guint64 *state)
{
  guint64 z = *state + G_GUINT64_CONSTANT (0x9e3779b97f4a7c15);

  *state = z;
  z = (z ^ (z >> 30)) * G_GUINT64_CONSTANT (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * G_GUINT64_CONSTANT (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

gsize
fuzz_allocated (void)
{
  struct mallinfo2 info;

  if (__sanitizer_get_current_allocated_bytes != NULL)
    return __sanitizer_get_current_allocated_bytes ();
  info = mallinfo2 ();
  return info.uordblks + info.hblkhd;
}
