// The three CUDA forms of NormAct, and what they may find.
#pragma once

#include "norm_act_blocks.cuh"

namespace gantrt {

// Always possible.
void norm_act_two_kernels(Launch launch, Stream stream);

// In one kernel, if the shape and the current device allow; otherwise nothing is launched, and it says false.
bool norm_act_one_kernel(const Launch& launch, NormActMode mode, Stream stream);

}  // namespace gantrt
