// What every kernel and every binding speaks: a view of somebody else's memory.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

// Arithmetic marked so is one text for the CPU and the CUDA kernels; the CPU's tests therefore test it for
// both.
#if defined(__CUDACC__)
#define GANTRT_HD __host__ __device__ __forceinline__
#else
#define GANTRT_HD inline __attribute__((always_inline))
#endif

struct CUstream_st;

namespace gantrt {

enum class DType { kFloat32, kFloat16, kBFloat16, kUInt8 };
enum class DeviceType { kCpu, kCuda };

struct Device {
  DeviceType type = DeviceType::kCpu;
  int index = 0;

  bool operator==(const Device& other) const { return type == other.type && index == other.index; }
  bool operator!=(const Device& other) const { return !(*this == other); }
};

// A cudaStream_t, without its header. Null is CUDA's legacy default stream; the CPU kernels ignore it.
using Stream = CUstream_st*;

struct TensorView {
  static constexpr int kMaxRank = 4;

  void* data = nullptr;
  DType dtype = DType::kFloat32;
  Device device;
  int rank = 0;
  int64_t shape[kMaxRank] = {};
  int64_t stride[kMaxRank] = {};  // in elements
};

// The device, or the library that drives it, is not here. Python sees gantrt.errors.DeviceUnavailable.
struct DeviceUnavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

constexpr int64_t size_of(DType dtype) {
  return dtype == DType::kFloat32 ? 4 : dtype == DType::kUInt8 ? 1 : 2;
}

constexpr const char* name_of(DType dtype) {
  return dtype == DType::kFloat32    ? "float32"
         : dtype == DType::kFloat16  ? "float16"
         : dtype == DType::kBFloat16 ? "bfloat16"
                                     : "uint8";
}

// "cpu" or "cuda:0".
inline std::string name_of(Device device) {
  return device.type == DeviceType::kCpu ? "cpu" : "cuda:" + std::to_string(device.index);
}

// "(1, 3, 256, 256)", of a shape or of strides.
inline std::string text_of(const int64_t* values, int count) {
  std::string text = "(";
  for (int i = 0; i < count; ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + (count == 1 ? ",)" : ")");
}

inline std::string shape_of(const TensorView& view) { return text_of(view.shape, view.rank); }
inline std::string strides_of(const TensorView& view) { return text_of(view.stride, view.rank); }

// Whether the elements lie densely in C order; the stride of an axis of size 1 means nothing.
inline bool is_contiguous(const TensorView& view) {
  int64_t expected = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    if (view.shape[axis] != 1 && view.stride[axis] != expected) return false;
    expected *= view.shape[axis];
  }
  return true;
}

// The index inside [0, n) that reflection at both ends shows at i; -n < i < 2n - 1.
GANTRT_HD int reflect(int i, int n) {
  if (i < 0) return -i;
  return i < n ? i : 2 * (n - 1) - i;
}

}  // namespace gantrt
