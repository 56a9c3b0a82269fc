// Frames and tensors on the CPU. Both ways the vertical filter runs along rows as wide as the frame, which is
// the big side: contiguous loops, each frame byte touched once or twice. The horizontal one runs once per
// tensor row.
#include <algorithm>
#include <cmath>
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

// The same where nothing is left to filter.
GANTRT_INLINE inline void split_line3(const float* __restrict line, int count, float scale, float offset,
                                      float* __restrict a, float* __restrict b, float* __restrict c) {
  for (int i = 0; i < count; ++i) {
    a[i] = line[3 * i] * scale + offset;
    b[i] = line[3 * i + 1] * scale + offset;
    c[i] = line[3 * i + 2] * scale + offset;
  }
}

// A strongly shrunk bilinear row touches few pixels: those at each tensor pixel's left and right are
// collected first, from both rows, one in 32 bits, and then blended in contiguous loops.
class SparseLine3 {
 public:
  GANTRT_INLINE static bool suits(const PixelProblem& p, int width) {
    return p.columns == Filter::kBilinear && p.rows == Filter::kBilinear && p.frame.channels == 3 &&
           p.frame.pixel == 3 && p.frame.width >= 2 * width;
  }

  GANTRT_INLINE SparseLine3(const Taps* columns, int width, int frame_width)
      : width_(width), weights_(2 * width), offsets_(2 * width), pixels_(4 * width) {
    for (int i = 0; i < width; ++i) {
      const Taps& t = columns[i];
      weights_[i] = t.first_weight;
      weights_[width + i] = t.last_weight;
      offsets_[i] = 3 * t.first;
      offsets_[width + i] = 3 * t.last;
      if (t.last + 1 < frame_width) whole_ = i + 1;
    }
  }

  // The rows at `first` and `last`, into one line of each plane.
  GANTRT_INLINE void blend(const uint8_t* first, const uint8_t* last, const Taps& rows, float scale,
                           float offset, float* a, float* b, float* c) {
    collect(first, &pixels_[0]);
    collect(last, &pixels_[2 * width_]);
    blend_channel<0>(rows, scale, offset, a);
    blend_channel<8>(rows, scale, offset, b);
    blend_channel<16>(rows, scale, offset, c);
  }

 private:
  // Left pixels, then right ones. Four bytes are read where they are there.
  GANTRT_INLINE void collect(const uint8_t* row, uint32_t* out) const {
    const int *left = offsets_.data(), *right = left + width_;
    for (int i = 0; i < whole_; ++i) {
      std::memcpy(&out[i], row + left[i], 4);
      std::memcpy(&out[width_ + i], row + right[i], 4);
    }
    for (int i = whole_; i < width_; ++i) {
      std::memcpy(&out[i], row + left[i], 3);
      std::memcpy(&out[width_ + i], row + right[i], 3);
    }
  }

  template <int kShift>
  GANTRT_INLINE static float channel(uint32_t pixel) {
    return static_cast<float>(static_cast<int>(pixel >> kShift & 255u));
  }

  template <int kShift>
  GANTRT_INLINE void blend_channel(const Taps& rows, float scale, float offset, float* __restrict out) const {
    const uint32_t *a = &pixels_[0], *b = a + width_, *c = b + width_, *d = c + width_;
    const float *left = &weights_[0], *right = left + width_;
    const float head = rows.first_weight, tail = rows.last_weight;
    const int count = width_;
    for (int i = 0; i < count; ++i) {
      const float at_left = head * channel<kShift>(a[i]) + tail * channel<kShift>(c[i]);
      const float at_right = head * channel<kShift>(b[i]) + tail * channel<kShift>(d[i]);
      out[i] = (left[i] * at_left + right[i] * at_right) * scale + offset;
    }
  }

  int width_;
  int whole_ = 0;  // tensor pixels whose fourth byte is there
  std::vector<float> weights_;
  std::vector<int> offsets_;  // bytes
  std::vector<uint32_t> pixels_;
};

GANTRT_INLINE inline void mirror_columns(float* line, int count, int border) {
  for (int i = 1; i <= border; ++i) {
    line[-i] = line[i];
    line[count - 1 + i] = line[count - 1 - i];
  }
}

// Makes rows of the tensor, border included.
class TensorRows {
 public:
  GANTRT_INLINE TensorRows(const PixelProblem& p, const Taps* rows, const Taps* columns)
      : p_(p),
        rows_(rows),
        columns_(columns),
        height_(p.planes.height - 2 * p.border),
        width_(p.planes.width - 2 * p.border),
        is_sparse_(SparseLine3::suits(p, width_)),
        sparse_(columns, is_sparse_ ? width_ : 0, p.frame.width),
        line_(int64_t{p.frame.width} * p.frame.channels + kSlack) {
    if (p.frame.channels == 3 && p.planes.channels == 1) gray_.resize(2 * int64_t{width_});
  }

  // Row i, border not counted, and the mirrored rows that show it.
  GANTRT_INLINE void make(int i) {
    const Planes& t = p_.planes;
    float* first = static_cast<float*>(t.data) + p_.border * (t.row + 1) + i * t.row;
    row_ = rows_[i];
    if (!is_sparse_) blend_rows(row_);
    if (p_.frame.channels == 1) {
      filter_line1(line_.data(), columns_, width_, p_.scale, p_.offset, first);
      for (int c = 1; c < t.channels; ++c) std::memcpy(first + c * t.plane, first, width_ * sizeof(float));
    } else if (t.channels == 1) {
      float *green = gray_.data(), *last = green + width_;
      to_planes(first, green, last);
      const float *red = p_.frame.red ? last : first, *blue = p_.frame.red ? first : last;
      for (int x = 0; x < width_; ++x) first[x] = luma(red[x], green[x], blue[x]);
    } else {
      to_planes(first + p_.frame.red * t.plane, first + t.plane, first + (2 - p_.frame.red) * t.plane);
    }
    for (int c = 0; c < t.channels; ++c) mirror(first + c * t.plane, i);
  }

