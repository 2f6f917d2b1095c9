/* cuda_matvec.cpp - a decode step's linears as one CUDA kernel each: the norm before, up to three
 * matrices times one vector, and the sum or activation after. A step's time is mostly its number of
 * kernels. */
#include "engine/mlx/cuda.hpp"

#include <algorithm>

/* ---- device code ---- */

/* A chunk is what one 16-byte load of a row holds: 8 plain numbers, 16 of 8 bits, 32 of 4 bits. A
 * warp takes a row, a lane every 32nd chunk. x waits in shared memory, already normalized, laid out
 * so that the lanes of a warp read neighbours. 4-bit numbers become floats without a conversion:
 * placed in the mantissa of 128 (even ones) or 2048 (odd ones) they read as 128 + q or 2048 + q,
 * and what x times 128 or 2048 adds up to is known before. The idea of numbers in a mantissa is
 * that of Marlin and of FasterTransformer. */
const char *const cuda_matvec_code = R"cuda(
template <typename T> struct matrix {
  const void* values;
  const T *scales, *biases, *bias;
  T* out;
};

template <typename T, int BITS> struct chunk;

template <typename T> struct chunk<T, 16> {
  static constexpr int SIZE = 8;
  static __device__ __forceinline__ float dot(uint4 w, const uint4* x) {
    float a[8], b[8], sum = 0;
    eight<T>(a, w);
    eight<T>(b, x[0]);
    #pragma unroll
    for (int i = 0; i < 8; i++) sum += a[i] * b[i];
    return sum;
  }
  static __device__ __forceinline__ float weight(int) { return 0; }
};

template <typename T> struct chunk<T, 8> {
  static constexpr int SIZE = 16;
  static __device__ __forceinline__ float dot(uint4 w, const uint4* x) {
    const unsigned int words[4] = {w.x, w.y, w.z, w.w};
    float sum = 0;
    #pragma unroll
    for (int j = 0; j < 2; j++) {
      float b[8];
      eight<T>(b, x[j * 32]);
      #pragma unroll
      for (int i = 0; i < 8; i++) {
        const unsigned int q = __byte_perm(words[j * 2 + i / 4], 0x4b000000u, 0x7440 + i % 4);
        sum += (__uint_as_float(q) - 8388608.0f) * b[i];
      }
    }
    return sum;
  }
  static __device__ __forceinline__ float weight(int) { return 0; }
};

template <typename T> struct chunk<T, 4> {
  static constexpr int SIZE = 32;
  static __device__ __forceinline__ float even(unsigned int w) {
    return __uint_as_float((w & 0xf0000u) | 0x43000000u);
  }
  static __device__ __forceinline__ float odd(unsigned int w) {
    return __uint_as_float((w & 0xf000u) | 0x45000000u);
  }
  static __device__ __forceinline__ float dot(uint4 w, const uint4* x) {
    const unsigned int words[4] = {w.x, w.y, w.z, w.w};
    float sum = 0;
    #pragma unroll
    for (int j = 0; j < 4; j++) {
      const unsigned int q = words[j];
      float b[8];
      eight<T>(b, x[j * 32]);
      sum += even(q << 16) * b[0] + odd(q << 8) * b[1] + even(q << 8) * b[2] + odd(q) * b[3];
      sum += even(q) * b[4] + odd(q >> 8) * b[5] + even(q >> 8) * b[6] + odd(q >> 16) * b[7];
    }
    return sum;
  }
  static __device__ __forceinline__ float weight(int i) { return i % 2 ? 2048.0f : 128.0f; }
};

/* x into shared memory, normalized if norm is given; of each chunk its sum, and what dot counts too
 * much. A thread takes eight values at a time, neighbours share a chunk. */
