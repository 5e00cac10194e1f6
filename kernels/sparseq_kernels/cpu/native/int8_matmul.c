/* The int8 matrix product where torch has no fast and exact one: int8 [M, K] times int8 [N, K] transposed.
 *
 * Exact for every int8 value, -128 included: products are made from int16 operands and added in int32, so that nothing
 * saturates (vpmaddubsw, which takes int8 operands, does). The caller bounds K, so that an int32 holds the sum.
 *
 * The result is computed in blocks of BLOCK_ROWS x BLOCK_COLUMNS, each by one thread: the weights of a block stay in the
 * second-level cache while rows of x pass by, and the few rows of a tile in the first-level cache. */
#if defined(__GNUC__) && !defined(__clang__)
/* With it GCC (12 to 14) gives a tile's sums two registers each, and keeps half of them in memory. */
#pragma GCC optimize("no-tree-coalesce-vars")
#endif

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512BW__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define BLOCK_ROWS 12
#define BLOCK_COLUMNS 64
#define BLOCK_DEPTH 1024
#define TILE_ROWS 3
#define TILE_COLUMNS 4
#define PARALLEL_FROM 262144 /* products: below it, starting threads costs more than the work */

#define INLINE static inline __attribute__((always_inline))

/* `lanes` holds LANES int16 operands, and so LANES / 2 int32 sums of neighbouring products. Two vectors of int16 operands
 * give exact sums, for 2 * 128 * 128 is far below 2^31. */
#if defined(__AVX512BW__)

#define LANES 32
typedef int16_t operand;
typedef __m512i lanes;

INLINE lanes zero(void) { return _mm512_setzero_si512(); }
INLINE lanes load(const operand *x) { return _mm512_loadu_si512(x); }
INLINE lanes widen(const int8_t *w) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)w)); }
INLINE void store(operand *to, lanes x) { _mm512_storeu_si512(to, x); }

INLINE lanes multiply_add(lanes sum, lanes x, lanes w)
{
#if defined(__AVX512VNNI__)
    return _mm512_dpwssd_epi32(sum, x, w);
#else
    return _mm512_add_epi32(sum, _mm512_madd_epi16(x, w));
#endif
}

INLINE __m256i halves(lanes x)
{
    return _mm256_add_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
}

#elif defined(__AVX2__)

#define LANES 16
typedef int16_t operand;
typedef __m256i lanes;

INLINE lanes zero(void) { return _mm256_setzero_si256(); }
INLINE lanes load(const operand *x) { return _mm256_loadu_si256((const __m256i *)x); }
INLINE lanes widen(const int8_t *w) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w)); }
INLINE void store(operand *to, lanes x) { _mm256_storeu_si256((__m256i *)to, x); }
INLINE lanes multiply_add(lanes sum, lanes x, lanes w) { return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w)); }
INLINE __m256i halves(lanes x) { return x; }

#else

/* The compiler's own vectors: it turns sums of int8 products into the processor's (sdot on ARM, for one). */
#define LANES 1
typedef int8_t operand;

#endif

#if LANES > 1

/* Adds the sum of all lanes of each of four vectors to four neighbouring results. */
INLINE void add_totals(int32_t *to, const lanes *sums)
{
    __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(halves(sums[0]), halves(sums[1])),
                                      _mm256_hadd_epi32(halves(sums[2]), halves(sums[3])));
    __m128i totals = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    _mm_storeu_si128((__m128i *)to, _mm_add_epi32(totals, _mm_loadu_si128((const __m128i *)to)));
}

INLINE lanes widen_part(const int8_t *w, int64_t count)
{
    int8_t padded[LANES] = {0};
    memcpy(padded, w, (size_t)count);
    return widen(padded);
}

/* sums [rows, TILE_COLUMNS] += x w^T over `whole`, a multiple of LANES, and one more step where there is a `tail`
 * [TILE_COLUMNS, LANES] of w. x lies in rows of BLOCK_DEPTH, sums in rows of BLOCK_COLUMNS. */
