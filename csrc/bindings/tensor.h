// The one door for arrays: numpy, DLPack (torch, cupy, jax, ...), __cuda_array_interface__ (pycuda, numba,
// ...). Nothing is copied on the way in, and results are of the kind that came in.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "../tensor.h"

namespace gantrt {

namespace py = pybind11;

struct Borrowed {
  TensorView view;
  bool read_only = false;
  py::object object;  // what was given; keeps the memory alive
  std::shared_ptr<void>
      managed;  // the DLPack lease, given back with the last copy; the GIL must be held then
};

// A view of somebody's array, or std::invalid_argument in the name of `who`, argument `what`.
Borrowed borrow(py::handle object, const char* who, const char* what);

// Refuses what may not be written.
void check_writable(const Borrowed& array, const char* who, const char* what);

// A new uninitialised array of the kind and on the device of `like`.
py::object empty_like(const Borrowed& like, const std::vector<int64_t>& shape, DType dtype, const char* who);

// The stream to work on: the one given, else torch's or cupy's current one for their arrays, else the default
// one.
Stream stream_for(const Borrowed& array, py::handle stream);

}  // namespace gantrt