template <typename T, int BITS, int K, int THREADS>
__device__ __forceinline__ void stage(uint4* xs, float2* sums, const T* x, const T* norm, float eps) {
  constexpr int UNITS = chunk<T, BITS>::SIZE / 8, N = K / 8, PER = (N + THREADS - 1) / THREADS;
  __shared__ float parts[THREADS / 32];
  float v[PER][8], squares = 0;
  #pragma unroll
  for (int p = 0; p < PER; p++) {
    const int u = p * THREADS + threadIdx.x;
    uint4 loaded = make_uint4(0, 0, 0, 0);
    if (u < N) loaded = reinterpret_cast<const uint4*>(x)[u];
    eight<T>(v[p], loaded);
    #pragma unroll
    for (int i = 0; i < 8; i++) squares += v[p][i] * v[p][i];
  }
  if (norm) {
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = squares;
    __syncthreads();
    squares = 0;
    #pragma unroll
    for (int i = 0; i < THREADS / 32; i++) squares += parts[i];
    const float by = rsqrtf(squares / K + eps);
    #pragma unroll
    for (int p = 0; p < PER; p++) {
      const int u = p * THREADS + threadIdx.x;
      float w[8] = {};
      if (u < N) eight<T>(w, __ldg(reinterpret_cast<const uint4*>(norm) + u));
      #pragma unroll
      for (int i = 0; i < 8; i++) v[p][i] = rounded<T>(w[i] * rounded<T>(v[p][i] * by));
    }
  }
  #pragma unroll
  for (int p = 0; p < PER; p++) {
    const int u = p * THREADS + threadIdx.x, c = u / UNITS, j = u % UNITS;
    float sum = 0, extra = 0;
    #pragma unroll
    for (int i = 0; i < 8; i++) {
      sum += v[p][i];
      extra += chunk<T, BITS>::weight(i) * v[p][i];
    }
    #pragma unroll
    for (int i = 1; i < UNITS; i *= 2) {
      sum += __shfl_xor_sync(0xffffffffu, sum, i);
      extra += __shfl_xor_sync(0xffffffffu, extra, i);
    }
    if (u < N) {
      if (j == 0) sums[c] = make_float2(sum, extra);
      xs[(c / 32 * UNITS + j) * 32 + c % 32] = make_uint4(packed<T>(v[p][0], v[p][1]), packed<T>(v[p][2], v[p][3]),
                                                          packed<T>(v[p][4], v[p][5]), packed<T>(v[p][6], v[p][7]));
    }
  }
  __syncthreads();
}

/* R rows, each of a matrix, and the chunk of x at which what it is multiplied with begins. */
template <typename T, int R> struct rows_at {
  matrix<T> m[R];
  int row[R], x[R];
};

/* The largest divisor of n up to `most`. */
__device__ constexpr int divisor(int n, int most) { return n % most ? divisor(n, most - 1) : most; }

/* What a lane has loaded of R rows: AHEAD chunks of each, with their scales. LANES of a warp share
 * a row. */
template <typename T, int BITS, int GROUP, int K, int R, int LANES = 32, int IN_FLIGHT = 4> struct loads {
  using rows = rows_at<T, R>;
  static constexpr int SIZE = chunk<T, BITS>::SIZE, CHUNKS = K / SIZE, STEPS = (CHUNKS + LANES - 1) / LANES;
  static constexpr int AT_ONCE = R, AHEAD = divisor(STEPS, IN_FLIGHT / R);
  uint4 w[AHEAD][R];
  T scale[AHEAD][R], bias[AHEAD][R];

  __device__ __forceinline__ void get(const rows& of, int first) {
    #pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      const int c = (first + i) * LANES + threadIdx.x % LANES;
      if (c < CHUNKS) {
        #pragma unroll
        for (int r = 0; r < R; r++) {
          const size_t row = of.row[r];
          w[i][r] = __ldg(static_cast<const uint4*>(of.m[r].values) + row * CHUNKS + c);
          if (BITS < 16) {
            scale[i][r] = of.m[r].scales[row * (K / GROUP) + c * SIZE / GROUP];
            bias[i][r] = of.m[r].biases[row * (K / GROUP) + c * SIZE / GROUP];
          }
        }
      }
    }
  }

  __device__ __forceinline__ void add_to(float (&y)[R], const rows& of, const uint4* xs, const float2* sums,
                                         int first) const {
    #pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      const int c = (first + i) * LANES + threadIdx.x % LANES;
      if (c < CHUNKS) {
        #pragma unroll
        for (int r = 0; r < R; r++) {
          const unsigned int at = of.x[r] + c;
          const float d = chunk<T, BITS>::dot(w[i][r], xs + at / 32 * (SIZE / 8) * 32 + at % 32);
          y[r] += BITS < 16 ? static_cast<float>(scale[i][r]) * (d - sums[at].y) +
                                  static_cast<float>(bias[i][r]) * sums[at].x
                            : d;
        }
      }
    }
  }
};

/* For each of the places: choose(rows, place) names its rows, done(rows, place, y) gets what a lane
 * found of their products with x. While a lane multiplies what it has, the next loads are under
 * way; the first ones while prepare() puts x into shared memory. */
