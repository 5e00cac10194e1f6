/* Where an encoder's time goes, and how fast its parts are at best: compiled in with SPARSEQ_STAGES alone, for
 * bench.studies.stages. */
#ifndef SPARSEQ_STAGES_H
#define SPARSEQ_STAGES_H

enum stage { QUANTIZED, MULTIPLIED, WIDENED, ATTENDED, NORMALIZED, STAGES };

#if defined(SPARSEQ_STAGES)
#include "attention.h"
#include "linear.h"

double omp_get_wtime(void);

/* Seconds of all threads together, with those in which they wait for each other. */
double sparseq_stages[STAGES];

static double end_stage(enum stage stage, double began)
{
    double now = omp_get_wtime();
#pragma omp atomic
    sparseq_stages[stage] += now - began;
    return now;
}

#define BEGIN_STAGES() double began = omp_get_wtime()
#define END_STAGE(stage) (began = end_stage(stage, began))

/* A thread's operations a second on operands in the nearest cache: integer products of a dense weight, or of blocks; fp32
 * products; GELUs; floats copied, of `size` of them. */
enum rate { PANELS, BLOCKS, FLOATS, GELUS, COPIES };

double sparseq_rate(int32_t of, int64_t size)
{
    enum { DEPTH = 64, REPEATS = 20000 };
    static _Alignas(64) float x[1 << 20], y[1 << 20];
    static const int32_t starts[] = {0, DEPTH / BLOCK}, sums[BLOCK];
    uint16_t places[DEPTH / BLOCK + BLOCKS_PAST] = {0};
    for (int i = 0; i < DEPTH / BLOCK; i++)
        places[i] = (uint16_t)i;
    struct blocks blocks = {starts, places, sums, (const block_value *)(y + 8192)};
    int64_t repeats = of == COPIES ? REPEATS * 1024 / size + 1 : REPEATS, each = 0;
    double best = INFINITY;
    for (int round = 0; round < 5; round++) {
        double began = omp_get_wtime();
        for (int64_t i = 0; i < repeats; i++) {
            __asm__ volatile("" : : "r"(x), "r"(y) : "memory");
            switch (of) {
            case PANELS:
                each = TILE_ROWS * COLUMNS * DEPTH;
                tile_6((const operand *)x, DEPTH, (const int8_t *)(y + 8192), DEPTH, (int32_t *)y);
                break;
            case BLOCKS:
                each = BLOCK * BLOCK_TOKENS * DEPTH;
                block_tile_of_tokens(BLOCK_TOKENS, (const operand *)x, &blocks, 0, (int32_t *)y);
                break;
            case FLOATS:
                each = FLOAT_ROWS * 2 * WIDTH * DEPTH;
                float_tiles[FLOAT_ROWS - 1][1](x, DEPTH, x + 8192, 2 * WIDTH, DEPTH, y, 2 * WIDTH);
                break;
            case GELUS:
                each = 16 * WIDTH;
                for (int64_t k = 0; k < each; k += WIDTH)
                    store(x + k, gelu(load(x + k)));
                break;
            default:
                each = size;
                memcpy(y, x, sizeof(float) * (size_t)size);
            }
        }
        double took = omp_get_wtime() - began;
        best = took < best ? took : best;
    }
    return (double)(each * repeats) / best;
}
#else
#define BEGIN_STAGES() ((void)0)
#define END_STAGE(stage) ((void)0)
#endif

#endif
