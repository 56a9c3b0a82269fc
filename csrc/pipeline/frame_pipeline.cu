#include <cstring>
#include <exception>
#include <thread>

#include "../cuda.h"
#include "../kernels/block.cuh"
#include "../kernels/parallel.h"
#include "frame_pipeline.h"

namespace gantrt {
namespace {

constexpr const char* kWho = "frame_pipeline";
constexpr int kWarmUps = 2;
constexpr int kSpins = 2000;  // questions to CUDA before the thread sleeps
constexpr int kMostBands = 16, kMostCopyThreads = 6;
enum Stage { kCopyIn, kToTensor, kNetwork, kToFrame, kCopyOut, kStages };

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument(std::string(kWho) + ": " + what);
}

void must(cudaError_t error) { check(error, kWho); }

// A CUDA handle and how it is let go.
template <class Handle, cudaError_t (*kDestroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  ~Owned() {
    if (handle_) kDestroy(handle_);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;

  Handle* fill() { return &handle_; }
  Handle get() const { return handle_; }

 private:
  Handle handle_{};
};

using DeviceMemory = Owned<void*, cudaFree>;
using PinnedMemory = Owned<void*, cudaFreeHost>;
using OwnedStream = Owned<cudaStream_t, cudaStreamDestroy>;
using OwnedEvent = Owned<cudaEvent_t, cudaEventDestroy>;
using OwnedGraph = Owned<cudaGraphExec_t, cudaGraphExecDestroy>;

TensorView view_of(void* data, const FrameSize& size, int device) {
  TensorView view;
  view.data = data;
  view.dtype = DType::kUInt8;
  view.device = {DeviceType::kCuda, device};
  view.rank = 3;
  const int64_t shape[] = {size.height, size.width, size.channels};
  const int64_t stride[] = {size.width * size.channels, size.channels, 1};
  std::copy(shape, shape + 3, view.shape);
  std::copy(stride, stride + 3, view.stride);
  return view;
}

TensorView view_of(void* data, const TensorSize& size, int device) {
  TensorView view;
  view.data = data;
  view.dtype = size.dtype;
  view.device = {DeviceType::kCuda, device};
  view.rank = 3;
  const bool last = size.layout == Layout::kNhwc;
  const int64_t shape[] = {size.channels, size.height, size.width};
  const int64_t stride[] = {last ? 1 : size.height * size.width, size.width * (last ? size.channels : 1),
                            last ? size.channels : 1};
  std::copy(shape, shape + 3, view.shape);
  std::copy(stride, stride + 3, view.stride);
  return view;
}

int64_t bytes_of(const TensorSize& size) {
  return size.channels * size.height * size.width * size_of(size.dtype);
}

void check_size(const char* name, const FrameSize& size) {
  if (size.height < 1 || size.width < 1 || size.height > kMostPixels || size.width > kMostPixels ||
      (size.channels != 1 && size.channels != 3))
    refuse(std::string(name) + " must be 1 to " + std::to_string(kMostPixels) +
           " pixels a side, of 1 or 3 channels, got " + std::to_string(size.height) + "x" +
           std::to_string(size.width) + "x" + std::to_string(size.channels));
}

void check_frame(const char* name, const TensorView& view, const FrameSize& size, int device) {
  const bool flat = view.rank == 2 && size.channels == 1;
  if (view.dtype != DType::kUInt8 || (view.rank != 3 && !flat) || view.shape[0] != size.height ||
      view.shape[1] != size.width || (!flat && view.shape[2] != size.channels))
    refuse(std::string(name) + " must be uint8 of shape (" + std::to_string(size.height) + ", " +
           std::to_string(size.width) + ", " + std::to_string(size.channels) + "), got " +
           name_of(view.dtype) + " of " + shape_of(view));
  if ((view.shape[1] != 1 && view.stride[1] != size.channels) || (size.channels == 3 && view.stride[2] != 1))
    refuse(std::string(name) + " must have dense rows, got strides " + strides_of(view) +
           "; pass a contiguous copy");
  if (view.device.type == DeviceType::kCuda && view.device.index != device)
    refuse(std::string(name) + " lies on " + name_of(view.device) +
           ", the pipeline on cuda:" + std::to_string(device));
}

// Rows of host memory, any distance apart, to dense ones or back.
void copy_rows(char* to, int64_t to_row, const char* from, int64_t from_row, int64_t row, int64_t rows) {
  if (to_row == row && from_row == row) {
    std::memcpy(to, from, row * rows);
    return;
  }
  for (int64_t i = 0; i < rows; ++i) std::memcpy(to + i * to_row, from + i * from_row, row);
}

Bands bands_of(const FrameSize& size, int64_t band_bytes) {
  const int64_t wished = std::min<int64_t>((size.bytes() + band_bytes - 1) / band_bytes, kMostBands);
  Bands bands;
  bands.row = size.width * size.channels;
  bands.height = size.height;
  bands.rows = (size.height + wished - 1) / wished;
  bands.count = (size.height + bands.rows - 1) / bands.rows;
  return bands;
}

// body(band) of every band, on several threads; the first of their exceptions is thrown when all are done.
template <class Body>
void each_band(const Bands& bands, int threads, const Body& body) {
  std::mutex mutex;
  std::exception_ptr failed;
  parallel_for(bands.count, threads, [&](int64_t band) {
    try {
      body(band);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!failed) failed = std::current_exception();
    }
  });
  if (failed) std::rethrow_exception(failed);
}

// Asks for a while, for the answer comes sooner so, and lets other threads run in between; then sleeps.
void wait_for(cudaEvent_t event) {
  cudaError_t state = cudaEventQuery(event);
  for (int spin = 1; spin < kSpins && state == cudaErrorNotReady; ++spin) {
    std::this_thread::yield();
    state = cudaEventQuery(event);
  }
  cudaGetLastError();  // that it was not ready yet
  if (state == cudaErrorNotReady) state = cudaEventSynchronize(event);
  must(state);
}

}  // namespace