template <typename L, int PLACES, int THREADS, typename Choose, typename Prepare, typename Done>
__device__ __forceinline__ void multiply(const uint4* xs, const float2* sums, Choose choose, Prepare prepare, Done done) {
  constexpr int WARPS = THREADS / 32;
  const int turn = gridDim.x * WARPS;
  int at = blockIdx.x * WARPS + threadIdx.x / 32, first = 0;
  L now, next;
  typename L::rows here;
  if (at < PLACES) {
    choose(here, at);
    now.get(here, 0);
  }
  prepare();
  float y[L::AT_ONCE] = {};
  while (at < PLACES) {
    const bool ends = first + L::AHEAD >= L::STEPS;
    const int next_at = ends ? at + turn : at, next_first = ends ? 0 : first + L::AHEAD;
    typename L::rows there;
    if (next_at < PLACES) {
      choose(there, next_at);
      next.get(there, next_first);
    }
    now.add_to(y, here, xs, sums, first);
    if (ends) {
      done(here, at, y);
      #pragma unroll
      for (int r = 0; r < L::AT_ONCE; r++) y[r] = 0;
    }
    here = there;
    now = next;
    at = next_at;
    first = next_first;
  }
}

template <typename T> __device__ __forceinline__ float finish(float y, const matrix<T>& m, int row) {
  y = rounded<T>(y);
  return m.bias ? rounded<T>(y + static_cast<float>(m.bias[row])) : y;
}

/* MLX's compiled silu(gate) * up and gelu_approx(gate) * up, each step rounded as there. */
template <typename T> __device__ __forceinline__ float silu(float x) {
  return rounded<T>(x * rounded<T>(1.0f / (1.0f + expf(-x))));
}
template <typename T> __device__ __forceinline__ float gelu_approx(float x) {
  const float cube = rounded<T>(rounded<T>(0.044715f) * rounded<T>(x * x * x));
  const float inner = rounded<T>(rounded<T>(0.7978845608f) * rounded<T>(x + cube));
  return rounded<T>(rounded<T>(0.5f * x) * rounded<T>(1.0f + rounded<T>(tanhf(inner))));
}
template <typename T, int ENDING> __device__ __forceinline__ float gated(float gate, float up) {
  return (ENDING == 2 ? silu<T>(gate) : gelu_approx<T>(gate)) * up;
}
)cuda";

/* After the constants and m0, m1, m2: one row per warp and turn, or two, or a row of gate and up
 * each. */
static const char *const matvec_body = R"cuda(
  using row_loads = loads<T, BITS, GROUP, K, R>;
  __shared__ uint4 xs[(row_loads::CHUNKS + 31) / 32 * 32 * (row_loads::SIZE / 8)];
  __shared__ float2 sums[row_loads::CHUNKS];
  auto choose = [&](rows_at<T, R>& rows, int place) {
    #pragma unroll
    for (int r = 0; r < R; r++) {
      int row = ENDING >= 2 ? place : place * R + r;
      rows.x[r] = 0;
      rows.m[r] = ENDING >= 2 && r ? m1 : m0;
      if (ENDING < 2 && row >= N0) {
        rows.m[r] = row < N0 + N1 ? m1 : m2;
        row -= row < N0 + N1 ? N0 : N0 + N1;
      }
      rows.row[r] = row;
    }
  };
  auto done = [&](const rows_at<T, R>& rows, int place, float (&y)[R]) {
    #pragma unroll
    for (int r = 0; r < R; r++) y[r] = warp_sum(y[r]);
    if (threadIdx.x % 32) return;
    #pragma unroll
    for (int r = 0; r < R; r++) y[r] = finish(y[r], rows.m[r], rows.row[r]);
    if (ENDING >= 2) m0.out[place] = static_cast<T>(gated<T, ENDING>(y[0], y[R - 1]));
    #pragma unroll
    for (int r = 0; r < (ENDING < 2 ? R : 0); r++) {
      if (ENDING == 1) y[r] += static_cast<float>(residual[rows.row[r]]);
      rows.m[r].out[rows.row[r]] = static_cast<T>(y[r]);
    }
  };
  multiply<row_loads, ROWS / R, THREADS>(
      xs, sums, choose, [&] { stage<T, BITS, K, THREADS>(xs, sums, x, norm_weight, EPS); }, done);
)cuda";

/* ---- calling it ---- */

enum {
    MAX_BLOCKS = 396,         /* three for each of an H100's 132 processors: then the warps take turns */
    MAX_SHARED_MEMORY = 48000 /* what a kernel gets without asking */
};

static int chunk_size(const mlx_weight &w) {
    return w.bits == 4 ? 32 : w.bits == 8 ? 16 : 8;
}

int64_t cuda_chunks(const mlx_weight &w) {
    return w.base.shape[w.base.rank - 1] / chunk_size(w);
}

bool cuda_multiplies(const mlx_weight &w, int n_inputs) {
    int64_t size = chunk_size(w);
    bool type = w.base.dtype == DTYPE_BF16 || w.base.dtype == DTYPE_F16;
    return type && w.base.kind <= MATRIX_AFFINE && (w.bits == 0 || w.bits == 4 || w.bits == 8) &&
           w.base.shape[w.base.rank - 1] % size == 0 &&
           (n_inputs * cuda_chunks(w) + WARP) * (size * 2 + 8) <= MAX_SHARED_MEMORY;
}

