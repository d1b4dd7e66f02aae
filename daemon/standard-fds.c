/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/standard-fds.h"

#include <fcntl.h>
#include <unistd.h>

void
standard_fds_fill (void)
{
  int fd;

  do
    fd = open ("/dev/null", O_RDWR);
  while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0)
    close (fd);
}
