// The activations of NormAct, one functor each, called by the CPU and the CUDA kernels alike.
#pragma once

#include "../tensor.h"

namespace gantrt {

enum class Act { kNone, kRelu, kLeakyRelu };

struct Identity {
  GANTRT_HD float operator()(float v) const { return v; }
};

struct Relu {
  GANTRT_HD float operator()(float v) const { return v < 0.0f ? 0.0f : v; }  // a NaN stays one
};

struct LeakyRelu {
  float slope;
  GANTRT_HD float operator()(float v) const { return v < 0.0f ? slope * v : v; }
};

}  // namespace gantrt
