// Which pixels of a source line make one pixel of a resized line, and with what weights. Exact: only integers
// are divided, so the weights of an identity are 1 and those of an integer ratio are equal.
#pragma once

#include <cstdint>

#include "../tensor.h"

namespace gantrt {

// Products of two sides must fit 32 bits with one to spare (below: (2 i + 1) * source).
constexpr int kMostPixels = 32767;

enum class Filter {
  kBilinear,  // half-pixel centres, no antialiasing: cv2.INTER_LINEAR, torch align_corners=False
  kArea       // the mean over the area a pixel covers: cv2.INTER_AREA, torch adaptive_avg_pool
};

// Area where a side shrinks; an enlarged side has no area to average and is interpolated.
GANTRT_HD Filter filter_for(Filter wished, int source, int target) {
  return wished == Filter::kArea && target < source ? Filter::kArea : Filter::kBilinear;
}

// target[i] = first_weight * source[first] + inner_weight * (what lies between) + last_weight * source[last]
struct Taps {
  int first;
  int last;  // == first: one tap, and last_weight is 0
  float first_weight;
  float inner_weight;
  float last_weight;
};

GANTRT_HD Taps bilinear_taps(int i, int source, int target) {
  const uint32_t twice = 2u * static_cast<uint32_t>(target);
  const uint32_t centre = (2u * static_cast<uint32_t>(i) + 1u) * static_cast<uint32_t>(source);
  if (centre <= static_cast<uint32_t>(target)) return {0, 0, 1.0f, 0.0f, 0.0f};
  const uint32_t position = centre - static_cast<uint32_t>(target);  // in 1 / (2 target) of a source pixel
  const int first = static_cast<int>(position / twice);
  const uint32_t beyond = position % twice;
  if (beyond == 0 || first >= source - 1) return {first, first, 1.0f, 0.0f, 0.0f};
  const float weight = static_cast<float>(beyond) / static_cast<float>(twice);
  return {first, first + 1, 1.0f - weight, 0.0f, weight};
}

// Pixel i covers source [i, i + 1) * source / target. In units of 1 / target of a source pixel everything is
// whole: `head` of the first pixel, `target` of each that lies between, `tail` of the last, `source` in all.
struct Area {
  int first, last;
  int head, tail;
};

GANTRT_HD Area area_of(int i, int source, int target) {
  const uint32_t unit = static_cast<uint32_t>(target);
  const uint32_t begin = static_cast<uint32_t>(i) * static_cast<uint32_t>(source);
  const uint32_t end = begin + static_cast<uint32_t>(source);
  const uint32_t first = begin / unit, last = (end - 1u) / unit;
  return {static_cast<int>(first), static_cast<int>(last), static_cast<int>(unit - begin % unit),
          static_cast<int>(end - last * unit)};
}

GANTRT_HD Taps area_taps(int i, int source, int target) {
  const Area area = area_of(i, source, target);
  const float total = static_cast<float>(source);
  return {area.first, area.last, static_cast<float>(area.head) / total, static_cast<float>(target) / total,
          static_cast<float>(area.tail) / total};
}

GANTRT_HD Taps taps(Filter filter, int i, int source, int target) {
  return filter == Filter::kArea ? area_taps(i, source, target) : bilinear_taps(i, source, target);
}

}  // namespace gantrt
