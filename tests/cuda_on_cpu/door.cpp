// The kernels for ctypes: numpy's memory in, and an error's text out.
#include "../../csrc/cuda.h"
#include "../../csrc/kernels/norm_act.h"
#include "../../csrc/kernels/pixels.h"
#include "../../csrc/pipeline/frame_pipeline.h"
#include "cuda_runtime.h"

namespace gantrt {

void norm_act_cpu(const NormActProblem&, int) { __trap(); }
CurrentDevice::CurrentDevice(Device) {}
CurrentDevice::~CurrentDevice() = default;
void frame_to_tensor_cpu(const PixelProblem&, int) { __trap(); }
void tensor_to_frame_cpu(const PixelProblem&, int) { __trap(); }

namespace {

TensorView view_of(const void* data, int dtype, std::initializer_list<int64_t> shape) {
  TensorView view;
  view.data = const_cast<void*>(data);
  view.dtype = static_cast<DType>(dtype);
  view.device = {DeviceType::kCuda, 0};
  for (int64_t extent : shape) view.shape[view.rank++] = extent;
  int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; stride *= view.shape[axis--]) view.stride[axis] = stride;
  return view;
}

thread_local std::string error;

template <class Body>
const char* guarded(const Body& body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception& caught) {
    error = caught.what();
    return error.c_str();
  }
}

}  // namespace
}  // namespace gantrt

using namespace gantrt;

