// The little of CUDA that code without its headers needs.
#pragma once

#include <cstddef>
#include <vector>

#include "tensor.h"

namespace gantrt {

// Compute capabilities times ten that the kernels were compiled for, e.g. {75, 89}; empty without CUDA.
std::vector<int> cuda_architectures();

// The device that memory lies on; 0 where there is no CUDA to ask.
int cuda_device_of(const void* memory);

// Makes a CUDA device current for a scope, then the one that was; does nothing for the CPU.
class CurrentDevice {
 public:
  explicit CurrentDevice(Device device);
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = -1;
};

// Memory on the current device, in stream order: no synchronisation, and a freed block is reused by what
// follows on the stream.
void* cuda_allocate(size_t bytes, Stream stream);
void cuda_free(void* memory, Stream stream) noexcept;

// Scratch for one launch.
class Workspace {
 public:
  Workspace(size_t bytes, Stream stream)
      : stream_(stream), memory_(bytes ? cuda_allocate(bytes, stream) : nullptr) {}
  ~Workspace() {
    if (memory_) cuda_free(memory_, stream_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* get() const { return memory_; }

 private:
  Stream stream_;
  void* memory_;
};

}  // namespace gantrt
