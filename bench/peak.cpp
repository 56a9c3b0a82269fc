// How many multiplications and additions these cores do per second when nothing but arithmetic is asked of them:
// chains of the widest multiply-add the compiler was told of (-march=native), operands in registers, one thread
// per core. No memory, no loop that matters: what a convolution may come near and never exceed.
//
//   double peak_f32(threads, rounds)   operations done by all threads; a multiply-add counts two
//   double peak_bf16, peak_int8        likewise; 0 where the processor has no such instruction
#include <cstdint>
#include <thread>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

// Enough independent chains to cover latency (4 cycles) times ports (2), and few enough for 16 registers. They are
// variables, not an array: an array of them goes through memory at every step, and half the speed is gone.
constexpr int kChains = 12;

template <class Vector, class Step>
void chains(int64_t rounds, Vector start, const Step& step) {
  Vector a = start, b = start, c = start, d = start, e = start, f = start, g = start, h = start, i = start, j = start,
         k = start, l = start;
  // Each sum stays in its register; no step is merged or dropped.
  const auto next = [&](Vector& sum) {
    sum = step(sum);
    asm volatile("" : "+x"(sum));
  };
  for (int64_t round = 0; round < rounds; ++round) {
    next(a), next(b), next(c), next(d), next(e), next(f);
    next(g), next(h), next(i), next(j), next(k), next(l);
  }
}

template <class Body>
double on_threads(int threads, int64_t rounds, int lanes, const Body& body) {
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back([&] { body(rounds); });
  body(rounds);
  for (auto& thread : others) thread.join();
  return 2.0 * lanes * kChains * static_cast<double>(rounds) * threads;
}

}  // namespace

extern "C" {

double peak_f32(int threads, int64_t rounds) {
#if defined(__AVX512F__)
  return on_threads(threads, rounds, 16, [](int64_t n) {
    const __m512 a = _mm512_set1_ps(1.0f), b = _mm512_set1_ps(0.5f);
    chains(n, _mm512_setzero_ps(), [=](__m512 sum) { return _mm512_fmadd_ps(a, b, sum); });
  });
#elif defined(__AVX2__) && defined(__FMA__)
  return on_threads(threads, rounds, 8, [](int64_t n) {
    const __m256 a = _mm256_set1_ps(1.0f), b = _mm256_set1_ps(0.5f);
    chains(n, _mm256_setzero_ps(), [=](__m256 sum) { return _mm256_fmadd_ps(a, b, sum); });
  });
#else
  return 0;
#endif
}

double peak_bf16(int threads, int64_t rounds) {
#if defined(__AVX512BF16__)
  return on_threads(threads, rounds, 32, [](int64_t n) {
    const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1.0f), _mm512_set1_ps(1.0f));
    chains(n, _mm512_setzero_ps(), [=](__m512 sum) { return _mm512_dpbf16_ps(sum, a, a); });
  });
#else
  return 0;
#endif
}

double peak_int8(int threads, int64_t rounds) {
#if defined(__AVX512VNNI__)
  return on_threads(threads, rounds, 64, [](int64_t n) {
    const __m512i a = _mm512_set1_epi8(1);
    chains(n, _mm512_setzero_si512(), [=](__m512i sum) { return _mm512_dpbusd_epi32(sum, a, a); });
  });
#elif defined(__AVXVNNI__)
  return on_threads(threads, rounds, 32, [](int64_t n) {
    const __m256i a = _mm256_set1_epi8(1);
    chains(n, _mm256_setzero_si256(), [=](__m256i sum) { return _mm256_dpbusd_avx_epi32(sum, a, a); });
  });
#else
  return 0;
#endif
}

}  // extern "C"
