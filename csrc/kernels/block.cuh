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
  kernel<<<grid, block, 0, stream>>>(arguments...);
  check(cudaGetLastError(), who);
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

// Merges over the threads of a block that share threadIdx.x % kGroups, in a fixed order. The result is valid
// in threads 0..kGroups-1. `scratch` holds kWarps * kGroups; all threads must call, and may reuse it after a
// __syncthreads().
template <int kGroups>
__device__ Counted block_merge(Counted mine, Counted* scratch) {
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

}  // namespace gantrt
