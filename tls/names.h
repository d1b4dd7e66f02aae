/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <gnutls/x509.h>

/* Whether a DNS name of a certificate covers `host` (RFC 6125): without regard to case; "*" only as
 * the whole left-most label, for exactly one label, with at least two labels after it. */
gboolean names_match_dns (const char *pattern, const char *host);

/* Whether `name`, a DNS name or an IP address, is among the certificate's subjectAltNames.  An
 * address matches only addresses, a name only DNS names; the common name is never looked at. */
gboolean names_match (gnutls_x509_crt_t cert, const char *name);

/* The names that it has, escaped and bounded: "\"a.test\", \"10.0.0.1\""; NULL if there is none. */
char *names_describe (gnutls_x509_crt_t cert);
