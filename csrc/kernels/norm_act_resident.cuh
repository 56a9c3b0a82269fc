// NormAct in one kernel: x is read once and stays in registers while the moments are exchanged. Every pixel
// is then written where it belongs and where the reflected border shows it, each place once.
#pragma once

#include <cooperative_groups.h>

#include "norm_act_blocks.cuh"

namespace gantrt {

namespace cg = cooperative_groups;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr bool kHasClusters = false;  // nothing is compiled then but a trap
#else
constexpr bool kHasClusters = true;
#endif
constexpr int kLargestCluster = 8;  // that any GPU with clusters has

// Who tells whom of the moments of a tile.
enum class Exchange {
  kCluster,  // the blocks of a chunk of channels are a cluster, and write into each other's shared memory
  kClusterAndGrid,  // and then the clusters of a sample, through memory, for mixed norms
  kGrid             // all blocks, through memory
};

// The blocks that share a chunk of channels (sm_90 and above).
struct Cluster {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  static __device__ __forceinline__ void arrive() { cg::this_cluster().barrier_arrive(); }
  static __device__ __forceinline__ void wait() { cg::this_cluster().barrier_wait(); }
  static __device__ __forceinline__ unsigned size() { return cg::this_cluster().num_blocks(); }
  static __device__ __forceinline__ unsigned rank() { return cg::this_cluster().block_rank(); }

  template <class Value>
  static __device__ __forceinline__ Value* at(Value* shared, unsigned rank) {
    return cg::this_cluster().map_shared_rank(shared, rank);
  }
#else
  static __device__ void arrive() { __trap(); }
  static __device__ void wait() { __trap(); }
  static __device__ unsigned size() { return 1; }
  static __device__ unsigned rank() { return 0; }

  template <class Value>
  static __device__ Value* at(Value* shared, unsigned) {
    return shared;
  }
#endif
};

// The moments of channel t over all blocks of the cluster, in thread t < kOwned. Each block has called
// Cluster::arrive() before: none may write into another that has not begun, and none reads from another, so
// that each may end when it likes.
template <int kOwned>
__device__ __forceinline__ Counted merge_over_cluster(const Counted& mine, Counted* inbox) {
  const unsigned size = Cluster::size();
  Cluster::wait();
  if (threadIdx.x < kOwned) {
    Counted* own = inbox + Cluster::rank() * kOwned + threadIdx.x;
    for (unsigned rank = 0; rank < size; ++rank) *Cluster::at(own, rank) = mine;
  }
  Cluster::arrive();
  Cluster::wait();
  return threadIdx.x < kOwned
             ? merge_all<kLargestCluster>(inbox + threadIdx.x, kOwned, static_cast<int>(size))
             : Counted{};
}

// The maps of this block's channels from the moments of its tile, valid in thread t < kOwned for channel t;
// ready in shared memory after the call.
template <int kOwned, int kBlock, Exchange kExchange>
__device__ __forceinline__ void exchange(const Launch& k, const Counted& mine, int n, int first, int block,
                                         const Parameters& own, Affine* maps) {
  const int c = first + static_cast<int>(threadIdx.x);
  const bool owner = threadIdx.x < kOwned && c < k.p.c;
  if constexpr (kExchange == Exchange::kGrid) {
    if (owner) k.partial[(int64_t{n} * k.p.c + c) * k.splits.count + block] = mine.moments;
    if constexpr (kOwned > 1) {
      if (k.p.rho && threadIdx.x < kWarp) {
        const Counted channels = merge_channels<kOwned>(mine, owner);
        if (threadIdx.x == 0)
          k.layer[int64_t{n} * k.layer_blocks + blockIdx.y * gridDim.x + blockIdx.x] = channels;
      }
    }
    cg::this_grid().sync();
    make_maps<kOwned, kBlock>(k, n, first, maps);
  } else {
    __shared__ Counted inbox[kLargestCluster * kOwned];
    const Counted channel = merge_over_cluster<kOwned>(mine, inbox);
    Moments layer{};
    if constexpr (kExchange == Exchange::kClusterAndGrid) {
      if (threadIdx.x < kWarp) {
        const Counted channels = merge_channels<kOwned>(channel, owner);
        if (threadIdx.x == 0 && block == 0) k.layer[int64_t{n} * k.layer_blocks + blockIdx.y] = channels;
      }
      cg::this_grid().sync();
      if (threadIdx.x < kWarp) layer = merge_lanes(layer_share(k, n, lane_of(), kWarp)).moments;
    }
    if (owner) maps[threadIdx.x] = affine_of(k, channel.moments, layer, own);
    __syncthreads();
  }
}

// Where one index stands in the padded result, and where its mirror images do; -1: it has none there.
struct Places {
  int own, low, high;

