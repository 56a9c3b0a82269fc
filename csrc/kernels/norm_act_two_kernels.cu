// NormAct on CUDA in two kernels: any size, any architecture.
//   1. moments   each block sums one split of one plane (NCHW) or of one chunk of channels (NHWC):  partial
//   (n, c, split)
//   2. apply     each block merges the partials of its channels (with rho, of the whole sample), and writes
//                y = reflect_pad(act(gain_c * (x - anchor_c) + offset_c) + residual)
// Every merge has an order fixed by the shape: no atomics, and the same bits at every run.
#include "norm_act_blocks.cuh"
#include "norm_act_cuda.cuh"

namespace gantrt {
namespace {

constexpr int kBlocksWanted = 256;  // enough for the largest GPUs at batch 1
constexpr int kElements = 16;       // a thread holds in registers at once
constexpr int kChannels = 32;       // of an NHWC chunk, at most
constexpr int kPerThread = 4;       // vectors a thread of `apply` writes

template <int V>
using Wide = Chunk<V, V == 1 ? kChannels : 4>;

Splits splits_of(const NormActProblem& p, int64_t pixels, int64_t chunks) {
  const int64_t least = p.layout == Layout::kNchw ? kThreads * kElements : 64;  // pixels worth a block
  const int64_t room = p.layout == Layout::kNchw ? kMostSplits : most_splits(p, (p.c + 15) / 16);
  const int64_t most = std::min<int64_t>(room, (pixels + least - 1) / least), groups = p.n * chunks;
  return splits_into(std::max<int64_t>(1, std::min((kBlocksWanted + groups - 1) / groups, most)), pixels);
}

// Block: split blockIdx.x % splits of plane blockIdx.x / splits.
template <class T, int V>
__global__ void __launch_bounds__(kThreads) plane_moments(Launch k) {
  __shared__ Counted scratch[kWarps];
  constexpr int kLoads = kElements / V;
  const int split = blockIdx.x % k.splits.count, plane = blockIdx.x / k.splits.count;
  const int begin = split * k.splits.length, end = min(begin + k.splits.length, k.pixels);
  const T* x = static_cast<const T*>(k.p.x) + int64_t{plane} * k.pixels;
  Counted mine[1] = {};
  for (int at = begin + static_cast<int>(threadIdx.x) * V; at < end; at += kThreads * kElements) {
    Vector<T, 1> held[kElements] = {};
    int valid = 0;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int from = at + i * kThreads * V;
      if (from >= end) break;
      const auto read = *reinterpret_cast<const Vector<T, V>*>(x + from);
#pragma unroll
      for (int j = 0; j < V; ++j) held[i * V + j].at[0] = read.at[j];
      valid += V;
    }
    add_tile(mine, held, valid);
  }
  const Counted all = merge_block(mine[0], scratch);
  if (threadIdx.x == 0) k.partial[blockIdx.x] = all.moments;
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads) pixel_moments(Launch k) {
  using Mine = Wide<V>;
  __shared__ Counted scratch[kWarps * Mine::kOwned];
  constexpr int kRows = 4;  // pixels a thread holds at once
  const Mine chunk = Mine::of_row(k.p.c, k.splits.count);
  const int begin = chunk.block * k.splits.length, end = min(begin + k.splits.length, k.pixels);
  const bool inside = chunk.channel < k.p.c;
  const T* x = static_cast<const T*>(k.p.x) + int64_t{chunk.n} * k.pixels * k.p.c + chunk.channel;
  Counted mine[V] = {};
  for (int at = begin + chunk.pixel; inside && at < end; at += Mine::kPixels * kRows) {
    Vector<T, V> held[kRows] = {};
    int valid = 0;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int from = at + i * Mine::kPixels;
      if (from >= end) break;
      held[i] = *reinterpret_cast<const Vector<T, V>*>(x + int64_t{from} * k.p.c);
      ++valid;
    }
    add_tile(mine, held, valid);
  }
  const Counted all =
      merge_warps<Mine::kVectors, V, kThreads>(warp_merge_each<Mine::kVectors>(mine), scratch);
  const int c = chunk.first + static_cast<int>(threadIdx.x);
  if (threadIdx.x < Mine::kOwned && c < k.p.c)
    k.partial[(int64_t{chunk.n} * k.p.c + c) * k.splits.count + chunk.block] = all.moments;
  if (k.p.rho && threadIdx.x < kWarp) {
    const Counted channels = merge_channels<Mine::kOwned>(all, c < k.p.c);
    if (threadIdx.x == 0) k.layer[chunk.n * k.layer_blocks + blockIdx.x % k.layer_blocks] = channels;
  }
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

// Block: kThreads * kPerThread vectors of plane blockIdx.x / blocks. V > 1 only where nothing is padded or
// cut.
template <class T, int V>
__global__ void __launch_bounds__(kThreads, 4) apply_planes(Launch k) {
  __shared__ Affine map;
  const int plane = blockIdx.x / k.blocks, block = blockIdx.x % k.blocks;
  make_maps<1, kThreads>(k, plane / k.p.c, plane % k.p.c, &map);
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
    const auto beside = vector_at<T, V>(residual ? residual + from.residual : nullptr);
    *reinterpret_cast<Vector<T, V>*>(y + to) =
        normalised(vector_at<T, V>(x + from.x), residual != nullptr, beside, &affine, 0, k.p.act);
  }
}

