#include "norm_act.h"

#include <cmath>
#include <limits>

namespace gantrt {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument("norm_act: " + what); }

// Twice a side and a border fit into an int.
constexpr int64_t kLongestSide = std::numeric_limits<int32_t>::max() / 2 - 8;

struct Size {
  int64_t n, c, h, w;
};

Size size_of_picture(const TensorView& view, Layout layout) {
  const int64_t* s = view.shape;
  return layout == Layout::kNchw ? Size{s[0], s[1], s[2], s[3]} : Size{s[0], s[3], s[1], s[2]};
}

std::array<int64_t, 4> shape_in(Layout layout, const Size& size) {
  if (layout == Layout::kNchw) return {size.n, size.c, size.h, size.w};
  return {size.n, size.h, size.w, size.c};
}

// Elements of the shape, or a refusal where that is no number of bytes a pointer could span.
int64_t checked_elements(const char* name, const std::array<int64_t, 4>& shape) {
  int64_t count = 4;  // bytes of a float
  for (int64_t extent : shape) {
    if (extent > kLongestSide || __builtin_mul_overflow(count, extent, &count))
      refuse(std::string(name) + " of shape " + text_of(shape.data(), 4) + " is too large");
  }
  return count / 4;
}

void check_dense(const char* name, const TensorView& view, const TensorView& x) {
  if (!is_contiguous(view))
    refuse(std::string(name) + " must be contiguous, got strides " + strides_of(view) + " for shape " +
           shape_of(view) +
           "; pass a contiguous copy, or for channels-last memory permute it and say layout='nhwc'");
  if (view.device != x.device)
    refuse("x and " + std::string(name) + " must share a device, got " + name_of(x.device) + " and " +
           name_of(view.device));
}

void check_same_dtype(const char* name, const TensorView& view, const TensorView& x) {
  if (view.dtype != x.dtype)
    refuse("x and " + std::string(name) + " must share a dtype, got " + name_of(x.dtype) + " and " +
           name_of(view.dtype));
}

void check_shape(const char* name, const TensorView& view, const std::array<int64_t, 4>& expected) {
  bool same = view.rank == 4;
  for (int axis = 0; same && axis < 4; ++axis) same = view.shape[axis] == expected[axis];
  if (!same)
    refuse(std::string(name) + " must have shape " + text_of(expected.data(), 4) + ", got " + shape_of(view));
}

// Checks a (C,) or (N, C) parameter; returns its stride from sample to sample.
int check_parameter(const char* name, const TensorView& view, const TensorView& x, const Size& size,
                    bool per_sample_too) {
  if (view.dtype != DType::kFloat32)
    refuse(std::string(name) + " must be float32, got " + name_of(view.dtype));
  const bool per_channel = view.rank == 1 && view.shape[0] == size.c;
  const bool per_sample =
      per_sample_too && view.rank == 2 && view.shape[0] == size.n && view.shape[1] == size.c;
  if (!per_channel && !per_sample)
    refuse(std::string(name) + " must have shape (" + std::to_string(size.c) + ",)" +
           (per_sample_too ? " or (" + std::to_string(size.n) + ", " + std::to_string(size.c) + ")" : "") +
           ", got " + shape_of(view));
  check_dense(name, view, x);
  return per_sample ? static_cast<int>(size.c) : 0;
}

// Refuses y where writing it would destroy what is still to be read.
void check_overlap(const char* name, const TensorView& in, const TensorView& y, bool same_place_is_fine) {
  const auto bytes = [](const TensorView& v) {
    int64_t count = size_of(v.dtype);
    for (int axis = 0; axis < v.rank; ++axis) count *= v.shape[axis];
    return count;
  };
  const char* in_begin = static_cast<const char*>(in.data);
  const char* y_begin = static_cast<const char*>(y.data);
  const bool overlap = in_begin < y_begin + bytes(y) && y_begin < in_begin + bytes(in);
  if (overlap && !(same_place_is_fine && in_begin == y_begin))
    refuse("out and " + std::string(name) + " overlap; give out memory of its own");
}

}  // namespace

