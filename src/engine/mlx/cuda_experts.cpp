/* cuda_experts.cpp - a decode step's experts as two CUDA kernels: gate and up of those that the
 * router chose, and their down with routing weights, sum and residual. Each block chooses for
 * itself: a kernel less. */
#include "engine/mlx/cuda.hpp"

/* ---- device code ---- */

/* As MLX's operations: softmax of all logits in F32, the largest, divided by their sum, each
 * rounded to T. The sums of these and of the experts' results are taken in F32, in the order of
 * choice for the one and of lanes for the other; MLX's take the order of its argpartition, which is
 * none in particular, and round after every addition. */
static const char *const experts_code = R"cuda(
__device__ __forceinline__ unsigned int warp_max(unsigned int x) {
#if __CUDA_ARCH__ >= 800
  return __reduce_max_sync(0xffffffffu, x);
#else
  for (int i = 16; i; i /= 2) x = max(x, __shfl_xor_sync(0xffffffffu, x, i));
  return x;
#endif
}

/* The experts with the TOP largest logits, largest first; of equal ones the one of lower index. A
 * key has the logit above, as an unsigned number of the same order, and the index below: no two are
 * equal, whatever the logits are. The first warp finds them, a lane has every 32nd. */
template <typename T, int EXPERTS, int TOP>
__device__ __forceinline__ void choose_experts(int* chosen, const T* logits) {
  constexpr int PER = (EXPERTS + 31) / 32;
  if (threadIdx.x < 32) {
    unsigned int keys[PER];
    #pragma unroll
    for (int p = 0; p < PER; p++) {
      const unsigned int e = p * 32 + threadIdx.x;
      keys[p] = 0;
      if (e < EXPERTS) {
        const unsigned int bits = reinterpret_cast<const unsigned short*>(logits)[e];
        keys[p] = (bits & 0x8000u ? ~bits : bits | 0x8000u) << 16 | (0xffffu - e);
      }
    }
    for (int i = 0; i < TOP; i++) {
      unsigned int largest = keys[0];
      #pragma unroll
      for (int p = 1; p < PER; p++) largest = max(largest, keys[p]);
      largest = warp_max(largest);
      if (threadIdx.x == i) chosen[i] = 0xffffu - (largest & 0xffffu);
      #pragma unroll
      for (int p = 0; p < PER; p++) keys[p] = keys[p] == largest ? 0 : keys[p];
    }
  }
  __syncthreads();
}

/* Their routing weights, by the first warp. */
template <typename T, int EXPERTS, int TOP, bool RENORMALIZE>
__device__ __forceinline__ void weigh_experts(float* weights, const int* chosen, const T* logits) {
  const int lane = threadIdx.x;
  const float highest = static_cast<float>(logits[chosen[0]]);
  float all = 0, mine = 0;
  for (int e = lane; e < EXPERTS; e += 32) all += expf(static_cast<float>(logits[e]) - highest);
  const float by = 1.0f / warp_sum(all);
  if (lane < TOP) mine = rounded<T>(expf(static_cast<float>(logits[chosen[lane]]) - highest) * by);
  if (RENORMALIZE) mine = rounded<T>(mine / rounded<T>(warp_sum(mine)));
  if (lane < TOP) weights[lane] = mine;
}
)cuda";

/* Places are rows of the chosen experts' gate and up, expert after expert. */
static const char *const up_body = R"cuda(
  using row_loads = loads<T, BITS, GROUP, K, 2>;
  __shared__ uint4 xs[(row_loads::CHUNKS + 31) / 32 * 32 * (row_loads::SIZE / 8)];
  __shared__ float2 sums[row_loads::CHUNKS];
  __shared__ int chosen[TOP];
  choose_experts<T, EXPERTS, TOP>(chosen, logits);
  auto choose = [&](rows_at<T, 2>& rows, int place) {
    #pragma unroll
    for (int r = 0; r < 2; r++) {
      rows.m[r] = r ? m1 : m0;
      rows.row[r] = chosen[place / N] * N + place % N;
      rows.x[r] = 0;
    }
  };
  auto done = [&](const rows_at<T, 2>&, int place, float (&y)[2]) {
    const float gate = rounded<T>(warp_sum(y[0])), up = rounded<T>(warp_sum(y[1]));
    if (threadIdx.x % 32 == 0) out[place] = static_cast<T>(gated<T, ENDING>(gate, up));
  };
  multiply<row_loads, TOP * N, THREADS>(
      xs, sums, choose, [&] { stage<T, BITS, K, THREADS>(xs, sums, x, norm_weight, EPS); }, done);
)cuda";

/* Places are numbers of the result. A warp takes one of them: a team of its lanes every TEAMSth
 * expert, so that rows that are too short for a whole warp have many lanes loading. */
