// CUDA's runtime as far as our kernels use it, on the CPU: every CUDA thread is a fibre, every block an OS
// thread, so that the very sources of csrc/kernels/*.cu run where there is no GPU. It finds wrong indices,
// wrong merges, missing writes and barriers that not all reach; not races within a warp, nor anything of
// speed.
#pragma once

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static thread_local  // a block is an OS thread
#define __CUDA_ARCH_LIST__ 900

struct CUstream_st;

struct uint3 {
  unsigned x, y, z;
};

struct uint2 {
  unsigned x, y;
};

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern thread_local uint3 threadIdx, blockIdx;
extern thread_local dim3 blockDim, gridDim;

void __syncthreads();
[[noreturn]] void __trap();

enum cudaError_t {
  cudaSuccess,
  cudaErrorInvalidValue,
  cudaErrorNoDevice,
  cudaErrorInsufficientDriver,
  cudaErrorNotReady,
  cudaErrorStreamCaptureInvalidated,
  cudaErrorDevicesUnavailable
};

namespace emulator {

// What lane `from` of this warp passed to the same call; `from` outside the warp: this lane's own.
uint32_t exchange(uint32_t mine, int from);
int lane();

// Meets the other blocks of this cluster, or of the grid; all threads of each must come.
void meet_cluster();
void meet_grid();
unsigned cluster_rank();
unsigned cluster_size();
void* at_rank(void* shared, unsigned rank);

// The GPU it plays.
struct Device {
  int index = 0, processors = 4, blocks_per_processor = 2, capability_major = 9, largest_cluster = 16;
};
extern Device device;
extern std::atomic<int> launches;              // so far
extern unsigned blocks;                        // of the last
extern bool dry;                               // launches run nothing
extern bool backwards;                         // the last thread of a block runs first
extern std::atomic<int> copies_until_refusal;  // that is, one copy is refused; below 0: none

void run(dim3 grid, dim3 block, unsigned cluster, bool in_clusters, bool all_at_once,
         const std::function<void()>& kernel);

// Runs it on the stream, later; with no stream, now; on a stream being captured, not at all.
extern std::atomic<bool> lost;
cudaError_t queue(CUstream_st* stream, std::function<void()> work);

template <class T>
T shuffle(T value, int from) {
  static_assert(sizeof(T) == 4);
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = exchange(bits, from);
  std::memcpy(&value, &bits, 4);
  return value;
}

}  // namespace emulator

template <class T>
T __shfl_down_sync(unsigned, T value, int distance) {
  const int from = emulator::lane() + distance;
  return emulator::shuffle(value, from < 32 ? from : emulator::lane());
}

template <class T>
T __shfl_sync(unsigned, T value, int from) {
  return emulator::shuffle(value, from % 32);
}

inline float __fdividef(float a, float b) { return a / b; }

template <class T>
T __ldcg(const T* at) {
  return *at;
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulator::shuffle(value, emulator::lane() ^ mask);
}

inline uint32_t __float_as_uint(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return bits;
}

// To 0..1; a NaN to 0.
inline float __saturatef(float v) { return v > 0.0f ? v < 1.0f ? v : 1.0f : 0.0f; }

template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}

template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}

using cudaStream_t = struct CUstream_st*;
enum cudaLaunchAttributeID {
  cudaLaunchAttributeClusterDimension,
  cudaLaunchAttributeCooperative,
  cudaLaunchAttributeProgrammaticStreamSerialization
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
    int cooperative, programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrCooperativeLaunch
};

inline const char* cudaGetErrorString(cudaError_t) { return "an error of the emulator"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) {
  *device = emulator::device.index;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount      ? emulator::device.processors
           : attribute == cudaDevAttrComputeCapabilityMajor ? emulator::device.capability_major
           : attribute == cudaDevAttrCooperativeLaunch      ? 1
                                                            : 0;
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel, int, size_t) {
  *blocks = emulator::device.blocks_per_processor;
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, Kernel, const cudaLaunchConfig_t* config) {
  const int size = static_cast<int>(config->attrs->val.clusterDim.x);
  const int resident = emulator::device.processors * emulator::device.blocks_per_processor;
  *clusters = size <= emulator::device.largest_cluster ? resident / size : 0;
  return cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
  ++emulator::launches;
  unsigned cluster = 1;
  bool clusters = false, cooperative = false;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    if (config->attrs[i].id == cudaLaunchAttributeClusterDimension) {
      clusters = true;
      cluster = config->attrs[i].val.clusterDim.x;
    } else if (config->attrs[i].id == cudaLaunchAttributeCooperative) {
      cooperative = config->attrs[i].val.cooperative != 0;
    }
  }
  const unsigned resident = emulator::device.processors * emulator::device.blocks_per_processor;
  emulator::blocks = config->gridDim.x * config->gridDim.y * config->gridDim.z;
  if (config->gridDim.x % cluster || (cooperative && emulator::blocks > resident))
    return cudaErrorInvalidValue;
  if (emulator::dry) return cudaSuccess;
  const dim3 grid = config->gridDim, block = config->blockDim;
  return emulator::queue(config->stream, [=] {
    emulator::run(grid, block, cluster, clusters, cooperative, [=] { kernel(arguments...); });
  });
}

// Streams, events and graphs: a stream is a thread with a queue, a captured stream a list.
using cudaEvent_t = struct EmulatedEvent*;
using cudaGraph_t = struct EmulatedGraph*;
using cudaGraphExec_t = struct EmulatedGraph*;
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed };
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDefault = 0, cudaEventBlockingSync = 1,
                   cudaEventDisableTiming = 2, cudaHostAllocDefault = 0, cudaHostAllocWriteCombined = 4;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_row, const void* from, size_t from_row, size_t row,
                              size_t rows, cudaMemcpyKind kind, cudaStream_t stream);
