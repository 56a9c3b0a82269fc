// The kernels in Python: arrays in, arrays out, the GIL released while there is arithmetic.
#include <pybind11/stl.h>

#include <optional>
#include <utility>

#include "../cuda.h"
#include "../kernels/norm_act.h"
#include "../kernels/pixels.h"
#include "bindings.h"
#include "choice.h"
#include "tensor.h"

namespace gantrt {
namespace {

std::optional<Borrowed> borrow_if(py::handle object, const char* who, const char* what) {
  if (object.is_none()) return std::nullopt;
  return borrow(object, who, what);
}

std::optional<TensorView> view_of(const std::optional<Borrowed>& array) {
  if (!array) return std::nullopt;
  return array->view;
}

// The array to fill: the one given, or a new one of the kind of `like`.
Borrowed destination(py::handle out, const Borrowed& like, const std::vector<int64_t>& shape, DType dtype,
                     const char* who) {
  if (out.is_none()) return borrow(empty_like(like, shape, dtype, who), who, "out");
  Borrowed given = borrow(out, who, "out");
  check_writable(given, who, "out");
  return given;
}

py::object norm_act_py(py::object x, py::object scale, py::object shift, py::object rho, py::object residual,
                       double eps, bool unbiased, const std::string& act, double slope, int pad, int rpad,
                       const std::string& layout, const std::string& mode, py::object out, int threads,
                       py::object stream) {
  const char* who = "norm_act";
  NormActOptions options;
  options.eps = static_cast<float>(eps);
  options.unbiased = unbiased;
  options.act.slope = choice<float>(
      who, "act", act, {{"none", 1.0f}, {"relu", 0.0f}, {"leaky_relu", static_cast<float>(slope)}});
  options.pad = pad;
  options.rpad = rpad;
  options.layout = choice<Layout>(who, "layout", layout, {{"nchw", Layout::kNchw}, {"nhwc", Layout::kNhwc}});
  options.mode = norm_act_mode(who, mode);

  const Borrowed in = borrow(x, who, "x");
  const auto scales = borrow_if(scale, who, "scale"), shifts = borrow_if(shift, who, "shift");
  const auto rhos = borrow_if(rho, who, "rho"), residuals = borrow_if(residual, who, "residual");
  const auto shape = norm_act_shape(in.view, options);
  const Borrowed y = destination(out, in, {shape.begin(), shape.end()}, in.view.dtype, who);
  const NormActInputs inputs{in.view, view_of(scales), view_of(shifts), view_of(rhos), view_of(residuals)};
  const Stream on = stream_for(in, stream);
  {
    py::gil_scoped_release released;
    const CurrentDevice current(in.view.device);
    const Workspace workspace(norm_act_workspace(in.view, options), on);
    norm_act(inputs, options, y.view, threads, workspace.get(), on);
  }
  return y.object;
}

using Size = std::optional<std::pair<int64_t, int64_t>>;  // (height, width)

void check_size(const char* who, const Size& size) {
  if (size &&
      (size->first < 1 || size->second < 1 || size->first > kMostPixels || size->second > kMostPixels))
    refuse(who, "size must be (height, width), each 1 to " + std::to_string(kMostPixels) + ", got (" +
                    std::to_string(size->first) + ", " + std::to_string(size->second) + ")");
}

py::object frame_to_tensor_py(py::object frame, py::object out, Size size, std::optional<int64_t> channels,
                              const std::string& color, const std::string& resize, int pad,
                              std::pair<double, double> range, int threads, py::object stream) {
  const char* who = "frame_to_tensor";
  const PixelOptions options = pixel_options(who, color, resize, pad, range);
  if (out.is_none() == !size.has_value())
    refuse(who, "give either out, or size=(height, width) of the tensor to make");
  if (channels && (!size || (*channels != 1 && *channels != 3)))
    refuse(who, "channels goes with size and must be 1 or 3");
  check_size(who, size);
  const Borrowed in = borrow(frame, who, "frame");
  std::vector<int64_t> shape;
  if (size) shape = {1, channels.value_or(3), size->first, size->second};
  const Borrowed tensor = destination(out, in, shape, DType::kFloat32, who);
  const Stream on = stream_for(in, stream);
  {
    py::gil_scoped_release released;
    const CurrentDevice current(in.view.device);
    frame_to_tensor(in.view, tensor.view, options, threads, on);
  }
  return tensor.object;
}

py::object tensor_to_frame_py(py::object x, py::object out, Size size, const std::string& color,
                              const std::string& resize, int crop, std::pair<double, double> range, bool tanh,
                              int threads, py::object stream) {
  const char* who = "tensor_to_frame";
  PixelOptions options = pixel_options(who, color, resize, crop, range);
  options.tanh = tanh;
  if (!out.is_none() && size) refuse(who, "give out or size, not both");
  check_size(who, size);
  const Borrowed in = borrow(x, who, "x");
  const int rank = in.view.rank;
  if (rank < 3) refuse(who, "x must have shape (1, C, H, W) or (C, H, W), got " + shape_of(in.view));
  const int64_t cut = 2 * int64_t{crop}, *sides = in.view.shape + rank - 2;
  if (!size) size.emplace(sides[0] - cut, sides[1] - cut);
  if (out.is_none() && (crop < 0 || size->first < 1 || size->second < 1))
    refuse(who, "cutting " + std::to_string(crop) + " pixels off each side leaves nothing of shape " +
                    shape_of(in.view));
  const Borrowed frame =
      destination(out, in, {size->first, size->second, in.view.shape[rank - 3]}, DType::kUInt8, who);
  const Stream on = stream_for(in, stream);
  {
    py::gil_scoped_release released;
    const CurrentDevice current(in.view.device);
    tensor_to_frame(in.view, frame.view, options, threads, on);
  }
  return frame.object;
}

constexpr const char* kNormActDoc = R"(y = reflect_pad(act(scale * n(x) + shift) + residual), fused.

x             (N, C, H, W), or (N, H, W, C) with layout="nhwc"; float32, on CUDA float16 and bfloat16 too
scale, shift  (C,) or (N, C) float32; None: 1 and 0
rho           (C,) float32: rho * InstanceNorm + (1 - rho) * LayerNorm; None: InstanceNorm
residual      as x, with rpad more pixels on each side, which are cut off
unbiased      divide the second moment by count - 1, as U-GAT-IT does
pad           0..3, smaller than H and W: reflected border of the result
mode          how CUDA computes it: "cluster", "cooperative" (one kernel each), "two_kernels" (any shape), or "auto"
out           array to fill; may be x itself where pad is 0. None: a new one of x's kind
threads       CPU threads, 0: all this process may use. The bits of the result do not depend on it
stream        CUDA stream (an int). None: torch's or cupy's current one. The result is ready when it is
Arrays are numpy, or anything with DLPack or __cuda_array_interface__; they must be contiguous and are not copied.
Raises ValueError where shapes, dtypes or devices do not agree, DeviceUnavailable for CUDA arrays without CUDA. A mode that the
shape or the GPU does not allow is refused by ValueError; on the CPU all modes are the same.)";

constexpr const char* kFrameToTensorDoc =
    R"(Write `frame` as normalised planes: resize, scale and change layout in one pass.

frame    (h, w, 3 | 1) or (h, w) uint8; rows any distance apart, flipped views too
out      (1, C, H, W) or (C, H, W) float32 to fill, C = 1 or 3; or give
size     (H, W), and channels (default 3), for a new tensor (1, C, H, W) of frame's kind
color    order of the frame, "rgb" or "bgr"; the tensor is RGB. One channel from three is BT.601 luma
resize   "bilinear" (half-pixel centres), "area" (mean over the area), "auto" = area.
         A side that grows is bilinear in any case
pad      the frame is resized to (H - 2 pad, W - 2 pad) and reflected into the border
range    what 0 and 255 become
Returns out. On CUDA at once; the result is ready when `stream` is.)";

