// NormAct on CUDA: which of its forms.
#include "norm_act_cuda.cuh"

namespace gantrt {

size_t norm_act_cuda_workspace(int64_t n, int64_t c) { return n * c * kNormActWorkspacePerPlane; }

// Where clusters were measured to be quicker than one barrier of the grid, on an H100
// (bench/results/kernels_*.json).
static bool clusters_first(const NormActProblem& p) {
  if (p.layout == Layout::kNchw) return p.pad == 0 && p.rpad == 0;
  return p.rho == nullptr && p.dtype != DType::kFloat32;
}

void norm_act_cuda(const NormActProblem& p, void* workspace, Stream stream) {
  const int64_t pixels = int64_t{p.h} * p.w, padded = int64_t{p.h + 2 * p.pad} * (p.w + 2 * p.pad);
  const int64_t residual_pixels = int64_t{p.h + 2 * p.rpad} * (p.w + 2 * p.rpad);
  if (std::max(padded, residual_pixels) > std::numeric_limits<int>::max())
    throw std::invalid_argument("norm_act: a plane of more than 2^31 pixels; CUDA kernels take smaller ones");
  Launch k{};
  k.p = p;
  k.partial = static_cast<Moments*>(workspace);
  k.pixels = static_cast<int>(pixels);
  k.result_pixels = static_cast<int>(padded);
  const auto one_kernel = [&](NormActMode mode) { return norm_act_one_kernel(k, mode, stream); };
  switch (p.mode) {
    case NormActMode::kAuto:
      if ((clusters_first(p) && one_kernel(NormActMode::kCluster)) || one_kernel(NormActMode::kCooperative) ||
          one_kernel(NormActMode::kCluster))
        return;
      break;
    case NormActMode::kCluster:
    case NormActMode::kCooperative:
      if (one_kernel(p.mode)) return;
      throw std::invalid_argument(std::string("norm_act: mode '") + name_of(p.mode) +
                                  "' does not take this shape on this GPU; mode 'auto' finds one that does");
    case NormActMode::kTwoKernels:
      break;
  }
  norm_act_two_kernels(k, stream);
}

}  // namespace gantrt
