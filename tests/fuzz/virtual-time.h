/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

/* Takes the place of poll(2) and the monotonic clock in all that is linked with it (meson.build has
 * the linker's options).  Before each poll the other side has its turn, in the same thread; time
 * passes, for the thread that polls, only when nothing is ready after that: a time-out of half a
 * minute takes no time, a slow machine changes nothing, and a wait that nothing would ever end is a
 * finding. */

/* `serve` does all that the other side can do now.  It is called by each thread that polls, by one
 * at a time.  The calling thread's clock, and that of each new thread, begin at the same time. */
void virtual_time_begin (void (*serve) (gpointer user_data), gpointer user_data);

/* For `serve`: the calling thread has waited so long. */
void virtual_time_pass (gint64 us);
/* The descriptor that the calling thread polled last. */
int virtual_time_get_polled_fd (void);
