// Moments over the lanes of a warp and the warps of a block. They are gathered first and then merged in two
// passes, a mean and the squares about it: no chain of divisions, and in an order that only the shape
// decides.
#pragma once

#include "block.cuh"
#include "moments.h"

namespace gantrt {

struct alignas(16) Counted {
  Moments moments;
  float count;
};

__device__ __forceinline__ int lane_of() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ __forceinline__ int warp_of() { return static_cast<int>(threadIdx.x) / kWarp; }

// One more set, by Chan's formula: for a few, one after the other.
__device__ __forceinline__ void merge_into(Counted& a, const Counted& b) {
  a.moments = merge(a.moments, a.count, b.moments, b.count);
  a.count += b.count;
}

__device__ __forceinline__ float from_anchor(const Counted& set, float anchor) {
  return (set.moments.anchor - anchor) + set.moments.rest;
}

// Good to two units in the last place, of what is small itself.
__device__ __forceinline__ float ratio(float sum, float count) {
  return count > 0.0f ? __fdividef(sum, count) : 0.0f;
}

// `count` <= kMost sets that lie `step` apart. The first is not empty, unless all are.
template <int kMost>
__device__ __forceinline__ Counted merge_all(const Counted* sets, int step, int count) {
  Counted set[kMost];
#pragma unroll
  for (int i = 0; i < kMost; ++i) set[i] = i < count ? sets[i * step] : Counted{};
  const float anchor = set[0].moments.anchor;
  float pixels = 0.0f, sum = 0.0f, m2 = 0.0f;
#pragma unroll
  for (int i = 0; i < kMost; ++i) {
    pixels += set[i].count;
    sum += set[i].count * from_anchor(set[i], anchor);
  }
  const float rest = ratio(sum, pixels);
#pragma unroll
  for (int i = 0; i < kMost; ++i) {
    const float away = from_anchor(set[i], anchor) - rest;
    m2 += set[i].moments.m2 + set[i].count * away * away;
  }
  return {{anchor, rest, m2}, pixels};
}

// kCount sets, eight at a time: these are all in registers at once.
template <int kCount>
__device__ __forceinline__ Counted merge_known(const Counted* sets, int step) {
  constexpr int kAtOnce = kCount < 8 ? kCount : 8;
  static_assert(kCount % kAtOnce == 0, "whole eights");
  Counted all = merge_all<kAtOnce>(sets, step, kAtOnce);
#pragma unroll 1
  for (int i = kAtOnce; i < kCount; i += kAtOnce)
    merge_into(all, merge_all<kAtOnce>(sets + i * step, step, kAtOnce));
  return all;
}

// The sum over the lanes that share lane % kGroups, in all of them.
template <int kGroups>
__device__ __forceinline__ float sum_lanes(float v) {
#pragma unroll
  for (int distance = kWarp / 2; distance >= kGroups; distance /= 2) v += __shfl_xor_sync(~0u, v, distance);
  return v;
}

// The sets of all lanes, in all of them. That of lane 0 is not empty, unless all are.
__device__ __forceinline__ Counted merge_lanes(const Counted& mine) {
  const float anchor = __shfl_sync(~0u, mine.moments.anchor, 0);
  const float count = sum_lanes<1>(mine.count), from = from_anchor(mine, anchor);
  const float rest = ratio(sum_lanes<1>(mine.count * from), count);
  const float m2 = sum_lanes<1>(mine.moments.m2 + mine.count * (from - rest) * (from - rest));
  return {{anchor, rest, m2}, count};
}

// Where a lane holds one value of each of V channels, it answers for one of them: `channel_of`.
template <int V>
__device__ __forceinline__ int channel_of(int lane) {
  return lane / (kWarp / V);
}

// One lane of two keeps the lower half of its values and the other the upper, each added to what the other
// gives away; and so on until one is left, in v[0].
template <int kLeft, int kDistance, int V>
__device__ __forceinline__ void halve(float (&v)[V], int lane) {
  if constexpr (kLeft > 1) {
    constexpr int kHalf = kLeft / 2;
    const bool upper = (lane & kDistance) != 0;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const float keep = upper ? v[i + kHalf] : v[i], give = upper ? v[i] : v[i + kHalf];
      v[i] = keep + __shfl_xor_sync(~0u, give, kDistance);
    }
    halve<kHalf, kDistance / 2>(v, lane);
  }
}

