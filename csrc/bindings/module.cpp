#include <pybind11/stl.h>

#include "../cuda.h"
#include "../kernels/isa.h"
#include "../kernels/parallel.h"
#include "bindings.h"

namespace py = pybind11;

PYBIND11_MODULE(_core, m) {
  py::options options;
  options.disable_function_signatures();  // _core.pyi has them, typed
  m.doc() =
      "The kernels of gantrt: NormAct, frame to tensor, tensor to frame; and the pipeline of frames on a "
      "GPU.";

  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const gantrt::DeviceUnavailable& unavailable) {
      py::set_error(py::module_::import("gantrt.errors").attr("DeviceUnavailable"), unavailable.what());
    }
  });

  m.def(
      "cuda_built", [] { return !gantrt::cuda_architectures().empty(); },
      "Whether the CUDA kernels are in this build.");
  m.def("cuda_architectures", &gantrt::cuda_architectures,
        "Compute capabilities times ten the CUDA kernels were compiled for, e.g. [75, 89]; [] without CUDA.");
  m.def("cpu_features", &gantrt::cpu_features,
        "Instruction sets above the baseline that the CPU kernels use here, e.g. ['avx2', 'avx512'].");
  m.def("default_threads", &gantrt::default_threads,
        "Threads that threads=0 means: the CPUs this process may run on.");
  gantrt::register_kernels(m);
  gantrt::register_launch(m);
  gantrt::register_pipeline(m);
}
