// One source text of a hot loop, compiled for each level of x86-64 and chosen at run time, so that one wheel
// runs anywhere and is fast where it can be. Elsewhere (ARM, ...) the baseline is all there is, and has its
// SIMD anyway.
//
//   run_on_this_cpu([&]() GANTRT_INLINE { hot_loop(...); });      hot_loop itself is GANTRT_INLINE too
//
// Explicit calls rather than target_clones: those need ifunc (glibc only), and cannot be told which clone to
// take, so the slower ones would never be tested. Floating-point contraction is off, hence every level gives
// the same bits.
#pragma once

#include <string>
#include <vector>

#define GANTRT_INLINE __attribute__((always_inline))

namespace gantrt {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best this CPU has, or what the environment variable GANTRT_ISA (baseline, avx2, avx512) allows. Read
// once.
Isa isa();

// What was found and is used, e.g. {"avx2", "avx512"}; empty at the baseline.
std::vector<std::string> cpu_features();

#if defined(__x86_64__)
template <class Body>
__attribute__((target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"))) void
run_on_avx512(const Body& body) {
  body();
}

template <class Body>
__attribute__((target("avx2,fma,f16c,bmi2"))) void run_on_avx2(const Body& body) {
  body();
}

template <class Body>
void run_on_this_cpu(const Body& body) {
  switch (isa()) {
    case Isa::kAvx512:
      return run_on_avx512(body);
    case Isa::kAvx2:
      return run_on_avx2(body);
    case Isa::kBaseline:
      return body();
  }
}
#else
template <class Body>
void run_on_this_cpu(const Body& body) {
  body();
}
#endif

}  // namespace gantrt
