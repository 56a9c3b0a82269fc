// NormAct on CUDA, in two kernels of any size, on any architecture:
//   1. moments   each block sums one split of one plane (NCHW) or of one chunk of channels (NHWC):  partial
//   (n, c, split)
//   2. apply     each block merges the partials of its channels (with rho, of the whole sample), and writes
//                y = reflect_pad(act(gain_c * (x - anchor_c) + offset_c) + residual)
// Every merge has an order fixed by the shape: no atomics, and the same bits at every run.
#include <algorithm>
#include <limits>

#include "activation.h"
#include "block.cuh"
#include "norm_act.h"

namespace gantrt {
namespace {

constexpr int kBlocksWanted = 256;  // enough for the largest GPUs at batch 1
constexpr int kMostSplits = 64;     // a later block merges them all
static_assert(kMostSplits * sizeof(Moments) <= kNormActWorkspacePerPlane);
constexpr int kElements = 16;  // a thread holds in registers at once
constexpr int kChannels = 32;  // of an NHWC chunk, at most
constexpr int kPerThread = 4;  // vectors a thread of `apply` writes

// How the pixels of a plane are split, by shape alone.
struct Splits {
  int count;
  int length;  // pixels; a multiple of 8, so that each split of an aligned plane is aligned
};

Splits splits_of(int64_t n, int64_t c, int64_t pixels, Layout layout) {
  const int64_t groups = layout == Layout::kNchw ? n * c : n * ((c + kChannels - 1) / kChannels);
  const int64_t least = layout == Layout::kNchw ? kThreads * kElements : 64;  // pixels worth a block
  const int64_t most = std::min<int64_t>(kMostSplits, (pixels + least - 1) / least);
  const int64_t wanted = std::max<int64_t>(1, std::min((kBlocksWanted + groups - 1) / groups, most));
  const int64_t length = ((pixels + wanted - 1) / wanted + 7) / 8 * 8;
  return {static_cast<int>((pixels + length - 1) / length), static_cast<int>(length)};
}

struct Launch {
  NormActProblem p;
  Moments* partial;
  Splits splits;
  int pixels;         // of the input's plane
  int result_pixels;  // of the padded result's plane
  int blocks;         // of `apply` for one plane or chunk
};

__device__ __forceinline__ float pixels_of(const Launch& k, int split) {
  return static_cast<float>(min(k.splits.length, k.pixels - split * k.splits.length));
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

// Block: split blockIdx.x % splits of plane blockIdx.x / splits.
template <class T, int V>
__global__ void __launch_bounds__(kThreads) plane_moments(Launch k) {
  __shared__ Counted scratch[kWarps];
  constexpr int kLoads = kElements / V;
  const int split = blockIdx.x % k.splits.count, plane = blockIdx.x / k.splits.count;
  const int begin = split * k.splits.length, end = min(begin + k.splits.length, k.pixels);
  const T* x = static_cast<const T*>(k.p.x) + int64_t{plane} * k.pixels;
  Counted mine{};
  for (int at = begin + static_cast<int>(threadIdx.x) * V; at < end; at += kThreads * kElements) {
    float values[kElements];
    int valid = 0;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int from = at + i * kThreads * V;
      if (from >= end) break;
      const auto read = *reinterpret_cast<const Vector<T, V>*>(x + from);
#pragma unroll
      for (int j = 0; j < V; ++j) values[i * V + j] = to_float(read.at[j]);
      valid += V;
    }
    add_tile(mine, values, valid);
  }
  mine = block_merge<1>(mine, scratch);
  if (threadIdx.x == 0) k.partial[blockIdx.x] = mine.moments;
}

// The channels a block of an NHWC kernel owns, and the place of this thread in it.
template <int V>
struct Chunk {
  static constexpr int kVectors = V == 1 ? kChannels : 4;
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

template <class T, int V>
__global__ void __launch_bounds__(kThreads) pixel_moments(Launch k) {
  using Mine = Chunk<V>;
  __shared__ Counted scratch[kWarps * Mine::kVectors];
  constexpr int kRows = 4;  // pixels a thread holds at once
  const Mine chunk(k.p.c, k.splits.count);
  const int begin = chunk.block * k.splits.length, end = min(begin + k.splits.length, k.pixels);
  const bool inside = chunk.channel < k.p.c;
  const T* x = static_cast<const T*>(k.p.x) + int64_t{chunk.n} * k.pixels * k.p.c + chunk.channel;
  Counted mine[V] = {};
  for (int at = begin + chunk.pixel; inside && at < end; at += Mine::kPixels * kRows) {
    float values[V][kRows];
    int valid = 0;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int from = at + i * Mine::kPixels;
      if (from >= end) break;
      const auto read = *reinterpret_cast<const Vector<T, V>*>(x + int64_t{from} * k.p.c);
#pragma unroll
      for (int j = 0; j < V; ++j) values[j][i] = to_float(read.at[j]);
      ++valid;
    }
#pragma unroll
    for (int j = 0; j < V; ++j) add_tile(mine[j], values[j], valid);
  }
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const Counted all = block_merge<Mine::kVectors>(mine[j], scratch);
    if (threadIdx.x < Mine::kVectors && inside)
      k.partial[(int64_t{chunk.n} * k.p.c + chunk.channel + j) * k.splits.count + chunk.block] = all.moments;
    __syncthreads();
  }
}

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

// Where a pixel of the padded result comes from, as indices of the input's plane and of the residual's.
struct Source {
  int x, residual;

