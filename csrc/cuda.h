// The little of CUDA that code without its headers needs.
#pragma once

#include <cstddef>
#include <vector>

#include "tensor.h"

namespace gantrt {

// Compute capabilities times ten that the kernels were compiled for, e.g. {75, 89}; empty without CUDA.
std::vector<int> cuda_architectures();

// Device memory in stream order: no synchronisation, and a freed block is reused by what follows on the
// stream.
void* cuda_allocate(size_t bytes, Device device, Stream stream);
void cuda_free(void* memory, Device device, Stream stream) noexcept;

// Scratch for one launch.
class Workspace {
 public:
  Workspace(size_t bytes, Device device, Stream stream)
      : device_(device), stream_(stream), memory_(bytes ? cuda_allocate(bytes, device, stream) : nullptr) {}
  ~Workspace() {
    if (memory_) cuda_free(memory_, device_, stream_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* get() const { return memory_; }

 private:
  Device device_;
  Stream stream_;
  void* memory_;
};

}  // namespace gantrt
