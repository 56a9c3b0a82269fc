// What the CUDA forms of NormAct share: the split of a plane, the moments of a tile, the maps, the halo.
#pragma once

#include <algorithm>
#include <limits>

#include "activation.h"
#include "moments.cuh"
#include "norm_act.h"

namespace gantrt {

constexpr int kMostSplits = 64;  // of a plane: a later block merges them all
static_assert(kMostSplits * sizeof(Moments) <= kNormActWorkspacePerPlane);

// How the pixels of a plane are split.
struct Splits {
  int count;
  int length;  // pixels; a multiple of 8, so that each split of an aligned plane is aligned
};

struct Launch {
  NormActProblem p;
  Moments* partial;  // (n, c, split)
  Counted* layer;    // (n, block of that sample): of all its channels, for mixed norms; null for planes
  Splits splits;
  int layer_blocks;
  int pixels;         // of the input's plane
  int result_pixels;  // of the padded result's plane
  int blocks;         // of `apply` for one plane or chunk
};

inline Splits splits_into(int64_t count, int64_t pixels) {
  const int64_t length = ((pixels + count - 1) / count + 7) / 8 * 8;
  return {static_cast<int>((pixels + length - 1) / length), static_cast<int>(length)};
}

// Behind the partial moments of all channels lie those of the blocks; most splits that leave room for both.
inline size_t partial_bytes(const NormActProblem& p, int64_t splits) {
  return (int64_t{p.n} * p.c * splits * sizeof(Moments) + 15) / 16 * 16;
}

inline int most_splits(const NormActProblem& p, int64_t chunks) {
  int splits = kMostSplits;
  while (splits > 1 && partial_bytes(p, splits) + p.n * chunks * splits * sizeof(Counted) >
                           p.n * p.c * kNormActWorkspacePerPlane)
    --splits;
  return splits;
}

// For `chunks` blocks of channels a sample, of which each split has one.
inline void set_layer(Launch& k, int64_t chunks) {
  k.layer_blocks = static_cast<int>(chunks * k.splits.count);
  k.layer =
      reinterpret_cast<Counted*>(reinterpret_cast<char*>(k.partial) + partial_bytes(k.p, k.splits.count));
}

inline int blocks_of(int64_t count) {
  if (count > std::numeric_limits<int>::max())
    throw std::invalid_argument("norm_act: more than 2^31 blocks of work; split the batch");
  return static_cast<int>(count);
}

__device__ __forceinline__ float pixels_of(const Launch& k, int split) {
  return static_cast<float>(max(0, min(k.splits.length, k.pixels - split * k.splits.length)));
}

// Adds to what a thread held before the moments of `valid` rows of V channels; the other rows are zeros.
template <class T, int V, int kRows>
__device__ __forceinline__ void add_tile(Counted (&all)[V], const Vector<T, V> (&held)[kRows], int valid) {
  if (valid == 0) return;
  const float count = static_cast<float>(valid), each = 1.0f / count, before = all[0].count;
  const float share = count / (before + count), weight = before * share;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    float sum = 0.0f, square = 0.0f;
#pragma unroll
    for (int i = 0; i < kRows; ++i) sum += to_float(held[i].at[j]);
    const float anchor = sum * each;
    sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float away = i < valid ? to_float(held[i].at[j]) - anchor : 0.0f;
      sum += away;
      square += away * away;
    }
    const float rest = sum * each, m2 = square - sum * rest;
    if (before == 0.0f) {
      all[j] = {{anchor, rest, m2 < 0.0f ? 0.0f : m2}, count};
    } else {
      const float delta = (anchor - all[j].moments.anchor) + (rest - all[j].moments.rest);
      all[j].moments.rest += delta * share;
      all[j].moments.m2 += (m2 < 0.0f ? 0.0f : m2) + delta * delta * weight;
      all[j].count = before + count;
    }
  }
}

// V elements, or zeros where there are none.
template <class T, int V>
__device__ __forceinline__ Vector<T, V> vector_at(const T* elements) {
  return elements ? *reinterpret_cast<const Vector<T, V>*>(elements) : Vector<T, V>{};
}

// The channels a block of an NHWC kernel owns, and the place of this thread in it.
template <int V, int kVectorsWide, int kBlock = kThreads>
struct Chunk {
  static constexpr int kVectors = kVectorsWide;      // of V channels each
  static constexpr int kOwned = kVectors * V;        // channels
  static constexpr int kPixels = kBlock / kVectors;  // at once
  int n, block, first;                               // first channel
  int channel, pixel;                                // of this thread

  __device__ __forceinline__ Chunk(int n, int chunk, int block)
      : n(n),
        block(block),
        first(chunk * kOwned),
        channel(first + static_cast<int>(threadIdx.x) % kVectors * V),
        pixel(static_cast<int>(threadIdx.x) / kVectors) {}

  // Of a grid in one row, with `blocks` for each chunk.
  static __device__ __forceinline__ Chunk of_row(int channels, int blocks) {
    const int chunks = (channels + kOwned - 1) / kOwned, chunk = static_cast<int>(blockIdx.x) / blocks;
    return {chunk / chunks, chunk % chunks, static_cast<int>(blockIdx.x) % blocks};
  }
};

// What a channel is scaled by; read early, for it takes a while to come.
struct Parameters {
  float scale, shift, rho;

