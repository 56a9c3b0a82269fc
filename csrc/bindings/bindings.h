// One register_* per binding file; module.cpp calls them.
#pragma once

#include <pybind11/pybind11.h>

namespace gantrt {

void register_kernels(pybind11::module_& m);
void register_launch(pybind11::module_& m);
void register_pipeline(pybind11::module_& m);

}  // namespace gantrt
