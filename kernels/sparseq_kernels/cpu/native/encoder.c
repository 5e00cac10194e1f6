/* A BERT encoder in one call: int8 products of inputs that are quantized by row, fp32 for all else.
 *
 * Sequences stand one after the other without padding, and do not need each other. With enough of them each thread takes
 * some through all layers and waits for nobody; with few, all threads share each step of all tokens. */
#include <stdlib.h>

#include "attention.h"
#include "layer_norm.h"
#include "linear.h"
#include "stages.h"

#define TOKENS 128    /* of the sequences that a thread takes at once, if one is not longer */
#define MANY_PARTS 2  /* for each thread: from so many on, parts of different sizes even out */

/* One layer: x = norm(x + out(attention(qkv(x)))), then x = norm(x + down(up(x))). */
struct layer {
    struct linear qkv, out, up, down;
    struct norm after_attention, after_output;
};

struct encoder {
    const struct layer *layers;
    int64_t count, heads, head_size, intermediate;
    int32_t bf16_attention; /* only where sparseq_has_bf16_attention() and the processor say so */
};

/* What the tokens of one part need: x's quantized rows, and floats between steps. */
struct room {
    struct rows rows;
    float *wide, *context, *sum, *attention;
};

static int64_t larger_of(int64_t x, int64_t y) { return x > y ? x : y; }

/* The floats that take as much room as so many operands. */
static int64_t floats_of(int64_t operands)
{
    return (operands * (int64_t)sizeof(operand) + (int64_t)sizeof(float) - 1) / (int64_t)sizeof(float);
}

/* The room for `tokens` in `memory`, which may be NULL; *floats is how much it takes. */
static struct room room_in(float *memory, const struct encoder *encoder, int64_t tokens, int64_t longest, int threads,
                           size_t *floats)
{
    int64_t hidden = encoder->heads * encoder->head_size, inputs = larger_of(hidden, encoder->intermediate);
    int64_t sizes[] = {floats_of(values_of_rows(tokens, inputs)),
                       floats_of(transposed_of_rows(tokens, inputs)),
                       scales_of_rows(tokens),
                       tokens * larger_of(3 * hidden, encoder->intermediate),
                       tokens * hidden,
                       tokens * hidden,
                       threads * attention_floats(longest, encoder->head_size)};
    float *parts[sizeof sizes / sizeof *sizes];
    *floats = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        parts[i] = memory ? memory + *floats : NULL;
        *floats += (size_t)sizes[i];
    }
    struct rows rows = {(operand *)parts[0], (operand *)parts[1], parts[2]};
    return (struct room){rows, parts[3], parts[4], parts[5], parts[6]};
}

/* x = norm(x + room->sum), quantized for `next` unless that is NULL. */
static void add_norm(const struct team *team, float *x, int64_t tokens, int64_t columns, const struct norm *norm,
                     const struct linear *next, struct room *room)
{
    int64_t first, end;
    share(team, tokens, &first, &end);
    for (int64_t m = first; m < end; m++) {
        layer_norm_row(x + m * columns, room->sum + m * columns, columns, norm, x + m * columns);
        if (next)
            quantize_input(x + m * columns, m, next, &room->rows);
    }
    if (next)
        transpose(team, tokens, next, &room->rows);
    else
        wait_for_all(team);
}

/* The context [tokens, hidden] of room->wide [tokens, 3 hidden]. starts: of the sequences, the first of them 0. */
static void attention(const struct team *team, const struct encoder *encoder, const int64_t *starts, int64_t sequences,
                      int64_t longest, const struct room *room)
{
    int64_t first, end, heads = encoder->heads, size = encoder->head_size, hidden = heads * size;
    float scale = 1.0f / sqrtf((float)size);
    float *memory = room->attention + team->number * attention_floats(longest, size);
    share(team, sequences * heads, &first, &end);
    for (int64_t i = first; i < end; i++) {
        int64_t start = starts[i / heads] - starts[0], tokens = starts[i / heads + 1] - starts[i / heads];
        const float *q = room->wide + start * 3 * hidden + i % heads * size;
        float *to = room->context + start * hidden + i % heads * size;
#if HAS_PAIRS
        if (encoder->bf16_attention) {
            attend_in_pairs(q, q + hidden, q + 2 * hidden, 3 * hidden, tokens, size, scale, to, hidden, memory);
            continue;
        }
#endif
        attend(q, q + hidden, q + 2 * hidden, 3 * hidden, tokens, size, scale, to, hidden, memory);
    }
    wait_for_all(team);
}

/* All layers of these sequences. x [tokens, hidden] in place; after each layer a copy to states, where it is not NULL, which
 * are `stride` floats apart. */
