#include "isa.h"

#include <cstdlib>
#include <cstring>

namespace gantrt {
namespace {

Isa best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx2 && avx512 ? Isa::kAvx512 : avx2 ? Isa::kAvx2 : Isa::kBaseline;
#else
  return Isa::kBaseline;
#endif
}

Isa allowed() {
  const char* wish = std::getenv("GANTRT_ISA");
  if (wish == nullptr) return Isa::kAvx512;
  return std::strcmp(wish, "baseline") == 0 ? Isa::kBaseline
         : std::strcmp(wish, "avx2") == 0   ? Isa::kAvx2
                                            : Isa::kAvx512;
}

}  // namespace

Isa isa() {
  static const Isa chosen = best() < allowed() ? best() : allowed();
  return chosen;
}

std::vector<std::string> cpu_features() {
  switch (isa()) {
    case Isa::kAvx512:
      return {"avx2", "avx512"};
    case Isa::kAvx2:
      return {"avx2"};
    case Isa::kBaseline:
      break;
  }
  return {};
}

}  // namespace gantrt