  __device__ __forceinline__ Places(int i, int n, int pad)
      : own(i + pad),
        low(i >= 1 && i <= pad ? pad - i : -1),
        high(i <= n - 2 && i >= n - 1 - pad ? 2 * (n - 1) - i + pad : -1) {}
};

template <class Write>
__device__ __forceinline__ void write_everywhere(const NormActProblem& p, int row, int column,
                                                 const Write& write) {
  const int wide = p.w + 2 * p.pad;
  if (row > p.pad && row < p.h - 1 - p.pad && column > p.pad && column < p.w - 1 - p.pad)
    return write((row + p.pad) * wide + column + p.pad);
  const Places rows(row, p.h, p.pad), columns(column, p.w, p.pad);
  const auto write_row = [&](int at) {
    write(at * wide + columns.own);
    if (columns.low >= 0) write(at * wide + columns.low);
    if (columns.high >= 0) write(at * wide + columns.high);
  };
  write_row(rows.own);
  if (rows.low >= 0) write_row(rows.low);
  if (rows.high >= 0) write_row(rows.high);
}

// Block: split blockIdx.x of chunk blockIdx.y of the channels of sample blockIdx.z. All that does not depend
// on other blocks is done before they are waited for: the parameters, the residual and the places.
template <class T, int V, int kVectors, int kRows, int kBlock, Exchange kExchange>
__global__ void __launch_bounds__(kBlock, 512 / kBlock) resident_pixels(Launch k) {
  constexpr bool kInCluster = kExchange != Exchange::kGrid;
  if constexpr (kInCluster && !kHasClusters) return __trap();
  if constexpr (kInCluster) Cluster::arrive();
  wait_for_launch_before();
  using Mine = Chunk<V, kVectors, kBlock>;
  __shared__ Counted scratch[kBlock / kWarp * Mine::kOwned];
  __shared__ Affine maps[Mine::kOwned];
  const Mine chunk(blockIdx.z, blockIdx.y, blockIdx.x);
  const int begin = chunk.block * k.splits.length, end = min(begin + k.splits.length, k.pixels);
  const int channels = k.p.c;
  const T* x = static_cast<const T*>(k.p.x) + int64_t{chunk.n} * k.pixels * channels + chunk.channel;
  const int last = chunk.channel < k.p.c ? end : begin;
  Vector<T, V> held[kRows] = {};
  int valid = 0;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int from = begin + chunk.pixel + i * Mine::kPixels;
    if (from < last) {
      held[i] = *reinterpret_cast<const Vector<T, V>*>(x + int64_t{from} * channels);
      ++valid;
    }
  }
  const Parameters own(k.p, chunk.n, chunk.first + static_cast<int>(threadIdx.x) % Mine::kOwned);
  constexpr bool kAhead = kRows * kBlock <= 1024;  // registers allow it
  Vector<T, V> beside[kAhead ? kRows : 1] = {};
  int rows[kAhead ? kRows : 1], columns[kAhead ? kRows : 1];
  const T* residual = static_cast<const T*>(k.p.residual);
  const int residual_wide = k.p.w + 2 * k.p.rpad;
  if (residual)
    residual += int64_t{chunk.n} * (k.p.h + 2 * k.p.rpad) * residual_wide * channels + chunk.channel;
  const auto residual_at = [&](int row, int column) {
    const int at = (row + k.p.rpad) * residual_wide + column + k.p.rpad;
    return *reinterpret_cast<const Vector<T, V>*>(residual + int64_t{at} * channels);
  };
  const auto look_at = [&](int i, int to) {
    const int from = begin + chunk.pixel + i * Mine::kPixels;
    rows[to] = from / k.p.w;
    columns[to] = from - rows[to] * k.p.w;
    if (residual && i < valid) beside[to] = residual_at(rows[to], columns[to]);
  };
  if constexpr (kAhead) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) look_at(i, i);
  }
  const Counted all = merge_warps<kVectors, V, kBlock>(warp_moments<kVectors>(held, valid), scratch);
  exchange<Mine::kOwned, kBlock, kExchange>(k, all, chunk.n, chunk.first, chunk.block, own, maps);

  T* y = static_cast<T*>(k.p.y) + int64_t{chunk.n} * k.result_pixels * channels + chunk.channel;
  Affine affine[V];
