#include "pixels.h"

#include <cmath>

namespace gantrt {
namespace {

[[noreturn]] void refuse(const char* who, const std::string& what) {
  throw std::invalid_argument(std::string(who) + ": " + what);
}

void check_sides(const char* who, const char* name, const TensorView& view, int64_t height, int64_t width) {
  if (height < 1 || width < 1)
    refuse(who, std::string(name) + " must not be empty, got shape " + shape_of(view));
  if (height > kMostPixels || width > kMostPixels)
    refuse(who, std::string(name) + " may be " + std::to_string(kMostPixels) +
                    " pixels a side at most, got shape " + shape_of(view));
}

Frame frame_of(const char* who, const TensorView& view, Color color) {
  if (view.dtype != DType::kUInt8)
    refuse(who, std::string("frame must be uint8, got ") + name_of(view.dtype));
  const bool flat = view.rank == 2;
  const int64_t channels = flat ? 1 : view.shape[2];
  if ((!flat && view.rank != 3) || (channels != 1 && channels != 3))
    refuse(who, "frame must have shape (h, w), (h, w, 1) or (h, w, 3), got " + shape_of(view));
  check_sides(who, "frame", view, view.shape[0], view.shape[1]);
  Frame frame{static_cast<uint8_t*>(view.data),
              static_cast<int>(view.shape[0]),
              static_cast<int>(view.shape[1]),
              static_cast<int>(channels),
              view.stride[0],
              view.stride[1],
              color == Color::kRgb ? 0 : 2};
  if (view.shape[1] == 1) frame.pixel = channels;
  if (channels == 3 && view.stride[2] == -1) {  // frame[..., ::-1]: the same bytes in the other order
    frame.data -= 2;
    frame.red = 2 - frame.red;
  } else if (channels == 3 && view.stride[2] != 1) {
    refuse(who, "the channels of a pixel must lie side by side, got strides " + strides_of(view) +
                    "; pass a contiguous copy");
  }
  return frame;
}

Planes planes_of(const char* who, const TensorView& view) {
  const bool batched = view.rank == 4;
  if ((!batched && view.rank != 3) || (batched && view.shape[0] != 1))
    refuse(who, "tensor must have shape (1, C, H, W) or (C, H, W), got " + shape_of(view));
  const int64_t* shape = view.shape + batched;
  const int64_t* stride = view.stride + batched;
  if (shape[0] != 1 && shape[0] != 3)
    refuse(who, "tensor must have 1 or 3 channels, got shape " + shape_of(view));
  check_sides(who, "tensor", view, shape[1], shape[2]);
  const bool on_cpu = view.device.type == DeviceType::kCpu;
  if (view.dtype == DType::kUInt8 || (on_cpu && view.dtype != DType::kFloat32))
    refuse(who, std::string("tensor must be float32") + (on_cpu ? "" : ", float16 or bfloat16") + ", got " +
                    name_of(view.dtype));
  if (on_cpu && shape[2] != 1 && stride[2] != 1)
    refuse(who, "the pixels of a tensor's row must lie side by side, got strides " + strides_of(view) +
                    "; pass a contiguous copy");
  return {view.data,
          static_cast<int>(shape[1]),
          static_cast<int>(shape[2]),
          static_cast<int>(shape[0]),
          stride[0],
          stride[1],
          stride[2],
          view.dtype};
}

void check_together(const char* who, const TensorView& frame, const TensorView& tensor,
                    const PixelOptions& options) {
  if (frame.device != tensor.device)
    refuse(who, "frame and tensor must share a device, got " + name_of(frame.device) + " and " +
                    name_of(tensor.device));
  if (!std::isfinite(options.lo) || !std::isfinite(options.hi) || !(options.lo < options.hi))
    refuse(who, "range must be two finite numbers, the smaller first, got (" + std::to_string(options.lo) +
                    ", " + std::to_string(options.hi) + ")");
}

}  // namespace

void frame_to_tensor(const TensorView& frame, const TensorView& tensor, const PixelOptions& options,
                     int threads, Stream stream) {
  const char* who = "frame_to_tensor";
  check_together(who, frame, tensor, options);
  PixelProblem p{};
  p.frame = frame_of(who, frame, options.color);
  p.planes = planes_of(who, tensor);
  p.border = options.border;
  const int64_t twice = 2 * int64_t{p.border};
  const int height = static_cast<int>(p.planes.height - twice),
            width = static_cast<int>(p.planes.width - twice);
  if (p.border < 0 || p.border >= height || p.border >= width)
    refuse(who, "a reflected border of " + std::to_string(p.border) +
                    " needs more pixels than that inside, got shape " + shape_of(tensor));
  p.rows = filter_for(options.filter, p.frame.height, height);
  p.columns = filter_for(options.filter, p.frame.width, width);
  p.scale = (options.hi - options.lo) / 255.0f;
  p.offset = options.lo;
  if (frame.device.type == DeviceType::kCpu)
    frame_to_tensor_cpu(p, threads);
  else
    frame_to_tensor_cuda(p, stream);
}

void tensor_to_frame(const TensorView& tensor, const TensorView& frame, const PixelOptions& options,
                     int threads, Stream stream) {
  const char* who = "tensor_to_frame";
  check_together(who, frame, tensor, options);
  PixelProblem p{};
  p.planes = planes_of(who, tensor);
  p.frame = frame_of(who, frame, options.color);
  if (p.frame.pixel != p.frame.channels)
    refuse(who, "the pixels of a frame's row must lie side by side to be written, got strides " +
                    strides_of(frame));
  const int crop = options.border;
  if (crop < 0 || 2 * int64_t{crop} >= p.planes.height || 2 * int64_t{crop} >= p.planes.width)
    refuse(who, "cutting " + std::to_string(crop) + " pixels off each side leaves nothing of shape " +
                    shape_of(tensor));
  p.planes.data =
      static_cast<char*>(p.planes.data) + crop * (p.planes.row + p.planes.pixel) * size_of(p.planes.dtype);
  p.planes.height -= 2 * crop;
  p.planes.width -= 2 * crop;
  p.rows = filter_for(options.filter, p.planes.height, p.frame.height);
  p.columns = filter_for(options.filter, p.planes.width, p.frame.width);
  p.scale = 255.0f / (options.hi - options.lo);
  p.offset = -options.lo * p.scale;
  p.tanh = options.tanh;
  if (frame.device.type == DeviceType::kCpu)
    tensor_to_frame_cpu(p, threads);
  else
    tensor_to_frame_cuda(p, stream);
}

}  // namespace gantrt