bool cuda_matvec_takes(const mlx_weight &w) {
    return w.base.rank == 2 && cuda_multiplies(w, 1);
}

int cuda_blocks(int64_t warps) {
    return static_cast<int>(std::min<int64_t>((warps * WARP + THREADS - 1) / THREADS, MAX_BLOCKS));
}

void cuda_add_matrix(cuda_constants &text, std::vector<std::string> &inputs, const std::string &id,
                     const mlx_weight &w, const std::string &out) {
    inputs.push_back("w" + id);
    if (w.bits) inputs.insert(inputs.end(), {"scales" + id, "biases" + id});
    if (w.bias) inputs.push_back("bias" + id);
    text.line("const matrix<T> m" + id + " = {w" + id + ", " +
              (w.bits ? "scales" + id + ", biases" + id : "nullptr, nullptr") + ", " +
              (w.bias ? "bias" + id : "nullptr") + ", " + out + "};");
}

void cuda_add_arrays(std::vector<mx::array> &inputs, const mlx_weight &w) {
    inputs.push_back(w.values);
    for (const optional_array &x : {w.scales, w.biases, w.bias})
        if (x) inputs.push_back(*x);
}

void cuda_add_optional(cuda_constants &text, std::vector<std::string> &inputs, const std::string &name,
                       bool given) {
    if (given)
        inputs.push_back(name);
    else
        text.line("const T* " + name + " = nullptr;");
}

cuda_constants cuda_matvec_constants(const mlx_weight &w, mx::Dtype type) {
    cuda_constants text;
    text.type(type).number("K", w.base.shape[w.base.rank - 1]).number("THREADS", THREADS);
    text.number("BITS", w.bits ? w.bits : 16).number("GROUP", w.bits ? w.group_size : 1);
    return text;
}

/* Rows a warp takes at once: two where there are enough for all warps. */
static int rows_at_once(const cuda_matvec &m, int64_t n_rows) {
    return m.ending >= MATVEC_SILU || (n_rows > 8192 && m.n == 1 && n_rows % 2 == 0) ? 2 : 1;
}

static cuda_kernel make_matvec(const cuda_matvec &m, int64_t n_rows, int rows) {
    std::vector<std::string> inputs = {"x"}, outputs;
    cuda_constants text = cuda_matvec_constants(*m.weights[0], m.x.dtype());
    text.number("ROWS", n_rows * (m.ending >= MATVEC_SILU ? 2 : 1)).number("R", rows);
    text.number("ENDING", m.ending).real("EPS", m.eps);
    for (int i = 0; i < 3; i++) {
        std::string id = std::to_string(i);
        text.number("N" + id, i < m.n ? m.weights[i]->base.shape[0] : 0);
        if (i >= m.n) {
            text.line("const matrix<T> m" + id + " = {};");
            continue;
        }
        bool out = i == 0 || m.ending < MATVEC_SILU;
        cuda_add_matrix(text, inputs, id, *m.weights[i], out ? "y" + id : "nullptr");
        if (out) outputs.push_back("y" + id);
    }
    cuda_add_optional(text, inputs, "norm_weight", m.norm.has_value());
    cuda_add_optional(text, inputs, "residual", m.residual.has_value());
    return cuda_compile("matvec", inputs, outputs, cuda_matvec_code, text.source(), matvec_body);
}

std::vector<mx::array> cuda_matvec_run(const cuda_matvec &m) {
    const mlx_weight &w = *m.weights[0];
    bool gated = m.ending >= MATVEC_SILU;
    cuda_launch launch = {.inputs = {m.x}, .shapes = {}, .blocks = 0};
    int64_t n_rows = 0;
    cuda_kernel_key key = {0,
                           m.n,
                           static_cast<int>(w.base.shape[1]),
                           w.bits,
                           w.group_size,
                           m.ending,
                           m.norm ? bits_of(m.eps) : -1,
                           m.x.dtype() == mx::bfloat16};
    for (int i = 0; i < m.n; i++) {
        const mlx_weight &x = *m.weights[i];
        int n = static_cast<int>(x.base.shape[0]);
        if (!gated || i == 0) {
            launch.shapes.push_back({1, 1, n});
            n_rows += n;
        }
        key[static_cast<size_t>(8 + i)] = x.bias ? -n : n;
        cuda_add_arrays(launch.inputs, x);
    }
    if (m.norm) launch.inputs.push_back(*m.norm);
    if (m.residual) launch.inputs.push_back(*m.residual);
    int rows = rows_at_once(m, n_rows);
    launch.blocks = cuda_blocks(gated ? n_rows : n_rows / rows);
    return cuda_start(key, launch, [&] { return make_matvec(m, n_rows, rows); });
}
