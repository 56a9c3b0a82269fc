// Tensors to frames that are no smaller, the usual way out of a network: bilinear in two steps. A block makes
// a tile of the frame. It reads the few tensor pixels under it, each once; interpolates across, to the tile's
// width; and then down, where each warp keeps the two rows between which it is in registers.
#include "pixels_cuda.cuh"

namespace gantrt {
namespace {

constexpr int kWordsApart = 4 * kWarp;  // bytes a warp writes at once of a row: a word a thread
constexpr int kWords = kThreads / kWordsApart;
constexpr int kTileBytes = kThreads;  // of a frame's row: across, each thread makes one
constexpr int kMostRows = 8;          // of the frame a warp makes
constexpr int kMostSourceRows = 18;
constexpr int kMostPatch = 2432;  // values of the tensor under a tile
constexpr int kEnoughBlocks = 256;
constexpr int kRowsRead = (kMostSourceRows + kWarps - 1) / kWarps;  // of the tensor, by a warp
static_assert(kWords * kWordsApart == kTileBytes, "a warp writes whole rows of a tile");

// Source pixels of a line that `count` neighbours of the enlarged line lie between, at most.
int under(int count, int source, int target) {
  const int64_t steps = (int64_t{count - 1} * source + target - 1) / target;
  return static_cast<int>(std::min<int64_t>(steps + 2, source));
}

int pixels_of_tile(int channels) { return channels == 1 ? kTileBytes : kTileBytes / 3 + 1; }

// One pixel of an enlarged line: (1 - weight) * source[first] + weight * source[second]. Where there is one
// tap it is taken twice, half each: what lies beside it, a NaN perhaps, is then no part of the pixel.
struct alignas(16) Between {
  int first, second;
  float weight;
};

__device__ __forceinline__ Between between(int i, int source, int target) {
  const Taps t = bilinear_taps(i, source, target);
  return {t.first, t.last, t.first == t.last ? 0.5f : t.last_weight};
}

__device__ __forceinline__ float mixed(float first, float second, float weight) {
  return first * (1.0f - weight) + second * weight;
}

// Values on their way are (v + 1) / 256, v being what is to become a byte: a saturated addition then ends at
// 255, which is 1, and makes a NaN 0.
__device__ __forceinline__ float saturated_mix(float first, float second, float weight) {
  return __saturatef(fmaf(second, weight, first * (1.0f - weight)));
}

// The byte of such a value. In units of the smallest float there is, 2^-149, a float is a whole number and
// its bits are that number: one multiplication rounds, ties to even, and saturation ends it at 0.
__device__ __forceinline__ uint32_t byte_of(float v) {
  return __float_as_uint(__saturatef(fmaf(v, 0x1p-141f, -0x1p-149f)));
}

template <class T, bool kTanh>
__device__ __forceinline__ float read(const T* at) {
  const float v = to_float(*at);
  return kTanh ? tanhf(v) : v;
}

// kChannels: of the frame.
template <class T, int kChannels, bool kTanh>
__global__ void __launch_bounds__(kThreads, 4) enlarge(PixelProblem p, int rows_of_warp) {
  __shared__ float patch[kMostPatch];  // the tensor under the tile, the frame's channels side by side
  alignas(16) __shared__ float across[kMostSourceRows * kTileBytes];
  __shared__ Between down[kMostRows * kWarps];
  __shared__ int columns[2];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const int row_bytes = p.frame.width * kChannels;
  const int tile = static_cast<int>(blockIdx.x) * kTileBytes;
  const int top = static_cast<int>(blockIdx.y) * rows_of_warp * kWarps;
  const int tile_rows = min(rows_of_warp * kWarps, p.frame.height - top);
  const int tile_bytes = min(kTileBytes, row_bytes - tile);

  const int byte = tile + min(thread, tile_bytes - 1);  // the threads beyond the row repeat its last
  const Between mine = between(byte / kChannels, p.planes.width, p.frame.width);
  if (thread == 0) columns[0] = mine.first;
  if (thread == kThreads - 1) columns[1] = mine.second;
  if (thread < tile_rows) down[thread] = between(top + thread, p.planes.height, p.frame.height);
  __syncthreads();

  const int first_column = columns[0], first_row = down[0].first;
  const int width = (columns[1] - first_column + 1) * kChannels;
  const int source_rows = down[tile_rows - 1].second - first_row + 1;
  const float scale = p.scale * 0x1p-8f, offset = (p.offset + 1.0f) * 0x1p-8f;
  const bool gray = p.planes.channels == 1;
  const int64_t plane = p.planes.plane, apart = kWarps * p.planes.row;  // of the rows that a warp reads
  const T* source = static_cast<const T*>(p.planes.data) + (first_row + warp) * p.planes.row;
  for (int i = lane; i < width; i += kWarp) {
    const int c = i % kChannels;
    const T* at = source + (first_column + i / kChannels) * p.planes.pixel;
    if (kChannels == 3 && !gray) at += (p.frame.red == 0 ? c : 2 - c) * plane;
    float values[kRowsRead];
#pragma unroll
    for (int k = 0; k < kRowsRead; ++k, at += apart) {
      values[k] = 0.0f;
      if (warp + k * kWarps >= source_rows) continue;
      values[k] = read<T, kTanh>(at);
      if (kChannels == 1 && !gray)
        values[k] = luma(values[k], read<T, kTanh>(at + plane), read<T, kTanh>(at + 2 * plane));
    }
    float* to = patch + warp * width + i;
#pragma unroll
    for (int k = 0; k < kRowsRead; ++k, to += kWarps * width)
      if (warp + k * kWarps < source_rows) *to = fmaf(values[k], scale, offset);
  }
  __syncthreads();

  const float* left = patch + (mine.first - first_column) * kChannels + byte % kChannels;
  const float* right = left + (mine.second - mine.first) * kChannels;
  float* to = across + thread;
#pragma unroll 4
  for (int row = 0; row < source_rows; ++row, left += width, right += width, to += kTileBytes)
    *to = mixed(*left, *right, mine.weight);
  __syncthreads();

  // What a thread writes are whole words of the row, or nothing; else bytes.
  const bool words = (reinterpret_cast<uintptr_t>(p.frame.data) | p.frame.row | row_bytes) % 4 == 0;
  const int begin = warp * rows_of_warp, end = min(begin + rows_of_warp, tile_rows);
  uint8_t* out = p.frame.data + (top + begin) * p.frame.row + tile + 4 * lane;
  Vector<float, 4> above[kWords], below[kWords];
  int first = -1, second = -1;
  for (int row = begin; row < end; ++row, out += p.frame.row) {
    const Between rows = down[row];
    if (rows.first != first || rows.second != second) {
      first = rows.first;
      second = rows.second;
#pragma unroll
      for (int word = 0; word < kWords; ++word) {
        const float* at = across + word * kWordsApart + 4 * lane;
        above[word] = *reinterpret_cast<const Vector<float, 4>*>(at + (first - first_row) * kTileBytes);
        below[word] = *reinterpret_cast<const Vector<float, 4>*>(at + (second - first_row) * kTileBytes);
      }
    }
#pragma unroll
    for (int word = 0; word < kWords; ++word) {
      uint32_t bytes[4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        bytes[i] = byte_of(saturated_mix(above[word].at[i], below[word].at[i], rows.weight));
      uint8_t* at = out + word * kWordsApart;
      const int rest = tile_bytes - word * kWordsApart - 4 * lane;  // bytes of the row from here on
      if (words) {
        if (rest > 0)
          *reinterpret_cast<uint32_t*>(at) =
              bytes[0] + (bytes[1] << 8) + ((bytes[2] + (bytes[3] << 8)) << 16);
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (i < rest) at[i] = static_cast<uint8_t>(bytes[i]);
      }
    }
  }
}

}  // namespace

bool enlarged_to_frame(const PixelProblem& p, Stream stream) {
  if (p.rows != Filter::kBilinear || p.columns != Filter::kBilinear || p.frame.height < p.planes.height ||
      p.frame.width < p.planes.width)
    return false;
  const int channels = p.frame.channels;
  const int tiles = (p.frame.width * channels + kTileBytes - 1) / kTileBytes;
  const int columns = under(pixels_of_tile(channels), p.planes.width, p.frame.width);
  const auto blocks_down = [&](int rows) { return (p.frame.height + rows * kWarps - 1) / (rows * kWarps); };
  const auto fits = [&](int rows) {
    const int source_rows = under(rows * kWarps, p.planes.height, p.frame.height);
    return source_rows <= kMostSourceRows && source_rows * columns * channels <= kMostPatch;
  };
  int rows = kMostRows;
  while (rows > 1 && (!fits(rows) || int64_t{tiles} * blocks_down(rows) < kEnoughBlocks)) rows /= 2;
  const auto go = [&](auto kernel) {
    launch("tensor_to_frame", kernel, dim3(tiles, blocks_down(rows)), dim3(kThreads), stream, p, rows);
  };
  dispatch(p.planes.dtype, [&](auto element) {
    using T = decltype(element);
    if (channels == 1)
      go(p.tanh ? enlarge<T, 1, true> : enlarge<T, 1, false>);
    else
      go(p.tanh ? enlarge<T, 3, true> : enlarge<T, 3, false>);
  });
  return true;
}

}  // namespace gantrt
