// Fibres for CUDA threads: a thread runs until it waits for others, then the next one does.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>

#include "cuda_runtime.h"

thread_local uint3 threadIdx, blockIdx;
thread_local dim3 blockDim, gridDim;

namespace emulator {

Device device;
std::atomic<int> launches{0};
unsigned blocks = 0;
bool dry = false;
bool backwards = false;

namespace {

constexpr int kWarp = 32;
constexpr size_t kStack = 64 << 10;

[[noreturn]] void die(const char* why) {
  std::fprintf(stderr, "cuda_on_cpu: %s (block %u, thread %u)\n", why, blockIdx.x, threadIdx.x);
  std::abort();
}

// Blocks that wait for each other: a cluster or a grid.
class Meeting {
 public:
  explicit Meeting(unsigned blocks) : blocks_(blocks), anchors(blocks) {}

  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    const unsigned round = round_;
    if (++arrived_ == blocks_) {
      arrived_ = 0;
      ++round_;
      everyone_.notify_all();
      return;
    }
    everyone_.wait(lock, [&] { return round_ != round; });
  }

  unsigned size() const { return blocks_; }

 private:
  std::mutex mutex_;
  std::condition_variable everyone_;
  unsigned blocks_, arrived_ = 0, round_ = 0;

 public:
  std::vector<char*> anchors;  // an address in each block's shared memory
};

thread_local char anchor;

enum class State { kFresh, kReady, kAtWarp, kAtBlock, kAtCluster, kAtGrid, kDone };

struct Fibre {
  State state = State::kFresh;
  uint3 index{};
  ucontext_t start{};
  jmp_buf saved;
  std::unique_ptr<char[]> stack{new char[kStack]};
};

struct Block {
  std::vector<Fibre> fibres;
  const std::function<void()>* kernel = nullptr;
  Meeting *cluster = nullptr, *grid = nullptr;
  unsigned rank = 0;  // in the cluster
  Fibre* running = nullptr;
  ucontext_t begin{};
  jmp_buf scheduler;
  std::vector<uint32_t> passed[2];  // by the lanes, in turns
  std::vector<int> turn;            // of each thread
};

thread_local Block block;

void body() {
  (*block.kernel)();
  block.running->state = State::kDone;
  _longjmp(block.scheduler, 1);
}

void wait_as(State state) {
  block.running->state = state;
  if (_setjmp(block.running->saved) == 0) _longjmp(block.scheduler, 1);
}

void resume(Fibre& fibre) {
  block.running = &fibre;
  threadIdx = fibre.index;
  if (_setjmp(block.scheduler) != 0) return;
  if (fibre.state != State::kFresh) {
    fibre.state = State::kReady;
    _longjmp(fibre.saved, 1);
  }
  fibre.state = State::kReady;
  getcontext(&fibre.start);
  fibre.start.uc_stack.ss_sp = fibre.stack.get();
  fibre.start.uc_stack.ss_size = kStack;
  fibre.start.uc_link = nullptr;
  makecontext(&fibre.start, body, 0);
  setcontext(&fibre.start);
}

// Lets go those of [first, last) that wait as `state` if all of them do; those that have ended do not count.
bool release(size_t first, size_t last, State state) {
  bool any = false;
  for (size_t i = first; i < last; ++i) {
    if (block.fibres[i].state == State::kDone) continue;
    if (block.fibres[i].state != state) return false;
    any = true;
  }
  if (!any) return false;
  if (state == State::kAtCluster) block.cluster->wait();
  if (state == State::kAtGrid) block.grid->wait();
  for (size_t i = first; i < last; ++i)
    if (block.fibres[i].state == state) block.fibres[i].state = State::kReady;
  return true;
}

void run_block(uint3 index, dim3 grid, dim3 size, Meeting* cluster, Meeting* whole, unsigned rank,
               const std::function<void()>& kernel) {
  const size_t threads = size_t{size.x} * size.y * size.z;
  blockIdx = index;
  gridDim = grid;
  blockDim = size;
  block.kernel = &kernel;
  block.cluster = cluster;
  block.grid = whole;
  block.rank = rank;
  if (cluster) cluster->anchors[rank] = &anchor;
  block.fibres.resize(threads);
  block.turn.assign(threads, 0);
  for (auto& passed : block.passed) passed.assign(threads, 0);
  for (size_t i = 0; i < threads; ++i) {
    block.fibres[i].state = State::kFresh;
    block.fibres[i].index = {static_cast<unsigned>(i % size.x), static_cast<unsigned>(i / size.x % size.y),
                             static_cast<unsigned>(i / size.x / size.y)};
  }
  for (;;) {
    bool moved = false, alive = false;
    for (size_t i = 0; i < threads; ++i) {
      Fibre& fibre = block.fibres[backwards ? threads - 1 - i : i];
      alive |= fibre.state != State::kDone;
      if (fibre.state != State::kFresh && fibre.state != State::kReady) continue;
      resume(fibre);
      moved = true;
    }
    if (!alive) return;
    for (size_t warp = 0; warp < threads; warp += kWarp)
      moved |= release(warp, std::min(threads, warp + kWarp), State::kAtWarp);
    moved |= release(0, threads, State::kAtBlock) || release(0, threads, State::kAtCluster) ||
             release(0, threads, State::kAtGrid);
    if (!moved) die("threads wait for others that never come");
  }
}

size_t number() { return (threadIdx.z * size_t{blockDim.y} + threadIdx.y) * blockDim.x + threadIdx.x; }

}  // namespace