constexpr const char* kTensorToFrameDoc =
    R"(Write planes as a uint8 frame: cut, resize, denormalise, clamp and round in one pass.

x        (1, C, H, W) or (C, H, W) float32, C = 1 or 3
out      (h, w, 3 | 1) or (h, w) uint8 to fill, rows any distance apart; or
size     (h, w) of a new frame (h, w, C) of x's kind; default: that of x without its border
color    order of the frame, "rgb" or "bgr"; three channels from one are copies, one from three is BT.601 luma
resize   as in frame_to_tensor
crop     border of x that is cut off first
tanh     take the hyperbolic tangent of x first: of a network that ends before it
range    what becomes 0 and 255; beyond it saturates, ties round to even, NaN becomes 0
Returns out. On CUDA at once; the result is ready when `stream` is.)";

}  // namespace

void register_kernels(py::module_& m) {
  using py::arg;
  m.def("norm_act", &norm_act_py, kNormActDoc, arg("x"), arg("scale") = py::none(), arg("shift") = py::none(),
        arg("rho") = py::none(), arg("residual") = py::none(), py::kw_only(), arg("eps") = 1e-5,
        arg("unbiased") = false, arg("act") = "none", arg("slope") = 0.2, arg("pad") = 0, arg("rpad") = 0,
        arg("layout") = "nchw", arg("mode") = "auto", arg("out") = py::none(), arg("threads") = 0,
        arg("stream") = py::none());
  m.def("frame_to_tensor", &frame_to_tensor_py, kFrameToTensorDoc, arg("frame"), arg("out") = py::none(),
        py::kw_only(), arg("size") = py::none(), arg("channels") = py::none(), arg("color") = "rgb",
        arg("resize") = "auto", arg("pad") = 0, arg("range") = std::pair(-1.0, 1.0), arg("threads") = 0,
        arg("stream") = py::none());
  m.def("tensor_to_frame", &tensor_to_frame_py, kTensorToFrameDoc, arg("x"), arg("out") = py::none(),
        py::kw_only(), arg("size") = py::none(), arg("color") = "rgb", arg("resize") = "auto",
        arg("crop") = 0, arg("range") = std::pair(-1.0, 1.0), arg("tanh") = false, arg("threads") = 0,
        arg("stream") = py::none());
}

}  // namespace gantrt
