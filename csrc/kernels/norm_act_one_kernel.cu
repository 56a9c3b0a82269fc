// NormAct on CUDA in one kernel: x is read once and stays in registers while the moments are exchanged,
//   by a cluster   the blocks of one chunk of channels read each other's shared memory (sm_90 and above;
//                  instance norm only: a layer's moments need all chunks)
//   cooperatively  through memory and one barrier of the whole grid, whose blocks are all resident
// Every pixel is then written where it belongs and where the reflected border shows it, each place once.
#include <cooperative_groups.h>

#include <array>
#include <atomic>
#include <mutex>
#include <vector>

#include "norm_act_cuda.cuh"

namespace gantrt {
namespace {

namespace cg = cooperative_groups;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr bool kHasClusters = false;  // nothing is compiled then but a trap
#else
constexpr bool kHasClusters = true;
#endif
constexpr int kPortableCluster = 8, kLargestCluster = 16;
constexpr int kWorthBlock = 64;  // pixels
constexpr int kMostDevices = 64;

// The moments of all pixels of one channel from those of this block's, valid in thread t < kOwned for channel
// t. The caller must call `wait_for_cluster` before it ends.
template <int kOwned>
__device__ __forceinline__ Counted merge_over_cluster(const Counted& mine, Counted* own) {
  Counted all{};
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  const cg::cluster_group cluster = cg::this_cluster();
  if (threadIdx.x < kOwned) own[threadIdx.x] = mine;
  cluster.sync();
  if (threadIdx.x < kOwned)
    for (unsigned rank = 0; rank < cluster.num_blocks(); ++rank)
      merge_into(all, *cluster.map_shared_rank(own + threadIdx.x, rank));
#else
  __trap();
#endif
  return all;
}

// No block may end while another still reads its shared memory.
__device__ __forceinline__ void wait_for_cluster() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  cg::this_cluster().sync();
#endif
}

// The maps of this block's channels from the moments of its tile, valid in thread t < kOwned for channel t.
template <int kOwned, bool kCluster>
__device__ __forceinline__ void exchange(const Launch& k, const Counted& mine, int n, int first, int block,
                                         Affine* maps) {
  const int c = first + static_cast<int>(threadIdx.x);
  const bool owner = threadIdx.x < kOwned && c < k.p.c;
  if constexpr (kCluster) {
    __shared__ Counted own[kOwned];
    const Counted all = merge_over_cluster<kOwned>(mine, own);
    if (owner) maps[threadIdx.x] = affine_of(k, all.moments, Moments{}, n, c);
    __syncthreads();
  } else {
    if (owner) k.partial[(int64_t{n} * k.p.c + c) * k.splits.count + block] = mine.moments;
    cg::this_grid().sync();
    make_maps<kOwned>(k, n, first, maps);
  }
}

// Where one index stands in the padded result, and where its mirror images do; -1: it has none there.
struct Places {
  int own, low, high;

  __device__ __forceinline__ Places(int i, int n, int pad)
      : own(i + pad),
        low(i >= 1 && i <= pad ? pad - i : -1),
        high(i <= n - 2 && i >= n - 1 - pad ? 2 * (n - 1) - i + pad : -1) {}
};

template <class Write>
__device__ __forceinline__ void write_everywhere(const NormActProblem& p, int row, int column,
                                                 const Write& write) {
  const int wide = p.w + 2 * p.pad;
  const Places rows(row, p.h, p.pad), columns(column, p.w, p.pad);
  const auto write_row = [&](int at) {
    write(at * wide + columns.own);
    if (columns.low >= 0) write(at * wide + columns.low);
    if (columns.high >= 0) write(at * wide + columns.high);
  };
  write_row(rows.own);
  if (rows.low >= 0) write_row(rows.low);
  if (rows.high >= 0) write_row(rows.high);
}

// Block: split chunk.block of one chunk of channels.
template <class T, int V, int kVectors, int kRows, bool kCluster>
__global__ void __launch_bounds__(kThreads, 1) resident_pixels(Launch k) {
  if constexpr (kCluster && !kHasClusters) return __trap();
  using Mine = Chunk<V, kVectors>;
  __shared__ Counted scratch[kWarps * Mine::kOwned];
  __shared__ Affine maps[Mine::kOwned];
  const Mine chunk(k.p.c, k.splits.count);
  const int begin = chunk.block * k.splits.length, end = min(begin + k.splits.length, k.pixels);
  const bool inside = chunk.channel < k.p.c;
  const int64_t channels = k.p.c;
  const T* x = static_cast<const T*>(k.p.x) + chunk.n * k.pixels * channels + chunk.channel;
  Vector<T, V> held[kRows];
  int valid = 0;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int from = begin + chunk.pixel + i * Mine::kPixels;
    if (inside && from < end) {
      held[i] = *reinterpret_cast<const Vector<T, V>*>(x + from * channels);
      ++valid;
    }
  }
  Counted mine[V] = {};
#pragma unroll
  for (int j = 0; j < V; ++j) {
    float values[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) values[i] = i < valid ? to_float(held[i].at[j]) : 0.0f;
    add_tile(mine[j], values, valid);
  }
  const Counted all = block_merge_each<kVectors, V>(mine, scratch);
  exchange<Mine::kOwned, kCluster>(k, all, chunk.n, chunk.first, chunk.block, maps);

