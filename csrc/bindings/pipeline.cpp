// FramePipeline in Python: the network is a callable, called only while a slot is made.
#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include "../pipeline/frame_pipeline.h"
#include "bindings.h"
#include "choice.h"
#include "tensor.h"

namespace gantrt {
namespace {

constexpr const char* kWho = "frame_pipeline";

using Sides = std::array<int64_t, 3>;

FrameSize frame_size(const Sides& sides) { return {sides[0], sides[1], sides[2]}; }

TensorSize tensor_size(const Sides& chw, const std::string& dtype, const std::string& layout) {
  return {choice<DType>(
              kWho, "dtype", dtype,
              {{"float32", DType::kFloat32}, {"float16", DType::kFloat16}, {"bfloat16", DType::kBFloat16}}),
          chw[0], chw[1], chw[2],
          choice<Layout>(kWho, "layout", layout, {{"nchw", Layout::kNchw}, {"nhwc", Layout::kNhwc}})};
}

std::unique_ptr<FramePipeline> make(py::function enqueue, const Sides& frame, const Sides& result,
                                    const Sides& input, const Sides& output, const std::string& dtype,
                                    const std::string& output_dtype, const std::string& layout, int slots,
                                    int device, const std::string& color, const std::string& resize,
                                    std::pair<double, double> range) {
  FramePipelineOptions options;
  options.device = device;
  options.slots = slots;
  options.frame = frame_size(frame);
  options.result = frame_size(result);
  options.input = tensor_size(input, dtype, layout);
  options.output = tensor_size(output, output_dtype, layout);
  options.to_tensor = options.to_frame = pixel_options(kWho, color, resize, 0, range);
  const auto call = [enqueue = std::move(enqueue)](int slot, void* x, void* y, Stream stream) {
    const py::gil_scoped_acquire held;
    enqueue(slot, reinterpret_cast<uintptr_t>(x), reinterpret_cast<uintptr_t>(y),
            reinterpret_cast<uintptr_t>(stream));
  };
  Enqueue queue = call;  // copied while the GIL is held
  const py::gil_scoped_release released;
  return std::make_unique<FramePipeline>(options, std::move(queue));
}

uint64_t submit(FramePipeline& pipeline, py::object frame, py::object stream) {
  const Borrowed in = borrow(frame, kWho, "frame");
  const Stream on = in.view.device.type == DeviceType::kCpu ? nullptr : stream_for(in, stream);
  const py::gil_scoped_release released;
  return pipeline.submit(in.view, on);
}

py::object result(FramePipeline& pipeline, uint64_t ticket, py::object out, py::object stream) {
  const Borrowed to = borrow(out, kWho, "out");
  check_writable(to, kWho, "out");
  const Stream on = to.view.device.type == DeviceType::kCpu ? nullptr : stream_for(to, stream);
  {
    const py::gil_scoped_release released;
    pipeline.result(ticket, to.view, on);
  }
  return to.object;
}

py::dict time_stages(FramePipeline& pipeline, py::object frame) {
  const Borrowed in = borrow(frame, kWho, "frame");
  StageTimes times{};
  {
    const py::gil_scoped_release released;
    times = pipeline.time_stages(in.view);
  }
  return py::dict(py::arg("copy_in") = times.copy_in, py::arg("to_tensor") = times.to_tensor,
                  py::arg("network") = times.network, py::arg("to_frame") = times.to_frame,
                  py::arg("copy_out") = times.copy_out);
}

constexpr const char* kDoc =
    R"(Frames through a network on one GPU: copy in, resize and normalise, network, and back, as one CUDA graph per slot.

enqueue        called as enqueue(slot, input, output, stream): queues the network on a stream (ints are addresses)
frame, result  (h, w, c) of the uint8 frames that come in and go out; c 1 or 3
input, output  (C, H, W) of the network's tensors, of batch 1; dtype, output_dtype, layout say how they lie
slots          frames in flight: 1 for latency, 3 for throughput
enqueue is called while the slots are made, and never again where the capture succeeds (graph_active).
Raises ValueError for sizes that make no sense, DeviceUnavailable without CUDA, and what enqueue raises.)";

constexpr const char* kSubmitDoc = R"(Queue a frame; returns its ticket. Waits while all slots are taken.

A numpy frame is copied before it returns; a frame on the GPU is read in the order of its stream.)";

constexpr const char* kResultDoc = R"(Fill `out` with the frame of a ticket, once, and return it.

`out` lies where the frame did: on the CPU it is ready on return, on the GPU when its stream is.)";

}  // namespace

void register_pipeline(py::module_& m) {
  using py::arg;
  py::class_<FramePipeline>(m, "FramePipeline", kDoc)
      .def(py::init(&make), arg("enqueue"), py::kw_only(), arg("frame"), arg("result"), arg("input"),
           arg("output"), arg("dtype"), arg("output_dtype"), arg("layout") = "nchw", arg("slots") = 1,
           arg("device") = 0, arg("color") = "rgb", arg("resize") = "auto",
           arg("range") = std::pair(-1.0, 1.0))
      .def("submit", &submit, kSubmitDoc, arg("frame"), py::kw_only(), arg("stream") = py::none())
      .def("result", &result, kResultDoc, arg("ticket"), arg("out"), py::kw_only(),
           arg("stream") = py::none())
      .def("time_stages", &time_stages,
           "Milliseconds of each stage of one numpy frame, without the graph, by name.", arg("frame"))
      .def_property_readonly("graph_active", &FramePipeline::graph_active,
                             "Whether every frame runs as a graph.")
      .def_property_readonly("why_no_graph", &FramePipeline::why_no_graph,
                             "What CUDA said when it refused the capture; empty if it did not.");
}

}  // namespace gantrt
