// NormAct:  y = reflect_pad(act(scale * n(x) + shift) + residual)
//
// n(x) is InstanceNorm (Ulyanov et al. 2016, arXiv:1607.08022), or with rho the mixture
// rho * InstanceNorm + (1 - rho) * LayerNorm of LIN and AdaLIN (Kim et al. 2020, arXiv:1907.10830, eq. 1).
#pragma once

#include <array>
#include <cstddef>
#include <optional>

#include "../tensor.h"
#include "activation.h"

namespace gantrt {

enum class Layout { kNchw, kNhwc };

// How CUDA computes it; the CPU has one way. kAuto takes the one that was quickest on an H100 of those that
// the shape and the GPU allow.
enum class NormActMode {
  kAuto,
  kCluster,      // one kernel, blocks in clusters: compute capability 9.0 and above; with rho only kNhwc
  kCooperative,  // one kernel, all blocks resident
  kTwoKernels,   // any shape, any GPU
};

constexpr const char* name_of(NormActMode mode) {
  return mode == NormActMode::kAuto          ? "auto"
         : mode == NormActMode::kCluster     ? "cluster"
         : mode == NormActMode::kCooperative ? "cooperative"
                                             : "two_kernels";
}

struct NormActOptions {
  float eps = 1e-5f;
  bool unbiased = false;  // divide the second moment by count - 1 (count 1: by 1)
  Activation act;
  int pad = 0;   // 0..3, of the result, by reflection
  int rpad = 0;  // border of the residual, cut off
  Layout layout = Layout::kNchw;
  NormActMode mode = NormActMode::kAuto;
};

// All contiguous and on one device. Shapes are written for NCHW; with kNhwc, C comes last.
struct NormActInputs {
  TensorView x;                        // (N, C, H, W) float32; on CUDA float16 and bfloat16 too
  std::optional<TensorView> scale;     // (C,) or (N, C) float32; absent: 1
  std::optional<TensorView> shift;     // (C,) or (N, C) float32; absent: 0
  std::optional<TensorView> rho;       // (C,) float32; absent: all instance
  std::optional<TensorView> residual;  // (N, C, H + 2 rpad, W + 2 rpad), of x's dtype
};

// The shape of y. Throws std::invalid_argument where x or the options make no sense.
std::array<int64_t, 4> norm_act_shape(const TensorView& x, const NormActOptions& options);

// Bytes of device memory norm_act wants on CUDA; 0 on the CPU. kNormActWorkspacePerPlane for each of the N x
// C planes, whatever their size: what a TensorRT plan reserves, on a machine that may have no CUDA.
constexpr size_t kNormActWorkspacePerPlane = 64 * 12;
size_t norm_act_workspace(const TensorView& x, const NormActOptions& options);

// Fills y. On the CPU with up to `threads` threads (0: all), the same bits for any number of them, done on
// return. On CUDA nothing is allocated and nothing waits; y is ready when `stream` is. y may be x itself (or
// a residual with rpad 0) where pad is 0; any other overlap is refused. A channel whose second moment
// overflows float32 (|x| beyond 1e18) comes out as if normalised to 0.
void norm_act(const NormActInputs& inputs, const NormActOptions& options, const TensorView& y, int threads,
              void* workspace, Stream stream);

// What the two implementations take: checked, and plain enough to be a kernel argument.
struct NormActProblem {
  const void* x;
  const float* scale;    // or null
  const float* shift;    // or null
  const float* rho;      // or null
  const void* residual;  // or null
  void* y;
  int n, c, h, w;
  int scale_stride, shift_stride;  // from one sample to the next: C, or 0 where they are per channel
  int pad, rpad;
  float eps;
  bool unbiased;
  Activation act;
  Layout layout;
  DType dtype;
  NormActMode mode;
};

void norm_act_cpu(const NormActProblem& problem, int threads);
void norm_act_cuda(const NormActProblem& problem, void* workspace, Stream stream);
size_t norm_act_cuda_workspace(int64_t n, int64_t c);

}  // namespace gantrt