struct FramePipeline::Slot {
  int index = 0;
  uint64_t ticket = 0;
  bool taken = false;      // from submit to result
  bool collected = false;  // a result() is at it
  bool from_host = false;
  OwnedStream stream;
  OwnedEvent done, other;          // `other`: of a stream of the caller's
  std::vector<OwnedEvent> copied;  // each band of the result, where there are several
  OwnedGraph from_host_graph;      // where it holds a copy; otherwise as `on_device_graph`
  OwnedGraph on_device_graph;
  DeviceMemory frame, input, output, result;
  PinnedMemory host_frame, host_result;

  // For when something went wrong: a slot whose memory is still being copied is not free.
  void drain() const { cudaStreamSynchronize(stream.get()); }
};

FramePipeline::FramePipeline(const FramePipelineOptions& options, Enqueue enqueue)
    : options_(options), enqueue_(std::move(enqueue)) {
  check_size("frame", options.frame);
  check_size("result", options.result);
  if (options.slots < 1 || options.slots > 64)
    refuse("slots must be 1 to 64, got " + std::to_string(options.slots));
  for (const TensorSize* size : {&options.input, &options.output})
    if (size->dtype == DType::kUInt8) refuse("the network's tensors are float32, float16 or bfloat16");
  if (options.band_bytes < 1) refuse("band_bytes must be positive");
  bands_in_ = bands_of(options.frame, options.band_bytes);
  bands_out_ = bands_of(options.result, options.band_bytes);
  if (options.copy_threads < 1)
    options_.copy_threads = std::max(1, std::min(kMostCopyThreads, default_threads() / 2));
  const CurrentDevice current({DeviceType::kCuda, options.device});
  for (int i = 0; i < options.slots; ++i) {
    slots_.push_back(std::make_unique<Slot>());
    Slot& slot = *slots_.back();
    slot.index = i;
    must(cudaStreamCreateWithFlags(slot.stream.fill(), cudaStreamNonBlocking));
    must(cudaEventCreateWithFlags(slot.done.fill(), cudaEventDisableTiming | cudaEventBlockingSync));
    must(cudaEventCreateWithFlags(slot.other.fill(), cudaEventDisableTiming));
    slot.copied = std::vector<OwnedEvent>(bands_out_.count > 1 ? bands_out_.count : 0);
    for (OwnedEvent& copied : slot.copied)
      must(cudaEventCreateWithFlags(copied.fill(), cudaEventDisableTiming | cudaEventBlockingSync));
    must(cudaMalloc(slot.frame.fill(), options.frame.bytes()));
    must(cudaMalloc(slot.input.fill(), bytes_of(options.input)));
    must(cudaMalloc(slot.output.fill(), bytes_of(options.output)));
    must(cudaMalloc(slot.result.fill(), options.result.bytes()));
    // Write-combined: the GPU reads it faster, and the CPU only ever writes it.
    must(cudaHostAlloc(slot.host_frame.fill(), options.frame.bytes(), cudaHostAllocWriteCombined));
    must(cudaHostAlloc(slot.host_result.fill(), options.result.bytes(), cudaHostAllocDefault));
    std::memset(slot.host_frame.get(), 128, options.frame.bytes());
    for (int warm_up = 0; warm_up < kWarmUps; ++warm_up) {
      queue_stages(slot, true, true, nullptr);
      must(cudaStreamSynchronize(slot.stream.get()));
    }
    capture(slot);
  }
}

