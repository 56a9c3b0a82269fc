// What the CUDA forms of NormAct share: the split of a plane, the moments of a tile, the maps, the halo.
#pragma once

#include <algorithm>
#include <limits>

#include "activation.h"
#include "block.cuh"
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
  Splits splits;
  int pixels;         // of the input's plane
  int result_pixels;  // of the padded result's plane
  int blocks;         // of `apply` for one plane or chunk
};

inline Splits splits_into(int64_t count, int64_t pixels) {
  const int64_t length = ((pixels + count - 1) / count + 7) / 8 * 8;
  return {static_cast<int>((pixels + length - 1) / length), static_cast<int>(length)};
}

inline int blocks_of(int64_t count) {
  if (count > std::numeric_limits<int>::max())
    throw std::invalid_argument("norm_act: more than 2^31 blocks of work; split the batch");
  return static_cast<int>(count);
}

__device__ __forceinline__ float pixels_of(const Launch& k, int split) {
  return static_cast<float>(max(0, min(k.splits.length, k.pixels - split * k.splits.length)));
}

// Anchor, rest and second moment of what one thread holds; adds them to what it held before.
template <int kCount>
__device__ __forceinline__ void add_tile(Counted& all, const float (&x)[kCount], int valid) {
  if (valid == 0) return;
  float sum = 0.0f, square = 0.0f;
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum += i < valid ? x[i] : 0.0f;
  const float count = static_cast<float>(valid), anchor = sum / count;
  sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float d = i < valid ? x[i] - anchor : 0.0f;
    sum += d;
    square += d * d;
  }
  merge_into(all, {moments_about(anchor, sum, square, count), count});
}

// The channels a block of an NHWC kernel owns, and the place of this thread in it.
template <int V, int kVectorsWide>
struct Chunk {
  static constexpr int kVectors = kVectorsWide;        // of V channels each
  static constexpr int kOwned = kVectors * V;          // channels
  static constexpr int kPixels = kThreads / kVectors;  // at once
  int n, block, first;                                 // first channel
  int channel, pixel;                                  // of this thread

  __device__ Chunk(int channels, int blocks) {
    const int chunks = (channels + kOwned - 1) / kOwned;
    block = blockIdx.x % blocks;
    first = blockIdx.x / blocks % chunks * kOwned;
    n = blockIdx.x / blocks / chunks;
    channel = first + static_cast<int>(threadIdx.x) % kVectors * V;
    pixel = static_cast<int>(threadIdx.x) / kVectors;
  }
};

// Moments of sample n, for mixed norms; valid in thread 0 of the block.
__device__ __forceinline__ Moments layer_moments(const Launch& k, int n, Counted* scratch) {
  const int64_t all = int64_t{k.p.c} * k.splits.count;
  const Moments* partial = k.partial + n * all;
  Counted mine{};
  for (int64_t i = threadIdx.x; i < all; i += kThreads)
    merge_into(mine, {partial[i], pixels_of(k, static_cast<int>(i % k.splits.count))});
  return block_merge<1>(mine, scratch).moments;
}

__device__ __forceinline__ Affine affine_of(const Launch& k, const Moments& channel, const Moments& layer,
                                            int n, int c) {
  const NormRule rule{k.p.eps, k.p.unbiased};
  const float count = static_cast<float>(k.pixels);
  const float scale = k.p.scale ? k.p.scale[int64_t{n} * k.p.scale_stride + c] : 1.0f;
  const float shift = k.p.shift ? k.p.shift[int64_t{n} * k.p.shift_stride + c] : 0.0f;
  if (!k.p.rho) return instance_norm(channel, count, scale, shift, rule);
  return mixed_norm(channel, count, layer, count * static_cast<float>(k.p.c), k.p.rho[c], scale, shift, rule);
}

// The affine maps of channels first..first + kOwned of sample n, in shared memory, ready after the call.
template <int kOwned>
__device__ __forceinline__ void make_maps(const Launch& k, int n, int first, Affine* maps) {
  __shared__ Counted scratch[kWarps * kOwned];
  __shared__ Moments layer;
  if (k.p.rho) {
    const Moments all = layer_moments(k, n, scratch);
    if (threadIdx.x == 0) layer = all;
    __syncthreads();
  }
  const int c = first + static_cast<int>(threadIdx.x) % kOwned;
  Counted mine{};
  if (c < k.p.c)
    for (int split = threadIdx.x / kOwned; split < k.splits.count; split += kThreads / kOwned)
      merge_into(mine, {k.partial[(int64_t{n} * k.p.c + c) * k.splits.count + split], pixels_of(k, split)});
  mine = block_merge<kOwned>(mine, scratch);
  if (threadIdx.x < kOwned && c < k.p.c) maps[threadIdx.x] = affine_of(k, mine.moments, layer, n, c);
  __syncthreads();
}

// act(affine(x)) + residual of V elements; their maps lie `step` apart.
template <class T, int V>
__device__ __forceinline__ Vector<T, V> normalised(const Vector<T, V>& x, const T* residual,
                                                   const Affine* maps, int step, Activation act) {
  Vector<T, V> add, out;
  if (residual) add = *reinterpret_cast<const Vector<T, V>*>(residual);
#pragma unroll
  for (int j = 0; j < V; ++j) {
    float v = act(maps[j * step](to_float(x.at[j])));
    if (residual) v += to_float(add.at[j]);
    out.at[j] = from_float<T>(v);
  }
  return out;
}

}  // namespace gantrt
