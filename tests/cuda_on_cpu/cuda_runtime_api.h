// What TensorRT's headers ask for of CUDA: its types.
#pragma once

#include "cuda_runtime.h"
