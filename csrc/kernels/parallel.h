// A small pool of threads for the CPU kernels: persistent, shared by all callers, made anew after a fork.
#pragma once

#include <cstdint>

namespace gantrt {

// The CPUs this process may run on (its affinity mask).
int default_threads();

// The threads worth waking: `wished` (0: default_threads()), but no more than one per 64 KiB of memory
// traffic.
int threads_for(int wished, int64_t bytes);

using Task = void (*)(const void* context, int64_t index);

// Calls task(context, i) once for each i in [0, count), on up to `threads` threads, the caller's being one,
// and returns when all are done. Which thread runs which i is not fixed: tasks must not depend on it, nor
// throw.
void run_parallel(int64_t count, int threads, Task task, const void* context);

template <class Body>
void parallel_for(int64_t count, int threads, const Body& body) {
  run_parallel(
      count, threads, [](const void* context, int64_t i) { (*static_cast<const Body*>(context))(i); }, &body);
}

}  // namespace gantrt
