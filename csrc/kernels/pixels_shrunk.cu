// Frames to smaller tensors by the mean over areas, reading every byte of the frame. A block makes some
// pixels of one row of the tensor: it sums down, eight bytes of the frame's row a thread, and then across.
// The shares of an area are whole numbers, so all sums are exact.
#include "pixels_cuda.cuh"

namespace gantrt {
namespace {

constexpr int kWord = 8;  // bytes a thread reads of a row
constexpr int kBlockBytes = kThreads * kWord;
constexpr int kRowsAtOnce = 4;                // loads of a thread that are on their way together
constexpr int kPixelsOfBlock = kThreads - 1;  // of a block; the last thread asks for the rows
// Frame pixels a side of a tensor's pixel, at most: sums of two bytes then fit 16 bits each, and sums of such
// columns 32.
constexpr int kMostRatio = 256;

struct Word {
  uint32_t low, high;
};

__device__ __forceinline__ Word word_at(const uint8_t* at) {
  const uint2 both = *reinterpret_cast<const uint2*>(at);
  return {both.x, both.y};
}

// Column sums of four bytes: shares of the first row's, the last's, and of the sums between, of bytes 0 and 2
// in the halves of one register and of 1 and 3 in another's.
__device__ __forceinline__ Vector<uint32_t, 4> columns_of(uint32_t first, uint32_t evens, uint32_t odds,
                                                          uint32_t last, uint32_t head, uint32_t unit,
                                                          uint32_t tail) {
  Vector<uint32_t, 4> sums;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t pair = i % 2 ? odds : evens;
    const uint32_t between = i < 2 ? pair & 0xffffu : pair >> 16;
    sums.at[i] = head * (first >> 8 * i & 0xffu) + unit * between + tail * (last >> 8 * i & 0xffu);
  }
  return sums;
}

template <class T, int kChannels>
__global__ void __launch_bounds__(kThreads, 4) shrink(PixelProblem p, int pixels) {
  __shared__ Vector<uint32_t, 4> columns[kBlockBytes / 4];
  __shared__ Area rows;
  __shared__ int ends[2];
  const int thread = static_cast<int>(threadIdx.x), y = static_cast<int>(blockIdx.y);
  const int width = p.planes.width - 2 * p.border, height = p.planes.height - 2 * p.border;
  const int begin = static_cast<int>(blockIdx.x) * pixels, count = min(pixels, width - begin);
  const bool of_rows = thread == kThreads - 1;
  const Area mine = area_of(of_rows ? reflect(y - p.border, height) : begin + min(thread, count - 1),
                            of_rows ? p.frame.height : p.frame.width, of_rows ? height : width);
  if (of_rows) rows = mine;
  if (thread == 0) ends[0] = mine.first;
  if (thread == count - 1) ends[1] = mine.last;
  __syncthreads();

  const int first_byte = ends[0] * kChannels / kWord * kWord;
  const int at = first_byte + thread * kWord;
  if (at < (ends[1] + 1) * kChannels) {
    const uint8_t* row = p.frame.data + rows.first * p.frame.row + at;
    const Word first = word_at(row);
    const Word last = word_at(row + (rows.last - rows.first) * p.frame.row);
    uint32_t low_even = 0, low_odd = 0, high_even = 0, high_odd = 0;
#pragma unroll 1
    for (int left = rows.last - rows.first - 1; left > 0; left -= kRowsAtOnce) {
      Word words[kRowsAtOnce];
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) {  // what lies beyond is the last row's, and counts nothing
        if (i <= left) row += p.frame.row;
        words[i] = word_at(row);
      }
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) {
        const uint32_t counts = i < left ? 0x00ff00ffu : 0u;
        low_even += words[i].low & counts;
        low_odd += words[i].low >> 8 & counts;
        high_even += words[i].high & counts;
        high_odd += words[i].high >> 8 & counts;
      }
    }
    const uint32_t head = rows.head, tail = rows.tail, unit = height;
    columns[2 * thread] = columns_of(first.low, low_even, low_odd, last.low, head, unit, tail);
    columns[2 * thread + 1] = columns_of(first.high, high_even, high_odd, last.high, head, unit, tail);
  }
  __syncthreads();

  if (thread >= count) return;
  const uint32_t* column = columns[0].at + (mine.first * kChannels - first_byte);
  const int beyond = (mine.last - mine.first) * kChannels;
  uint32_t between[kChannels] = {};
#pragma unroll 4
  for (int i = kChannels; i < beyond; i += kChannels)
#pragma unroll
    for (int c = 0; c < kChannels; ++c) between[c] += column[i + c];
  const float head = static_cast<float>(mine.head), tail = static_cast<float>(mine.tail);
  const float unit = static_cast<float>(width);
  const float share = 1.0f / (static_cast<float>(p.frame.width) * static_cast<float>(p.frame.height));
  float mean[3] = {};
#pragma unroll
  for (int c = 0; c < kChannels; ++c)
    mean[c] = share * (head * static_cast<float>(column[c]) + unit * static_cast<float>(between[c]) +
                       tail * static_cast<float>(column[beyond + c]));
  // Where it lies, and where it is reflected to.
  const int x = begin + thread;
  T* out = static_cast<T*>(p.planes.data) + y * p.planes.row + p.border * p.planes.pixel;
  write_pixel(p, mean, out + x * p.planes.pixel);
  if (x > 0 && x <= p.border) write_pixel(p, mean, out - x * p.planes.pixel);
  const int mirrored = 2 * (width - 1) - x;
  if (x < width - 1 && mirrored < width + p.border) write_pixel(p, mean, out + mirrored * p.planes.pixel);
}

}  // namespace

bool shrunk_to_tensor(const PixelProblem& p, Stream stream) {
  const int width = p.planes.width - 2 * p.border, height = p.planes.height - 2 * p.border;
  const int channels = p.frame.channels;
  const int64_t row_bytes = int64_t{p.frame.width} * channels;
  const bool words = reinterpret_cast<uintptr_t>(p.frame.data) % kWord == 0 && p.frame.row % kWord == 0 &&
                     row_bytes % kWord == 0;
  if (p.rows != Filter::kArea || p.columns != Filter::kArea || p.frame.pixel != channels || !words ||
      p.frame.height > int64_t{height} * kMostRatio || p.frame.width > int64_t{width} * kMostRatio)
    return false;
  // The frame under n pixels begins and ends within words.
  const auto bytes_under = [&](int64_t n) {
    return ((n * p.frame.width + width - 1) / width + 1) * channels + 2 * (kWord - 1);
  };
  int pixels = std::min(width, kPixelsOfBlock);
  while (bytes_under(pixels) > kBlockBytes) --pixels;
  const int blocks = (width + pixels - 1) / pixels;
  pixels = (width + blocks - 1) / blocks;
  dispatch(p.planes.dtype, [&](auto element) {
    using T = decltype(element);
    launch("frame_to_tensor", channels == 1 ? shrink<T, 1> : shrink<T, 3>, dim3(blocks, p.planes.height),
           dim3(kThreads), stream, p, pixels);
  });
  return true;
}

}  // namespace gantrt
