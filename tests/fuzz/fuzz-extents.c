/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd/extent.h"
#include "tests/fuzz/fuzz.h"

/* The scan of extents.  Input: an export, then answers to the queries as a server could give them,
 * in any order; behind its end each answer is one extent of data.  Whatever they are: pieces come
 * in order, don't overlap, and leave out or zero nothing that the answers don't tell so. */

/* Slots of a few known answers, with two contexts that alternate against each other. */
#define MAX_MEMORY (16 * 1024 * 1024)
#define MAX_QUERIES 64

typedef struct
{
  guint64 start;
  guint64 end;
} Span;

typedef struct
{
  FuzzInput input;
  guint64 start;
  guint64 end;
  guint32 block;
  gboolean bitmap;
  gboolean allocation;
  ExtentScan *scan;
  GArray *queries;  /* ExtentQuery: asked, not answered */
  GArray *clean;    /* Span: told so by some answer */
  GArray *zero;     /* the same */
  GArray *gaps;     /* Span: no piece came for it */
  GArray *zeroed;   /* Span: a ZERO piece came for it */
  guint64 position; /* the end of the last piece */
  guint64 read_bytes;
  guint64 zero_bytes;
  gssize memory; /* of the scan */
} Model;

static void
add_span (GArray *spans, guint64 start, guint64 end)
{
  Span span = { start, end };
  Span *last = spans->len > 0 ? &g_array_index (spans, Span, spans->len - 1) : NULL;

  if (last != NULL && last->end == start)
    last->end = end;
  else
    g_array_append_val (spans, span);
}

static gint
compare_spans (gconstpointer a, gconstpointer b)
{
  guint64 x = ((const Span *)a)->start, y = ((const Span *)b)->start;

  return x < y ? -1 : x > y;
}

static void
merge_spans (GArray *spans)
{
  guint n = 0;

  g_array_sort (spans, compare_spans);
  for (guint i = 0; i < spans->len; i++)
    {
      Span span = g_array_index (spans, Span, i);

      if (n > 0 && g_array_index (spans, Span, n - 1).end >= span.start)
        g_array_index (spans, Span, n - 1).end
            = MAX (g_array_index (spans, Span, n - 1).end, span.end);
      else
        g_array_index (spans, Span, n++) = span;
    }
  g_array_set_size (spans, n);
}

/* All of `inner` lies in `outer`; both in order. */
static void
check_within (GArray *inner, GArray *outer)
{
  guint k = 0;

  merge_spans (outer);
  for (guint i = 0; i < inner->len; i++)
    {
      const Span *span = &g_array_index (inner, Span, i);

      while (k < outer->len && g_array_index (outer, Span, k).end < span->end)
        k++;
      FUZZ_REQUIRE (k < outer->len && g_array_index (outer, Span, k).start <= span->start);
    }
}

/* Answers */

static guint32
take_length (FuzzInput *input)
{
  guint8 kind = fuzz_input_u8 (input);

  switch (kind % 4)
    {
    case 0:
      return 1 + kind / 4;
    case 1:
      return 4096u * (1 + kind / 4);
    case 2:
      return MAX (1, (guint32)fuzz_input_u16 (input) << (kind / 4 % 17));
    default:
      return MAX (1, fuzz_input_u32 (input));
    }
}

/* One context's answer, with all that the client has checked: no extent is empty, only the last
 * one ends behind the range, one alone where one was asked for. */
static GArray *
take_extents (Model *model, const ExtentQuery *query)
{
  GArray *extents = g_array_new (FALSE, FALSE, sizeof (NbdExtent));
  gboolean one = (query->flags & NBD_CMD_FLAG_REQ_ONE) != 0;
  guint64 told = 0;

  while (told < query->length && (!one || extents->len == 0))
    {
      guint8 op = fuzz_input_u8 (&model->input);
      guint n = (op & 0xf0) == 0xf0 ? fuzz_input_u16 (&model->input) % NBD_CLIENT_MAX_EXTENTS : 1;
      NbdExtent extent = { query->length, 0 };

      if ((op & 0x7f) == 0x7f && extents->len > 0)
        break;
      if (model->input.left > 0)
        extent = (NbdExtent){ take_length (&model->input), op & 3 };
      if (one)
        extent.length = MIN (extent.length, query->length);
      for (guint i = 0; i < MAX (n, 1) && told < query->length && (!one || extents->len == 0); i++)
        {
          if (extents->len >= NBD_CLIENT_MAX_EXTENTS)
            return extents;
          g_array_append_val (extents, extent);
          told += extent.length;
          extent.flags ^= op >> 2 & 3;
        }
    }
  return extents;
}

static void
note_told (GArray *spans, const GArray *extents, const ExtentQuery *query, guint32 mask,
           guint32 value)
{
  guint64 pos = query->offset;

  for (guint i = 0; i < extents->len; i++)
    {
      const NbdExtent *extent = &g_array_index (extents, NbdExtent, i);

      if ((extent->flags & mask) == value)
        add_span (spans, pos, pos + extent->length);
      pos += extent->length;
    }
}

static void
answer (Model *model, guint index)
{
  ExtentQuery query = g_array_index (model->queries, ExtentQuery, index);
  g_autoptr (GArray) bitmap = model->bitmap ? take_extents (model, &query) : NULL;
  g_autoptr (GArray) allocation = model->allocation ? take_extents (model, &query) : NULL;
  gsize before;

  g_array_remove_index (model->queries, index);
  if (bitmap != NULL)
    note_told (model->clean, bitmap, &query, NBD_STATE_DIRTY, 0);
  if (allocation != NULL)
    note_told (model->zero, allocation, &query, NBD_STATE_ZERO, NBD_STATE_ZERO);
  before = fuzz_allocated ();
  extent_scan_add_reply (model->scan, query.offset, bitmap, allocation);
  model->memory += (gssize)(fuzz_allocated () - before);
  FUZZ_REQUIRE (model->memory < MAX_MEMORY);
}

