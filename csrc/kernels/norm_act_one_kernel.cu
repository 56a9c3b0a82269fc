// NormAct on CUDA in one kernel, which one and of how many blocks:
//   by a cluster   the blocks of one chunk of channels write into each other's shared memory (sm_90 and
//   above) cooperatively  through memory and one barrier of the whole grid, whose blocks are all resident
#include <array>
#include <atomic>
#include <mutex>
#include <vector>

#include "norm_act_cuda.cuh"
#include "norm_act_resident.cuh"

namespace gantrt {
namespace {

constexpr int kMostAcross = 65535;  // a grid's second and third side
constexpr int kWorthBlock = 64;     // pixels
constexpr int kMostDevices = 64;

// What the current device offers.
struct Limits {
  int processors = 0;
  int capability = 0;  // times ten
  bool cooperative = false;
};

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "norm_act");
  return device < kMostDevices ? device : 0;
}

const Limits& limits_of(int device) {
  static std::array<Limits, kMostDevices> known;
  static std::array<std::once_flag, kMostDevices> asked;
  std::call_once(asked[device], [device] {
    const auto ask = [device](cudaDeviceAttr attribute) {
      int value = 0;
      check(cudaDeviceGetAttribute(&value, attribute, device), "norm_act");
      return value;
    };
    known[device] = {ask(cudaDevAttrMultiProcessorCount),
                     10 * ask(cudaDevAttrComputeCapabilityMajor) + ask(cudaDevAttrComputeCapabilityMinor),
                     ask(cudaDevAttrCooperativeLaunch) != 0};
  });
  return known[device];
}

// How a kernel is launched: in clusters of so many blocks (0: without); all its blocks at once, or as soon as
// the launch before it lets go of processors.
struct Attributes {
  std::array<cudaLaunchAttribute, 2> all{};
  unsigned count = 0;

  Attributes(int cluster, bool at_once) {
    if (cluster) {
      all[count].id = cudaLaunchAttributeClusterDimension;
      all[count].val.clusterDim.x = cluster;
      all[count].val.clusterDim.y = all[count].val.clusterDim.z = 1;
      ++count;
    }
    if (at_once) {
      all[count].id = cudaLaunchAttributeCooperative;
      all[count].val.cooperative = 1;
    } else {
      all[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      all[count].val.programmaticStreamSerializationAllowed = 1;
    }
    ++count;
  }
};

cudaLaunchConfig_t config_of(dim3 blocks, int threads, Attributes& attributes, Stream stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = dim3(threads);
  config.stream = stream;
  config.attrs = attributes.all.data();
  config.numAttrs = attributes.count;
  return config;
}

// One kernel, the tile it holds, and what is known of it on each device.
struct Form {
  void (*kernel)(Launch);
  int threads;
  int tile;        // pixels a block holds
  int64_t chunks;  // blocks of one split of a sample: planes or chunks of channels
  int (*resident_blocks)(int device, int cluster);  // at once, in clusters of so many; 0: none
};

using Answers = std::array<std::atomic<int>, kMostDevices>;  // the answer + 1; 0: not asked yet

template <class Ask>
int asked_once(std::atomic<int>& known, const Ask& ask) {
  int answer = known.load(std::memory_order_relaxed);
  if (answer == 0) known.store(answer = ask() + 1, std::memory_order_relaxed);
  return answer - 1;
}

template <auto kKernel, int kBlock>
int resident_blocks(int device, int cluster) {
  static std::array<Answers, kLargestCluster + 1> known{};
  return asked_once(known[cluster][device], [=] {
    int count = 0;
    if (cluster == 0) {
      check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&count, kKernel, kBlock, 0), "norm_act");
      return count * limits_of(device).processors;
    }
    Attributes attributes(cluster, false);
    const cudaLaunchConfig_t config = config_of(dim3(cluster), kBlock, attributes, nullptr);
    if (cudaOccupancyMaxActiveClusters(&count, kKernel, &config) == cudaSuccess) return count * cluster;
    cudaGetLastError();  // or the next launch would be blamed
    return 0;
  });
}

template <class T, int V, int kVectors, int kRows, int kBlock, Exchange kExchange>
Form pixels_form(const NormActProblem& p) {
  using Mine = Chunk<V, kVectors, kBlock>;
  constexpr auto kKernel = resident_pixels<T, V, kVectors, kRows, kBlock, kExchange>;
  return {kKernel, kBlock, Mine::kPixels * kRows, (p.c + Mine::kOwned - 1) / Mine::kOwned,
          resident_blocks<kKernel, kBlock>};
}

