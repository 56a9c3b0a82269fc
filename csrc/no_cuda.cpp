// Linked instead of the *.cu files: the same symbols, which throw.
#include "cuda.h"
#include "kernels/norm_act.h"
#include "kernels/pixels.h"
#include "pipeline/frame_pipeline.h"

namespace gantrt {
namespace {

[[noreturn]] void refuse(const char* who) {
  throw DeviceUnavailable(
      std::string(who) +
      ": this build of gantrt has no CUDA kernels; install it again with GANTRT_CUDA=ON where "
      "nvcc is, or pass arrays that lie on the CPU");
}

}  // namespace

std::vector<int> cuda_architectures() { return {}; }
int cuda_device_of(const void*) { return 0; }
CurrentDevice::CurrentDevice(Device) {}
CurrentDevice::~CurrentDevice() = default;
void* cuda_allocate(size_t, Stream) { refuse("workspace"); }
void cuda_free(void*, Stream) noexcept {}

void norm_act_cuda(const NormActProblem&, void*, Stream) { refuse("norm_act"); }
size_t norm_act_cuda_workspace(int64_t, int64_t) { refuse("norm_act"); }
void frame_to_tensor_cuda(const PixelProblem&, Stream) { refuse("frame_to_tensor"); }
void tensor_to_frame_cuda(const PixelProblem&, Stream) { refuse("tensor_to_frame"); }

struct FramePipeline::Slot {};
FramePipeline::FramePipeline(const FramePipelineOptions&, Enqueue) { refuse("frame_pipeline"); }
FramePipeline::~FramePipeline() = default;
uint64_t FramePipeline::submit(const TensorView&, Stream) { refuse("frame_pipeline"); }
void FramePipeline::result(uint64_t, const TensorView&, Stream) { refuse("frame_pipeline"); }
StageTimes FramePipeline::time_stages(const TensorView&) { refuse("frame_pipeline"); }

}  // namespace gantrt
