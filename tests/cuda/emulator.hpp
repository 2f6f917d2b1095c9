/* emulator.hpp - runs the MLX engine's CUDA kernels without a GPU (for the tests beside it).
 * emulator.cpp has threads, blocks and barriers; cuda_kernel.cpp the function by which MLX takes a
 * kernel. */
#ifndef TESTS_CUDA_EMULATOR_HPP
#define TESTS_CUDA_EMULATOR_HPP

#include <cstddef>
#include <string>

struct grid_size {
    unsigned blocks_x, blocks_y, threads;
};

/* Runs a kernel: `start` is called by every thread with `arguments`. shared: memory that all
 * threads of a block see, filled with NaN before each block. Throws where threads wait for others
 * that have returned. */
void emulate(void (*start)(void **arguments), void **arguments, grid_size size, void *shared,
             size_t shared_bytes);

/* How often kernels whose name begins with this have run. */
int launches_of(const std::string &name);

/* A folder that goes with the program. */
const std::string &temporary_folder();

#endif
