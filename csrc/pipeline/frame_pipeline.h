// Frame in, network, frame out, on CUDA: for each slot one graph of
//   copy in -> frame_to_tensor -> the network -> tensor_to_frame -> copy out
// launched by one call, so that no stage waits for the host. Of large frames the graph holds the middle
// three: they are copied in bands of rows, by several threads, one band to or from pinned memory while others
// are on the bus.
#pragma once

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../kernels/norm_act.h"
#include "../kernels/pixels.h"
#include "../tensor.h"

namespace gantrt {

struct FrameSize {
  int64_t height, width, channels;  // channels 1 or 3

  int64_t bytes() const { return height * width * channels; }
};

// A tensor (1, C, H, W) of the network's, dense in that order or with the channels last.
struct TensorSize {
  DType dtype;
  int64_t channels, height, width;
  Layout layout = Layout::kNchw;
};

struct FramePipelineOptions {
  int device = 0;
  int slots = 1;  // frames in flight: 1 for latency, 3 for throughput
  FrameSize frame{}, result{};
  TensorSize input{}, output{};
  PixelOptions to_tensor, to_frame;
  int64_t band_bytes = 512 << 10;  // of a host frame, about, that are copied at once
  int copy_threads = 0;            // 0: half of the CPUs, but no more than six
};

// Queues the network on `stream`, from device memory to device memory. It is called while a slot is made:
// twice to warm up, then once more while the stream is captured, where it may neither wait nor allocate other
// than as its library allows; and for every frame if that capture was refused. A slot is used by one frame at
// a time.
using Enqueue = std::function<void(int slot, void* input, void* output, Stream stream)>;

// Rows of a host frame that are copied at once.
struct Bands {
  int64_t row = 0, height = 0;  // bytes of a row, rows of the frame
  int64_t rows = 0, count = 0;  // rows of a band, bands

  int64_t begin(int64_t band) const { return band * rows; }
  int64_t size(int64_t band) const { return std::min(rows, height - begin(band)); }
};

// Times in ms of the five stages of a frame.
struct StageTimes {
  float copy_in, to_tensor, network, to_frame, copy_out;
};

class FramePipeline {
 public:
  // Throws std::invalid_argument for options that make no sense, DeviceUnavailable without CUDA, what
  // `enqueue` throws, and std::runtime_error where CUDA refuses.
  FramePipeline(const FramePipelineOptions& options, Enqueue enqueue);
  ~FramePipeline();  // waits for what is queued
  FramePipeline(const FramePipeline&) = delete;
  FramePipeline& operator=(const FramePipeline&) = delete;

  // Queues a uint8 (h, w, c) frame, and returns its ticket; waits while all slots are taken. A frame on the
  // CPU is copied before it returns. One on the pipeline's device is read in the order of `stream`.
  uint64_t submit(const TensorView& frame, Stream stream);

  // Fills `out` with the frame of a ticket, each once, in any order. `out` on the CPU is ready on return; on
  // the device, when `stream` is.
  void result(uint64_t ticket, const TensorView& out, Stream stream);

  // Every frame runs as a graph; if not, why_no_graph() says what CUDA said.
  bool graph_active() const { return why_no_graph_.empty(); }
  const std::string& why_no_graph() const { return why_no_graph_; }

  // One frame, stage by stage, from and to the host; without the graph, whose stages cannot be timed.
  StageTimes time_stages(const TensorView& frame);

 private:
  struct Slot;
  void copy_in(Slot& slot, const TensorView& frame);
  void queue_copies_out(Slot& slot);
  void copy_out(Slot& slot, const TensorView& out);
  void queue_stages(Slot& slot, bool copy_in, bool copy_out, const std::function<void(int)>& after_stage);
  void capture(Slot& slot);
  Slot& take(uint64_t* ticket);
  void give_back(Slot& slot);

  FramePipelineOptions options_;
  Enqueue enqueue_;
  Bands bands_in_, bands_out_;
  std::string why_no_graph_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::mutex mutex_;
  std::condition_variable freed_;
  uint64_t next_ticket_ = 0;
};

}  // namespace gantrt
