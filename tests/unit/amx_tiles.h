/* amx_tiles.h - AMX's tiles emulated in plain C, under the names of the compiler's intrinsics.
 * A check fails on what a processor would refuse (Intel's manual, exceptions of class AMX), and
 * also on tiles that are read before they were filled, and on sums that do not fit. */
#ifndef TESTS_AMX_TILES_H
#define TESTS_AMX_TILES_H

#include "kernel_tables.h"

#include <immintrin.h>

static struct amx {
    bool configured;
    int rows[8], row_bytes[8];
    bool filled[8];
    uint8_t bytes[8][16][64];
} amx;

static void check_tile(int i, bool filled) {
    assert_true(amx.configured);
    assert_in_range(i, 0, 7);
    assert_true(amx.rows[i] > 0);
    if (filled) assert_true(amx.filled[i]);
}

static void loadconfig(const void *config) {
    uint8_t bytes[64];
    assert_int_equal((uintptr_t)config % 64, 0); /* a processor would only be slower */
    memcpy(bytes, config, sizeof bytes);
    memset(&amx, 0, sizeof amx);
    assert_int_equal(bytes[0], 1);                              /* palette */
    for (int i = 1; i < 16; i++) assert_int_equal(bytes[i], 0); /* start row, reserved */
    for (int i = 0; i < 16; i++) {
        int row_bytes = bytes[16 + 2 * i] + 256 * bytes[17 + 2 * i], n_rows = bytes[48 + i];
        assert_in_range(row_bytes, 0, i < 8 ? 64 : 0);
        assert_in_range(n_rows, 0, i < 8 ? 16 : 0);
        assert_true(!row_bytes == !n_rows);
        if (i < 8) amx.rows[i] = n_rows, amx.row_bytes[i] = row_bytes;
    }
    amx.configured = true;
}

static void release(void) {
    assert_true(amx.configured);
    memset(&amx, 0, sizeof amx);
}

static void zero(int i) {
    check_tile(i, false);
    memset(amx.bytes[i], 0, sizeof amx.bytes[i]);
    amx.filled[i] = true;
}

static void load(int i, const void *from, int64_t stride) {
    zero(i);
    for (int r = 0; r < amx.rows[i]; r++)
        memcpy(amx.bytes[i][r], (const char *)from + r * stride, (size_t)amx.row_bytes[i]);
}

static void store(int i, void *to, int64_t stride) {
    check_tile(i, true);
    for (int r = 0; r < amx.rows[i]; r++)
        memcpy((char *)to + r * stride, amx.bytes[i][r], (size_t)amx.row_bytes[i]);
}

/* sums[m][n] += dot of row m of a and column n of b, which has 4 bytes in each row. Those of b are
 * unsigned.
 */
static void multiply_add(int sums, int a, int b, bool a_signed) {
    check_tile(sums, true), check_tile(a, true), check_tile(b, true);
    assert_true(sums != a && sums != b && a != b);
    assert_int_equal(amx.row_bytes[sums] % 4, 0);
    assert_int_equal(amx.row_bytes[a] % 4, 0);
    assert_int_equal(amx.rows[sums], amx.rows[a]);
    assert_int_equal(amx.row_bytes[a] / 4, amx.rows[b]);
    assert_int_equal(amx.row_bytes[sums], amx.row_bytes[b]);
    for (int m = 0; m < amx.rows[sums]; m++)
        for (int n = 0; n < amx.row_bytes[sums] / 4; n++) {
            int32_t stored;
            memcpy(&stored, amx.bytes[sums][m] + 4 * n, sizeof stored);
            int64_t sum = stored;
            for (int k = 0; k < amx.row_bytes[a]; k++) {
                uint8_t x = amx.bytes[a][m][k], q = amx.bytes[b][k / 4][4 * n + k % 4];
                sum += (a_signed ? (int8_t)x : x) * q;
            }
            assert_true(sum >= INT32_MIN && sum <= INT32_MAX);
            stored = (int32_t)sum;
            memcpy(amx.bytes[sums][m] + 4 * n, &stored, sizeof stored);
        }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#undef _tile_dpbuud
#define _tile_loadconfig      loadconfig
#define _tile_release         release
#define _tile_zero            zero
#define _tile_loadd           load
#define _tile_stored          store
#define _tile_dpbsud(c, a, b) multiply_add(c, a, b, true)
#define _tile_dpbuud(c, a, b) multiply_add(c, a, b, false)

#endif
