/* cuda_attend.cpp - a decode step's attention as one CUDA kernel: the norms of queries and keys,
 * rope, the cache writes, and attention over all entries. */
#include "engine/mlx/cuda.hpp"

#include <algorithm>
#include <cmath>

/* ---- device code ---- */

/* A block takes a KV head with the queries that share it, and a part of the cache. It rotates the
 * queries, and, where the new entry is its own, the key, which goes to the cache with the value.
 * The caches are inputs that are written where they are, so that MLX does not move them: only this
 * kernel and later ones read them. The block that is done last adds up what the parts found.
 * Flash-Decoding (Dao et al., 2023). */
static const char *const attend_body = R"cuda(
  constexpr int LANES = HEAD_DIM / 8, TEAMS = THREADS / LANES, WARPS = THREADS / 32, PER_WARP = 32 / LANES;
  __shared__ float rows[G + 1][HEAD_DIM], part[WARPS][G][HEAD_DIM], maxima[WARPS][G], totals[WARPS][G];
  __shared__ bool is_last;
  constexpr float NO_SCORE = -1e30f;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.x, n_parts = gridDim.y;
  const int n = n_entries, size = (n + n_parts - 1) / n_parts;
  const int begin = blockIdx.y * size, end = min(n, begin + size);
  const size_t start = static_cast<size_t>(head) * capacity * HEAD_DIM;
  T *const k_cache = const_cast<T*>(keys) + start, *const v_cache = const_cast<T*>(values) + start;
  const bool has_new = begin < n && end == n;

  const int d = lane % LANES * 8;
  uint4 next_k = make_uint4(0, 0, 0, 0), next_v = next_k;
  auto load = [&](int entry) {
    if (entry < end) {
      const size_t at = static_cast<size_t>(entry) * HEAD_DIM + d;
      next_k = *reinterpret_cast<const uint4*>(k_cache + at);
      next_v = *reinterpret_cast<const uint4*>(v_cache + at);
    }
  };
  int entry = begin + warp * PER_WARP + lane / LANES;
  load(entry);

  for (int at = warp; at < G + has_new; at += WARPS) {
    const T* from = at < G ? q + (head * G + at) * HEAD_DIM : k + head * HEAD_DIM;
    const T* norm = at < G ? q_weight : k_weight;
    float *row = rows[at], squares = 0;
    for (int i = lane; i < HEAD_DIM; i += 32) {
      row[i] = static_cast<float>(from[i]);
      squares += row[i] * row[i];
    }
    if (norm) {
      const float by = rsqrtf(warp_sum(squares) / HEAD_DIM + EPS);
      for (int i = lane; i < HEAD_DIM; i += 32)
        row[i] = rounded<T>(static_cast<float>(norm[i]) * rounded<T>(row[i] * by));
    }
    __syncwarp();
    for (int i = lane; i < DIMS / 2; i += 32) {
      const int a = TRADITIONAL ? 2 * i : i, b = TRADITIONAL ? a + 1 : i + DIMS / 2;
      const float x = row[a], y = row[b];
      float s, c;
      sincosf(ROPE_SCALE * static_cast<float>(n - 1) * inverse_freqs[i], &s, &c);
      row[a] = rounded<T>(x * c - y * s);
      row[b] = rounded<T>(x * s + y * c);
    }
    __syncwarp();
    if (at == G)
      for (int i = lane; i < HEAD_DIM; i += 32) {
        k_cache[static_cast<size_t>(n - 1) * HEAD_DIM + i] = static_cast<T>(row[i]);
        v_cache[static_cast<size_t>(n - 1) * HEAD_DIM + i] = v[head * HEAD_DIM + i];
      }
  }
  __syncthreads();

  float query[G][8], o[G][8] = {}, max_score[G], total[G] = {};
  #pragma unroll
  for (int g = 0; g < G; g++) {
    max_score[g] = NO_SCORE;
    #pragma unroll
    for (int i = 0; i < 8; i++) query[g][i] = rows[g][d + i] * SCORE_SCALE;
  }
  for (int first = begin + warp * PER_WARP; first < end; first += TEAMS, entry += TEAMS) {
    float key[8], value[8];
    eight<T>(key, next_k);
    eight<T>(value, next_v);
    load(entry + TEAMS);
    if (entry == n - 1) {
      eight<T>(value, *reinterpret_cast<const uint4*>(v + head * HEAD_DIM + d));
      #pragma unroll
      for (int i = 0; i < 8; i++) key[i] = rows[G][d + i];
    }
    #pragma unroll
    for (int g = 0; g < G; g++) {
      float score = 0;
      #pragma unroll
      for (int i = 0; i < 8; i++) score += query[g][i] * key[i];
      #pragma unroll
      for (int i = LANES / 2; i; i /= 2) score += __shfl_xor_sync(0xffffffffu, score, i);
      if (entry < end) {
        const float higher = fmaxf(max_score[g], score), shrink = exp2f(max_score[g] - higher);
        const float p = exp2f(score - higher);
        max_score[g] = higher;
        total[g] = total[g] * shrink + p;
        #pragma unroll
        for (int i = 0; i < 8; i++) o[g][i] = o[g][i] * shrink + p * value[i];
      }
    }
  }

  #pragma unroll
  for (int g = 0; g < G; g++) {
    #pragma unroll
    for (int step = LANES; step < 32; step *= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, max_score[g], step), higher = fmaxf(max_score[g], other);
      const float mine = exp2f(max_score[g] - higher), theirs = exp2f(other - higher);
      max_score[g] = higher;
      total[g] = total[g] * mine + __shfl_xor_sync(0xffffffffu, total[g], step) * theirs;
      #pragma unroll
      for (int i = 0; i < 8; i++)
        o[g][i] = o[g][i] * mine + __shfl_xor_sync(0xffffffffu, o[g][i], step) * theirs;
    }
    if (lane < LANES) {
      #pragma unroll
      for (int i = 0; i < 8; i++) part[warp][g][d + i] = o[g][i];
      maxima[warp][g] = max_score[g];
      totals[warp][g] = total[g];
    }
  }
  __syncthreads();

  unsigned int* const n_done = reinterpret_cast<unsigned int*>(const_cast<float*>(scratch)) + head;
  float* const found = const_cast<float*>(scratch) + gridDim.x + static_cast<size_t>(head) * G * n_parts * (HEAD_DIM + 2);
  for (int i = threadIdx.x; i < G * HEAD_DIM; i += THREADS) {
    const int g = i / HEAD_DIM, at = i % HEAD_DIM;
    float highest = NO_SCORE, sum = 0, all = 0;
    for (int w = 0; w < WARPS; w++) highest = fmaxf(highest, maxima[w][g]);
    for (int w = 0; w < WARPS; w++) {
      const float by = exp2f(maxima[w][g] - highest);
      sum += part[w][g][at] * by;
      all += totals[w][g] * by;
    }
    if (n_parts == 1) {
      out[head * G * HEAD_DIM + i] = static_cast<T>(sum / all);
    } else {
      float* const mine = found + (g * n_parts + blockIdx.y) * (HEAD_DIM + 2);
      mine[at] = sum;
      if (at == 0) {
        mine[HEAD_DIM] = highest;
        mine[HEAD_DIM + 1] = all;
      }
    }
  }
  if (n_parts == 1) return;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0)
    is_last = atomicInc(n_done, n_parts - 1) == n_parts - 1;
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  for (int i = threadIdx.x; i < G * HEAD_DIM; i += THREADS) {
    const float* const of = found + i / HEAD_DIM * n_parts * (HEAD_DIM + 2);
    float highest = NO_SCORE, sum = 0, all = 0;
    for (int p = 0; p < n_parts; p++) highest = fmaxf(highest, __ldcg(of + p * (HEAD_DIM + 2) + HEAD_DIM));
    for (int p = 0; p < n_parts; p++) {
      const float by = exp2f(__ldcg(of + p * (HEAD_DIM + 2) + HEAD_DIM) - highest);
      sum += by * __ldcg(of + p * (HEAD_DIM + 2) + i % HEAD_DIM);
      all += by * __ldcg(of + p * (HEAD_DIM + 2) + HEAD_DIM + 1);
    }
    out[head * G * HEAD_DIM + i] = static_cast<T>(sum / all);
  }
)cuda";

