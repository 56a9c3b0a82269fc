// NormAct by addresses: what a TensorRT plugin has in its hands.
#include <pybind11/stl.h>

#include "../kernels/norm_act.h"
#include "bindings.h"
#include "choice.h"

namespace py = pybind11;

namespace gantrt {
namespace {

using Address = uintptr_t;

TensorView view_at(Address address, DType dtype, std::initializer_list<int64_t> shape) {
  TensorView view;
  view.data = reinterpret_cast<void*>(address);
  view.dtype = dtype;
  view.device = {DeviceType::kCuda, 0};  // the current one: the caller's affair, as with any launch
  for (int64_t extent : shape) view.shape[view.rank++] = extent;
  int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; stride *= view.shape[axis--]) view.stride[axis] = stride;
  return view;
}

constexpr const char* kWho = "norm_act_launch";

void norm_act_launch(Address x, Address scale, Address shift, Address rho, Address residual, Address y,
                     std::array<int64_t, 4> shape, bool per_sample, const std::string& dtype_name,
                     const std::string& layout, double eps, double slope, bool unbiased, int pad, int rpad,
                     Address workspace, size_t workspace_bytes, Address stream, const std::string& mode) {
  const auto dtype = choice<DType>(
      kWho, "dtype", dtype_name,
      {{"float32", DType::kFloat32}, {"float16", DType::kFloat16}, {"bfloat16", DType::kBFloat16}});
  NormActOptions options;
  options.eps = static_cast<float>(eps);
  options.unbiased = unbiased;
  options.act.slope = static_cast<float>(slope);
  options.pad = pad;
  options.rpad = rpad;
  options.layout = choice<Layout>(kWho, "layout", layout, {{"nchw", Layout::kNchw}, {"nhwc", Layout::kNhwc}});
  options.mode = norm_act_mode(kWho, mode);
  const auto [n, c, h, w] = shape;
  const auto picture = [&, n = n, c = c, h = h, w = w](Address address, int border) {
    const int64_t high = h + 2 * border, wide = w + 2 * border;
    return options.layout == Layout::kNchw ? view_at(address, dtype, {n, c, high, wide})
                                           : view_at(address, dtype, {n, high, wide, c});
  };
  const auto parameter = [&, n = n, c = c](Address address) {
    return per_sample ? view_at(address, DType::kFloat32, {n, c}) : view_at(address, DType::kFloat32, {c});
  };
  NormActInputs inputs;
  inputs.x = picture(x, 0);
  if (scale) inputs.scale = parameter(scale);
  if (shift) inputs.shift = parameter(shift);
  if (rho) inputs.rho = view_at(rho, DType::kFloat32, {c});
  if (residual) inputs.residual = picture(residual, rpad);
  if (norm_act_workspace(inputs.x, options) > workspace_bytes)
    throw std::invalid_argument("norm_act_launch: " + std::to_string(workspace_bytes) +
                                " bytes of workspace are too few");
  norm_act(inputs, options, picture(y, pad), 0, reinterpret_cast<void*>(workspace),
           reinterpret_cast<Stream>(stream));
}

constexpr const char* kLaunchDoc = R"(norm_act on the current CUDA device, by addresses (ints; 0: not given).

shape            (N, C, H, W) of x, whatever the layout
per_sample       scale and shift are (N, C), not (C,)
workspace_bytes  at least norm_act_workspace_bound(N, C)
Allocates nothing and waits for nothing, so that `stream` may be captured. The caller answers for the addresses.
Raises ValueError for a shape or option the kernels do not take, DeviceUnavailable in a build without CUDA.)";

}  // namespace

void register_launch(py::module_& m) {
  using py::arg;
  m.def("norm_act_launch", &norm_act_launch, kLaunchDoc, arg("x"), py::kw_only(), arg("scale"), arg("shift"),
        arg("rho"), arg("residual"), arg("y"), arg("shape"), arg("per_sample"), arg("dtype"), arg("layout"),
        arg("eps"), arg("slope"), arg("unbiased"), arg("pad"), arg("rpad"), arg("workspace"),
        arg("workspace_bytes"), arg("stream"), arg("mode") = "auto");
  m.def(
      "norm_act_workspace_bound", [](size_t n, size_t c) { return n * c * kNormActWorkspacePerPlane; },
      "Bytes of workspace that are enough for N x C planes of any size.", arg("n"), arg("c"));
}

}  // namespace gantrt
