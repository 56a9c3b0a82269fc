// Frames and tensors on the CPU. Both ways the vertical filter runs along rows as wide as the frame, which is
// the big side: contiguous loops, each frame byte touched once or twice. The horizontal one runs once per
// tensor row.
#include <algorithm>
#include <cstring>
#include <vector>

#include "isa.h"
#include "parallel.h"
#include "pixels.h"

namespace gantrt {
namespace {

constexpr int kSlack = 16;  // floats past a line's end that a vector load may touch

std::vector<Taps> taps_of(Filter filter, int source, int target) {
  std::vector<Taps> all(target);
  for (int i = 0; i < target; ++i) all[i] = taps(filter, i, source, target);
  return all;
}

// Rows each task makes: enough tasks to share, few enough that what they repeat at their edges does not show.
int rows_per_task(int rows, int threads) {
  return threads == 1 ? rows : std::max(16, (rows + 4 * threads - 1) / (4 * threads));
}

// out[j] = the sum over the tapped rows of weight * row[j], for bytes.
GANTRT_INLINE inline void blend_bytes(const uint8_t* first, int64_t pitch, const Taps& t, int count,
                                      float* out) {
  if (t.first == t.last) {
    for (int j = 0; j < count; ++j) out[j] = static_cast<float>(first[j]);
    return;
  }
  const int64_t rows = t.last - t.first;
  const uint8_t* last = first + rows * pitch;
  const float head = t.first_weight, inner = t.inner_weight, tail = t.last_weight;
  if (rows == 1) {
    for (int j = 0; j < count; ++j)
      out[j] = head * static_cast<float>(first[j]) + tail * static_cast<float>(last[j]);
    return;
  }
  // Whole rows are summed as integers, at most 256 at a time in 16 bits, in columns that stay in L1.
  constexpr int kColumns = 512;
  uint16_t sum[kColumns];
  for (int at = 0; at < count; at += kColumns) {
    const int wide = std::min(kColumns, count - at);
    for (int j = 0; j < wide; ++j)
      out[at + j] = head * static_cast<float>(first[at + j]) + tail * static_cast<float>(last[at + j]);
    for (int64_t begin = 1; begin < rows; begin += 256) {
      const int64_t end = std::min(begin + 256, rows);
      std::memset(sum, 0, sizeof(sum));
      for (int64_t k = begin; k < end; ++k) {
        const uint8_t* row = first + k * pitch + at;
        for (int j = 0; j < wide; ++j) sum[j] = static_cast<uint16_t>(sum[j] + row[j]);
      }
      for (int j = 0; j < wide; ++j) out[at + j] += inner * static_cast<float>(sum[j]);
    }
  }
}

typedef float Pixel4 __attribute__((vector_size(16)));  // one pixel: three channels and whatever follows

GANTRT_INLINE inline Pixel4 load_pixel(const float* p) {
  Pixel4 pixel;
  std::memcpy(&pixel, p, sizeof(pixel));
  return pixel;
}

GANTRT_INLINE inline void store_pixel(const Pixel4& pixel, float* p) {
  std::memcpy(p, &pixel, sizeof(pixel));
}

// From a line of interleaved pixels to one line of each plane.
GANTRT_INLINE inline void filter_line3(const float* line, const Taps* columns, int count, float scale,
                                       float offset, float* a, float* b, float* c) {
  for (int i = 0; i < count; ++i) {
    const Taps& t = columns[i];
    Pixel4 sum =
        t.first_weight * load_pixel(line + 3 * t.first) + t.last_weight * load_pixel(line + 3 * t.last);
    if (t.last - t.first > 1) {
      Pixel4 inner{};
      for (int k = t.first + 1; k < t.last; ++k) inner += load_pixel(line + 3 * k);
      sum += t.inner_weight * inner;
    }
    sum = sum * scale + offset;
    a[i] = sum[0];
    b[i] = sum[1];
    c[i] = sum[2];
  }
}

GANTRT_INLINE inline void filter_line1(const float* line, const Taps* columns, int count, float scale,
                                       float offset, float* out) {
  for (int i = 0; i < count; ++i) {
    const Taps& t = columns[i];
    float inner = 0.0f;
    for (int k = t.first + 1; k < t.last; ++k) inner += line[k];
    const float sum = t.first_weight * line[t.first] + t.last_weight * line[t.last] + t.inner_weight * inner;
    out[i] = sum * scale + offset;
  }
}

GANTRT_INLINE inline void mirror_columns(float* line, int count, int border) {
  for (int i = 1; i <= border; ++i) {
    line[-i] = line[i];
    line[count - 1 + i] = line[count - 1 - i];
  }
}

// Makes tensor rows [begin, end), border not counted, and the mirrored rows that show them.
GANTRT_INLINE inline void rows_to_tensor(const PixelProblem& p, const Taps* rows, const Taps* columns,
                                         int begin, int end) {
  const Frame& f = p.frame;
  const Planes& t = p.planes;
  const int height = t.height - 2 * p.border, width = t.width - 2 * p.border;
  const int values = f.width * f.channels;
  const bool dense = f.pixel == f.channels, to_gray = f.channels == 3 && t.channels == 1;
  std::vector<float> line(values + kSlack), green(to_gray ? width : 0), blue(to_gray ? width : 0);
  std::vector<uint8_t> gathered;
  float* out = static_cast<float*>(t.data) + p.border * (t.row + 1);

  for (int i = begin; i < end; ++i) {
    const uint8_t* source = f.data + rows[i].first * f.row;
    int64_t pitch = f.row;
    if (!dense) {
      const int count = rows[i].last - rows[i].first + 1;
      gathered.resize(int64_t{count} * values);
      for (int k = 0; k < count; ++k)
        for (int x = 0; x < f.width; ++x)
          for (int c = 0; c < f.channels; ++c)
            gathered[(int64_t{k} * f.width + x) * f.channels + c] = source[k * f.row + x * f.pixel + c];
      source = gathered.data();
      pitch = values;
    }
    blend_bytes(source, pitch, rows[i], values, line.data());

    float* first = out + i * t.row;
    if (f.channels == 1) {
      filter_line1(line.data(), columns, width, p.scale, p.offset, first);
      for (int c = 1; c < t.channels; ++c) std::memcpy(first + c * t.plane, first, width * sizeof(float));
    } else if (to_gray) {
      float* red = f.red ? blue.data() : first;
      float* last = f.red ? first : blue.data();
      filter_line3(line.data(), columns, width, p.scale, p.offset, first, green.data(), blue.data());
      for (int x = 0; x < width; ++x) first[x] = luma(red[x], green[x], last[x]);
    } else {
      filter_line3(line.data(), columns, width, p.scale, p.offset, first + f.red * t.plane, first + t.plane,
                   first + (2 - f.red) * t.plane);
    }

    const size_t bytes = t.width * sizeof(float);
    for (int c = 0; c < t.channels; ++c) {
      float* done = first + c * t.plane;
      mirror_columns(done, width, p.border);
      if (i >= 1 && i <= p.border) std::memcpy(done - 2 * i * t.row - p.border, done - p.border, bytes);
      const int below = height - 1 - i;
      if (below >= 1 && below <= p.border)
        std::memcpy(done + 2 * below * t.row - p.border, done - p.border, bytes);
    }
  }
}

// Tensor rows as lines of frame pixels: interleaved, as wide as the frame, in 0..255 but not yet clamped. The
// last two are kept, because consecutive frame rows share them.
class Lines {
 public:
  GANTRT_INLINE Lines(const PixelProblem& p, const Taps* columns)
      : p_(p),
        columns_(columns),
        length_(int64_t{p.frame.width} * p.frame.channels + kSlack),
        lines_(2 * length_),
        row_(p.frame.channels == 3 ? 4 * p.planes.width : p.planes.width),
        plane_(p.planes.width) {}