/* ---- calling it ---- */

enum {
    ATTEND_THREADS = 256,
    PART_ENTRIES = 64,
    ATTEND_BLOCKS = 264,
    MAX_QUERIES = 1024
}; /* of a KV head: values */

bool cuda_attend_takes(const cache_spec &s, int n_heads) {
    bool head_dim = s.head_dim == 64 || s.head_dim == 128 || s.head_dim == 256;
    return head_dim && s.head_dim == s.v_head_dim && n_heads / s.n_kv_heads * s.head_dim <= MAX_QUERIES;
}

static cuda_kernel make_attend(const cuda_attend &a) {
    cuda_constants text;
    text.type(a.q.dtype()).number("G", a.n_heads / a.keys.shape(1)).number("HEAD_DIM", a.keys.shape(3));
    text.number("DIMS", a.rope->dims).number("TRADITIONAL", a.rope->traditional);
    text.number("THREADS", ATTEND_THREADS).real("ROPE_SCALE", a.rope->scale).real("EPS", a.eps);
    text.real("SCORE_SCALE", a.scale * static_cast<float>(M_LOG2E));
    std::vector<std::string> inputs = {"q",       "k",      "v", "keys", "values", "inverse_freqs",
                                       "entries", "scratch"};
    if (a.q_norm)
        inputs.insert(inputs.end(), {"q_weight", "k_weight"});
    else
        text.line("const T *q_weight = nullptr, *k_weight = nullptr;");
    text.line("const int n_entries = entries_shape[0], capacity = keys_shape[2];");
    return cuda_compile("attend", inputs, {"out"}, "", text.source(), attend_body);
}