int lane() { return static_cast<int>(number() % kWarp); }

uint32_t exchange(uint32_t mine, int from) {
  const size_t me = number(), first = me - me % kWarp;
  std::vector<uint32_t>& passed = block.passed[block.turn[me] ^= 1];
  passed[me] = mine;
  wait_as(State::kAtWarp);
  return passed[first + from];
}

void meet_cluster() {
  if (block.cluster == nullptr) die("a cluster's barrier in a launch without clusters");
  wait_as(State::kAtCluster);
}

void meet_grid() {
  if (block.grid == nullptr) die("a grid's barrier in an ordinary launch");
  wait_as(State::kAtGrid);
}

unsigned cluster_rank() { return block.rank; }
unsigned cluster_size() { return block.cluster ? block.cluster->size() : 1; }

void* at_rank(void* shared, unsigned rank) {
  return block.cluster->anchors[rank] + (static_cast<char*>(shared) - &anchor);
}

void run(dim3 grid, dim3 size, unsigned cluster, bool in_clusters, bool all_at_once,
         const std::function<void()>& kernel) {
  const unsigned count = grid.x * grid.y * grid.z, together = all_at_once ? count : cluster;
  const auto index = [&](unsigned at) {
    return uint3{at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y};
  };
  for (unsigned first = 0; first < count; first += together) {
    Meeting whole(together);
    std::vector<std::unique_ptr<Meeting>> clusters;
    for (unsigned i = 0; in_clusters && i < together; i += cluster)
      clusters.push_back(std::make_unique<Meeting>(cluster));
    const auto run_one = [&](unsigned i) {
      run_block(index(first + i), grid, size, in_clusters ? clusters[i / cluster].get() : nullptr,
                all_at_once ? &whole : nullptr, i % cluster, kernel);
    };
    if (together == 1) {
      run_one(0);
      continue;
    }
    std::vector<std::thread> blocks;
    for (unsigned i = 0; i < together; ++i) blocks.emplace_back([&, i] { run_one(i); });
    for (std::thread& each : blocks) each.join();
  }
}

}  // namespace emulator

void __syncthreads() { emulator::wait_as(emulator::State::kAtBlock); }
void __trap() { emulator::die("trap"); }