  const T* residual = static_cast<const T*>(k.p.residual);
  const int residual_wide = k.p.w + 2 * k.p.rpad;
  if (residual)
    residual += int64_t{chunk.n} * (k.p.h + 2 * k.p.rpad) * residual_wide * channels + chunk.channel;
  T* y = static_cast<T*>(k.p.y) + int64_t{chunk.n} * k.result_pixels * channels + chunk.channel;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (i >= valid) break;
    const int from = begin + chunk.pixel + i * Mine::kPixels, row = from / k.p.w, column = from - row * k.p.w;
    const int64_t beside = int64_t{row + k.p.rpad} * residual_wide + column + k.p.rpad;
    const Vector<T, V> out = normalised<T, V>(held[i], residual ? residual + beside * channels : nullptr,
                                              maps + (chunk.channel - chunk.first), 1, k.p.act);
    write_everywhere(k.p, row, column,
                     [&](int to) { *reinterpret_cast<Vector<T, V>*>(y + to * channels) = out; });
  }
  if constexpr (kCluster) wait_for_cluster();
}

// Block: split blockIdx.x % splits of plane blockIdx.x / splits. V > 1 only where nothing is padded or cut.
template <class T, int V, int kRows, bool kCluster>
__global__ void __launch_bounds__(kThreads, 1) resident_planes(Launch k) {
  if constexpr (kCluster && !kHasClusters) return __trap();
  __shared__ Counted scratch[kWarps];
  __shared__ Affine map;
  const int block = blockIdx.x % k.splits.count, plane = blockIdx.x / k.splits.count;
  const int begin = block * k.splits.length, end = min(begin + k.splits.length, k.pixels);
  const T* x = static_cast<const T*>(k.p.x) + int64_t{plane} * k.pixels;
  Vector<T, V> held[kRows];
  float values[kRows * V];
  int rows = 0;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int from = begin + (i * kThreads + static_cast<int>(threadIdx.x)) * V;
    if (from < end) {
      held[i] = *reinterpret_cast<const Vector<T, V>*>(x + from);
      ++rows;
    }
#pragma unroll
    for (int j = 0; j < V; ++j) values[i * V + j] = from < end ? to_float(held[i].at[j]) : 0.0f;
  }
  Counted mine{};
  add_tile(mine, values, rows * V);
  const Counted all = block_merge<1>(mine, scratch);
  exchange<1, kCluster>(k, all, plane / k.p.c, plane % k.p.c, block, &map);

  const T* residual = static_cast<const T*>(k.p.residual);
  const int residual_wide = k.p.w + 2 * k.p.rpad;
  if (residual) residual += int64_t{plane} * (k.p.h + 2 * k.p.rpad) * residual_wide;
  T* y = static_cast<T*>(k.p.y) + int64_t{plane} * k.result_pixels;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (i >= rows) break;
    const int from = begin + (i * kThreads + static_cast<int>(threadIdx.x)) * V;
    if constexpr (V > 1) {
      *reinterpret_cast<Vector<T, V>*>(y + from) =
          normalised<T, V>(held[i], residual ? residual + from : nullptr, &map, 0, k.p.act);
    } else {
      const int row = from / k.p.w, column = from - row * k.p.w;
      const int beside = (row + k.p.rpad) * residual_wide + column + k.p.rpad;
      const T out = normalised<T, 1>(held[i], residual ? residual + beside : nullptr, &map, 0, k.p.act).at[0];
      write_everywhere(k.p, row, column, [&](int to) { y[to] = out; });
    }
  }
  if constexpr (kCluster) wait_for_cluster();
}

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

// One kernel, the tile it holds, and what is known of it on each device.
struct Form {
  void (*kernel)(Launch);
  int tile;        // pixels a block holds
  int64_t chunks;  // blocks there are for each split: n times planes or chunks of channels
  int (*blocks_per_processor)(int device);
  bool (*cluster_fits)(int device, int cluster);
};

cudaLaunchAttribute attribute_of(NormActMode mode, int cluster) {
  cudaLaunchAttribute attribute{};
  if (mode == NormActMode::kCluster) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = cluster;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  } else {
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
  }
  return attribute;
}

cudaLaunchConfig_t config_of(int64_t blocks, cudaLaunchAttribute* attribute, Stream stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks_of(blocks));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  config.attrs = attribute;
  config.numAttrs = 1;
  return config;
}

using Answers = std::array<std::atomic<int>, kMostDevices>;  // the answer + 1; 0: not asked yet

template <class Ask>
int asked_once(std::atomic<int>& known, const Ask& ask) {
  int answer = known.load(std::memory_order_relaxed);
  if (answer == 0) known.store(answer = ask() + 1, std::memory_order_relaxed);
  return answer - 1;
}