  __device__ explicit Source(int pixel) : x(pixel), residual(pixel) {}

  __device__ Source(const NormActProblem& p, int result_pixel) {
    const int wide = p.w + 2 * p.pad, row = result_pixel / wide;
    const int i = reflect(row - p.pad, p.h), j = reflect(result_pixel - row * wide - p.pad, p.w);
    x = i * p.w + j;
    residual = (i + p.rpad) * (p.w + 2 * p.rpad) + j + p.rpad;
  }
};

template <class T, int V>
__device__ __forceinline__ Vector<T, V> normalised(const T* x, const T* residual, const Affine* maps,
                                                   int step, Activation act) {
  const auto read = *reinterpret_cast<const Vector<T, V>*>(x);
  Vector<T, V> add, out;
  if (residual) add = *reinterpret_cast<const Vector<T, V>*>(residual);
#pragma unroll
  for (int j = 0; j < V; ++j) {
    float v = act(maps[j * step](to_float(read.at[j])));
    if (residual) v += to_float(add.at[j]);
    out.at[j] = from_float<T>(v);
  }
  return out;
}

// Block: kThreads * kPerThread vectors of plane blockIdx.x / blocks. V > 1 only where nothing is padded or
// cut.
template <class T, int V>
__global__ void __launch_bounds__(kThreads) apply_planes(Launch k) {
  __shared__ Affine map;
  const int plane = blockIdx.x / k.blocks, block = blockIdx.x % k.blocks;
  make_maps<1>(k, plane / k.p.c, plane % k.p.c, &map);
  const Affine affine = map;
  const T* x = static_cast<const T*>(k.p.x) + int64_t{plane} * k.pixels;
  const T* residual = static_cast<const T*>(k.p.residual);
  if (residual) residual += int64_t{plane} * (k.p.h + 2 * k.p.rpad) * (k.p.w + 2 * k.p.rpad);
  T* y = static_cast<T*>(k.p.y) + int64_t{plane} * k.result_pixels;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int64_t at = ((int64_t{block} * kPerThread + i) * kThreads + threadIdx.x) * V;
    if (at >= k.result_pixels) break;
    const int to = static_cast<int>(at);
    const Source from = V > 1 ? Source(to) : Source(k.p, to);
    *reinterpret_cast<Vector<T, V>*>(y + to) =
        normalised<T, V>(x + from.x, residual ? residual + from.residual : nullptr, &affine, 0, k.p.act);
  }
}

