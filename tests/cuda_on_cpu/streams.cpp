// Streams that are late, as a GPU's are: what forgets to wait reads what is not there yet.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <thread>

#include "cuda_runtime.h"

using Work = std::function<void()>;
using Clock = std::chrono::steady_clock;

struct EmulatedGraph {
  std::vector<Work> nodes;
};

struct EmulatedEvent {
  std::mutex mutex;
  std::condition_variable changed;
  uint64_t asked = 0, reached = 0;
  Clock::time_point at;
};

struct CUstream_st {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Work> queue;
  bool busy = false, ending = false, capturing = false, invalidated = false;
  std::vector<Work> captured;
  std::thread worker{[this] { work(); }};

  void work() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      changed.wait(lock, [this] { return ending || !queue.empty(); });
      if (queue.empty()) return;
      Work next = std::move(queue.front());
      queue.pop_front();
      busy = true;
      lock.unlock();
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      next();
      lock.lock();
      busy = false;
      changed.notify_all();
    }
  }
};

namespace emulator {

std::atomic<int> copies_until_refusal{-1};
std::atomic<bool> lost{false};  // from then on every call fails, as after any error that sticks

cudaError_t state() { return lost ? cudaErrorDevicesUnavailable : cudaSuccess; }

cudaError_t queue(CUstream_st* stream, Work work) {
  if (lost) return state();
  if (stream == nullptr) {
    work();
    return cudaSuccess;
  }
  const std::lock_guard<std::mutex> lock(stream->mutex);
  if (stream->capturing)
    stream->captured.push_back(std::move(work));
  else
    stream->queue.push_back(std::move(work));
  stream->changed.notify_all();
  return cudaSuccess;
}

}  // namespace emulator

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  {
    const std::lock_guard<std::mutex> lock(stream->mutex);
    stream->ending = true;
    stream->changed.notify_all();
  }
  stream->worker.join();
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  std::unique_lock<std::mutex> lock(stream->mutex);
  if (stream->capturing) {
    stream->invalidated = true;
    return cudaErrorStreamCaptureInvalidated;
  }
  while (!emulator::lost && (stream->busy || !stream->queue.empty()))
    stream->changed.wait_for(lock, std::chrono::milliseconds(1));
  return emulator::state();
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const std::lock_guard<std::mutex> lock(stream->mutex);
  stream->capturing = true;
  stream->captured.clear();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard<std::mutex> lock(stream->mutex);
  stream->capturing = false;
  if (stream->invalidated) {
    stream->invalidated = false;
    return cudaErrorStreamCaptureInvalidated;
  }
  *graph = new EmulatedGraph{std::move(stream->captured)};
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new EmulatedGraph(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  ++emulator::launches;
  return emulator::queue(stream, [exec] {
    for (const Work& node : exec->nodes) node();
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return cudaGraphDestroy(exec); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new EmulatedEvent;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  uint64_t mine;
  {
    const std::lock_guard<std::mutex> lock(event->mutex);
    mine = ++event->asked;
  }
  return emulator::queue(stream, [event, mine] {
    const std::lock_guard<std::mutex> lock(event->mutex);
    event->reached = mine;
    event->at = Clock::now();
    event->changed.notify_all();
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::lock_guard<std::mutex> lock(event->mutex);
  if (emulator::lost) return emulator::state();
  return event->reached == event->asked ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  std::unique_lock<std::mutex> lock(event->mutex);
  const uint64_t asked = event->asked;
  while (!emulator::lost && event->reached < asked)
    event->changed.wait_for(lock, std::chrono::milliseconds(1));
  return emulator::state();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  uint64_t asked;
  {
    const std::lock_guard<std::mutex> lock(event->mutex);
    asked = event->asked;
  }
  return emulator::queue(stream, [event, asked] {
    std::unique_lock<std::mutex> lock(event->mutex);
    while (!emulator::lost && event->reached < asked)
      event->changed.wait_for(lock, std::chrono::milliseconds(1));
  });
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  *ms = std::chrono::duration<float, std::milli>(to->at - from->at).count();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (emulator::lost) return emulator::state();
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*memory, -1, bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) { return cudaMalloc(memory, bytes); }
cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (emulator::copies_until_refusal-- == 0) return cudaErrorInvalidValue;
  return emulator::queue(stream, [=] { std::memcpy(to, from, bytes); });
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_row, const void* from, size_t from_row, size_t row,
                              size_t rows, cudaMemcpyKind, cudaStream_t stream) {
  return emulator::queue(stream, [=] {
    for (size_t i = 0; i < rows; ++i)
      std::memcpy(static_cast<char*>(to) + i * to_row, static_cast<const char*>(from) + i * from_row, row);
  });
}