template <auto kKernel>
int blocks_per_processor(int device) {
  static Answers known{};
  return asked_once(known[device], [] {
    int blocks = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kKernel, kThreads, 0), "norm_act");
    return blocks;
  });
}

template <auto kKernel>
bool cluster_fits(int device, int cluster) {
  if (cluster <= kPortableCluster) return true;
  static Answers known{};  // of the largest; nothing lies between
  return asked_once(known[device], [cluster] {
           int clusters = 0;
           cudaLaunchAttribute attribute = attribute_of(NormActMode::kCluster, cluster);
           const cudaLaunchConfig_t config = config_of(cluster, &attribute, nullptr);
           const bool known_size =
               cudaFuncSetAttribute(kKernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) ==
                   cudaSuccess &&
               cudaOccupancyMaxActiveClusters(&clusters, kKernel, &config) == cudaSuccess;
           if (!known_size) cudaGetLastError();  // or the next launch would be blamed
           return known_size && clusters > 0 ? 1 : 0;
         }) != 0;
}

template <auto kKernel>
Form form_of(int tile, int64_t chunks) {
  return {kKernel, tile, chunks, blocks_per_processor<kKernel>, cluster_fits<kKernel>};
}

template <class T, int V, int kVectors, int kRows, bool kCluster>
Form pixels_form(const NormActProblem& p) {
  using Mine = Chunk<V, kVectors>;
  return form_of<resident_pixels<T, V, kVectors, kRows, kCluster>>(
      Mine::kPixels * kRows, int64_t{p.n} * ((p.c + Mine::kOwned - 1) / Mine::kOwned));
}

template <class T, int V, int kRows, bool kCluster>
Form planes_form(const NormActProblem& p) {
  return form_of<resident_planes<T, V, kRows, kCluster>>(kThreads * V * kRows, int64_t{p.n} * p.c);
}

// The kernels that take the shape, widest access first.
template <class T, bool kCluster>
std::vector<Form> forms_of(const Launch& k) {
  constexpr int V = kWide<T>;
  const NormActProblem& p = k.p;
  const bool aligned = is_aligned(p.x) && is_aligned(p.y) && is_aligned(p.residual);
  if (p.layout == Layout::kNhwc) {
    if (!aligned || p.c % V != 0) return {};
    return {pixels_form<T, V, 2, 4, kCluster>(p), pixels_form<T, V, 2, 16, kCluster>(p),
            pixels_form<T, V, 1, 16, kCluster>(p)};
  }
  if (aligned && p.pad == 0 && p.rpad == 0 && k.pixels % V == 0)
    return {planes_form<T, V, 16 / V, kCluster>(p), planes_form<T, V, 64 / V, kCluster>(p)};
  return {planes_form<T, 1, 4, kCluster>(p), planes_form<T, 1, 16, kCluster>(p)};
}

// The fewest splits whose tiles hold a plane, then more while there are idle processors and work for them.
// Powers of two, for these are the sizes of clusters.
int splits_wanted(const Form& form, int pixels, int processors, int most) {
  int64_t splits = 1;
  while (splits * form.tile < pixels) splits *= 2;
  while (2 * splits <= most && form.chunks * splits * 2 <= processors && pixels / (2 * splits) >= kWorthBlock)
    splits *= 2;
  return splits <= std::numeric_limits<int>::max() / 2 ? static_cast<int>(splits)
                                                       : std::numeric_limits<int>::max();
}

}  // namespace

bool norm_act_one_kernel(const Launch& given, NormActMode mode, Stream stream) {
  const bool cluster = mode == NormActMode::kCluster;
  const int device = current_device();
  const Limits& limits = limits_of(device);
  if (cluster ? given.p.rho != nullptr || limits.capability < 90 : !limits.cooperative) return false;
  std::vector<Form> forms;
  dispatch(given.p.dtype, [&](auto element) {
    using T = decltype(element);
    forms = cluster ? forms_of<T, true>(given) : forms_of<T, false>(given);
  });

  const Form* best = nullptr;
  int best_splits = 0;
  int64_t best_busy = 0;
  for (const Form& form : forms) {
    const int splits = splits_wanted(form, given.pixels, limits.processors, kPortableCluster);
    const bool fits =
        cluster ? splits <= kLargestCluster && form.cluster_fits(device, splits)
                : splits <= kMostSplits &&
                      form.chunks * splits <= int64_t{limits.processors} * form.blocks_per_processor(device);
    const int64_t busy = std::min<int64_t>(form.chunks * splits, limits.processors);
    if (fits && busy > best_busy) best = &form, best_splits = splits, best_busy = busy;
  }
  if (best == nullptr) return false;

  Launch k = given;
  k.splits.count = best_splits;
  k.splits.length = ((k.pixels + best_splits - 1) / best_splits + 7) / 8 * 8;
  cudaLaunchAttribute attribute = attribute_of(mode, best_splits);
  const cudaLaunchConfig_t config = config_of(best->chunks * best_splits, &attribute, stream);
  check(cudaLaunchKernelEx(&config, best->kernel, k), "norm_act");
  return true;
}

}  // namespace gantrt
