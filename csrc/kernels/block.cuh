// What the CUDA kernels share: element types, 16-byte vectors, the merge of moments over a block, the launch.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "../tensor.h"
#include "moments.h"

namespace gantrt {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;

inline void check(cudaError_t error, const char* who) {
  if (error == cudaSuccess) return;
  const std::string text = std::string(who) + ": CUDA says " + cudaGetErrorString(error);
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver)
    throw DeviceUnavailable(text + "; pass arrays that lie on the CPU");
  throw std::runtime_error(text);
}

template <class... Parameters, class... Arguments>
void launch(const char* who, void (*kernel)(Parameters...), dim3 grid, dim3 block, Stream stream,
            Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, arguments...), who);
}

template <class Body>
void dispatch(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body(float{});
    case DType::kFloat16:
      return body(__half{});
    case DType::kBFloat16:
      return body(__nv_bfloat16{});
    case DType::kUInt8:
      break;
  }
  throw std::invalid_argument("the CUDA kernels compute in float32, float16 and bfloat16");
}

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(__half v) { return __half2float(v); }
__device__ __forceinline__ float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }

template <class T>
__device__ __forceinline__ T from_float(float v) {
  if constexpr (std::is_same_v<T, __half>)
    return __float2half_rn(v);
  else if constexpr (std::is_same_v<T, __nv_bfloat16>)
    return __float2bfloat16_rn(v);
  else
    return v;
}

// V elements read or written at once.
template <class T, int V>
struct alignas(sizeof(T) * V) Vector {
  T at[V];
};

template <class T>
constexpr int kWide = 16 / static_cast<int>(sizeof(T));

inline bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

struct Counted {
  Moments moments;
  float count;
};

__device__ __forceinline__ void merge_into(Counted& a, const Counted& b) {
  a.moments = merge(a.moments, a.count, b.moments, b.count);
  a.count += b.count;
}

__device__ __forceinline__ Counted from_lane_below(const Counted& mine, int distance) {
  return {
      {__shfl_down_sync(~0u, mine.moments.anchor, distance),
       __shfl_down_sync(~0u, mine.moments.rest, distance), __shfl_down_sync(~0u, mine.moments.m2, distance)},
      __shfl_down_sync(~0u, mine.count, distance)};
}

// Swaps with the lane whose number differs in the bit `distance`.
__device__ __forceinline__ Counted swapped(const Counted& mine, int distance) {
  return {
      {__shfl_xor_sync(~0u, mine.moments.anchor, distance), __shfl_xor_sync(~0u, mine.moments.rest, distance),
       __shfl_xor_sync(~0u, mine.moments.m2, distance)},
      __shfl_xor_sync(~0u, mine.count, distance)};
}

// Merges over the threads of a block that share threadIdx.x % kGroups, in a fixed order. The result is valid
// in threads 0..kGroups-1. `scratch` holds kWarps * kGroups; all threads must call, and may reuse it after a
// __syncthreads().
template <int kGroups>
__device__ __forceinline__ Counted block_merge(Counted mine, Counted* scratch) {
  static_assert(kWarp % kGroups == 0, "a warp holds whole groups");
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int distance = kWarp / 2; distance >= kGroups; distance /= 2)
    merge_into(mine, from_lane_below(mine, distance));
  if (lane < kGroups) scratch[warp * kGroups + lane] = mine;
  __syncthreads();
  if (threadIdx.x < kGroups)
    for (int other = 1; other < kWarps; ++other) merge_into(mine, scratch[other * kGroups + threadIdx.x]);
  return mine;
}

// By value: a reference to one of two would put both into local memory.
__device__ __forceinline__ Counted chosen(bool first, const Counted& a, const Counted& b) {
  return {{first ? a.moments.anchor : b.moments.anchor, first ? a.moments.rest : b.moments.rest,
           first ? a.moments.m2 : b.moments.m2},
          first ? a.count : b.count};
}

// The merge of two lanes' sets, the same in both.
__device__ __forceinline__ Counted merged_with(const Counted& mine, const Counted& got, bool upper) {
  Counted all = chosen(upper, got, mine);
  merge_into(all, chosen(upper, mine, got));
  return all;
}

// One lane of two keeps the lower half of its sets and the other the upper, each merged with what the other
// gives away; and so on until one set is left. Returns the number of the set that is left; it is in mine[0].
template <int kSets, int kDistance, int V>
__device__ __forceinline__ int halve(Counted (&mine)[V], int lane) {
  if constexpr (kSets == 1) {
    return 0;
  } else {
    constexpr int kHalf = kSets / 2;
    const bool upper = (lane & kDistance) != 0;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const Counted got = swapped(chosen(upper, mine[i], mine[i + kHalf]), kDistance);
      mine[i] = merged_with(chosen(upper, mine[i + kHalf], mine[i]), got, upper);
    }
    return (upper ? kHalf : 0) + halve<kHalf, kDistance / 2>(mine, lane);
  }
}

// The same for V sets at once, set j of group g being channel g * V + j; the merge of channel t is valid in
// thread t < kGroups * V. It takes about as many steps as one set does. `scratch` holds kWarps * kGroups * V;
// all threads must call.
template <int kGroups, int V>
__device__ __forceinline__ Counted block_merge_each(Counted (&mine)[V], Counted* scratch) {
  static_assert(kWarp % (kGroups * V) == 0, "a warp holds whole groups, and a lane for each channel");
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, group = lane % kGroups;
  const int channel = halve<V, kWarp / 2>(mine, lane);
  constexpr int kAlike = kWarp / V;  // lanes that now hold the same channel, of all groups
#pragma unroll
  for (int distance = kAlike / 2; distance >= kGroups; distance /= 2)
    mine[0] = merged_with(mine[0], swapped(mine[0], distance), (lane & distance) != 0);
  if (lane % kAlike < kGroups) scratch[(warp * kGroups + group) * V + channel] = mine[0];
  __syncthreads();
  Counted all{};
  if (threadIdx.x < kGroups * V)
    for (int other = 0; other < kWarps; ++other)
      merge_into(all, scratch[other * kGroups * V + static_cast<int>(threadIdx.x)]);
  return all;
}

}  // namespace gantrt