 private:
  // The frame's rows, blended into line_.
  GANTRT_INLINE void blend_rows(const Taps& t) {
    const Frame& f = p_.frame;
    const uint8_t* first = f.data + t.first * f.row;
    const int values = f.width * f.channels;
    if (f.pixel == f.channels) return blend_bytes(first, f.row, t, values, line_.data());
    const int count = t.last - t.first + 1;  // of a mirrored or thinned view: side by side first
    gathered_.resize(int64_t{count} * values);
    for (int k = 0; k < count; ++k)
      for (int x = 0; x < f.width; ++x)
        std::memcpy(&gathered_[(int64_t{k} * f.width + x) * f.channels], first + k * f.row + x * f.pixel,
                    f.channels);
    blend_bytes(gathered_.data(), values, t, values, line_.data());
  }

  // The row's three channels, into three lines of the tensor.
  GANTRT_INLINE void to_planes(float* a, float* b, float* c) {
    const Frame& f = p_.frame;
    if (is_sparse_)
      sparse_.blend(f.data + row_.first * f.row, f.data + row_.last * f.row, row_, p_.scale, p_.offset, a, b,
                    c);
    else if (width_ == f.width)
      split_line3(line_.data(), width_, p_.scale, p_.offset, a, b, c);
    else
      filter_line3(line_.data(), columns_, width_, p_.scale, p_.offset, a, b, c);
  }

  GANTRT_INLINE void mirror(float* done, int i) const {
    const int64_t row = p_.planes.row;
    const size_t bytes = p_.planes.width * sizeof(float);
    mirror_columns(done, width_, p_.border);
    const int below = height_ - 1 - i;
    if (i >= 1 && i <= p_.border) std::memcpy(done - 2 * i * row - p_.border, done - p_.border, bytes);
    if (below >= 1 && below <= p_.border)
      std::memcpy(done + 2 * below * row - p_.border, done - p_.border, bytes);
  }

  const PixelProblem& p_;
  const Taps *rows_, *columns_;
  Taps row_{};  // of the row being made
  int height_, width_;
  bool is_sparse_;
  SparseLine3 sparse_;
  std::vector<float> line_, gray_;
  std::vector<uint8_t> gathered_;
};

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
        planes_(int64_t{p.planes.channels} * p.planes.width),
        squashed_(p.tanh ? int64_t{p.planes.channels} * p.planes.width : 0) {}

  GANTRT_INLINE const float* operator[](int row) {
    float* line = &lines_[(row & 1) * length_];
    if (held_[row & 1] != row) {
      if (p_.frame.channels == 3 && p_.frame.width == p_.planes.width) {
        gather_pixels(row, 3, line);
      } else if (p_.frame.channels == 3) {
        gather_pixels(row, 4, row_.data());
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
  // Row `row` of a plane; with tanh, its values, kept until the next row of the plane is asked for.
  GANTRT_INLINE const float* plane_row(int channel, int row) {
    const Planes& t = p_.planes;
    const float* raw = static_cast<const float*>(t.data) + channel * t.plane + row * t.row;
    if (!p_.tanh) return raw;
    float* squashed = &squashed_[int64_t{channel} * t.width];
    for (int x = 0; x < t.width; ++x) squashed[x] = std::tanh(raw[x]);
    return squashed;
  }

  // Row `row` as pixels `step` floats apart, in the frame's order and units.
  GANTRT_INLINE void gather_pixels(int row, int step, float* out) {
    const Planes& t = p_.planes;
    for (int c = 0; c < t.channels; ++c) {
      const float* source = plane_row(c, row);
      float* to = &planes_[int64_t{c} * t.width];
      for (int x = 0; x < t.width; ++x) to[x] = bounded(source[x] * p_.scale + p_.offset);
    }
    const int64_t plane = t.channels == 3 ? t.width : 0;  // gray: the one plane three times
    const float *a = &planes_[p_.frame.red * plane], *b = &planes_[plane],
                *c = &planes_[(2 - p_.frame.red) * plane];
    if (step == 3)
      interleave<3>(a, b, c, t.width, out);
    else
      interleave<4>(a, b, c, t.width, out);
  }

  template <int kStep>
  GANTRT_INLINE static void interleave(const float* __restrict a, const float* __restrict b,
                                       const float* __restrict c, int count, float* __restrict out) {
    for (int x = 0; x < count; ++x) {
      out[kStep * x] = a[x];
      out[kStep * x + 1] = b[x];
      out[kStep * x + 2] = c[x];
    }
  }

  GANTRT_INLINE void gather_gray(int row) {
    const Planes& t = p_.planes;
    const float* red = plane_row(0, row);
    if (t.channels == 1) {
      for (int x = 0; x < t.width; ++x) row_[x] = bounded(red[x] * p_.scale + p_.offset);
      return;
    }
    const float *green = plane_row(1, row), *blue = plane_row(2, row);
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
  std::vector<float> lines_, row_, planes_, squashed_;
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
    run_on_this_cpu([&]() GANTRT_INLINE {
      TensorRows tensor(p, rows.data(), columns.data());
      for (int i = begin; i < end; ++i) tensor.make(i);
    });
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