FramePipeline::~FramePipeline() {
  try {
    const CurrentDevice current({DeviceType::kCuda, options_.device});
    for (const auto& slot : slots_) cudaStreamSynchronize(slot->stream.get());
    slots_.clear();
  } catch (const std::exception&) {  // the GPU is gone, and everything with it
    for (auto& slot : slots_) static_cast<void>(slot.release());
  }
}

// The stages, on the slot's stream, with the copies if so asked, in one piece. `after_stage` hears of each.
void FramePipeline::queue_stages(Slot& slot, bool copy_in, bool copy_out,
                                 const std::function<void(int)>& after_stage) {
  const auto done = [&](int stage) {
    if (after_stage) after_stage(stage);
  };
  const Stream stream = slot.stream.get();
  const int device = options_.device;
  if (copy_in)
    must(cudaMemcpyAsync(slot.frame.get(), slot.host_frame.get(), options_.frame.bytes(),
                         cudaMemcpyHostToDevice, stream));
  done(kCopyIn);
  frame_to_tensor(view_of(slot.frame.get(), options_.frame, device),
                  view_of(slot.input.get(), options_.input, device), options_.to_tensor, 0, stream);
  done(kToTensor);
  enqueue_(slot.index, slot.input.get(), slot.output.get(), stream);
  done(kNetwork);
  tensor_to_frame(view_of(slot.output.get(), options_.output, device),
                  view_of(slot.result.get(), options_.result, device), options_.to_frame, 0, stream);
  done(kToFrame);
  if (copy_out)
    must(cudaMemcpyAsync(slot.host_result.get(), slot.result.get(), options_.result.bytes(),
                         cudaMemcpyDeviceToHost, stream));
  done(kCopyOut);
}

// Makes the slot's graphs, or says why there are none and leaves the stream usable.
void FramePipeline::capture(Slot& slot) {
  for (const bool from_host : {true, false}) {
    if (!graph_active()) return;
    if (from_host && bands_in_.count > 1 && bands_out_.count > 1) continue;
    cudaGraph_t graph = nullptr;
    cudaError_t error = cudaStreamBeginCapture(slot.stream.get(), cudaStreamCaptureModeRelaxed);
    std::string why;
    if (error == cudaSuccess) {
      try {
        queue_stages(slot, from_host && bands_in_.count == 1, from_host && bands_out_.count == 1, nullptr);
      } catch (const std::exception& refused) {
        why = refused.what();
      }
      error = cudaStreamEndCapture(slot.stream.get(), &graph);
    }
    if (error == cudaSuccess && why.empty())
      error =
          cudaGraphInstantiate((from_host ? slot.from_host_graph : slot.on_device_graph).fill(), graph, 0);
    if (graph) cudaGraphDestroy(graph);
    if (error != cudaSuccess && why.empty()) why = cudaGetErrorString(error);
    why_no_graph_ = why;
    cudaGetLastError();  // what the capture said is said
  }
}

