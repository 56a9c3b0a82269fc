// Frames to tensors and back: resize, normalise and change layout in one pass.
//
//   frame_to_tensor   planes = reflect_pad(resize(frame) * (hi - lo) / 255 + lo)
//   tensor_to_frame   frame  = round(clamp((resize(planes) - lo) * 255 / (hi - lo), 0, 255)), ties to even,
//   NaN to 0; of tanh(planes), if so asked
#pragma once

#include <cstring>

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
  bool tanh = false;  // to a frame: of tensors whose network ends before its tanh
};

// frame   (h, w) or (h, w, 1 | 3) uint8; rows, and pixels of a source, may lie any distance apart
// tensor  (1, C, H, W) or (C, H, W), C = 1 or 3, float32; rows dense. On CUDA float16 and bfloat16 too, and
// any
//         strides: channels last, or padded to 4 or 8 channels for a network that wants them so
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
  int64_t plane, row,
      pixel;  // elements from one plane, one row, one pixel, to the next; on the CPU pixel is 1
  DType dtype;
};

struct PixelProblem {
  Frame frame;
  Planes planes;  // without the border that is cut off; with the border that is made
  int border;     // reflected border to make
  Filter rows, columns;
  float scale, offset;  // value = pixel * scale + offset, or the inverse
  bool tanh;
};

// ITU-R BT.601.
GANTRT_HD float luma(float red, float green, float blue) {
  return 0.299f * red + 0.587f * green + 0.114f * blue;
}

// Far outside 0..255 but small enough for `quantise`; a NaN becomes the lower bound, and so 0.
GANTRT_HD float bounded(float v) {
  constexpr float kBound = 1048576.0f;
  v = v > -kBound ? v : -kBound;
  return v < kBound ? v : kBound;
}

// The nearest byte, ties to even; beyond 0..255 the nearer end. |v| < 2^21.
GANTRT_HD uint8_t quantise(float v) {
  v += 12582912.0f;  // 1.5 * 2^23, where floats are whole numbers: the addition rounds
  int32_t whole;
  memcpy(&whole, &v, sizeof(whole));
  whole -= 0x4b400000;  // the bits of 1.5 * 2^23
  whole = whole > 0 ? whole : 0;
  return static_cast<uint8_t>(whole < 255 ? whole : 255);
}

void frame_to_tensor_cpu(const PixelProblem& problem, int threads);
void frame_to_tensor_cuda(const PixelProblem& problem, Stream stream);
void tensor_to_frame_cpu(const PixelProblem& problem, int threads);
void tensor_to_frame_cuda(const PixelProblem& problem, Stream stream);

}  // namespace gantrt