  GANTRT_INLINE const float* operator[](int row) {
    float* line = &lines_[(row & 1) * length_];
    if (held_[row & 1] != row) {
      if (p_.frame.channels == 3) {
        gather_pixels(row);
        widen_pixels(line);
      } else {
        gather_gray(row);
        filter_line1(row_.data(), columns_, p_.frame.width, 1.0f, 0.0f, line);
      }
      held_[row & 1] = row;
    }
    return line;
  }

 private:
  // Row `row` as pixels of four floats, in the frame's order and units.
  GANTRT_INLINE void gather_pixels(int row) {
    const Planes& t = p_.planes;
    const float* first = static_cast<const float*>(t.data) + row * t.row;
    const int64_t plane = t.channels == 3 ? t.plane : 0;  // gray: the one plane three times
    const float* sources[3] = {first + p_.frame.red * plane, first + plane,
                               first + (2 - p_.frame.red) * plane};
    for (int c = 0; c < 3; ++c) {
      const float* source = sources[c];
      for (int x = 0; x < t.width; ++x) plane_[x] = bounded(source[x] * p_.scale + p_.offset);
      for (int x = 0; x < t.width; ++x) row_[4 * x + c] = plane_[x];
    }
  }

  GANTRT_INLINE void gather_gray(int row) {
    const Planes& t = p_.planes;
    const float* red = static_cast<const float*>(t.data) + row * t.row;
    if (t.channels == 1) {
      for (int x = 0; x < t.width; ++x) row_[x] = bounded(red[x] * p_.scale + p_.offset);
      return;
    }
    const float *green = red + t.plane, *blue = green + t.plane;
    for (int x = 0; x < t.width; ++x)
      row_[x] = bounded(luma(red[x], green[x], blue[x]) * p_.scale + p_.offset);
  }

