// NormAct on the CPU: statistics in tiles that stay in cache, merged in a fixed order, then one affine map
// per channel. The tiles depend on the shape alone, so the bits do not depend on the number of threads.
#include <algorithm>
#include <cstring>
#include <vector>

#include "dispatch.h"
#include "isa.h"
#include "moments.h"
#include "norm_act.h"
#include "parallel.h"

namespace gantrt {
namespace {

// Sixteen lanes: one AVX-512 register, two of AVX2, four of SSE or NEON. The sums have the same order on all.
constexpr int kLanes = 16;
typedef float Pack __attribute__((vector_size(kLanes * sizeof(float))));

constexpr int64_t kPlaneTile = 8192;   // floats of a plane: 32 KiB, read twice
constexpr int64_t kPixelTile = 32768;  // floats of an NHWC picture: 128 KiB
constexpr int64_t kRowsPerTask = 16;   // of an NHWC result

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
  Moments all;
  for (int64_t i = 0; i < count; i += kPlaneTile) {
    const int64_t tile = std::min(kPlaneTile, count - i);
    all = merge(all, static_cast<float>(i), tile_moments(x + i, tile), static_cast<float>(tile));
  }
  return all;
}

// The affine map of channel c of sample n; `layer` are the moments of the whole sample, where rho wants them.
Affine affine_of(const NormActProblem& p, const Moments& channel, const Moments& layer, int n, int c) {
  const NormRule rule{p.eps, p.unbiased};
  const float count = static_cast<float>(int64_t{p.h} * p.w);
  const float scale = p.scale ? p.scale[int64_t{n} * p.scale_stride + c] : 1.0f;
  const float shift = p.shift ? p.shift[int64_t{n} * p.shift_stride + c] : 0.0f;
  if (!p.rho) return instance_norm(channel, count, scale, shift, rule);
  return mixed_norm(channel, count, layer, count * static_cast<float>(p.c), p.rho[c], scale, shift, rule);
}

// Moments of a whole sample from those of its channels.
Moments layer_moments(const Moments* channels, const NormActProblem& p) {
  const float count = static_cast<float>(int64_t{p.h} * p.w);
  Moments all;
  for (int c = 0; c < p.c; ++c) all = merge(all, count * static_cast<float>(c), channels[c], count);
  return all;
}

template <class Activation, bool kResidual>
GANTRT_INLINE inline void apply_row(const float* x, const float* residual, float* y, int count, Affine affine,
                                    Activation act) {
  for (int i = 0; i < count; ++i) {
    const float v = act(affine(x[i]));
    y[i] = kResidual ? v + residual[i] : v;
  }
}

// One plane of the result: its rows from the source rows they show, then the mirrored columns.
template <class Activation>
GANTRT_INLINE inline void apply_plane(const NormActProblem& p, int64_t plane, Affine affine, Activation act) {
  const int64_t wide = p.w + 2 * p.pad, residual_wide = p.w + 2 * p.rpad;
  const float* x = static_cast<const float*>(p.x) + plane * p.h * p.w;
  const float* residual = static_cast<const float*>(p.residual);
  if (residual) residual += (plane * (p.h + 2 * p.rpad) + p.rpad) * residual_wide + p.rpad;
  float* y = static_cast<float*>(p.y) + plane * (p.h + 2 * p.pad) * wide + p.pad;
  for (int row = 0; row < p.h; ++row) {
    float* out = y + (row + p.pad) * wide;
    if (residual)
      apply_row<Activation, true>(x + int64_t{row} * p.w, residual + row * residual_wide, out, p.w, affine,
                                  act);
    else
      apply_row<Activation, false>(x + int64_t{row} * p.w, nullptr, out, p.w, affine, act);
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

void norm_planes(const NormActProblem& p, int threads) {
  const int64_t planes = int64_t{p.n} * p.c, pixels = int64_t{p.h} * p.w;
  const float* x = static_cast<const float*>(p.x);
  dispatch(p.act, p.slope, [&](auto act) {
    if (!p.rho) {
      parallel_for(planes, threads, [&](int64_t plane) {
        run_on_this_cpu([&]() GANTRT_INLINE {
          const Moments channel = plane_moments(x + plane * pixels, pixels);
          const int n = static_cast<int>(plane / p.c), c = static_cast<int>(plane % p.c);
          apply_plane(p, plane, affine_of(p, channel, Moments{}, n, c), act);
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
      const int n = static_cast<int>(plane / p.c), c = static_cast<int>(plane % p.c);
      const Affine affine = affine_of(p, channels[plane], layers[n], n, c);
      run_on_this_cpu([&]() GANTRT_INLINE { apply_plane(p, plane, affine, act); });
    });
  });
}

// Moments of channels [0, width), width <= kLanes, of `count` pixels `stride` floats apart.
GANTRT_INLINE inline void strip_moments(const float* x, int64_t count, int64_t stride, int width,
                                        Moments* out) {
  float anchor[kLanes], sum[kLanes] = {}, square[kLanes] = {};
  for (int64_t i = 0; i < count; ++i)
    for (int c = 0; c < width; ++c) sum[c] += x[i * stride + c];
  for (int c = 0; c < width; ++c) anchor[c] = sum[c] / static_cast<float>(count), sum[c] = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    for (int c = 0; c < width; ++c) {
      const float d = x[i * stride + c] - anchor[c];
      sum[c] += d;
      square[c] += d * d;
    }
  }
  for (int c = 0; c < width; ++c)
    out[c] = moments_about(anchor[c], sum[c], square[c], static_cast<float>(count));
}

// The same for a full strip, one channel per lane.
GANTRT_INLINE inline void full_strip_moments(const float* x, int64_t count, int64_t stride, Moments* out) {
  Pack sum{}, square{};
  for (int64_t i = 0; i < count; ++i) sum += load(x + i * stride);
  const Pack anchor = sum / static_cast<float>(count);
  sum = Pack{};
  for (int64_t i = 0; i < count; ++i) {
    const Pack d = load(x + i * stride) - anchor;
    sum += d;
    square += d * d;
  }
  for (int c = 0; c < kLanes; ++c)
    out[c] = moments_about(anchor[c], sum[c], square[c], static_cast<float>(count));
}

// Gain, offset and anchor of every channel, as three rows of C floats: the inner loop runs over channels.
struct ChannelMaps {
  explicit ChannelMaps(int64_t channels) : anchor(channels), gain(channels), offset(channels) {}
  std::vector<float> anchor, gain, offset;
};

// One pixel row of the result, mirrored columns included.
template <class Activation>
GANTRT_INLINE inline void apply_pixel_row(const NormActProblem& p, const float* x, const float* residual,
                                          const float* anchor, const float* gain, const float* offset,
                                          float* y, Activation act) {
  const int64_t channels = p.c;
  for (int i = 0; i < p.w; ++i) {
    const float* in = x + i * channels;
    float* out = y + (i + p.pad) * channels;
    if (residual) {
      const float* add = residual + i * channels;
      for (int64_t c = 0; c < channels; ++c) out[c] = act(gain[c] * (in[c] - anchor[c]) + offset[c]) + add[c];
    } else {
      for (int64_t c = 0; c < channels; ++c) out[c] = act(gain[c] * (in[c] - anchor[c]) + offset[c]);
    }
  }
  for (int i = 1; i <= p.pad; ++i) {
    const size_t bytes = channels * sizeof(float);
    std::memcpy(y + (p.pad - i) * channels, y + (p.pad + i) * channels, bytes);
    std::memcpy(y + (p.pad + p.w - 1 + i) * channels, y + (p.pad + p.w - 1 - i) * channels, bytes);
  }
}

void norm_pixels(const NormActProblem& p, int threads) {
  const int64_t pixels = int64_t{p.h} * p.w, channels = p.c;
  const float* x = static_cast<const float*>(p.x);
  const int64_t tile = std::max<int64_t>(1, kPixelTile / channels), tiles = (pixels + tile - 1) / tile;
  std::vector<Moments> partial(p.n * tiles * channels);
  parallel_for(p.n * tiles, threads, [&](int64_t task) {
    const int64_t begin = task % tiles * tile, count = std::min(tile, pixels - begin);
    const float* from = x + (task / tiles * pixels + begin) * channels;
    Moments* out = &partial[task * channels];
    run_on_this_cpu([&]() GANTRT_INLINE {
      int64_t c = 0;
      for (; c + kLanes <= channels; c += kLanes) full_strip_moments(from + c, count, channels, out + c);
      if (c < channels) strip_moments(from + c, count, channels, static_cast<int>(channels - c), out + c);
    });
  });

  ChannelMaps maps(p.n * channels);
  std::vector<Moments> merged(channels);
  for (int n = 0; n < p.n; ++n) {
    for (int64_t c = 0; c < channels; ++c) {
      Moments all;
      for (int64_t t = 0; t < tiles; ++t)
        all = merge(all, static_cast<float>(t * tile), partial[(n * tiles + t) * channels + c],
                    static_cast<float>(std::min(tile, pixels - t * tile)));
      merged[c] = all;
    }
    const Moments layer = p.rho ? layer_moments(merged.data(), p) : Moments{};
    for (int c = 0; c < p.c; ++c) {
      const Affine affine = affine_of(p, merged[c], layer, n, c);
      const int64_t at = n * channels + c;
      maps.anchor[at] = affine.anchor, maps.gain[at] = affine.gain, maps.offset[at] = affine.offset;
    }
  }

  const int64_t high = p.h + 2 * p.pad, wide = p.w + 2 * p.pad, residual_wide = p.w + 2 * p.rpad;
  const int64_t bands = (high + kRowsPerTask - 1) / kRowsPerTask;
  dispatch(p.act, p.slope, [&](auto act) {
    parallel_for(p.n * bands, threads, [&](int64_t task) {
      const int64_t n = task / bands, begin = task % bands * kRowsPerTask, at = n * channels;
      const float* anchor = &maps.anchor[at];
      const float* gain = &maps.gain[at];
      const float* offset = &maps.offset[at];
      run_on_this_cpu([&]() GANTRT_INLINE {
        for (int64_t row = begin; row < std::min(begin + kRowsPerTask, high); ++row) {
          const int64_t source = reflect(static_cast<int>(row) - p.pad, p.h);
          const float* residual = static_cast<const float*>(p.residual);
          if (residual)
            residual += (((n * (p.h + 2 * p.rpad)) + source + p.rpad) * residual_wide + p.rpad) * channels;
          apply_pixel_row(p, x + (n * p.h + source) * p.w * channels, residual, anchor, gain, offset,
                          static_cast<float*>(p.y) + (n * high + row) * wide * channels, act);
        }
      });
    });
  });
}

}  // namespace

void norm_act_cpu(const NormActProblem& p, int threads) {
  const int64_t bytes = 8 * int64_t{p.n} * p.c * p.h * p.w;
  const int worth = threads_for(threads, bytes);
  if (p.layout == Layout::kNchw)
    norm_planes(p, worth);
  else
    norm_pixels(p, worth);
}

}  // namespace gantrt
