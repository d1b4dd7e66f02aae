/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tests/unit/fake-nbd.h"

/* Serves any number of clients at one address, each with a FakeNbd of its own. */
typedef struct FakeListener FakeListener;

/* Changes what the n-th client (from 0 on) will meet.  In the listener's thread. */
typedef void (*FakeListenerPlan) (gpointer user_data, guint n, FakeNbdSpec *spec);

/* Takes `fd` over, a socket that listens; `spec` is copied, not what it points to.  `plan` may be
 * NULL. */
FakeListener *fake_listener_new (int fd, const FakeNbdSpec *spec, FakeListenerPlan plan,
                                 gpointer user_data);
void fake_listener_free (FakeListener *listener);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FakeListener, fake_listener_free)

/* Aborts where that is not possible. */
int fake_listener_open_unix (const char *path);
int fake_listener_open_tcp (guint16 *ret_port); /* on 127.0.0.1 */

guint fake_listener_get_n_clients (FakeListener *listener);