// The sums of V channels over the lanes that share lane % kGroups: a lane gets that of its channel. About as
// many steps as one sum takes.
template <int kGroups, int V>
__device__ __forceinline__ float sum_each(float (&v)[V], int lane) {
  static_assert(kWarp % (kGroups * V) == 0, "a warp holds whole groups, and a lane for each channel");
  halve<V, kWarp / 2>(v, lane);
#pragma unroll
  for (int distance = kWarp / V / 2; distance >= kGroups; distance /= 2)
    v[0] += __shfl_xor_sync(~0u, v[0], distance);
  return v[0];
}

// What the lane of this group that answers for channel j has.
template <int kGroups, int V>
__device__ __forceinline__ float value_of(float v, int j, int lane) {
  return __shfl_sync(~0u, v, j * (kWarp / V) + lane % kGroups);
}

// Moments of a lane's channel from `valid` rows of V channels that each lane holds; the other rows are zeros.
// They are taken about the mean of the lanes' first rows, which no single pixel can pull far away.
template <int kGroups, class T, int V, int kRows>
__device__ __forceinline__ Counted warp_moments(const Vector<T, V> (&held)[kRows], int valid) {
  const int lane = lane_of();
  float sum[V], square[V];
#pragma unroll
  for (int j = 0; j < V; ++j) sum[j] = to_float(held[0].at[j]);
  const float firsts = sum_lanes<kGroups>(valid > 0 ? 1.0f : 0.0f);
  const float count = kRows == 1 ? firsts : sum_lanes<kGroups>(static_cast<float>(valid));
  const float own = ratio(sum_each<kGroups, V>(sum, lane), firsts);
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const float anchor = value_of<kGroups, V>(own, j, lane);
    sum[j] = square[j] = 0.0f;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float away = i < valid ? to_float(held[i].at[j]) - anchor : 0.0f;
      sum[j] += away;
      square[j] += away * away;
    }
  }
  const float all = sum_each<kGroups, V>(sum, lane), m2 = sum_each<kGroups, V>(square, lane);
  return count > 0.0f ? Counted{moments_about(own, all, m2, count), count} : Counted{};
}

// The same from sets that each lane has made already.
template <int kGroups, int V>
__device__ __forceinline__ Counted warp_merge_each(const Counted (&mine)[V]) {
  const int lane = lane_of();
  float anchor[V], from[V], left[V];
#pragma unroll
  for (int j = 0; j < V; ++j) {
    anchor[j] = __shfl_sync(~0u, mine[j].moments.anchor, lane % kGroups);
    from[j] = from_anchor(mine[j], anchor[j]);
    left[j] = mine[j].count * from[j];
  }
  const float count = sum_lanes<kGroups>(mine[0].count);
  const float rest = ratio(sum_each<kGroups, V>(left, lane), count);
  float own = anchor[0];
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const float away = from[j] - value_of<kGroups, V>(rest, j, lane);
    left[j] = mine[j].moments.m2 + mine[j].count * away * away;
    if (j == channel_of<V>(lane)) own = anchor[j];
  }
  return {{own, rest, sum_each<kGroups, V>(left, lane)}, count};
}

// From the moments of each warp those of the block: channel g * V + j is channel j of group g, and valid in
// the thread of that number. `scratch` holds kGroups * V for each warp; all threads must call.
template <int kGroups, int V, int kBlock>
__device__ __forceinline__ Counted merge_warps(const Counted& mine, Counted* scratch) {
  constexpr int kOwned = kGroups * V, kAlike = kWarp / V, kAll = kBlock / kWarp;
  const int lane = lane_of();
  if (lane % kAlike < kGroups) scratch[warp_of() * kOwned + lane % kGroups * V + channel_of<V>(lane)] = mine;
  __syncthreads();
  if (threadIdx.x >= kOwned) return {};
  return merge_known<kAll>(scratch + threadIdx.x, kOwned);
}

// The sets of all threads of a block, valid in thread 0. `scratch` holds one for each warp; all threads must
// call.
__device__ __forceinline__ Counted merge_block(const Counted& mine, Counted* scratch) {
  return merge_warps<1, 1, kThreads>(merge_lanes(mine), scratch);
}

}  // namespace gantrt
