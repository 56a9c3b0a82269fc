#include "cuda.h"
#include "kernels/block.cuh"

namespace gantrt {

std::vector<int> cuda_architectures() {
  std::vector<int> all{__CUDA_ARCH_LIST__};
  for (int& architecture : all) architecture /= 10;
  return all;
}

int cuda_device_of(const void* memory) {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, memory), "device of an array");
  return attributes.device < 0 ? 0 : attributes.device;
}

CurrentDevice::CurrentDevice(Device device) {
  if (device.type == DeviceType::kCpu) return;
  int current = 0;
  check(cudaGetDevice(&current), "current device");
  if (current == device.index) return;
  check(cudaSetDevice(device.index), name_of(device).c_str());
  before_ = current;
}

CurrentDevice::~CurrentDevice() {
  if (before_ >= 0) cudaSetDevice(before_);
}

void* cuda_allocate(size_t bytes, Stream stream) {
  void* memory = nullptr;
  check(cudaMallocAsync(&memory, bytes, stream), "workspace");
  return memory;
}

void cuda_free(void* memory, Stream stream) noexcept { cudaFreeAsync(memory, stream); }

}  // namespace gantrt
