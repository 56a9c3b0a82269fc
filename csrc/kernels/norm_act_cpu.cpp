// NormAct on the CPU: statistics in tiles that stay in cache, merged in a fixed order, then one affine map
// per channel. The tiles depend on the shape alone, so the bits do not depend on the number of threads.
#include <algorithm>
#include <cstring>
#include <vector>

#include "isa.h"
#include "moments.h"
#include "norm_act.h"
#include "parallel.h"

namespace gantrt {
namespace {

// Sixteen lanes: one AVX-512 register, two of AVX2, four of SSE or NEON. The sums have the same order on all.
constexpr int kLanes = 16;
typedef float Pack __attribute__((vector_size(kLanes * sizeof(float))));

constexpr int64_t kPlaneTile = 8192;       // floats of a plane: 32 KiB, read twice
constexpr int64_t kPixelTile = 32768;      // floats of an NHWC picture: 128 KiB, and
constexpr int64_t kMostTilePixels = 1024;  // few enough that a float sums them well

GANTRT_INLINE inline Pack load(const float* p) {
  Pack pack;
  std::memcpy(&pack, p, sizeof(pack));
  return pack;
}

GANTRT_INLINE inline float sum_of(const Pack& pack) {
  float sum = 0.0f;
  for (int lane = 0; lane < kLanes; ++lane) sum += pack[lane];
  return sum;
}

// Moments of x[0..count), in two sweeps: the first finds an anchor near the mean, the second sums about it.
GANTRT_INLINE inline Moments tile_moments(const float* x, int64_t count) {
  const int64_t even = count - count % (2 * kLanes);
  Pack s0{}, s1{};
  for (int64_t i = 0; i < even; i += 2 * kLanes) {
    s0 += load(x + i);
    s1 += load(x + i + kLanes);
  }
  float sum = sum_of(s0 + s1);
  for (int64_t i = even; i < count; ++i) sum += x[i];
  const float anchor = sum / static_cast<float>(count);

  Pack q0{}, q1{};
  s0 = s1 = Pack{};
  for (int64_t i = 0; i < even; i += 2 * kLanes) {
    const Pack d0 = load(x + i) - anchor, d1 = load(x + i + kLanes) - anchor;
    s0 += d0;
    s1 += d1;
    q0 += d0 * d0;
    q1 += d1 * d1;
  }
  sum = sum_of(s0 + s1);
  float square = sum_of(q0 + q1);
  for (int64_t i = even; i < count; ++i) {
    const float d = x[i] - anchor;
    sum += d;
    square += d * d;
  }
  return moments_about(anchor, sum, square, static_cast<float>(count));
}

GANTRT_INLINE inline Moments plane_moments(const float* x, int64_t count) {
  Moments all{};
  for (int64_t i = 0; i < count; i += kPlaneTile) {
    const int64_t tile = std::min(kPlaneTile, count - i);
    all = merge(all, static_cast<float>(i), tile_moments(x + i, tile), static_cast<float>(tile));
  }
  return all;
}

// The affine map of plane n * C + c; `layer` are the moments of the whole sample, where rho wants them.
Affine affine_of(const NormActProblem& p, const Moments& channel, const Moments& layer, int64_t plane) {
  const NormRule rule{p.eps, p.unbiased};
  const int64_t n = plane / p.c, c = plane % p.c;
  const float count = static_cast<float>(int64_t{p.h} * p.w);
  const float scale = p.scale ? p.scale[n * p.scale_stride + c] : 1.0f;
  const float shift = p.shift ? p.shift[n * p.shift_stride + c] : 0.0f;
  if (!p.rho) return instance_norm(channel, count, scale, shift, rule);
  return mixed_norm(channel, count, layer, count * static_cast<float>(p.c), p.rho[c], scale, shift, rule);
}

// Moments of a whole sample from those of its channels.
Moments layer_moments(const Moments* channels, const NormActProblem& p) {
  const float count = static_cast<float>(int64_t{p.h} * p.w);
  Moments all{};
  for (int c = 0; c < p.c; ++c) all = merge(all, count * static_cast<float>(c), channels[c], count);
  return all;
}

template <bool kResidual>
GANTRT_INLINE inline void apply_row(const float* x, const float* residual, float* y, int count, Affine affine,
                                    Activation act) {
  for (int i = 0; i < count; ++i) {
    const float v = act(affine(x[i]));
    y[i] = kResidual ? v + residual[i] : v;
  }
}

// One plane of the result: the rows inside, each with its mirrored columns, then the mirrored rows.
GANTRT_INLINE inline void apply_plane(const NormActProblem& p, int64_t plane, Affine affine) {
  const int64_t wide = p.w + 2 * p.pad, residual_wide = p.w + 2 * p.rpad;
  const float* x = static_cast<const float*>(p.x) + plane * p.h * p.w;
  const float* residual = static_cast<const float*>(p.residual);
  if (residual) residual += (plane * (p.h + 2 * p.rpad) + p.rpad) * residual_wide + p.rpad;
  float* y = static_cast<float*>(p.y) + plane * (p.h + 2 * p.pad) * wide + p.pad;
  for (int row = 0; row < p.h; ++row) {
    float* out = y + (row + p.pad) * wide;
    if (residual)
      apply_row<true>(x + int64_t{row} * p.w, residual + row * residual_wide, out, p.w, affine, p.act);
    else
      apply_row<false>(x + int64_t{row} * p.w, nullptr, out, p.w, affine, p.act);
    for (int i = 1; i <= p.pad; ++i) {
      out[-i] = out[i];
      out[p.w - 1 + i] = out[p.w - 1 - i];
    }
  }
  for (int i = 1; i <= p.pad; ++i) {
    float* first = y + p.pad * wide - p.pad;
    float* last = first + (p.h - 1) * wide;
    std::memcpy(first - i * wide, first + i * wide, wide * sizeof(float));
    std::memcpy(last + i * wide, last - i * wide, wide * sizeof(float));
  }
}

// NCHW: a plane is one task, and without rho it is normalised while it is still in cache.
void norm_planes(const NormActProblem& p, int threads) {
  const int64_t planes = int64_t{p.n} * p.c, pixels = int64_t{p.h} * p.w;
  const float* x = static_cast<const float*>(p.x);
  if (!p.rho) {
    parallel_for(planes, threads, [&](int64_t plane) {
      run_on_this_cpu([&]() GANTRT_INLINE {
        const Moments channel = plane_moments(x + plane * pixels, pixels);
        apply_plane(p, plane, affine_of(p, channel, Moments{}, plane));
      });
    });
    return;
  }
  std::vector<Moments> channels(planes), layers(p.n);
  parallel_for(planes, threads, [&](int64_t plane) {
    run_on_this_cpu([&]() GANTRT_INLINE { channels[plane] = plane_moments(x + plane * pixels, pixels); });
  });
  for (int n = 0; n < p.n; ++n) layers[n] = layer_moments(&channels[int64_t{n} * p.c], p);
  parallel_for(planes, threads, [&](int64_t plane) {
    const Affine affine = affine_of(p, channels[plane], layers[plane / p.c], plane);
    run_on_this_cpu([&]() GANTRT_INLINE { apply_plane(p, plane, affine); });
  });
}

// Moments of channels [0, width) of `count` pixels `stride` floats apart.
GANTRT_INLINE inline void narrow_strip_moments(const float* x, int64_t count, int64_t stride, int width,
                                               Moments* out) {
  for (int c = 0; c < width; ++c) {
    float sum = 0.0f, square = 0.0f;
    for (int64_t i = 0; i < count; ++i) sum += x[i * stride + c];
    const float anchor = sum / static_cast<float>(count);
    sum = 0.0f;
    for (int64_t i = 0; i < count; ++i) {
      const float d = x[i * stride + c] - anchor;
      sum += d;
      square += d * d;
    }
    out[c] = moments_about(anchor, sum, square, static_cast<float>(count));
  }
}

// The same for 2 * kLanes channels at once: two sums do not wait for each other.
GANTRT_INLINE inline void wide_strip_moments(const float* x, int64_t count, int64_t stride, Moments* out) {
  Pack s0{}, s1{}, q0{}, q1{};
  for (int64_t i = 0; i < count; ++i) {
    s0 += load(x + i * stride);
    s1 += load(x + i * stride + kLanes);
  }
  const Pack a0 = s0 / static_cast<float>(count), a1 = s1 / static_cast<float>(count);
  s0 = s1 = Pack{};
  for (int64_t i = 0; i < count; ++i) {
    const Pack d0 = load(x + i * stride) - a0, d1 = load(x + i * stride + kLanes) - a1;
    s0 += d0;
    s1 += d1;
    q0 += d0 * d0;
    q1 += d1 * d1;
  }
  for (int c = 0; c < kLanes; ++c) {
    out[c] = moments_about(a0[c], s0[c], q0[c], static_cast<float>(count));
    out[c + kLanes] = moments_about(a1[c], s1[c], q1[c], static_cast<float>(count));
  }
}

// Moments of every plane, [n * c], from tiles of pixels that stay in cache.
std::vector<Moments> pixel_moments(const NormActProblem& p, int threads) {
  const int64_t pixels = int64_t{p.h} * p.w, channels = p.c;
  const int64_t tile = std::clamp<int64_t>(kPixelTile / channels, 1, kMostTilePixels),
                tiles = (pixels + tile - 1) / tile;
  const float* x = static_cast<const float*>(p.x);
  std::vector<Moments> partial(p.n * tiles * channels);
  parallel_for(p.n * tiles, threads, [&](int64_t task) {
    const int64_t begin = task % tiles * tile, count = std::min(tile, pixels - begin);
    const float* from = x + (task / tiles * pixels + begin) * channels;
    Moments* out = &partial[task * channels];
    run_on_this_cpu([&]() GANTRT_INLINE {
      int64_t c = 0;
      for (; c + 2 * kLanes <= channels; c += 2 * kLanes)
        wide_strip_moments(from + c, count, channels, out + c);
      narrow_strip_moments(from + c, count, channels, static_cast<int>(channels - c), out + c);
    });
  });
  std::vector<Moments> merged(p.n * channels);
  for (int64_t plane = 0; plane < p.n * channels; ++plane) {
    const Moments* first = &partial[plane / channels * tiles * channels + plane % channels];
    for (int64_t t = 0; t < tiles; ++t)
      merged[plane] = merge(merged[plane], static_cast<float>(t * tile), first[t * channels],
                            static_cast<float>(std::min(tile, pixels - t * tile)));
  }
  return merged;
}

// The affine maps of all planes, as rows of floats: in NHWC the inner loop runs over channels.
struct Maps {
  explicit Maps(int64_t planes) : anchor(planes), gain(planes), offset(planes) {}
  std::vector<float> anchor, gain, offset;
};

// One pixel row of the result, with its mirrored columns; `at` is the sample's first channel in the maps.
GANTRT_INLINE inline void apply_pixel_row(const NormActProblem& p, const float* x, const float* residual,
                                          const Maps& maps, int64_t at, float* y) {
  const int64_t channels = p.c;
  const float *anchor = &maps.anchor[at], *gain = &maps.gain[at], *offset = &maps.offset[at];
  for (int i = 0; i < p.w; ++i) {
    const float* in = x + i * channels;
    float* out = y + (i + p.pad) * channels;
    if (residual) {
      const float* add = residual + i * channels;
      for (int64_t c = 0; c < channels; ++c)
        out[c] = p.act(Affine{anchor[c], gain[c], offset[c]}(in[c])) + add[c];
    } else {
      for (int64_t c = 0; c < channels; ++c) out[c] = p.act(Affine{anchor[c], gain[c], offset[c]}(in[c]));
    }
  }
  for (int i = 1; i <= p.pad; ++i) {
    const size_t bytes = channels * sizeof(float);
    std::memcpy(y + (p.pad - i) * channels, y + (p.pad + i) * channels, bytes);
    std::memcpy(y + (p.pad + p.w - 1 + i) * channels, y + (p.pad + p.w - 1 - i) * channels, bytes);
  }
}

// NHWC: moments of tiles of pixels, then row after row; a mirrored row is computed anew from the row it
// shows.
void norm_pixels(const NormActProblem& p, int threads) {
  const std::vector<Moments> moments = pixel_moments(p, threads);
  Maps maps(int64_t{p.n} * p.c);
  Moments layer{};
  for (int64_t plane = 0; plane < int64_t{p.n} * p.c; ++plane) {
    if (plane % p.c == 0) layer = p.rho ? layer_moments(&moments[plane], p) : Moments{};
    const Affine affine = affine_of(p, moments[plane], layer, plane);
    maps.anchor[plane] = affine.anchor;
    maps.gain[plane] = affine.gain;
    maps.offset[plane] = affine.offset;
  }
  const int64_t high = p.h + 2 * p.pad, wide = p.w + 2 * p.pad, channels = p.c;
  const int64_t residual_high = p.h + 2 * p.rpad, residual_wide = p.w + 2 * p.rpad;
  parallel_for(p.n * high, threads, [&](int64_t task) {
    const int64_t n = task / high, row = reflect(static_cast<int>(task % high) - p.pad, p.h);
    const float* x = static_cast<const float*>(p.x) + (n * p.h + row) * p.w * channels;
    const float* residual = static_cast<const float*>(p.residual);
    if (residual) residual += ((n * residual_high + row + p.rpad) * residual_wide + p.rpad) * channels;
    float* y = static_cast<float*>(p.y) + task * wide * channels;
    run_on_this_cpu([&]() GANTRT_INLINE { apply_pixel_row(p, x, residual, maps, n * channels, y); });
  });
}

}  // namespace

void norm_act_cpu(const NormActProblem& p, int threads) {
  const int worth = threads_for(threads, 8 * int64_t{p.n} * p.c * p.h * p.w);
  if (p.layout == Layout::kNchw)
    norm_planes(p, worth);
  else
    norm_pixels(p, worth);
}

}  // namespace gantrt
