// What the CUDA kernels share: element types, 16-byte vectors, the launch.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>

#include "../tensor.h"

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

// What the launch before on this stream wrote may be read from here on, and what it reads be written. Only a
// launch that may begin early (programmatic stream serialization, sm_90 and above) has to wait.
__device__ __forceinline__ void wait_for_launch_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
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

// Element j and the one behind it: two are rounded by one instruction.
template <class T, int V>
__device__ __forceinline__ void set_pair(Vector<T, V>& out, int j, float first, float second) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 both = __floats2half2_rn(first, second);
    out.at[j] = both.x, out.at[j + 1] = both.y;
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
    out.at[j] = both.x, out.at[j + 1] = both.y;
  } else {
    out.at[j] = first, out.at[j + 1] = second;
  }
}

template <class T>
constexpr int kWide = 16 / static_cast<int>(sizeof(T));

inline bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace gantrt
