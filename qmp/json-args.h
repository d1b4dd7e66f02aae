/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

/* Builds an object from triples NAME, TYPE, VALUE, ended by NULL.  TYPE is one letter:
 * "s" const char *   "b" gboolean   "i" gint64   "d" double   "o" JsonObject * (taken)
 * "a" JsonArray * (taken).  A NULL value for "s", "o" or "a" leaves the member out.
 *   json_args ("id", "s", "tls0", "verify-peer", "b", TRUE, NULL)
 * Mind that an integer must be cast to gint64. */
JsonObject *json_args (const char *name, ...) G_GNUC_NULL_TERMINATED;

/* Readers that never abort on what a peer sent: FALSE where the member is absent or has another
 * type.  Strings and objects are borrowed from `object`. */
gboolean json_get_string (JsonObject *object, const char *name, const char **ret_value);
gboolean json_get_int (JsonObject *object, const char *name, gint64 *ret_value);
/* An integer, too. */
gboolean json_get_double (JsonObject *object, const char *name, double *ret_value);
gboolean json_get_bool (JsonObject *object, const char *name, gboolean *ret_value);
gboolean json_get_object (JsonObject *object, const char *name, JsonObject **ret_value);
gboolean json_get_array (JsonObject *object, const char *name, JsonArray **ret_value);
/* The i-th element as an object or a string; NULL where it is none. */
JsonObject *json_array_get_object_or_null (JsonArray *array, guint i);
const char *json_array_get_string_or_null (JsonArray *array, guint i);
/* Follows names down through objects: json_dig_string (o, "inserted", "node-name", NULL).
 * NULL where anything on the way is absent or of another type. */
const char *json_dig_string (JsonObject *object, ...) G_GNUC_NULL_TERMINATED;