/* Queries and pieces */

static gboolean
ask (Model *model)
{
  ExtentQuery query;
  guint64 end;

  if (!extent_scan_next_query (model->scan, &query))
    return FALSE;
  FUZZ_REQUIRE (model->bitmap || model->allocation);
  end = query.offset + query.length;
  FUZZ_REQUIRE (query.length > 0 && query.length <= EXTENT_MAX_SPAN);
  FUZZ_REQUIRE (query.offset >= model->start && end <= model->end);
  FUZZ_REQUIRE (query.offset % model->block == 0);
  FUZZ_REQUIRE (end % model->block == 0 || end == model->end);
  FUZZ_REQUIRE (query.flags == 0 || query.flags == NBD_CMD_FLAG_REQ_ONE);
  FUZZ_REQUIRE (extent_query_reply_size (model->scan, &query) > 0);
  g_array_append_val (model->queries, query);
  FUZZ_REQUIRE (model->queries->len <= MAX_QUERIES);
  return TRUE;
}

static gboolean
take_piece (Model *model)
{
  guint64 below = extent_scan_get_position (model->scan);
  gsize before = fuzz_allocated ();
  ExtentPiece piece;
  guint64 end;
  gboolean any = extent_scan_next_piece (model->scan, &piece);

  model->memory += (gssize)(fuzz_allocated () - before);
  if (!any)
    return FALSE;
  end = piece.offset + piece.length;
  FUZZ_REQUIRE (piece.length > 0 && end > piece.offset && end <= model->end);
  FUZZ_REQUIRE (piece.offset >= model->position && piece.offset >= below);
  if (piece.offset > model->position)
    add_span (model->gaps, model->position, piece.offset);
  model->position = end;
  if (piece.kind == EXTENT_ZERO)
    {
      add_span (model->zeroed, piece.offset, end);
      model->zero_bytes += piece.length;
      return TRUE;
    }
  FUZZ_REQUIRE (piece.kind == EXTENT_READ);
  FUZZ_REQUIRE (piece.offset % model->block == 0);
  FUZZ_REQUIRE (end % model->block == 0 || end == model->end);
  model->read_bytes += piece.length;
  return TRUE;
}

/* The input chooses what is done next, of what can be. */
static void
step (Model *model)
{
  guint8 op = model->input.left > 0 ? fuzz_input_u8 (&model->input) : 0;

  if ((op & 3) == 1 && take_piece (model))
    return;
  if ((op & 3) == 2 && model->queries->len > 0)
    {
      answer (model, op / 4 % model->queries->len);
      return;
    }
  if (ask (model))
    return;
  if (model->queries->len > 0)
    {
      answer (model, op / 4 % model->queries->len);
      return;
    }
  /* Nothing to ask, nothing to wait for: there must be a piece, or none was left before the next
   * query, or it was the last one. */
  FUZZ_REQUIRE (take_piece (model) || extent_scan_is_done (model->scan) || ask (model));
}

static void
check_end (Model *model)
{
  if (model->position < model->end)
    add_span (model->gaps, model->position, model->end);
  FUZZ_REQUIRE (!take_piece (model) && !ask (model));
  FUZZ_REQUIRE (extent_scan_get_position (model->scan) == model->end);
  FUZZ_REQUIRE (extent_scan_get_read_bytes (model->scan) == model->read_bytes);
  FUZZ_REQUIRE (extent_scan_get_zero_bytes (model->scan) == model->zero_bytes);
  check_within (model->gaps, model->clean);
  check_within (model->zeroed, model->zero);
}

static void
model_init (Model *model)
{
  FuzzInput *input = &model->input;
  guint8 settings = fuzz_input_u8 (input);
  guint8 shift = fuzz_input_u8 (input);
  guint64 length = (guint64)fuzz_input_u32 (input) << shift % 8;

  model->bitmap = (settings & 1) != 0;
  model->allocation = (settings & 2) != 0;
  model->block = 1u << (settings >> 3) % 17;
  /* A part of up to 64 GiB, so that honest answers are soon through, anywhere in an export. */
  model->start = (guint64)fuzz_input_u16 (input) << shift % 47;
  model->start -= model->start % model->block;
  model->end = model->start + MIN (length, (guint64)1 << 36);
  if (settings & 4)
    model->end -= length % model->block;
  model->end = MAX (model->end, model->start);
  model->position = model->start;
  model->scan
      = extent_scan_new (model->start, model->end, model->block, model->bitmap, model->allocation);
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  Model model = { .input = { data, size } };
  GArray **arrays[] = { &model.clean, &model.zero, &model.gaps, &model.zeroed };

  for (guint i = 0; i < G_N_ELEMENTS (arrays); i++)
    *arrays[i] = g_array_new (FALSE, FALSE, sizeof (Span));
  model.queries = g_array_new (FALSE, FALSE, sizeof (ExtentQuery));
  model_init (&model);
  while (!extent_scan_is_done (model.scan))
    step (&model);
  FUZZ_REQUIRE (model.queries->len == 0);
  check_end (&model);
  extent_scan_free (model.scan);
  for (guint i = 0; i < G_N_ELEMENTS (arrays); i++)
    g_array_unref (*arrays[i]);
  g_array_unref (model.queries);
  return 0;
}
