// The activation of NormAct, called by the CPU and the CUDA kernels alike.
#pragma once

#include "../tensor.h"

namespace gantrt {

// none, relu and leaky_relu differ in one number only: what a negative value is multiplied with.
struct Activation {
  float slope = 1.0f;  // none: 1, relu: 0

  GANTRT_HD float operator()(float v) const {
    const float below = slope == 0.0f ? 0.0f : slope * v;  // relu makes +0, of -infinity too
    return v < 0.0f ? below : v;
  }
};

}  // namespace gantrt