  __device__ __forceinline__ Parameters(const NormActProblem& p, int n, int c)
      : scale(p.scale && c < p.c ? p.scale[int64_t{n} * p.scale_stride + c] : 1.0f),
        shift(p.shift && c < p.c ? p.shift[int64_t{n} * p.shift_stride + c] : 0.0f),
        rho(p.rho && c < p.c ? p.rho[c] : 1.0f) {}
};

__device__ __forceinline__ Affine affine_of(const Launch& k, const Moments& channel, const Moments& layer,
                                            const Parameters& own) {
  const NormRule rule{k.p.eps, k.p.unbiased};
  const float count = static_cast<float>(k.pixels);
  if (!k.p.rho) return instance_norm(channel, count, own.scale, own.shift, rule);
  return mixed_norm(channel, count, layer, count * static_cast<float>(k.p.c), own.rho, own.scale, own.shift,
                    rule);
}

// What other blocks have written in this launch or before it.
__device__ __forceinline__ Moments fresh(const Moments* at) {
  return {__ldcg(&at->anchor), __ldcg(&at->rest), __ldcg(&at->m2)};
}

__device__ __forceinline__ Counted fresh(const Counted* at) {
  return {fresh(&at->moments), __ldcg(&at->count)};
}

// The channels that a block of an NHWC kernel owns, in one: called by the first warp alone, with the moments
// of channel t in thread t < kOwned.
template <int kOwned>
__device__ __forceinline__ Counted merge_channels(const Counted& mine, bool inside) {
  static_assert(kOwned <= kWarp, "a lane for each channel");
  return merge_lanes(threadIdx.x < kOwned && inside ? mine : Counted{});
}

// A lane's share of the moments of sample n, for mixed norms; `lane` of `lanes`.
__device__ __forceinline__ Counted layer_share(const Launch& k, int n, int lane, int lanes) {
  Counted mine{};
  if (k.layer) {
    for (int i = lane; i < k.layer_blocks; i += lanes)
      merge_into(mine, fresh(k.layer + int64_t{n} * k.layer_blocks + i));
  } else {
    const int64_t all = int64_t{k.p.c} * k.splits.count;
    const Moments* partial = k.partial + n * all;
    for (int64_t i = lane; i < all; i += lanes)
      merge_into(mine, {fresh(partial + i), pixels_of(k, static_cast<int>(i % k.splits.count))});
  }
  return mine;
}

// The affine maps of channels first..first + kOwned of sample n from what all blocks left in memory; ready in
// shared memory after the call. A warp merges a channel.
template <int kOwned, int kBlock>
__device__ __forceinline__ void make_maps(const Launch& k, int n, int first, Affine* maps) {
  constexpr int warps = kBlock / kWarp;
  __shared__ Counted channels[kOwned];
  __shared__ Counted shares[warps];
  const int lane = lane_of(), warp = warp_of();
  const Parameters own(k.p, n, first + static_cast<int>(threadIdx.x) % kOwned);
  for (int t = warp; t < kOwned; t += warps) {
    Counted mine{};
    if (first + t < k.p.c)
      for (int split = lane; split < k.splits.count; split += kWarp)
        merge_into(mine, {fresh(k.partial + (int64_t{n} * k.p.c + first + t) * k.splits.count + split),
                          pixels_of(k, split)});
    mine = merge_lanes(mine);
    if (lane == 0) channels[t] = mine;
  }
  if (k.p.rho) {
    const Counted share = merge_lanes(layer_share(k, n, static_cast<int>(threadIdx.x), kBlock));
    if (lane == 0) shares[warp] = share;
  }
  __syncthreads();
  if (threadIdx.x < kOwned && first + static_cast<int>(threadIdx.x) < k.p.c) {
    const Moments layer = k.p.rho ? merge_known<warps>(shares, 1).moments : Moments{};
    maps[threadIdx.x] = affine_of(k, channels[threadIdx.x].moments, layer, own);
  }
  __syncthreads();
}

// act(affine(x)), and + the residual if there is one, of V elements; their maps lie `step` apart. By value:
// what has an address lies in memory.
template <class T, int V>
__device__ __forceinline__ Vector<T, V> normalised(const Vector<T, V>& x, bool add,
                                                   const Vector<T, V>& residual, const Affine* maps, int step,
                                                   Activation act) {
  float v[V];
#pragma unroll
  for (int j = 0; j < V; ++j) v[j] = maps[j * step](to_float(x.at[j]));
  if (act.slope == 0.0f) {
#pragma unroll
    for (int j = 0; j < V; ++j) v[j] = v[j] < 0.0f ? 0.0f : v[j];
  } else if (act.slope != 1.0f) {
#pragma unroll
    for (int j = 0; j < V; ++j) v[j] = v[j] < 0.0f ? act.slope * v[j] : v[j];
  }
  if (add) {
#pragma unroll
    for (int j = 0; j < V; ++j) v[j] += to_float(residual.at[j]);
  }
  Vector<T, V> out;
  if constexpr (V == 1) {
    out.at[0] = from_float<T>(v[0]);
  } else {
#pragma unroll
    for (int j = 0; j < V; j += 2) set_pair(out, j, v[j], v[j + 1]);
  }
  return out;
}

}  // namespace gantrt
