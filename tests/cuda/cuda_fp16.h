/* cuda_fp16.h - stands in for CUDA's header of this name, which the kernels include.
 * All of CUDA that they use is in one file. */
#include "device.hpp"
