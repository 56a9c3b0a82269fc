#include "parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

namespace gantrt {
namespace {

// One call of run_parallel. Whoever takes an index runs it; the caller leaves when the last one is done.
struct Job {
  Job(int64_t count, int seats, Task task, const void* context)
      : count(count), seats(seats), task(task), context(context) {}

  void work() {
    int64_t mine = 0;
    for (int64_t i; (i = next.fetch_add(1)) < count; ++mine) task(context, i);
    if (mine == 0 || done.fetch_add(mine) + mine < count) return;
    std::lock_guard<std::mutex> lock(mutex);
    finished.notify_all();
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    finished.wait(lock, [this] { return done.load() == count; });
  }

  const int64_t count;
  int seats;  // workers that may still join; guarded by the pool's mutex
  const Task task;
  const void* const context;
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> done{0};
  std::mutex mutex;
  std::condition_variable finished;
};

class Pool {
 public:
  void submit(const std::shared_ptr<Job>& job) {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(job);
    // A machine that refuses more threads still finishes the job: the caller works too.
    try {
      for (; workers_ < std::min(kMostWorkers, job->seats); ++workers_)
        std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
    }
    for (int i = 0; i < job->seats; ++i) wake_.notify_one();
  }

  void withdraw(const std::shared_ptr<Job>& job) {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), job), jobs_.end());
  }

 private:
  static constexpr int kMostWorkers = 256;

  [[noreturn]] void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return !jobs_.empty(); });
      const std::shared_ptr<Job> job = jobs_.front();
      if (--job->seats == 0) jobs_.pop_front();
      lock.unlock();
      job->work();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> jobs_;  // with a free seat each
  int workers_ = 0;
};

std::atomic<Pool*> current{nullptr};

// Its threads never end, so the pool is never destroyed. A forked child has none of them, and may have
// inherited a locked mutex: it forgets the pool and makes its own when it first needs one.
Pool& pool() {
  static const int once = pthread_atfork(nullptr, nullptr, [] { current.store(nullptr); });
  (void)once;
  Pool* found = current.load();
  if (found == nullptr) {
    Pool* made = new Pool;
    if (current.compare_exchange_strong(found, made)) return *made;
    delete made;
  }
  return *found;
}

}  // namespace

int default_threads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

int threads_for(int wished, int64_t bytes) {
  const int64_t worth = std::max<int64_t>(1, bytes / (64 << 10));
  return static_cast<int>(std::min<int64_t>(wished > 0 ? wished : default_threads(), worth));
}

void run_parallel(int64_t count, int threads, Task task, const void* context) {
  const int helpers = static_cast<int>(std::min<int64_t>(threads, count)) - 1;
  if (helpers <= 0) {
    for (int64_t i = 0; i < count; ++i) task(context, i);
    return;
  }
  const auto job = std::make_shared<Job>(count, helpers, task, context);
  Pool& workers = pool();
  workers.submit(job);
  job->work();
  workers.withdraw(job);
  job->wait();
}

}  // namespace gantrt