INLINE void tile(const int rows, const operand *x, const int8_t *const *w, int64_t whole, const int8_t *tail,
                 int32_t *sums)
{
    const int8_t *columns[TILE_COLUMNS] = {w[0], w[1], w[2], w[3]};
    lanes s[TILE_ROWS][TILE_COLUMNS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < TILE_COLUMNS; c++)
            s[r][c] = zero();
    for (int64_t k = 0; k < whole; k += LANES)
#pragma GCC unroll 4
        for (int c = 0; c < TILE_COLUMNS; c++) {
            lanes column = widen(columns[c] + k);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                s[r][c] = multiply_add(s[r][c], load(x + r * BLOCK_DEPTH + k), column);
        }
    if (tail)
#pragma GCC unroll 4
        for (int c = 0; c < TILE_COLUMNS; c++) {
            lanes column = widen(tail + c * LANES);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                s[r][c] = multiply_add(s[r][c], load(x + r * BLOCK_DEPTH + whole), column);
        }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
        add_totals(sums + r * BLOCK_COLUMNS, s[r]);
}

INLINE void prepare(operand *to, const int8_t *x, int64_t depth)
{
    int64_t k = 0;
    for (; k + LANES <= depth; k += LANES)
        store(to + k, widen(x + k));
    if (k < depth)
        store(to + k, widen_part(x + k, depth - k));
}

#else

INLINE void tile(const int rows, const operand *x, const int8_t *const *w, int64_t whole, const int8_t *tail,
                 int32_t *sums)
{
    (void)tail; /* There is none: every depth is a multiple of 1. */
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < TILE_COLUMNS; c++) {
            int32_t sum = 0;
            for (int64_t k = 0; k < whole; k++)
                sum += (int32_t)x[r * BLOCK_DEPTH + k] * (int32_t)w[c][k];
            sums[r * BLOCK_COLUMNS + c] += sum;
        }
}

INLINE void prepare(operand *to, const int8_t *x, int64_t depth) { memcpy(to, x, (size_t)depth); }

#endif

/* Functions of their own, so that all registers are there for the sums. */
#define TILE_OF(rows)                                                                                                  \
    static __attribute__((noinline)) void tile_##rows(const operand *x, const int8_t *const *w, int64_t whole,         \
                                                      const int8_t *tail, int32_t *sums)                               \
    {                                                                                                                  \
        tile(rows, x, w, whole, tail, sums);                                                                           \
    }
TILE_OF(1)
TILE_OF(2)
TILE_OF(3)

/* sums [rows, columns] += x w^T over `depth`; rows lie as in `tile`, those of w are w_stride apart. */
static void multiply_depth(const operand *x, const int8_t *w, int64_t w_stride, int64_t rows, int64_t columns,
                           int64_t depth, int32_t *sums)
{
    int64_t whole = depth - depth % LANES;
    for (int64_t n = 0; n < columns; n += TILE_COLUMNS) {
        const int8_t *column[TILE_COLUMNS];
        int8_t padded[TILE_COLUMNS * LANES] = {0}, *tail = whole == depth ? NULL : padded;
        for (int c = 0; c < TILE_COLUMNS; c++) {
            /* Past the last column, that one again: its sums have room beside the block's, and are not read. */
            int64_t at = n + c < columns ? n + c : columns - 1;
            column[c] = w + at * w_stride;
            /* Between zeros, for the last row of w may end where its memory does. */
            memcpy(padded + c * LANES, column[c] + whole, (size_t)(depth - whole));
        }
        for (int64_t m = 0; m < rows; m += TILE_ROWS) {
            const operand *from = x + m * BLOCK_DEPTH;
            int32_t *to = sums + m * BLOCK_COLUMNS + n;
            if (rows - m >= 3)
                tile_3(from, column, whole, tail, to);
            else if (rows - m == 2)
                tile_2(from, column, whole, tail, to);
            else
                tile_1(from, column, whole, tail, to);
        }
    }
}

/* sums [rows, columns] of one block, in rows of BLOCK_COLUMNS. */
static void multiply_block(const int8_t *x, const int8_t *w, int64_t rows, int64_t columns, int64_t K, int32_t *sums)
{
    operand prepared[BLOCK_ROWS * BLOCK_DEPTH];
    memset(sums, 0, sizeof(int32_t) * BLOCK_COLUMNS * (size_t)rows);
    for (int64_t k = 0; k < K; k += BLOCK_DEPTH) {
        int64_t depth = K - k < BLOCK_DEPTH ? K - k : BLOCK_DEPTH;
        for (int64_t m = 0; m < rows; m++)
            prepare(prepared + m * BLOCK_DEPTH, x + m * K + k, depth);
        multiply_depth(prepared, w + k, K, rows, columns, depth, sums);
    }
}

