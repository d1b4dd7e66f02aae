/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

/* The parts of config_split_host () that the parser of the configuration needs too. */

/* An IPv6 address in its text form, with or without %scope, without brackets. */
gboolean config_host_is_ipv6 (const char *text);
/* 1 to 65535, nothing but digits. */
gboolean config_host_parse_port (const char *text, guint16 *ret_port);