std::array<int64_t, 4> norm_act_shape(const TensorView& x, const NormActOptions& options) {
  if (x.rank != 4) refuse("x must have 4 axes, got shape " + shape_of(x));
  const Size size = size_of_picture(x, options.layout);
  if (size.n < 1 || size.c < 1 || size.h < 1 || size.w < 1)
    refuse("x must not be empty, got shape " + shape_of(x));
  checked_elements("x", shape_in(options.layout, size));
  const bool on_cpu = x.device.type == DeviceType::kCpu;
  if (x.dtype == DType::kUInt8 || (on_cpu && x.dtype != DType::kFloat32))
    refuse(std::string("x must be float32") + (on_cpu ? "" : ", float16 or bfloat16") + ", got " +
           name_of(x.dtype));
  check_dense("x", x, x);
  if (!(options.eps > 0.0f) || !std::isfinite(options.eps))
    refuse("eps must be positive and finite, got " + std::to_string(options.eps));
  if (!std::isfinite(options.act.slope))
    refuse("slope must be finite, got " + std::to_string(options.act.slope));
  if (options.pad < 0 || options.pad > 3) refuse("pad must be 0..3, got " + std::to_string(options.pad));
  if (options.rpad < 0 || options.rpad > 3) refuse("rpad must be 0..3, got " + std::to_string(options.rpad));
  if (options.pad >= size.h || options.pad >= size.w)
    refuse("pad " + std::to_string(options.pad) + " reflects more than there is of " +
           std::to_string(size.h) + " x " + std::to_string(size.w) + " pixels; it must be smaller than both");
  const int64_t border = 2 * options.pad;
  const std::array<int64_t, 4> shape =
      shape_in(options.layout, {size.n, size.c, size.h + border, size.w + border});
  checked_elements("the result", shape);
  return shape;
}

size_t norm_act_workspace(const TensorView& x, const NormActOptions& options) {
  if (x.device.type == DeviceType::kCpu) return 0;
  const Size size = size_of_picture(x, options.layout);
  return norm_act_cuda_workspace(size.n, size.c);
}

void norm_act(const NormActInputs& inputs, const NormActOptions& options, const TensorView& y, int threads,
              void* workspace, Stream stream) {
  const TensorView& x = inputs.x;
  const std::array<int64_t, 4> expected = norm_act_shape(x, options);
  const Size size = size_of_picture(x, options.layout);
  check_shape("out", y, expected);
  check_dense("out", y, x);
  check_same_dtype("out", y, x);
  check_overlap("x", x, y, options.pad == 0);

  NormActProblem problem{};
  if (inputs.residual) {
    const int64_t border = 2 * options.rpad;
    check_shape("residual", *inputs.residual,
                shape_in(options.layout, {size.n, size.c, size.h + border, size.w + border}));
    check_dense("residual", *inputs.residual, x);
    check_same_dtype("residual", *inputs.residual, x);
    check_overlap("residual", *inputs.residual, y, options.pad == 0 && options.rpad == 0);
    problem.residual = inputs.residual->data;
  } else if (options.rpad != 0) {
    refuse("rpad is the residual's border, but no residual is given");
  }
  if (inputs.scale) {
    problem.scale_stride = check_parameter("scale", *inputs.scale, x, size, true);
    problem.scale = static_cast<const float*>(inputs.scale->data);
  }
  if (inputs.shift) {
    problem.shift_stride = check_parameter("shift", *inputs.shift, x, size, true);
    problem.shift = static_cast<const float*>(inputs.shift->data);
  }
  if (inputs.rho) {
    check_parameter("rho", *inputs.rho, x, size, false);
    problem.rho = static_cast<const float*>(inputs.rho->data);
  }
  problem.x = x.data;
  problem.y = y.data;
  problem.n = static_cast<int>(size.n);
  problem.c = static_cast<int>(size.c);
  problem.h = static_cast<int>(size.h);
  problem.w = static_cast<int>(size.w);
  problem.pad = options.pad;
  problem.rpad = options.rpad;
  problem.eps = options.eps;
  problem.unbiased = options.unbiased;
  problem.act = options.act;
  problem.layout = options.layout;
  problem.dtype = x.dtype;
  problem.mode = options.mode;
  if (x.device.type == DeviceType::kCpu)
    norm_act_cpu(problem, threads);
  else
    norm_act_cuda(problem, workspace, stream);
}

}  // namespace gantrt
