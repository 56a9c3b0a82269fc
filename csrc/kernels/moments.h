// First and second moments that survive mean/std = 400, their merge, and the affine map a norm becomes.
#pragma once

#include <cmath>

#include "../tensor.h"

namespace gantrt {

constexpr float kLargest = 3.402823466e38f;

// Of some set of values whose size the caller knows: mean = anchor + rest, m2 = sum of (x - mean)^2.
// One float cannot hold the mean well enough: at mean/std = 400 its rounding alone is 1e-5 of a standard
// deviation. x - anchor is (nearly) exact, and what is then left is small.
struct Moments {
  float anchor;
  float rest;
  float m2;
};

// From sums about an anchor near the mean: sum = sum of (x - anchor), square = sum of (x - anchor)^2.
// The correction -sum^2 / count is tiny because the anchor is near, so nothing cancels.
GANTRT_HD Moments moments_about(float anchor, float sum, float square, float count) {
#if defined(__CUDA_ARCH__)
  const float rest = __fdividef(sum, count);
#else
  const float rest = sum / count;
#endif
  const float m2 = square - sum * rest;
  return {anchor, rest, m2 < 0.0f ? 0.0f : m2};
}

// Moments of the union of two sets. Chan, Golub, LeVeque 1979, eq. 2.1. In a fixed order it is deterministic.
GANTRT_HD Moments merge(const Moments& a, float count_a, const Moments& b, float count_b) {
  if (count_b == 0.0f) return a;
  if (count_a == 0.0f) return b;
  const float delta = (b.anchor - a.anchor) + (b.rest - a.rest);
  const float share = count_b / (count_a + count_b);
  return {a.anchor, a.rest + delta * share, a.m2 + b.m2 + delta * delta * count_a * share};
}

// 1 / sqrt(variance + eps). A second moment too large for a float counts as infinite: the result is 0.
GANTRT_HD float inverse_std(const Moments& moments, float count, bool unbiased, float eps) {
  const float divisor = unbiased && count > 1.0f ? count - 1.0f : count;
#if defined(__CUDA_ARCH__)
  const float found = rsqrtf(__fdividef(moments.m2, divisor) + eps);  // good to some 3e-7
#else
  const float found = 1.0f / sqrtf(moments.m2 / divisor + eps);
#endif
  return moments.m2 <= kLargest ? found : 0.0f;
}

// y = gain * (x - anchor) + offset
struct alignas(16) Affine {
  float anchor;
  float gain;
  float offset;

  GANTRT_HD float operator()(float x) const { return gain * (x - anchor) + offset; }
};

struct NormRule {
  float eps;
  bool unbiased;
};

// scale * (rho * instance norm + (1 - rho) * layer norm) + shift, for one channel. Both norms are affine in
// x, so their mixture is too (Kim et al. 2020, arXiv:1907.10830, eq. 1):
//   gain = scale (rho r + (1 - rho) R),   offset = shift + scale (1 - rho) R (mean - Mean)   about the mean.
GANTRT_HD Affine mixed_norm(const Moments& channel, float count, const Moments& layer, float layer_count,
                            float rho, float scale, float shift, NormRule rule) {
  const float r = inverse_std(channel, count, rule.unbiased, rule.eps);
  const float layer_r = inverse_std(layer, layer_count, rule.unbiased, rule.eps);
  const float away = (channel.anchor - layer.anchor) + (channel.rest - layer.rest);
  const float gain = scale * (rho * r + (1.0f - rho) * layer_r);
  const float lift = layer_r > 0.0f && rho != 1.0f ? scale * (1.0f - rho) * layer_r * away : 0.0f;
  if (gain == 0.0f) return {0.0f, 0.0f, shift + lift};
  return {channel.anchor, gain, shift + lift - gain * channel.rest};
}

GANTRT_HD Affine instance_norm(const Moments& channel, float count, float scale, float shift, NormRule rule) {
  const float gain = scale * inverse_std(channel, count, rule.unbiased, rule.eps);
  if (gain == 0.0f) return {0.0f, 0.0f, shift};
  return {channel.anchor, gain, shift - gain * channel.rest};
}

}  // namespace gantrt