extern "C" {

// A device keeps its facts for good: another one has another index.
void set_device(int index, int processors, int blocks_per_processor, int capability_major,
                int largest_cluster) {
  emulator::device = {index, processors, blocks_per_processor, capability_major, largest_cluster};
}

void set_backwards(bool backwards) { emulator::backwards = backwards; }

void set_dry(bool dry) { emulator::dry = dry; }

int launches() { return emulator::launches; }

unsigned blocks() { return emulator::blocks; }

// n, c, h, w, dtype, layout, mode, pad, rpad, per_sample, unbiased
const char* run_norm_act(const void* x, const float* scale, const float* shift, const float* rho,
                         const void* residual, void* y, const int64_t* facts, float eps, float slope) {
  return guarded([&] {
    const int64_t n = facts[0], c = facts[1], h = facts[2], w = facts[3];
    const int dtype = static_cast<int>(facts[4]);
    NormActOptions options;
    options.eps = eps;
    options.act.slope = slope;
    options.layout = static_cast<Layout>(facts[5]);
    options.mode = static_cast<NormActMode>(facts[6]);
    options.pad = static_cast<int>(facts[7]);
    options.rpad = static_cast<int>(facts[8]);
    options.unbiased = facts[10] != 0;
    const auto picture = [&](const void* data, int border) {
      const int64_t high = h + 2 * border, wide = w + 2 * border;
      return options.layout == Layout::kNchw ? view_of(data, dtype, {n, c, high, wide})
                                             : view_of(data, dtype, {n, high, wide, c});
    };
    const auto parameter = [&](const float* data) {
      return facts[9] ? view_of(data, 0, {n, c}) : view_of(data, 0, {c});
    };
    NormActInputs inputs;
    inputs.x = picture(x, 0);
    if (scale) inputs.scale = parameter(scale);
    if (shift) inputs.shift = parameter(shift);
    if (rho) inputs.rho = view_of(rho, 0, {c});
    if (residual) inputs.residual = picture(residual, options.rpad);
    std::vector<char> workspace(norm_act_workspace(inputs.x, options), char{-1});
    norm_act(inputs, options, picture(y, options.pad), 0, workspace.data(), nullptr);
  });
}

// A tensor (C, H, W) of strides in elements, and a frame (h, w, c) of a row in bytes.
static void place(const int64_t* facts, void* x, void* frame, TensorView* tensor, TensorView* picture,
                  PixelOptions* options) {
  *tensor = view_of(x, static_cast<int>(facts[0]), {facts[1], facts[2], facts[3]});
  std::copy(facts + 4, facts + 7, tensor->stride);
  *picture = view_of(frame, static_cast<int>(DType::kUInt8), {facts[7], facts[8], facts[9]});
  picture->stride[0] = facts[10];
  options->color = facts[11] ? Color::kBgr : Color::kRgb;
  options->filter = facts[12] ? Filter::kBilinear : Filter::kArea;
  options->border = static_cast<int>(facts[13]);
  options->tanh = facts[14] != 0;
}

// dtype, C, H, W, strides of the tensor, h, w, c, row of the frame, bgr, bilinear, border, tanh
const char* run_pixels(void* x, void* frame, const int64_t* facts, float lo, float hi, bool to_frame) {
  return guarded([&] {
    TensorView tensor, picture;
    PixelOptions options;
    place(facts, x, frame, &tensor, &picture, &options);
    options.lo = lo;
    options.hi = hi;
    if (to_frame)
      tensor_to_frame(tensor, picture, options, 0, nullptr);
    else
      frame_to_tensor(picture, tensor, options, 0, nullptr);
  });
}

// A "network": y = 1 - x / 2 of float32, and a network whose library waits, which no capture survives.
__global__ void dim(const float* x, float* y, int count) {
  const int i = static_cast<int>(blockIdx.x * 256 + threadIdx.x);
  if (i < count) y[i] = 1.0f - 0.5f * x[i];
}

// Sizes are height, width, channels. `waits`: the network cannot be captured. band: bytes.
FramePipeline* make_pipeline(const int64_t* frame, const int64_t* result, const int64_t* tensor, int slots,
                             bool channels_last, bool bgr, bool waits, int64_t band, int copy_threads) {
  FramePipelineOptions options;
  options.slots = slots;
  options.band_bytes = band;
  options.copy_threads = copy_threads;
  options.frame = {frame[0], frame[1], frame[2]};
  options.result = {result[0], result[1], result[2]};
  options.input = {DType::kFloat32, tensor[2], tensor[0], tensor[1],
                   channels_last ? Layout::kNhwc : Layout::kNchw};
  options.output = options.input;
  options.to_tensor.color = options.to_frame.color = bgr ? Color::kBgr : Color::kRgb;
  const int count = static_cast<int>(tensor[0] * tensor[1] * tensor[2]);
  FramePipeline* made = nullptr;
  const char* failed = guarded([&] {
    made = new FramePipeline(options, [count, waits](int, void* x, void* y, Stream stream) {
      cudaLaunchConfig_t config{};
      config.gridDim = dim3((count + 255) / 256);
      config.blockDim = dim3(256);
      config.stream = stream;
      cudaLaunchKernelEx(&config, dim, static_cast<const float*>(x), static_cast<float*>(y), count);
      if (waits) cudaStreamSynchronize(stream);
    });
  });
  return failed ? nullptr : made;
}

void lose_gpu(bool lost) { emulator::lost = lost; }

void close_pipeline(FramePipeline* pipeline) { delete pipeline; }

bool graph_active(const FramePipeline* pipeline) { return pipeline->graph_active(); }

static TensorView frame_view(void* data, const int64_t* size, int64_t row, bool on_gpu) {
  TensorView view = view_of(data, static_cast<int>(DType::kUInt8), {size[0], size[1], size[2]});
  view.stride[0] = row;
  if (!on_gpu) view.device = {};
  return view;
}

int64_t submit(FramePipeline* pipeline, void* frame, const int64_t* size, int64_t row, bool on_gpu) {
  uint64_t ticket = 0;
  return guarded([&] { ticket = pipeline->submit(frame_view(frame, size, row, on_gpu), nullptr); })
             ? -1
             : static_cast<int64_t>(ticket);
}

const char* collect(FramePipeline* pipeline, int64_t ticket, void* out, const int64_t* size, int64_t row,
                    bool on_gpu) {
  return guarded([&] { pipeline->result(ticket, frame_view(out, size, row, on_gpu), nullptr); });
}

const char* time_stages(FramePipeline* pipeline, void* frame, const int64_t* size, float* ms) {
  return guarded([&] {
    const StageTimes t = pipeline->time_stages(frame_view(frame, size, size[1] * size[2], false));
    const float all[] = {t.copy_in, t.to_tensor, t.network, t.to_frame, t.copy_out};
    std::memcpy(ms, all, sizeof(all));
  });
}

void refuse_a_copy_after(int copies) { emulator::copies_until_refusal = copies; }

const char* last_error() { return error.c_str(); }
}