static void encode(const struct team *team, const struct encoder *encoder, float *x, const int64_t *starts,
                   int64_t sequences, int64_t longest, struct room *room, float *states, int64_t stride)
{
    int64_t tokens = starts[sequences] - starts[0], hidden = encoder->heads * encoder->head_size, first, end;
    BEGIN_STAGES();
    quantize(team, &(struct input){.x = x}, 0, tokens, &encoder->layers->qkv, &room->rows);
    END_STAGE(QUANTIZED);
    for (int64_t l = 0; l < encoder->count; l++) {
        const struct layer *layer = encoder->layers + l;
        const struct linear *next = l + 1 < encoder->count ? &layer[1].qkv : NULL;
        multiply(team, &layer->qkv, tokens, &room->rows, room->wide);
        END_STAGE(MULTIPLIED);
        attention(team, encoder, starts, sequences, longest, room);
        END_STAGE(ATTENDED);
        quantize(team, &(struct input){.x = room->context}, 0, tokens, &layer->out, &room->rows);
        END_STAGE(QUANTIZED);
        multiply(team, &layer->out, tokens, &room->rows, room->sum);
        END_STAGE(MULTIPLIED);
        add_norm(team, x, tokens, hidden, &layer->after_attention, &layer->up, room);
        END_STAGE(NORMALIZED);
        multiply(team, &layer->up, tokens, &room->rows, room->wide);
        END_STAGE(WIDENED);
        quantize(team, &(struct input){.x = room->wide}, 0, tokens, &layer->down, &room->rows);
        END_STAGE(QUANTIZED);
        multiply(team, &layer->down, tokens, &room->rows, room->sum);
        END_STAGE(MULTIPLIED);
        add_norm(team, x, tokens, hidden, &layer->after_output, next, room);
        END_STAGE(NORMALIZED);
        if (states) {
            share(team, tokens * hidden, &first, &end);
            memcpy(states + l * stride + first, x + first, sizeof(float) * (size_t)(end - first));
        }
    }
}

/* The number of parts of whole sequences, none of more than `most` tokens unless it is one sequence; ends [sequences]: of
 * each part the sequence after its last. */
static int64_t part_sequences(const int64_t *starts, int64_t sequences, int64_t most, int64_t *ends)
{
    int64_t parts = 0, first = 0;
    for (int64_t s = 1; s <= sequences; s++)
        if (s == sequences || starts[s + 1] - starts[first] > most) {
            ends[parts++] = s;
            first = s;
        }
    return parts;
}

/* x [tokens, hidden] in place. starts [sequences + 1]: where each sequence begins, and the number of tokens. states:
 * [layers, tokens, hidden], or NULL. Returns 0, or 1 where there is no memory. */
int sparseq_encode(const struct encoder *encoder, float *x, const int64_t *starts, int64_t sequences, float *states,
                   int32_t threads)
{
    int64_t tokens = starts[sequences], hidden = encoder->heads * encoder->head_size, longest = 0;
    if (!tokens)
        return 0;
    for (int64_t s = 0; s < sequences; s++)
        longest = starts[s + 1] - starts[s] > longest ? starts[s + 1] - starts[s] : longest;
    int64_t *ends = malloc(sizeof(int64_t) * (size_t)sequences);
    if (!ends)
        return 1;
    int64_t each = (tokens + threads - 1) / threads, most = each < TOKENS ? each : TOKENS;
    int64_t parts = part_sequences(starts, sequences, most > longest ? most : longest, ends);
    int apart = parts % threads == 0 || parts >= MANY_PARTS * threads, failed = 0;
    int64_t largest = apart ? (most > longest ? most : longest) : tokens;
    size_t floats;
    room_in(NULL, encoder, largest, longest, apart ? 1 : threads, &floats);
    float *memory = malloc(sizeof(float) * floats * (size_t)(apart ? threads : 1));
    if (memory && apart) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
        for (int64_t p = 0; p < parts; p++) {
            int64_t first = p ? ends[p - 1] : 0;
            size_t size;
            float *own = memory + floats * (size_t)omp_get_thread_num();
            struct room room = room_in(own, encoder, largest, longest, 1, &size);
            encode(&(struct team){0, 1}, encoder, x + starts[first] * hidden, starts + first, ends[p] - first, longest, &room,
                   states ? states + starts[first] * hidden : NULL, tokens * hidden);
        }
    } else if (memory) {
        struct room room = room_in(memory, encoder, tokens, longest, threads, &floats);
#pragma omp parallel num_threads(threads)
        encode(&(struct team){omp_get_thread_num(), omp_get_num_threads()}, encoder, x, starts, sequences, longest, &room,
               states, tokens * hidden);
    } else
        failed = 1;
    free(memory);
    free(ends);
    return failed;
}

/* Whether attention can multiply in bf16, on a processor with AVX-512 BF16. */
int32_t sparseq_has_bf16_attention(void) { return HAS_PAIRS; }
