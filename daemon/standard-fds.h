/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Opens /dev/null wherever standard input, output or error is closed: the next file to be opened,
 * which may be a disk, would get that number, and messages be written into it.  First thing in a
 * program. */
void standard_fds_fill (void);