/* Parts of the cache, for blocks of their own. */
static int n_parts_of(int64_t n_entries, int n_kv_heads) {
    int most = std::max(1, ATTEND_BLOCKS / n_kv_heads);
    return static_cast<int>(std::clamp<int64_t>((n_entries + PART_ENTRIES - 1) / PART_ENTRIES, 1, most));
}

int cuda_attend_scratch(const cache_spec &s, int n_heads) {
    return s.n_kv_heads + n_heads * std::max(1, ATTEND_BLOCKS / s.n_kv_heads) * (s.head_dim + 2);
}

mx::array cuda_attend_run(const cuda_attend &a) {
    int n_kv_heads = a.keys.shape(1), head_dim = a.keys.shape(3);
    cuda_kernel_key key = {1,
                           a.n_heads,
                           n_kv_heads,
                           head_dim,
                           a.rope->dims,
                           a.rope->traditional,
                           bits_of(a.rope->scale),
                           a.q_norm ? bits_of(a.eps) : -1,
                           bits_of(a.scale),
                           a.q.dtype() == mx::bfloat16};
    cuda_launch launch = {
        .inputs = {a.q, a.k, a.v, a.keys, a.values, a.inverse_freqs, a.entries, a.scratch},
        .shapes = {{1, 1, a.n_heads * head_dim}},
        .blocks = n_kv_heads,
        .blocks_y = n_parts_of(a.entries.shape(0), n_kv_heads),
        .n_threads = ATTEND_THREADS,
    };
    if (a.q_norm) launch.inputs.insert(launch.inputs.end(), {*a.q_norm, *a.k_norm});
    return cuda_start(key, launch, [&] { return make_attend(a); })[0];
}