  // Each pixel is stored with a fourth float, which the next one overwrites.
  GANTRT_INLINE void widen_pixels(float* line) const {
    const int width = p_.frame.width, last = p_.planes.width - 1;
    if (p_.columns == Filter::kArea) {
      for (int x = 0; x < width; ++x) {
        const Taps& t = columns_[x];
        Pixel4 sum = load_pixel(&row_[4 * t.first]) * t.first_weight;
        for (int k = t.first + 1; k < t.last; ++k) sum += load_pixel(&row_[4 * k]) * t.inner_weight;
        sum += load_pixel(&row_[4 * t.last]) * t.last_weight;
        store_pixel(sum, line + 3 * x);
      }
      return;
    }
    Pixel4 from{}, step{};
    for (int x = 0, held = -1; x < width; ++x) {
      const Taps& t = columns_[x];
      if (t.first != held) {  // many frame pixels lie between the same two of the tensor
        held = t.first;
        from = load_pixel(&row_[4 * held]);
        step = load_pixel(&row_[4 * std::min(held + 1, last)]) - from;
      }
      store_pixel(from + step * t.last_weight, line + 3 * x);
    }
  }

  const PixelProblem& p_;
  const Taps* columns_;
  int64_t length_;
  std::vector<float> lines_, row_, plane_;
  int held_[2] = {-1, -1};
};

GANTRT_INLINE inline void write_bytes(const float* __restrict a, const float* __restrict b, float weight_a,
                                      float weight_b, int count, uint8_t* __restrict out) {
  for (int x = 0; x < count; ++x) out[x] = quantise(weight_a * a[x] + weight_b * b[x]);
}

// Makes frame rows [begin, end).
GANTRT_INLINE inline void rows_to_frame(const PixelProblem& p, const Taps* rows, const Taps* columns,
                                        int begin, int end) {
  Lines lines(p, columns);
  const int values = p.frame.width * p.frame.channels;
  std::vector<float> sums;
  for (int i = begin; i < end; ++i) {
    const Taps& t = rows[i];
    uint8_t* out = p.frame.data + i * p.frame.row;
    const float* first = lines[t.first];
    if (t.first == t.last) {
      for (int x = 0; x < values; ++x) out[x] = quantise(first[x]);
    } else if (t.last - t.first == 1) {
      write_bytes(first, lines[t.last], t.first_weight, t.last_weight, values, out);
    } else {
      sums.assign(values, 0.0f);
      for (int k = t.first; k <= t.last; ++k) {
        const float* line = lines[k];
        const float weight = k == t.first ? t.first_weight : k == t.last ? t.last_weight : t.inner_weight;
        for (int x = 0; x < values; ++x) sums[x] += weight * line[x];
      }
      for (int x = 0; x < values; ++x) out[x] = quantise(sums[x]);
    }
  }
}

}  // namespace

void frame_to_tensor_cpu(const PixelProblem& p, int threads) {
  const int height = p.planes.height - 2 * p.border, width = p.planes.width - 2 * p.border;
  const std::vector<Taps> rows = taps_of(p.rows, p.frame.height, height);
  const std::vector<Taps> columns = taps_of(p.columns, p.frame.width, width);
  const int64_t frame_bytes = int64_t{p.frame.height} * p.frame.width * p.frame.channels;
  const int worth = threads_for(threads, frame_bytes + int64_t{4} * p.planes.channels * height * width);
  const int each = rows_per_task(height, worth);
  parallel_for((height + each - 1) / each, worth, [&](int64_t task) {
    const int begin = static_cast<int>(task) * each, end = std::min(begin + each, height);
    run_on_this_cpu([&]() GANTRT_INLINE { rows_to_tensor(p, rows.data(), columns.data(), begin, end); });
  });
}

void tensor_to_frame_cpu(const PixelProblem& p, int threads) {
  const std::vector<Taps> rows = taps_of(p.rows, p.planes.height, p.frame.height);
  const std::vector<Taps> columns = taps_of(p.columns, p.planes.width, p.frame.width);
  const int64_t frame_bytes = int64_t{p.frame.height} * p.frame.width * p.frame.channels;
  const int worth =
      threads_for(threads, frame_bytes + int64_t{4} * p.planes.channels * p.planes.height * p.planes.width);
  const int each = rows_per_task(p.frame.height, worth);
  parallel_for((p.frame.height + each - 1) / each, worth, [&](int64_t task) {
    const int begin = static_cast<int>(task) * each, end = std::min(begin + each, p.frame.height);
    run_on_this_cpu([&]() GANTRT_INLINE { rows_to_frame(p, rows.data(), columns.data(), begin, end); });
  });
}

}  // namespace gantrt
