// Frames and tensors on CUDA where no faster form takes them: one thread per tensor pixel one way, per four
// frame pixels the other. Each computes its own taps, from the same integers as the CPU.
#include "pixels_cuda.cuh"

namespace gantrt {
namespace {

constexpr int kBlockWidth = 32, kBlockHeight = 8;
constexpr int kFramePixels = 4;  // a thread writes: 12 bytes of colour are three words

dim3 grid_of(int width, int height) {
  return dim3((width + kBlockWidth - 1) / kBlockWidth, (height + kBlockHeight - 1) / kBlockHeight);
}

// The weight of tap k, first <= k <= last.
__device__ __forceinline__ float weight_of(const Taps& t, int k) {
  return k == t.first ? t.first_weight : k == t.last ? t.last_weight : t.inner_weight;
}

template <class T>
__global__ void __launch_bounds__(kBlockWidth* kBlockHeight) to_tensor(PixelProblem p) {
  const int x = blockIdx.x * kBlockWidth + threadIdx.x, y = blockIdx.y * kBlockHeight + threadIdx.y;
  if (x >= p.planes.width || y >= p.planes.height) return;
  const int width = p.planes.width - 2 * p.border, height = p.planes.height - 2 * p.border;
  const Taps rows = taps(p.rows, reflect(y - p.border, height), p.frame.height, height);
  const Taps columns = taps(p.columns, reflect(x - p.border, width), p.frame.width, width);
  float sum[3] = {0.0f, 0.0f, 0.0f};
  for (int i = rows.first; i <= rows.last; ++i) {
    const uint8_t* row = p.frame.data + i * p.frame.row;
    float across[3] = {0.0f, 0.0f, 0.0f};
    for (int j = columns.first; j <= columns.last; ++j) {
      const float weight = weight_of(columns, j);
      const uint8_t* pixel = row + j * p.frame.pixel;
#pragma unroll
      for (int c = 0; c < 3; ++c)
        if (c < p.frame.channels) across[c] += weight * static_cast<float>(pixel[c]);
    }
    const float weight = weight_of(rows, i);
#pragma unroll
    for (int c = 0; c < 3; ++c) sum[c] += weight * across[c];
  }
  write_pixel(p, sum, static_cast<T*>(p.planes.data) + y * p.planes.row + x * p.planes.pixel);
}

// Plane c of the tensor, filtered at one frame pixel.
template <class T, bool kTanh>
__device__ __forceinline__ float sample(const PixelProblem& p, const Taps& rows, const Taps& columns, int c) {
  const T* plane = static_cast<const T*>(p.planes.data) + c * p.planes.plane;
  float sum = 0.0f;
  for (int i = rows.first; i <= rows.last; ++i) {
    const float row_weight = weight_of(rows, i);
    const T* at = plane + i * p.planes.row + columns.first * p.planes.pixel;
    for (int j = columns.first; j <= columns.last; ++j, at += p.planes.pixel)
      sum += row_weight * weight_of(columns, j) * (kTanh ? tanhf(to_float(*at)) : to_float(*at));
  }
  return bounded(sum * p.scale + p.offset);
}

template <class T, bool kTanh>
__global__ void __launch_bounds__(kBlockWidth* kBlockHeight, 4) to_frame(PixelProblem p) {
  const int x = (blockIdx.x * kBlockWidth + threadIdx.x) * kFramePixels;
  const int y = blockIdx.y * kBlockHeight + threadIdx.y;
  if (x >= p.frame.width || y >= p.frame.height) return;
  const Taps rows = taps(p.rows, y, p.planes.height, p.frame.height);
  const int count = min(kFramePixels, p.frame.width - x);
  alignas(4) uint8_t bytes[3 * kFramePixels] = {};
#pragma unroll
  for (int i = 0; i < kFramePixels; ++i) {
    const Taps columns = taps(p.columns, min(x + i, p.frame.width - 1), p.planes.width, p.frame.width);
    const float red = sample<T, kTanh>(p, rows, columns, 0);
    float green = red, blue = red;
    if (p.planes.channels == 3) {
      green = sample<T, kTanh>(p, rows, columns, 1);
      blue = sample<T, kTanh>(p, rows, columns, 2);
    }
    if (p.frame.channels == 1) {
      bytes[i] = quantise(p.planes.channels == 3 ? luma(red, green, blue) : red);
    } else {
      bytes[3 * i] = quantise(p.frame.red == 0 ? red : blue);
      bytes[3 * i + 1] = quantise(green);
      bytes[3 * i + 2] = quantise(p.frame.red == 0 ? blue : red);
    }
  }
  uint8_t* out = p.frame.data + y * p.frame.row + int64_t{x} * p.frame.channels;
  if (count == kFramePixels && reinterpret_cast<uintptr_t>(out) % 4 == 0) {
#pragma unroll
    for (int word = 0; word < 3; ++word)
      if (word < p.frame.channels)
        reinterpret_cast<uint32_t*>(out)[word] = reinterpret_cast<const uint32_t*>(bytes)[word];
    return;
  }
#pragma unroll
  for (int i = 0; i < 3 * kFramePixels; ++i)
    if (i < count * p.frame.channels) out[i] = bytes[i];
}

}  // namespace

void frame_to_tensor_cuda(const PixelProblem& p, Stream stream) {
  if (shrunk_to_tensor(p, stream)) return;
  dispatch(p.planes.dtype, [&](auto element) {
    launch("frame_to_tensor", to_tensor<decltype(element)>, grid_of(p.planes.width, p.planes.height),
           dim3(kBlockWidth, kBlockHeight), stream, p);
  });
}

void tensor_to_frame_cuda(const PixelProblem& p, Stream stream) {
  if (enlarged_to_frame(p, stream)) return;
  const int threads_wide = (p.frame.width + kFramePixels - 1) / kFramePixels;
  dispatch(p.planes.dtype, [&](auto element) {
    using T = decltype(element);
    launch("tensor_to_frame", p.tanh ? to_frame<T, true> : to_frame<T, false>,
           grid_of(threads_wide, p.frame.height), dim3(kBlockWidth, kBlockHeight), stream, p);
  });
}

}  // namespace gantrt
