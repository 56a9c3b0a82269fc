// The forms of tensor_to_frame on CUDA, and what they may find.
#pragma once

#include "block.cuh"
#include "pixels.h"

namespace gantrt {

// Frames no smaller than their tensor: otherwise nothing is launched, and it says false.
bool enlarged_to_frame(const PixelProblem& problem, Stream stream);

}  // namespace gantrt
