// The forms of frame_to_tensor and tensor_to_frame on CUDA, and what they may find.
#pragma once

#include "block.cuh"
#include "pixels.h"

namespace gantrt {

// Tensors smaller than the frame in both axes, which are the mean over areas, of frames whose rows are whole
// 8-byte words: otherwise nothing is launched, and it says false.
bool shrunk_to_tensor(const PixelProblem& problem, Stream stream);

// Frames no smaller than their tensor: otherwise nothing is launched, and it says false.
bool enlarged_to_frame(const PixelProblem& problem, Stream stream);

// A pixel of the tensor, made of the frame's channels as they lie there; 0..255.
template <class T>
__device__ __forceinline__ void write_pixel(const PixelProblem& p, const float (&value)[3], T* out) {
  const bool gray = p.frame.channels == 1;
  const float red = gray || p.frame.red == 0 ? value[0] : value[2];
  const float green = gray ? value[0] : value[1];
  const float blue = gray || p.frame.red != 0 ? value[0] : value[2];
  if (p.planes.channels == 1) {
    *out = from_float<T>((gray ? red : luma(red, green, blue)) * p.scale + p.offset);
    return;
  }
  out[0] = from_float<T>(red * p.scale + p.offset);
  out[p.planes.plane] = from_float<T>(green * p.scale + p.offset);
  out[2 * p.planes.plane] = from_float<T>(blue * p.scale + p.offset);
}

}  // namespace gantrt