// Block: kPixels * kPerThread pixels of the result, one chunk of channels.
template <class T, int V>
__global__ void __launch_bounds__(kThreads, 3) apply_pixels(Launch k) {
  using Mine = Wide<V>;
  __shared__ Affine maps[Mine::kOwned];
  const Mine chunk = Mine::of_row(k.p.c, k.blocks);
  make_maps<Mine::kOwned, kThreads>(k, chunk.n, chunk.first, maps);
  if (chunk.channel >= k.p.c) return;
  Affine affine[V];
#pragma unroll
  for (int j = 0; j < V; ++j) affine[j] = maps[chunk.channel - chunk.first + j];
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
    const auto beside = vector_at<T, V>(residual ? residual + from.residual * channels : nullptr);
    *reinterpret_cast<Vector<T, V>*>(y + to * channels) =
        normalised(vector_at<T, V>(x + from.x * channels), residual != nullptr, beside, affine, 1, k.p.act);
  }
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
  using Mine = Wide<V>;
  const int64_t each_sample = (k.p.c + Mine::kOwned - 1) / Mine::kOwned, chunks = k.p.n * each_sample;
  set_layer(k, each_sample);
  launch("norm_act", pixel_moments<T, V>, blocks_of(chunks * k.splits.count), kThreads, stream, k);
  const int64_t each = int64_t{Mine::kPixels} * kPerThread;
  k.blocks = blocks_of((k.result_pixels + each - 1) / each);
  launch("norm_act", apply_pixels<T, V>, blocks_of(chunks * k.blocks), kThreads, stream, k);
}

}  // namespace

void norm_act_two_kernels(Launch k, Stream stream) {
  const NormActProblem& p = k.p;
  k.splits = splits_of(p, k.pixels, p.layout == Layout::kNchw ? p.c : (p.c + kChannels - 1) / kChannels);
  const bool aligned = is_aligned(p.x) && is_aligned(p.y) && is_aligned(p.residual);
  dispatch(p.dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int V = kWide<T>;
    if (p.layout == Layout::kNchw) {
      const bool wide = is_aligned(p.x) && k.pixels % V == 0;
      run_planes<T, V>(k, wide, wide && aligned && p.pad == 0 && p.rpad == 0, stream);
    } else if (aligned && p.c % V == 0) {
      run_pixels<T, V>(k, stream);
    } else {
      run_pixels<T, 1>(k, stream);
    }
  });
}

}  // namespace gantrt