#pragma unroll
  for (int j = 0; j < V; ++j) affine[j] = maps[chunk.channel - chunk.first + j];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (i >= valid) break;
    const int at = kAhead ? i : 0;
    if constexpr (!kAhead) look_at(i, 0);
    const Vector<T, V> out = normalised(held[i], residual != nullptr, beside[at], affine, 1, k.p.act);
    write_everywhere(k.p, rows[at], columns[at],
                     [&](int to) { *reinterpret_cast<Vector<T, V>*>(y + int64_t{to} * channels) = out; });
  }
}

// Block: split blockIdx.x of plane blockIdx.y of sample blockIdx.z. V > 1 only where nothing is padded or
// cut.
template <class T, int V, int kRows, Exchange kExchange>
__global__ void __launch_bounds__(kThreads, 1) resident_planes(Launch k) {
  if constexpr (kExchange != Exchange::kGrid && !kHasClusters) return __trap();
  if constexpr (kExchange != Exchange::kGrid) Cluster::arrive();
  wait_for_launch_before();
  __shared__ Counted scratch[kWarps];
  __shared__ Affine map;
  const int block = blockIdx.x, c = blockIdx.y, n = blockIdx.z, plane = n * k.p.c + c;
  const int begin = block * k.splits.length, end = min(begin + k.splits.length, k.pixels);
  const T* x = static_cast<const T*>(k.p.x) + int64_t{plane} * k.pixels;
  const Parameters own(k.p, n, c);
  Vector<T, V> held[kRows] = {};
  Vector<T, 1> values[kRows * V];
  int valid = 0;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int from = begin + (i * kThreads + static_cast<int>(threadIdx.x)) * V;
    if (from < end) {
      held[i] = *reinterpret_cast<const Vector<T, V>*>(x + from);
      ++valid;
    }
#pragma unroll
    for (int j = 0; j < V; ++j) values[i * V + j].at[0] = held[i].at[j];
  }
  Counted mine[1] = {};
  add_tile(mine, values, valid * V);
  const Counted all = merge_block(mine[0], scratch);
  exchange<1, kThreads, kExchange>(k, all, n, c, block, own, &map);

  const T* residual = static_cast<const T*>(k.p.residual);
  const int residual_wide = k.p.w + 2 * k.p.rpad;
  if (residual) residual += int64_t{plane} * (k.p.h + 2 * k.p.rpad) * residual_wide;
  T* y = static_cast<T*>(k.p.y) + int64_t{plane} * k.result_pixels;
  const Affine affine = map;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (i >= valid) break;
    const int from = begin + (i * kThreads + static_cast<int>(threadIdx.x)) * V;
    if constexpr (V > 1) {
      const auto beside = vector_at<T, V>(residual ? residual + from : nullptr);
      *reinterpret_cast<Vector<T, V>*>(y + from) =
          normalised(held[i], residual != nullptr, beside, &affine, 0, k.p.act);
    } else {
      const int row = from / k.p.w, column = from - row * k.p.w;
      const int at = (row + k.p.rpad) * residual_wide + column + k.p.rpad;
      const auto beside = vector_at<T, 1>(residual ? residual + at : nullptr);
      const T out = normalised(held[i], residual != nullptr, beside, &affine, 0, k.p.act).at[0];
      write_everywhere(k.p, row, column, [&](int to) { y[to] = out; });
    }
  }
}

}  // namespace gantrt
