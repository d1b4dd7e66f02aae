/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

/* A fake QEMU: a thread that serves its monitor on a UNIX socket, one client at a time as QEMU
 * does.  It negotiates by itself, answers query-qmp-schema with what QEMU 7.2 says
 * (data/qmp-schema.json), and refuses each command and argument that this schema doesn't have:
 * such a mistake aborts the test in fake_qmp_free (). */
typedef struct FakeQmp FakeQmp;

typedef enum
{
  FAKE_QMP_GREETS,      /* as QEMU 7.2.22, which offers oob */
  FAKE_QMP_WITHOUT_OOB, /* as one that offers nothing */
  FAKE_QMP_SILENT,      /* never greets, as while another client holds the monitor */
  FAKE_QMP_GARBAGE,     /* "SSH-2.0-...", no JSON */
  FAKE_QMP_ANOTHER,     /* JSON, but another greeting */
  FAKE_QMP_CLOSES       /* hangs up at once */
} FakeQmpGreeting;

/* Answers one command, in the fake's thread: the value to return (taken over), or one of the
 * answers below.  `args` is NULL where there were none. */
typedef JsonNode *(*FakeQmpHandler) (FakeQmp *fake, const char *command, JsonObject *args,
                                     gpointer data);

/* `handler` NULL: every command gets the default answer. */
FakeQmp *fake_qmp_new (FakeQmpGreeting greeting, FakeQmpHandler handler, gpointer data);
/* Aborts when a command was refused by the schema and fake_qmp_take_violation () didn't ask. */
void fake_qmp_free (FakeQmp *fake);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FakeQmp, fake_qmp_free)

/* Lives with the fake. */
const char *fake_qmp_get_path (FakeQmp *fake);

/* Answers that a handler may give.  NULL is the default: {} or [], after the command's type. */
JsonNode *fake_qmp_json (const char *text);
JsonNode *fake_qmp_string (const char *text);
JsonNode *fake_qmp_error (const char *klass, const char *desc);
JsonNode *fake_qmp_hang (void);  /* no answer, ever */
JsonNode *fake_qmp_crash (void); /* the connection ends instead; no new one is accepted */

/* The descriptor that came with the present command (now the handler's), or -1. */
int fake_qmp_take_fd (FakeQmp *fake);

/* From any thread, while a client is connected.  `data` (may be NULL) is taken over. */
void fake_qmp_send_event (FakeQmp *fake, const char *event, JsonObject *data);
void fake_qmp_send_raw (FakeQmp *fake, const char *bytes);

/* How often a command came (NULL: any but qmp_capabilities and query-qmp-schema). */
guint fake_qmp_count (FakeQmp *fake, const char *command);
/* The first refusal by the schema, or NULL.  Free with g_free. */
char *fake_qmp_take_violation (FakeQmp *fake);

/* The schema that it checks against. */
JsonArray *fake_qmp_get_schema (FakeQmp *fake);
/* The same, read from the file.  Free with json_array_unref. */
JsonArray *fake_qmp_load_schema (void);