FramePipeline::Slot& FramePipeline::take(uint64_t* ticket) {
  std::unique_lock<std::mutex> lock(mutex_);
  Slot* free = nullptr;
  freed_.wait(lock, [&] {
    for (const auto& slot : slots_)
      if (!slot->taken) {
        free = slot.get();
        return true;
      }
    return false;
  });
  free->taken = true;
  free->collected = false;
  *ticket = free->ticket = ++next_ticket_;
  return *free;
}

void FramePipeline::give_back(Slot& slot) {
  const std::lock_guard<std::mutex> lock(mutex_);
  slot.taken = false;
  freed_.notify_one();
}

// A frame of one band waits in pinned memory for the graph; of several, each is on its way when the next is
// copied. The slot's memory is free: whoever collected its last frame has waited for the last copy of it.
void FramePipeline::copy_in(Slot& slot, const TensorView& frame) {
  const Bands& bands = bands_in_;
  each_band(bands, options_.copy_threads, [&](int64_t band) {
    const int64_t begin = bands.begin(band), rows = bands.size(band);
    char* pinned = static_cast<char*>(slot.host_frame.get()) + begin * bands.row;
    copy_rows(pinned, bands.row, static_cast<const char*>(frame.data) + begin * frame.stride[0],
              frame.stride[0], bands.row, rows);
    if (bands.count == 1) return;
    const CurrentDevice current({DeviceType::kCuda, options_.device});  // of this thread
    must(cudaMemcpyAsync(static_cast<char*>(slot.frame.get()) + begin * bands.row, pinned, rows * bands.row,
                         cudaMemcpyHostToDevice, slot.stream.get()));
  });
}

// The copies that are not in the graph, and the events that copy_out() waits for.
void FramePipeline::queue_copies_out(Slot& slot) {
  const Bands& bands = bands_out_;
  if (!slot.from_host || bands.count == 1) {
    must(cudaEventRecord(slot.done.get(), slot.stream.get()));
    return;
  }
  for (int64_t band = 0; band < bands.count; ++band) {
    const int64_t offset = bands.begin(band) * bands.row;
    must(cudaMemcpyAsync(static_cast<char*>(slot.host_result.get()) + offset,
                         static_cast<const char*>(slot.result.get()) + offset, bands.size(band) * bands.row,
                         cudaMemcpyDeviceToHost, slot.stream.get()));
    must(cudaEventRecord(slot.copied[band].get(), slot.stream.get()));
  }
}

void FramePipeline::copy_out(Slot& slot, const TensorView& out) {
  const Bands& bands = bands_out_;
  const auto done = [&](int64_t band) {
    return bands.count == 1 ? slot.done.get() : slot.copied[band].get();
  };
  wait_for(done(0));  // the long wait is one thread's
  each_band(bands, options_.copy_threads, [&](int64_t band) {
    const int64_t begin = bands.begin(band);
    if (band > 0) {
      const CurrentDevice current({DeviceType::kCuda, options_.device});
      wait_for(done(band));
    }
    copy_rows(static_cast<char*>(out.data) + begin * out.stride[0], out.stride[0],
              static_cast<const char*>(slot.host_result.get()) + begin * bands.row, bands.row, bands.row,
              bands.size(band));
  });
}

