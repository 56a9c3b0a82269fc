// Frames to tensors and back: resize, normalise and change layout in one pass.
//
//   frame_to_tensor   planes = reflect_pad(resize(frame) * (hi - lo) / 255 + lo)
//   tensor_to_frame   frame  = round(clamp((resize(planes) - lo) * 255 / (hi - lo), 0, 255)), ties to even,
//   NaN to 0
#pragma once

#include "../tensor.h"
#include "resize.h"

namespace gantrt {

enum class Color { kRgb, kBgr };  // of a frame; a tensor is always RGB

struct PixelOptions {
  Color color = Color::kRgb;
  Filter filter = Filter::kArea;
  int border = 0;  // to a tensor: reflected border it gets; to a frame: border of the tensor that is cut off
  float lo = -1.0f;
  float hi = 1.0f;
};

// frame   (h, w) or (h, w, 1 | 3) uint8; rows, and pixels of a source, may lie any distance apart
// tensor  (1, C, H, W) or (C, H, W), C = 1 or 3, float32 (on CUDA float16 and bfloat16 too); rows dense
// One channel from three is BT.601 luma; three from one are copies.
// Both take at most kMostPixels a side, throw std::invalid_argument where arguments disagree, and on CUDA
// return at once: the result is ready when `stream` is.
void frame_to_tensor(const TensorView& frame, const TensorView& tensor, const PixelOptions& options,
                     int threads, Stream stream);
void tensor_to_frame(const TensorView& tensor, const TensorView& frame, const PixelOptions& options,
                     int threads, Stream stream);

// What the implementations take: checked, and plain enough to be a kernel argument.
struct Frame {
  uint8_t* data;
  int height, width, channels;
  int64_t row, pixel;  // bytes from one row, one pixel, to the next
  int red;             // channel 0 of the frame is blue where this is 2
};

struct Planes {
  void* data;
  int height, width, channels;
  int64_t plane, row;  // elements from one plane, one row, to the next
  DType dtype;
};

struct PixelProblem {
  Frame frame;
  Planes planes;  // without the border that is cut off; with the border that is made
  int border;     // reflected border to make
  Filter rows, columns;
  float scale, offset;  // value = pixel * scale + offset, or the inverse
};

constexpr float kLuma[3] = {0.299f, 0.587f, 0.114f};  // ITU-R BT.601, of R, G, B

void frame_to_tensor_cpu(const PixelProblem& problem, int threads);
void frame_to_tensor_cuda(const PixelProblem& problem, Stream stream);
void tensor_to_frame_cpu(const PixelProblem& problem, int threads);
void tensor_to_frame_cuda(const PixelProblem& problem, Stream stream);

}  // namespace gantrt
