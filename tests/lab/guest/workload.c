/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest's disk load and the verifier of its images, in one source so that the format of a
 * record cannot drift between the two.
 *
 *   workload run DEVICE...                       in the guest, parameters from /proc/cmdline
 *   workload mkbase IMAGE DISK SIZE_MB           make the image that disk number DISK begins with
 *   workload verify IMAGE BASE DISK SEQ FLUSHED SIZE_MB WS_MB
 *
 * Each disk has a writer of its own. Its record n (n = 1, 2, ...) is one 4 KiB block; place and
 * content follow from (disk, n), so the number of the last acknowledged record says what every
 * block of the image must hold.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096u
#define BLOCKS_PER_MB 256u
#define MAX_DISKS 8
#define MAGIC 0x766d666572727931ull

struct record
{
  uint64_t magic, seq, disk, block, sum, body[(BLOCK - 40) / 8];
};

static uint64_t
mix (uint64_t x)
{
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

static uint64_t
xorshift (uint64_t s)
{
  s ^= s << 13;
  s ^= s >> 7;
  return s ^ (s << 17);
}

static uint64_t
record_place (uint64_t disk, uint64_t seq, uint64_t n_blocks)
{
  return mix (seq ^ mix (disk + 1)) % n_blocks;
}

static uint64_t
record_sum (const struct record *r)
{
  uint64_t h = r->magic ^ mix (r->seq) ^ mix (r->block * 3 + 1) ^ mix (r->disk * 7 + 2);

  for (unsigned i = 0; i < sizeof r->body / 8; i++)
    h = (h ^ r->body[i]) * 0x100000001b3ull;
  return h;
}

static void
record_fill (struct record *r, uint64_t disk, uint64_t seq, uint64_t block)
{
  uint64_t s = mix (seq ^ (disk << 48));

  r->magic = MAGIC;
  r->seq = seq;
  r->disk = disk;
  r->block = block;
  for (unsigned i = 0; i < sizeof r->body / 8; i++)
    r->body[i] = s = xorshift (s);
  r->sum = record_sum (r);
}

/* The number of the record that is in @r, 0 if it is none that belongs there. */
static uint64_t
record_number (const struct record *r, uint64_t disk, uint64_t block, uint64_t n_blocks)
{
  if (r->magic != MAGIC || r->disk != disk || r->block != block || r->sum != record_sum (r))
    return 0;
  return record_place (disk, r->seq, n_blocks) == block ? r->seq : 0;
}

/* ---------------------------------------------------------------- in the guest */

struct writer
{
  const char *device;
  uint64_t disk, n_blocks;
  _Atomic uint64_t acked, flushed, max_latency_us, errors, reads;
};

static struct writer writers[MAX_DISKS];
static int n_writers;
static char command_line[4096];

static uint64_t
now_us (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

/* Sleeps until *@next and moves it on by @period; time that was lost is not made up for. */
static void
pace (uint64_t *next, uint64_t period)
{
  struct timespec t = { *next / 1000000, *next % 1000000 * 1000 };

  clock_nanosleep (CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0);
  *next += period;
  if (now_us () > *next + 200000)
    *next = now_us ();
}

static long
param (const char *name, long otherwise)
{
  const char *p = strstr (command_line, name);

  return p ? strtol (p + strlen (name), NULL, 10) : otherwise;
}

static void
print_list (const char *name, size_t field, bool reset)
{
  printf (" %s=", name);
  for (int i = 0; i < n_writers; i++)
    {
      _Atomic uint64_t *v = (_Atomic uint64_t *)((char *)&writers[i] + field);
      unsigned long long x = reset ? atomic_exchange (v, 0) : *v;

      printf ("%s%llu", i ? "," : "", x);
    }
}

static void *
beat (void *name)
{
  uint64_t next = now_us ();

  for (unsigned long long n = 0;; n++)
    {
      printf ("HB %s %llu t=%llu", (char *)name, n, (unsigned long long)now_us ());
      print_list ("seq", offsetof (struct writer, acked), false);
      print_list ("fl", offsetof (struct writer, flushed), false);
      print_list ("lat", offsetof (struct writer, max_latency_us), true);
      print_list ("err", offsetof (struct writer, errors), false);
      print_list ("rd", offsetof (struct writer, reads), false);
      printf ("\n");
      pace (&next, 10000);
    }
  return NULL;
}

static void *
dirty_memory (void *arg)
{
  size_t size = (size_t)param ("wl.ram_mb=", 32) << 20, offset = 0;
  long pages = param ("wl.ram_mbps=", 0) * BLOCKS_PER_MB / 100;
  char *ram = mmap (NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uint64_t next = now_us (), s = 7;

  (void)arg;
  for (size_t i = 0; i < size; i += 8)
    *(uint64_t *)(ram + i) = s = xorshift (s);
  while (pages)
    {
      for (long i = 0; i < pages; i++, offset = (offset + BLOCK) % size)
        *(uint64_t *)(ram + offset) = s = mix (s);
      pace (&next, 10000);
    }
  return NULL;
}

static void
complain (struct writer *w, const char *what, uint64_t a, uint64_t b)
{
  w->errors++;
  printf ("%s disk=%llu %llu %llu %s\n", what, (unsigned long long)w->disk, (unsigned long long)a,
          (unsigned long long)b, strerror (errno));
}

static void
note_latency (struct writer *w, uint64_t since)
{
  uint64_t d = now_us () - since;

  if (d > w->max_latency_us)
    w->max_latency_us = d;
}

static void
write_record (struct writer *w, int fd, struct record *r, uint64_t seq, uint64_t block)
{
  uint64_t since = now_us ();

  record_fill (r, w->disk, seq, block);
  while (pwrite (fd, r, BLOCK, (off_t)block * BLOCK) != BLOCK)
    {
      complain (w, "IOERR write", seq, block);
      usleep (100000);
    }
  note_latency (w, since);
  w->acked = seq;
}

static void
flush (struct writer *w, int fd, uint64_t seq)
{
  uint64_t since = now_us ();

  if (fdatasync (fd) == 0)
    w->flushed = seq;
  else
    complain (w, "IOERR flush", seq, 0);
  note_latency (w, since);
}

/* Reads a block that some earlier record has written; @last says which one must be there. */
static void
check_record (struct writer *w, int fd, struct record *r, uint64_t seq, const uint64_t *last)
{
  uint64_t block = record_place (w->disk, 1 + mix (seq) % seq, w->n_blocks), since = now_us ();

  if (pread (fd, r, BLOCK, (off_t)block * BLOCK) != BLOCK)
    complain (w, "IOERR read", seq, block);
  else if (record_number (r, w->disk, block, w->n_blocks) != last[block])
    complain (w, "CORRUPT got/want", r->seq, last[block]);
  else
    w->reads++;
  note_latency (w, since);
}

static void *
write_records (void *arg)
{
  struct writer *w = arg;
  long rate = param ("wl.rate=", 200);
  uint64_t *last = calloc (w->n_blocks, 8), next = now_us ();
  int fd = open (w->device, O_RDWR | O_DIRECT);
  void *buffer;

  if (fd < 0 || !last || posix_memalign (&buffer, BLOCK, BLOCK))
    {
      complain (w, "OPEN", 0, 0);
      return NULL;
    }
  for (uint64_t seq = 1;; seq++)
    {
      uint64_t block = record_place (w->disk, seq, w->n_blocks);

      write_record (w, fd, buffer, seq, block);
      last[block] = seq;
      if (seq % 100 == 0)
        flush (w, fd, seq);
      if (seq % 10 == 0)
        check_record (w, fd, buffer, seq, last);
      if (rate)
        pace (&next, 1000000 / rate);
    }
}

static int
run (int n, char **devices)
{
  static char name[32] = "vm";
  int fd = open ("/proc/cmdline", O_RDONLY);
  const char *p;
  pthread_t thread;

  setvbuf (stdout, NULL, _IOLBF, 0);
  if (fd < 0 || read (fd, command_line, sizeof command_line - 1) <= 0 || n > MAX_DISKS)
    return 1;
  if ((p = strstr (command_line, "wl.name=")))
    sscanf (p, "wl.name=%31s", name);
  for (n_writers = 0; n_writers < n; n_writers++)
    {
      struct writer *w = &writers[n_writers];

      w->device = devices[n_writers];
      w->disk = n_writers;
      w->n_blocks = (uint64_t)param ("wl.ws_mb=", 32) * BLOCKS_PER_MB;
    }
  pthread_create (&thread, NULL, dirty_memory, NULL);
  for (int i = 0; i < n; i++)
    pthread_create (&thread, NULL, write_records, &writers[i]);
  beat (name);
  return 0;
}

/* ----------------------------------------------------------------- on the host */

/* Each 64 MiB hold 32 MiB of random bytes, 8 MiB that look like text, and a hole of 24 MiB. */
static int
make_base (const char *image, uint64_t disk, long mb)
{
  int fd = open (image, O_RDWR | O_CREAT | O_TRUNC, 0644);
  static uint64_t b[1 << 17];
  uint64_t s = mix (disk + 42);

  if (fd < 0 || ftruncate (fd, (off_t)mb << 20))
    return perror (image), 2;
  for (long m = 0; m < mb; m++)
    {
      long k = m % 64;

      if (k >= 40)
        continue;
      for (unsigned i = 0; i < sizeof b / 8; i++)
        {
          s = xorshift (s);
          b[i] = k < 32 ? s : (uint64_t)(m + 1) * 0x0101010101010101ull + i / 64;
        }
      if (pwrite (fd, b, sizeof b, (off_t)m << 20) != sizeof b)
        return perror (image), 2;
    }
  return fsync (fd) || close (fd) ? 2 : 0;
}

struct check
{
  uint64_t disk, n_blocks;
  uint64_t *want, *want_flushed; /* per block: the newest record that must be there */
  unsigned long long lost, lost_flushed, torn, outside, newest;
};

static void
check_block (struct check *c, const void *got, const void *base, uint64_t block)
{
  uint64_t number;

  if (block >= c->n_blocks)
    {
      c->outside += memcmp (got, base, BLOCK) != 0;
      return;
    }
  number = record_number (got, c->disk, block, c->n_blocks);
  if (!number && memcmp (got, base, BLOCK))
    {
      c->torn++;
      return;
    }
  c->lost += number < c->want[block];
  c->lost_flushed += number < c->want_flushed[block];
  if (number > c->newest)
    c->newest = number;
}

static bool
check_image (struct check *c, const char *image, const char *base, long mb)
{
  int fd = open (image, O_RDONLY), base_fd = open (base, O_RDONLY);
  static unsigned char x[1 << 20], y[1 << 20];

  for (off_t offset = 0; offset < (off_t)mb << 20; offset += sizeof x)
    {
      if (pread (fd, x, sizeof x, offset) != sizeof x
          || pread (base_fd, y, sizeof y, offset) != sizeof y)
        return fprintf (stderr, "%s or %s: can't read %ld MiB\n", image, base, mb), false;
      for (unsigned i = 0; i < sizeof x; i += BLOCK)
        check_block (c, x + i, y + i, (offset + i) / BLOCK);
    }
  return true;
}

static int
verify (const char *image, const char *base, uint64_t disk, uint64_t seq, uint64_t flushed, long mb,
        long ws_mb)
{
  struct check c = { .disk = disk, .n_blocks = (uint64_t)ws_mb * BLOCKS_PER_MB };
  bool bad;

  c.want = calloc (c.n_blocks, 8);
  c.want_flushed = calloc (c.n_blocks, 8);
  for (uint64_t n = 1; n <= seq; n++)
    c.want[record_place (disk, n, c.n_blocks)] = n;
  for (uint64_t n = 1; n <= flushed; n++)
    c.want_flushed[record_place (disk, n, c.n_blocks)] = n;
  if (!check_image (&c, image, base, mb))
    return 2;
  bad = c.lost || c.torn || c.outside;
  printf ("{\"ok\": %s, \"lost\": %llu, \"lost_flushed\": %llu, \"torn\": %llu, "
          "\"outside\": %llu, \"newest\": %llu, \"acknowledged\": %llu}\n",
          bad ? "false" : "true", c.lost, c.lost_flushed, c.torn, c.outside, c.newest,
          (unsigned long long)seq);
  return bad;
}

int
main (int argc, char **argv)
{
  if (argc > 2 && !strcmp (argv[1], "run"))
    return run (argc - 2, argv + 2);
  if (argc == 5 && !strcmp (argv[1], "mkbase"))
    return make_base (argv[2], strtoull (argv[3], NULL, 10), atol (argv[4]));
  if (argc == 9 && !strcmp (argv[1], "verify"))
    return verify (argv[2], argv[3], strtoull (argv[4], NULL, 10), strtoull (argv[5], NULL, 10),
                   strtoull (argv[6], NULL, 10), atol (argv[7]), atol (argv[8]));
  fprintf (stderr, "usage: workload run DEVICE... | mkbase IMAGE DISK MB"
                   " | verify IMAGE BASE DISK SEQ FLUSHED MB WS_MB\n");
  return 2;
}
