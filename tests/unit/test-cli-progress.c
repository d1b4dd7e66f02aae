/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cli/progress.h"
#include "daemon/cli/terminal.h"
#include "daemon/cli/text.h"

#include <errno.h>
#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

#define GIB (G_GUINT64_CONSTANT (1) << 30)
#define MIB (G_GUINT64_CONSTANT (1) << 20)

/* Two disks, one of them with a hostile name. */
static CliJob *
make_job (const char *state, guint64 done, gint64 pass, guint64 ram_sent)
{
  g_autofree char *text = g_strdup_printf (
      "{\"job\": \"8c0f\", \"guest\": \"vm1\", \"role\": \"source\", \"peer\": \"hostB\", "
      "\"state\": \"%s\", \"owner\": \"source\", \"total_s\": 3.25, \"rate\": 238026752, "
      "\"left_s\": 4.1, \"message\": \"%s\", \"exit\": null, \"disks\": ["
      "{\"disk\": \"d0\", \"size\": 2147483648, \"todo\": 2147483648, \"done\": %" G_GUINT64_FORMAT
      ", \"pass\": %" G_GINT64_FORMAT "}, "
      "{\"disk\": \"a\\u001b[2Jb\", \"size\": 1048576, \"todo\": 0, \"done\": 0, \"pass\": 0}], "
      "\"ram\": {\"total\": 402653184, \"sent\": %" G_GUINT64_FORMAT ", \"left\": 201326592}}",
      state, state, done, pass, ram_sent);
  g_autoptr (JsonNode) node = json_from_string (text, NULL);
  assert_non_null (node);
  return cli_job_new (json_node_get_object (node));
}

static void
test_bars (void **state)
{
  g_autoptr (CliProgress) progress = cli_progress_new ();
  g_autoptr (CliJob) first = make_job ("seeding", 0, 0, 0);
  g_autoptr (CliJob) job = make_job ("seeding", GIB, 0, 100 * MIB);
  cli_progress_update (progress, first, 1 * G_USEC_PER_SEC);
  cli_progress_update (progress, job, 5 * G_USEC_PER_SEC);
  g_auto (GStrv) lines = cli_progress_render (progress, job, 100, 24);
  assert_int_equal (g_strv_length (lines), 4);
  assert_string_equal (lines[0], "vm1 -> hostB: seeding, 3.2 s, 227 MiB/s, 4.1 s left");
  assert_string_equal (lines[1], "  d0          [===============>              ]  50 %  "
                                 "1.00 GiB of 2.00 GiB   256 MiB/s    4.0 s left");
  assert_string_equal (lines[2], "  a\\u001b[2Jb [                              ]   -    "
                                 "          0 B of 0 B");
  assert_string_equal (lines[3], "  RAM         [===============>              ]  50 %  "
                                 "  192 MiB of 384 MiB  25.0 MiB/s    7.7 s left");
}

static void
test_every_width (void **state)
{
  g_autoptr (CliProgress) progress = cli_progress_new ();
  g_autoptr (CliJob) job = make_job ("converging", GIB, 3, MIB);
  cli_progress_update (progress, job, 1);
  for (guint columns = 1; columns < 200; columns++)
    {
      g_auto (GStrv) lines = cli_progress_render (progress, job, columns, 24);
      assert_int_equal (g_strv_length (lines), 4);
      for (char **line = lines; *line != NULL; line++)
        assert_true (cli_text_width (*line) <= columns);
    }
}

static void
test_few_rows (void **state)
{
  g_autoptr (CliProgress) progress = cli_progress_new ();
  g_autoptr (CliJob) job = make_job ("seeding", GIB, 0, MIB);
  g_auto (GStrv) three = cli_progress_render (progress, job, 80, 3);
  assert_int_equal (g_strv_length (three), 3);
  assert_string_equal (three[2], "  and 2 more");
  g_auto (GStrv) one = cli_progress_render (progress, job, 80, 1);
  assert_int_equal (g_strv_length (one), 1);
}

/* What has ended has no rate, and nothing is left of it. */
static void
test_ended (void **state)
{
  g_autoptr (CliProgress) progress = cli_progress_new ();
  g_autoptr (CliJob) job = make_job ("done", 2 * GIB, 0, MIB);
  g_auto (GStrv) lines = cli_progress_render (progress, job, 80, 24);
  assert_string_equal (lines[0], "vm1 -> hostB: done, 3.2 s");
}

/* A new pass begins at zero again: that is no negative rate. */
static void
test_new_pass (void **state)
{
  g_autoptr (CliProgress) progress = cli_progress_new ();
  g_autoptr (CliJob) before = make_job ("seeding", 2 * GIB, 0, 0);
  g_autoptr (CliJob) after = make_job ("converging", 0, 1, 0);
  cli_progress_update (progress, before, 1 * G_USEC_PER_SEC);
  cli_progress_update (progress, after, 2 * G_USEC_PER_SEC);
  g_auto (GStrv) lines = cli_progress_render (progress, after, 80, 24);
  assert_null (strstr (lines[1], "/s"));
}

static void
test_phases (void **state)
{
  g_autoptr (CliJob) job = make_job ("converging", 0, 4, 0);
  g_autofree char *phase = cli_progress_describe_phase (job);
  assert_string_equal (phase, "vm1: converging, pass 4");
  g_autoptr (CliJob) other = make_job ("fencing", 0, 4, 0);
  g_autofree char *text = cli_progress_describe_phase (other);
  assert_string_equal (text, "vm1: fencing");
}

static void
check_text (char *text, const char *expected)
{
  assert_string_equal (text, expected);
  g_free (text);
}