// Block: kPixels * kPerThread pixels of the result, one chunk of channels.
template <class T, int V>
__global__ void __launch_bounds__(kThreads) apply_pixels(Launch k) {
  using Mine = Chunk<V>;
  __shared__ Affine maps[Mine::kOwned];
  const Mine chunk(k.p.c, k.blocks);
  make_maps<Mine::kOwned>(k, chunk.n, chunk.first, maps);
  if (chunk.channel >= k.p.c) return;
  const int64_t channels = k.p.c;
  const T* x = static_cast<const T*>(k.p.x) + chunk.n * k.pixels * channels + chunk.channel;
  const T* residual = static_cast<const T*>(k.p.residual);
  if (residual)
    residual += int64_t{chunk.n} * (k.p.h + 2 * k.p.rpad) * (k.p.w + 2 * k.p.rpad) * channels + chunk.channel;
  T* y = static_cast<T*>(k.p.y) + chunk.n * k.result_pixels * channels + chunk.channel;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int64_t to = (int64_t{chunk.block} * kPerThread + i) * Mine::kPixels + chunk.pixel;
    if (to >= k.result_pixels) break;
    const Source from(k.p, static_cast<int>(to));
    *reinterpret_cast<Vector<T, V>*>(y + to * channels) =
        normalised<T, V>(x + from.x * channels, residual ? residual + from.residual * channels : nullptr,
                         maps + (chunk.channel - chunk.first), 1, k.p.act);
  }
}

int blocks_of(int64_t count) {
  if (count > std::numeric_limits<int>::max())
    throw std::invalid_argument("norm_act: more than 2^31 blocks of work; split the batch");
  return static_cast<int>(count);
}

template <class T, int V>
void run_planes(Launch k, bool moments_wide, bool apply_wide, Stream stream) {
  const int64_t planes = int64_t{k.p.n} * k.p.c;
  const dim3 grid = blocks_of(planes * k.splits.count);
  launch("norm_act", moments_wide ? plane_moments<T, V> : plane_moments<T, 1>, grid, kThreads, stream, k);
  const int64_t each = int64_t{kThreads} * kPerThread * (apply_wide ? V : 1);
  k.blocks = blocks_of((k.result_pixels + each - 1) / each);
  launch("norm_act", apply_wide ? apply_planes<T, V> : apply_planes<T, 1>, blocks_of(planes * k.blocks),
         kThreads, stream, k);
}

template <class T, int V>
void run_pixels(Launch k, Stream stream) {
  using Mine = Chunk<V>;
  const int64_t chunks = int64_t{k.p.n} * ((k.p.c + Mine::kOwned - 1) / Mine::kOwned);
  launch("norm_act", pixel_moments<T, V>, blocks_of(chunks * k.splits.count), kThreads, stream, k);
  const int64_t each = int64_t{Mine::kPixels} * kPerThread;
  k.blocks = blocks_of((k.result_pixels + each - 1) / each);
  launch("norm_act", apply_pixels<T, V>, blocks_of(chunks * k.blocks), kThreads, stream, k);
}

}  // namespace

size_t norm_act_cuda_workspace(int64_t n, int64_t c, int64_t h, int64_t w, Layout layout) {
  return n * c * splits_of(n, c, h * w, layout).count * sizeof(Moments);
}

void norm_act_cuda(const NormActProblem& p, void* workspace, Stream stream) {
  const int64_t pixels = int64_t{p.h} * p.w, padded = int64_t{p.h + 2 * p.pad} * (p.w + 2 * p.pad);
  const int64_t residual_pixels = int64_t{p.h + 2 * p.rpad} * (p.w + 2 * p.rpad);
  if (std::max(padded, residual_pixels) > std::numeric_limits<int>::max())
    throw std::invalid_argument("norm_act: a plane of more than 2^31 pixels; CUDA kernels take smaller ones");
  const Launch k{p,
                 static_cast<Moments*>(workspace),
                 splits_of(p.n, p.c, pixels, p.layout),
                 static_cast<int>(pixels),
                 static_cast<int>(padded),
                 0};
  const bool aligned = is_aligned(p.x) && is_aligned(p.y) && is_aligned(p.residual);
  dispatch(p.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int V = kWide<T>;
    if (p.layout == Layout::kNchw) {
      const bool wide = is_aligned(p.x) && pixels % V == 0;
      run_planes<T, V>(k, wide, wide && aligned && p.pad == 0 && p.rpad == 0, stream);
    } else if (aligned && p.c % V == 0) {
      run_pixels<T, V>(k, stream);
    } else {
      run_pixels<T, 1>(k, stream);
    }
  });
}

}  // namespace gantrt