template <class T, int V, int kRows, Exchange kExchange>
Form planes_form(const NormActProblem& p) {
  constexpr auto kKernel = resident_planes<T, V, kRows, kExchange>;
  return {kKernel, kThreads, kThreads * V * kRows, p.c, resident_blocks<kKernel, kThreads>};
}

// The kernels that take the shape; of equally busy ones the first is best.
template <class T, Exchange kExchange>
std::vector<Form> forms_of(const Launch& k) {
  constexpr int V = kWide<T>;
  const NormActProblem& p = k.p;
  const bool aligned = is_aligned(p.x) && is_aligned(p.y) && is_aligned(p.residual);
  if (p.layout == Layout::kNhwc) {
    if (!aligned || p.c % V != 0) return {};
    std::vector<Form> forms{pixels_form<T, V, 2, 4, 256, kExchange>(p),
                            pixels_form<T, V, 2, 4, 512, kExchange>(p)};
    if constexpr (kExchange == Exchange::kGrid)  // float32 takes more registers on its way
      forms.push_back(pixels_form<T, V, 2, 8, sizeof(T) == 4 ? 256 : 512, kExchange>(p));
    return forms;
  }
  if constexpr (kExchange == Exchange::kClusterAndGrid) {
    return {};
  } else {
    if (aligned && p.pad == 0 && p.rpad == 0 && k.pixels % V == 0)
      return {planes_form<T, V, 16 / V, kExchange>(p), planes_form<T, V, 64 / V, kExchange>(p)};
    return {planes_form<T, 1, 4, kExchange>(p), planes_form<T, 1, 16, kExchange>(p)};
  }
}

// The fewest splits whose tiles hold a plane, then more while there are idle processors and work for them.
// Powers of two, for these are the sizes of clusters.
int splits_wanted(const Form& form, int64_t n, int pixels, int processors, int most) {
  int64_t splits = 1;
  while (splits * form.tile < pixels) splits *= 2;
  while (2 * splits <= most && n * form.chunks * splits * 2 <= processors &&
         pixels / (2 * splits) >= kWorthBlock)
    splits *= 2;
  return splits <= std::numeric_limits<int>::max() / 2 ? static_cast<int>(splits)
                                                       : std::numeric_limits<int>::max();
}

}  // namespace

bool norm_act_one_kernel(const Launch& given, NormActMode mode, Stream stream) {
  const bool cluster = mode == NormActMode::kCluster, mixed = given.p.rho != nullptr;
  const bool at_once = !cluster || mixed;
  const int device = current_device();
  const Limits& limits = limits_of(device);
  if ((cluster && limits.capability < 90) || (at_once && !limits.cooperative)) return false;
  std::vector<Form> forms;
  dispatch(given.p.dtype, [&](auto element) {
    using T = decltype(element);
    forms = !cluster ? forms_of<T, Exchange::kGrid>(given)
            : mixed  ? forms_of<T, Exchange::kClusterAndGrid>(given)
                     : forms_of<T, Exchange::kCluster>(given);
  });

  const Form* best = nullptr;
  int best_splits = 0;
  int64_t best_busy = 0;
  for (const Form& form : forms) {
    const int splits = splits_wanted(form, given.p.n, given.pixels, limits.processors, kLargestCluster);
    if (splits > (cluster ? kLargestCluster : most_splits(given.p, form.chunks)) ||
        std::max<int64_t>(form.chunks, given.p.n) > kMostAcross)
      continue;
    const int64_t blocks = given.p.n * form.chunks * splits;
    const int resident = form.resident_blocks(device, cluster ? splits : 0);
    const int64_t busy = std::min<int64_t>(blocks, limits.processors);
    if (resident >= (at_once ? blocks : 1) && busy > best_busy)
      best = &form, best_splits = splits, best_busy = busy;
  }
  if (best == nullptr) return false;

  Launch k = given;
  k.splits.count = best_splits;
  k.splits.length = ((k.pixels + best_splits - 1) / best_splits + 7) / 8 * 8;
  if (k.p.layout == Layout::kNhwc) set_layer(k, best->chunks);
  if (cluster) k.layer_blocks = static_cast<int>(best->chunks);  // one of each cluster
  Attributes attributes(cluster ? best_splits : 0, at_once);
  const dim3 blocks(best_splits, static_cast<unsigned>(best->chunks), k.p.n);
  const cudaLaunchConfig_t config = config_of(blocks, best->threads, attributes, stream);
  check(cudaLaunchKernelEx(&config, best->kernel, k), "norm_act");
  return true;
}

}  // namespace gantrt