static const char *const down_body = R"cuda(
  constexpr int LANES = TOP >= 4 ? 8 : TOP >= 2 ? 16 : 32, TEAMS = 32 / LANES, R = (TOP + TEAMS - 1) / TEAMS;
  using row_loads = loads<T, BITS, GROUP, K, R, LANES, 8>;
  constexpr int CHUNKS = row_loads::CHUNKS, ALL = TOP * CHUNKS;
  __shared__ uint4 xs[(ALL + 31) / 32 * 32 * (row_loads::SIZE / 8)];
  __shared__ float2 sums[ALL];
  __shared__ int chosen[TOP];
  __shared__ float weights[TOP];
  choose_experts<T, EXPERTS, TOP>(chosen, logits);
  const int team = threadIdx.x % 32 / LANES;
  auto choose = [&](rows_at<T, R>& rows, int place) {
    #pragma unroll
    for (int r = 0; r < R; r++) {
      const int which = min(r * TEAMS + team, TOP - 1);
      rows.m[r] = m0;
      rows.row[r] = chosen[which] * N + place;
      rows.x[r] = which * CHUNKS;
    }
  };
  auto done = [&](const rows_at<T, R>&, int place, float (&y)[R]) {
    float sum = 0;
    #pragma unroll
    for (int r = 0; r < R; r++) {
      #pragma unroll
      for (int i = LANES / 2; i; i /= 2) y[r] += __shfl_xor_sync(0xffffffffu, y[r], i);
      const int which = r * TEAMS + team;
      if (which < TOP) sum += rounded<T>(rounded<T>(y[r]) * weights[which]);
    }
    #pragma unroll
    for (int i = LANES; i < 32; i *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
    if (threadIdx.x % 32) return;
    sum = rounded<T>(sum);
    out[place] = static_cast<T>(residual ? sum + static_cast<float>(residual[place]) : sum);
  };
  auto prepare = [&] {
    if (threadIdx.x < 32) weigh_experts<T, EXPERTS, TOP, RENORMALIZE>(weights, chosen, logits);
    stage<T, BITS, TOP * K, THREADS>(xs, sums, x, nullptr, 0);
  };
  multiply<row_loads, N, THREADS>(xs, sums, choose, prepare, done);
)cuda";

/* ---- calling it ---- */

enum { MAX_EXPERTS = 256, MAX_CHOSEN = 16 };

bool cuda_experts_take(const mlx_weight &gate, const mlx_weight &up, const mlx_weight &down, int k) {
    for (const mlx_weight *w : {&gate, &up, &down})
        if (w->base.rank != 3 || w->bias || w->base.dtype != gate.base.dtype) return false;
    return gate.base.shape[0] <= MAX_EXPERTS && k <= MAX_CHOSEN && gate.bits == up.bits &&
           gate.group_size == up.group_size && cuda_multiplies(gate, 1) && cuda_multiplies(down, k);
}

/* What both kernels' sources depend on. which: of the kernels that there are. */
static cuda_kernel_key key_of(int which, const cuda_experts &e, const mlx_weight &w) {
    return {which,
            static_cast<int>(w.base.shape[0]),
            static_cast<int>(w.base.shape[1]),
            static_cast<int>(w.base.shape[2]),
            w.bits,
            w.group_size,
            e.k,
            e.x.dtype() == mx::bfloat16};
}

static cuda_constants constants_of(const cuda_experts &e, const mlx_weight &w) {
    cuda_constants text = cuda_matvec_constants(w, e.x.dtype());
    text.number("EXPERTS", w.base.shape[0]).number("N", w.base.shape[1]).number("TOP", e.k);
    return text;
}

static cuda_kernel compile(const char *name, const std::vector<std::string> &inputs,
                           const cuda_constants &constants, const char *body) {
    return cuda_compile(name, inputs, {"out"}, std::string(cuda_matvec_code) + experts_code,
                        constants.source(), body);
}

static matvec_ending ending_of(const cuda_experts &e) {
    return e.act == ACT_SILU ? MATVEC_SILU : MATVEC_GELU;
}

static cuda_kernel make_up(const cuda_experts &e) {
    std::vector<std::string> inputs = {"x", "logits"};
    cuda_constants text = constants_of(e, *e.gate);
    text.number("ENDING", ending_of(e)).real("EPS", e.eps);
    cuda_add_matrix(text, inputs, "0", *e.gate, "nullptr");
    cuda_add_matrix(text, inputs, "1", *e.up, "nullptr");
    cuda_add_optional(text, inputs, "norm_weight", e.norm.has_value());
    return compile("experts_up", inputs, text, up_body);
}

static cuda_kernel make_down(const cuda_experts &e) {
    std::vector<std::string> inputs = {"x", "logits"};
    cuda_constants text = constants_of(e, *e.down);
    text.number("RENORMALIZE", e.renormalize);
    cuda_add_matrix(text, inputs, "0", *e.down, "nullptr");
    cuda_add_optional(text, inputs, "residual", e.residual.has_value());
    return compile("experts_down", inputs, text, down_body);
}

mx::array cuda_experts_run(const cuda_experts &e) {
    cuda_kernel_key key = key_of(2, e, *e.gate);
    key[8] = ending_of(e);
    key[9] = e.norm ? bits_of(e.eps) : -1;
    int width = static_cast<int>(e.gate->base.shape[1]), n = static_cast<int>(e.down->base.shape[1]);
    cuda_launch up = {.inputs = {e.x, e.logits},
                      .shapes = {{1, 1, e.k * width}},
                      .blocks = cuda_blocks(static_cast<int64_t>(e.k) * width)};
    cuda_add_arrays(up.inputs, *e.gate);
    cuda_add_arrays(up.inputs, *e.up);
    if (e.norm) up.inputs.push_back(*e.norm);
    mx::array activated = cuda_start(key, up, [&] { return make_up(e); })[0];
    key = key_of(3, e, *e.down);
    key[8] = e.renormalize;
    key[9] = e.residual.has_value();
    cuda_launch down = {.inputs = {activated, e.logits}, .shapes = {{1, 1, n}}, .blocks = cuda_blocks(n)};
    cuda_add_arrays(down.inputs, *e.down);
    if (e.residual) down.inputs.push_back(*e.residual);
    return cuda_start(key, down, [&] { return make_down(e); })[0];
}