static void
test_numbers (void **state)
{
  check_text (cli_text_format_bytes (0), "0 B");
  check_text (cli_text_format_bytes (1023), "1023 B");
  check_text (cli_text_format_bytes (1024), "1.00 KiB");
  check_text (cli_text_format_bytes (1023 * 1024), "1.00 MiB");
  check_text (cli_text_format_bytes (12 * GIB + GIB / 2), "12.5 GiB");
  check_text (cli_text_format_bytes (G_MAXUINT64), "16.0 EiB");
  check_text (cli_text_format_rate (-1), "0 B/s");
  check_text (cli_text_format_duration (0), "0.0 s");
  check_text (cli_text_format_duration (59.99), "1:00");
  check_text (cli_text_format_duration (3725), "1:02:05");
  check_text (cli_text_format_duration (-1), "?");
  check_text (cli_text_format_duration (1e300), "?");
}

static void
test_texts (void **state)
{
  check_text (cli_text_escape ("a\033]0;x\007b\xff"), "a\\u001b]0;x\\u0007b\\xff");
  check_text (
      cli_text_escape_json ("{\"a\":\"\xc2\x9b\xe2\x80\xae\xf0\x9f\x98\x80\xf3\xa0\x80\x81\"}"),
      "{\"a\":\"\\u009b\\u202e\xf0\x9f\x98\x80\\udb40\\udc01\"}");
  assert_int_equal (cli_text_width ("a\xe4\xb8\xad"), 3);
  check_text (cli_text_cut ("a\xe4\xb8\xad", 2), "a");
  check_text (cli_text_pad ("\xe4\xb8\xad", 3), "\xe4\xb8\xad ");
}

typedef struct
{
  int master;
  FILE *stream;
  CliTerminal *terminal;
} Pty;

static void
pty_open (Pty *pty, gushort columns)
{
  struct winsize size = { .ws_row = 24, .ws_col = columns };
  int slave;
  assert_int_equal (openpty (&pty->master, &slave, NULL, NULL, &size), 0);
  pty->stream = fdopen (slave, "w");
  pty->terminal = cli_terminal_new (pty->stream, TRUE);
}

/* What was written, in raw bytes but for the terminal's own CR.  The kernel hands it over in as
 * many parts as it likes. */
static void
check_frame (Pty *pty, const char *expected)
{
  g_autoptr (GString) text = g_string_new (NULL);
  while (text->len < strlen (expected))
    {
      char buf[4096];
      ssize_t n = read (pty->master, buf, sizeof buf);
      assert_true (n > 0);
      g_string_append_len (text, buf, n);
      g_string_replace (text, "\r\n", "\n", 0);
    }
  assert_string_equal (text->str, expected);
}

static void
pty_close (Pty *pty)
{
  cli_terminal_free (pty->terminal);
  fclose (pty->stream);
  close (pty->master);
}

static char **
two_lines (const char *first, const char *second)
{
  const char *lines[] = { first, second, NULL };
  return g_strdupv ((char **)lines);
}

static void
test_redraw_in_place (void **state)
{
  Pty pty;
  pty_open (&pty, 80);
  cli_terminal_show (pty.terminal, two_lines ("one", "two"));
  check_frame (&pty, "one\033[K\ntwo\033[K\n\033[J");
  cli_terminal_show (pty.terminal, two_lines ("uno", "due"));
  check_frame (&pty, "\r\033[2Auno\033[K\ndue\033[K\n\033[J");
  cli_terminal_print (pty.terminal, "hello");
  check_frame (&pty, "\r\033[2A\033[Jvmferry: hello\nuno\033[K\ndue\033[K\n\033[J");
  cli_terminal_show (pty.terminal, NULL);
  check_frame (&pty, "\r\033[2A\033[J");
  cli_terminal_print (pty.terminal, "bye");
  check_frame (&pty, "vmferry: bye\n");
  pty_close (&pty);
}

/* Lines that became too long take more rows than they had. */
static void
test_resize (void **state)
{
  Pty pty;
  pty_open (&pty, 80);
  cli_terminal_show (pty.terminal, two_lines ("12345678901234567890", "x"));
  check_frame (&pty, "12345678901234567890\033[K\nx\033[K\n\033[J");
  struct winsize narrow = { .ws_row = 24, .ws_col = 10 };
  assert_int_equal (ioctl (pty.master, TIOCSWINSZ, &narrow), 0);
  guint columns, rows;
  cli_terminal_get_size (pty.terminal, &columns, &rows);
  assert_int_equal (columns, 9);
  assert_int_equal (rows, 23);
  cli_terminal_show (pty.terminal, two_lines ("a", "b"));
  check_frame (&pty, "\r\033[3Aa\033[K\nb\033[K\n\033[J");
  pty_close (&pty);
}

static void
test_not_live (void **state)
{
  FILE *file = tmpfile ();
  g_autoptr (CliTerminal) terminal = cli_terminal_new (file, FALSE);
  assert_false (cli_terminal_is_capable (file));
  cli_terminal_show (terminal, two_lines ("one", "two"));
  assert_int_equal (ftell (file), 0);
  fclose (file);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_bars),
    cmocka_unit_test (test_every_width),
    cmocka_unit_test (test_few_rows),
    cmocka_unit_test (test_new_pass),
    cmocka_unit_test (test_ended),
    cmocka_unit_test (test_phases),
    cmocka_unit_test (test_numbers),
    cmocka_unit_test (test_texts),
    cmocka_unit_test (test_redraw_in_place),
    cmocka_unit_test (test_resize),
    cmocka_unit_test (test_not_live),
  };
  return cmocka_run_group_tests (tests, NULL, NULL);
}