/* Where a product goes: to `sums` as it is, or scaled to `y` (native.c's sparseq_scale_sums says how). */
struct result {
    int32_t *sums;
    float *y;
    const float *input_scale, *weight_scale, *bias;
    int64_t input_stride;
};

/* y = sum * input_scale * weight_scale [n] + bias [n], in that order; bias may be NULL. */
INLINE void scale_row(const int32_t *sums, int64_t columns, float input_scale, const float *weight_scale,
                      const float *bias, float *y)
{
    if (bias)
        for (int64_t n = 0; n < columns; n++)
            y[n] = (float)sums[n] * input_scale * weight_scale[n] + bias[n];
    else
        for (int64_t n = 0; n < columns; n++)
            y[n] = (float)sums[n] * input_scale * weight_scale[n];
}

static void multiply(const int8_t *x, const int8_t *w, int64_t M, int64_t N, int64_t K, const struct result *to,
                     int32_t threads)
{
    int64_t row_blocks = (M + BLOCK_ROWS - 1) / BLOCK_ROWS, column_blocks = (N + BLOCK_COLUMNS - 1) / BLOCK_COLUMNS;
    /* A thread's blocks are neighbours in a column of blocks, so that it keeps their weights. */
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (M * N * K >= PARALLEL_FROM)
    for (int64_t j = 0; j < column_blocks; j++)
        for (int64_t i = 0; i < row_blocks; i++) {
            int64_t m0 = i * BLOCK_ROWS, n0 = j * BLOCK_COLUMNS;
            int64_t rows = M - m0 < BLOCK_ROWS ? M - m0 : BLOCK_ROWS;
            int64_t columns = N - n0 < BLOCK_COLUMNS ? N - n0 : BLOCK_COLUMNS;
            int32_t sums[BLOCK_ROWS * BLOCK_COLUMNS];
            multiply_block(x + m0 * K, w + n0 * K, rows, columns, K, sums);
            for (int64_t m = 0; m < rows; m++) {
                const int32_t *from = sums + m * BLOCK_COLUMNS;
                int64_t at = (m0 + m) * N + n0;
                if (to->sums)
                    memcpy(to->sums + at, from, sizeof(int32_t) * (size_t)columns);
                else
                    scale_row(from, columns, to->input_scale[(m0 + m) * to->input_stride], to->weight_scale + n0,
                              to->bias ? to->bias + n0 : NULL, to->y + at);
            }
        }
}

/* sums [M, N] = x [M, K] w [N, K]^T. */
void sparseq_int8_matmul(const int8_t *x, const int8_t *w, int64_t M, int64_t N, int64_t K, int32_t *sums,
                         int32_t threads)
{
    multiply(x, w, M, N, K, &(struct result){.sums = sums}, threads);
}

/* y [M, N] = (x w^T) * input_scale [m] * weight_scale [n] + bias [n], without the sums in memory between. input_stride 0
 * is one scale for all rows, bias may be NULL. */
void sparseq_int8_linear(const int8_t *x, const int8_t *w, int64_t M, int64_t N, int64_t K, const float *input_scale,
                         int64_t input_stride, const float *weight_scale, const float *bias, float *y,
                         int32_t threads)
{
    multiply(x, w, M, N, K,
             &(struct result){.y = y,
                              .input_scale = input_scale,
                              .input_stride = input_stride,
                              .weight_scale = weight_scale,
                              .bias = bias},
             threads);
}

void sparseq_quantize_rows(const float *x, const uint8_t *mask, int64_t rows, int64_t columns, int32_t limit, int8_t *q,
                           float *scale, int32_t threads); /* native.c */

/* sparseq_int8_linear of x [M, K] quantized by row to [-limit, limit]. Returns 0, or 1 where there is no memory for the
 * integers. One call, for those of a small layer take longer than its work. */
int sparseq_quantized_linear(const float *x, const int8_t *w, int64_t M, int64_t N, int64_t K, int32_t limit,
                             const float *weight_scale, const float *bias, float *y, int32_t threads)
{
    float *scale = malloc(sizeof(float) * (size_t)M + (size_t)(M * K) + 1);
    if (!scale)
        return 1;
    int8_t *q = (int8_t *)(scale + M);
    sparseq_quantize_rows(x, NULL, M, K, limit, q, scale, threads);
    sparseq_int8_linear(q, w, M, N, K, scale, 1, weight_scale, bias, y, threads);
    free(scale);
    return 0;
}