uint64_t FramePipeline::submit(const TensorView& frame, Stream stream) {
  check_frame("frame", frame, options_.frame, options_.device);
  const CurrentDevice current({DeviceType::kCuda, options_.device});
  uint64_t ticket = 0;
  Slot& slot = take(&ticket);
  try {
    slot.from_host = frame.device.type == DeviceType::kCpu;
    if (slot.from_host) {
      copy_in(slot, frame);
    } else {
      const int64_t row = options_.frame.width * options_.frame.channels;
      must(cudaEventRecord(slot.other.get(), stream));
      must(cudaStreamWaitEvent(slot.stream.get(), slot.other.get(), 0));
      must(cudaMemcpy2DAsync(slot.frame.get(), row, frame.data, frame.stride[0], row, options_.frame.height,
                             cudaMemcpyDeviceToDevice, slot.stream.get()));
      // The caller may write its frame again once its own stream is past the copy.
      must(cudaEventRecord(slot.other.get(), slot.stream.get()));
      must(cudaStreamWaitEvent(stream, slot.other.get(), 0));
    }
    const bool copy_in = slot.from_host && bands_in_.count == 1;
    const bool copy_out = slot.from_host && bands_out_.count == 1;
    if (graph_active())
      must(cudaGraphLaunch((copy_in || copy_out ? slot.from_host_graph : slot.on_device_graph).get(),
                           slot.stream.get()));
    else
      queue_stages(slot, copy_in, copy_out, nullptr);
    queue_copies_out(slot);
  } catch (...) {
    slot.drain();
    give_back(slot);
    throw;
  }
  return ticket;
}

void FramePipeline::result(uint64_t ticket, const TensorView& out, Stream stream) {
  check_frame("out", out, options_.result, options_.device);
  const bool to_host = out.device.type == DeviceType::kCpu;
  Slot* slot = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& each : slots_)
      if (each->taken && each->ticket == ticket && !each->collected) slot = each.get();
    if (slot == nullptr) refuse("there is no frame of ticket " + std::to_string(ticket) + " to collect");
    if (to_host != slot->from_host)
      refuse(std::string("out must lie where the frame did, on ") +
             (slot->from_host ? "the CPU" : "the GPU"));
    slot->collected = true;
  }
  try {
    const CurrentDevice current({DeviceType::kCuda, options_.device});
    if (to_host) {
      copy_out(*slot, out);
    } else {
      const int64_t row = options_.result.width * options_.result.channels;
      must(cudaStreamWaitEvent(stream, slot->done.get(), 0));
      must(cudaMemcpy2DAsync(out.data, out.stride[0], slot->result.get(), row, row, options_.result.height,
                             cudaMemcpyDeviceToDevice, stream));
      // The next frame of this slot must not overwrite what is still being copied.
      must(cudaEventRecord(slot->other.get(), stream));
      must(cudaStreamWaitEvent(slot->stream.get(), slot->other.get(), 0));
    }
  } catch (...) {
    slot->drain();
    give_back(*slot);
    throw;
  }
  give_back(*slot);
}

StageTimes FramePipeline::time_stages(const TensorView& frame) {
  check_frame("frame", frame, options_.frame, options_.device);
  if (frame.device.type != DeviceType::kCpu) refuse("stages are timed of frames on the CPU");
  const CurrentDevice current({DeviceType::kCuda, options_.device});
  uint64_t ticket = 0;
  Slot& slot = take(&ticket);
  struct GiveBack {
    FramePipeline* pipeline;
    Slot* slot;
    ~GiveBack() {
      slot->drain();
      pipeline->give_back(*slot);
    }
  } const give_back{this, &slot};
  const int64_t row = options_.frame.width * options_.frame.channels;
  copy_rows(static_cast<char*>(slot.host_frame.get()), row, static_cast<const char*>(frame.data),
            frame.stride[0], row, options_.frame.height);
  OwnedEvent marks[kStages + 1];
  for (OwnedEvent& mark : marks) must(cudaEventCreateWithFlags(mark.fill(), cudaEventDefault));
  must(cudaEventRecord(marks[0].get(), slot.stream.get()));
  queue_stages(slot, true, true,
               [&](int stage) { must(cudaEventRecord(marks[stage + 1].get(), slot.stream.get())); });
  must(cudaStreamSynchronize(slot.stream.get()));
  float times[kStages];
  for (int stage = 0; stage < kStages; ++stage)
    must(cudaEventElapsedTime(&times[stage], marks[stage].get(), marks[stage + 1].get()));
  return {times[kCopyIn], times[kToTensor], times[kNetwork], times[kToFrame], times[kCopyOut]};
}

}  // namespace gantrt
