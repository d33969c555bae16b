// Sparse convolutions, a few images at a time, on planes that stay in the cache.
//
// A convolution is a sum of shifted copies of channels. Laid out as one long row per channel, the images one after
// another with their borders between them, every shift is a constant offset, so that the products of rows.hpp do the
// rest. With a stride above 1, each channel becomes stride × stride planes, one for each phase of the padded
// coordinates, and again every position is a constant offset. What a row holds between the images (sums over borders)
// is never read. Of a whole batch these rows would not fit the cache: so many images as do are laid out at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#else
inline int omp_get_thread_num() { return 0; }
#endif

#include "rows.hpp"

namespace winticket {

struct Planes {
  static constexpr size_t kNumbers = 13;
  int64_t channels, height, width;
  int64_t phases_down, phases_across;  // the strides of the convolution
  int64_t pad_down, pad_across;
  int64_t grid_height, grid_width;  // of one image in a plane
  int64_t images;                   // in a plane
  int64_t length;                   // of a plane: these images, up to the end of a cache line
  int64_t lead, tail;               // zeros before the first plane and after the last, as far as shifts reach

  int64_t count() const { return channels * phases_down * phases_across; }
  int64_t size() const { return lead + count() * length + tail; }
  int64_t pixels() const { return channels * height * width; }
};

// Calls line(plane, from) for every line of an image: where it begins in the planes, and in the image.
template <class Line>
inline void each_line(const Planes& p, int64_t n, const Line& line) {
  const int64_t phases = p.phases_down * p.phases_across;
  for (int64_t c = 0; c < p.channels; ++c) {
    int64_t phase = p.pad_down % p.phases_down, down = p.pad_down / p.phases_down;
    for (int64_t y = 0; y < p.height; ++y) {
      line(p.lead + (c * phases + phase * p.phases_across) * p.length + (n * p.grid_height + down) * p.grid_width,
           (c * p.height + y) * p.width);
      if (++phase == p.phases_down) phase = 0, ++down;
    }
  }
}

// Calls pixel(plane, from) for the pixels of a line, phase by phase; both are offsets.
template <class Pixel>
inline void each_pixel(const Planes& p, const Pixel& pixel) {
  for (int64_t phase = 0; phase < p.phases_across; ++phase) {
    const int64_t skipped = (phase - p.pad_across % p.phases_across + p.phases_across) % p.phases_across;
    int64_t to = phase * p.length + (skipped + p.pad_across) / p.phases_across;
    for (int64_t x = skipped; x < p.width; x += p.phases_across) pixel(to++, x);
  }
}

// Lines are short: a call into the C library would take longer than the copy.
template <class T>
inline void copy(T* to, const T* from, int64_t count) {
  constexpr int64_t kMany = 64 / sizeof(T), kSome = 16 / sizeof(T);
  int64_t i = 0;
  for (; i + kMany <= count; i += kMany) std::memcpy(to + i, from + i, 64);
  for (; i + kSome <= count; i += kSome) std::memcpy(to + i, from + i, 16);
  for (; i < count; ++i) to[i] = from[i];
}

// The planes of even and of odd pixels of a line, for strides of 2 across. Both directions are loops that compilers turn
// into shuffles of vectors; pixel by pixel, they took half the time of a strided convolution at low densities.
struct Halves {
  int64_t even, odd;  // where each begins, relative to the plane of the first phase

  explicit Halves(const Planes& p)
      : even(p.pad_across % 2 * p.length + p.pad_across / 2),
        odd((p.pad_across + 1) % 2 * p.length + (p.pad_across + 1) / 2) {}
};

template <class T>
inline void split(T* __restrict even, T* __restrict odd, const T* __restrict line, int64_t width) {
  const int64_t pairs = width / 2;
  for (int64_t i = 0; i < pairs; ++i) even[i] = line[2 * i], odd[i] = line[2 * i + 1];
  if (width % 2) even[pairs] = line[width - 1];
}

template <class T>
inline void merge(T* __restrict line, const T* __restrict even, const T* __restrict odd, int64_t width) {
  const int64_t pairs = width / 2;
  for (int64_t i = 0; i < pairs; ++i) line[2 * i] = even[i], line[2 * i + 1] = odd[i];
  if (width % 2) line[width - 1] = even[pairs];
}

// So many bytes ahead of a line that is read, the cache is asked for others. A channel of 32x32 floats is a page of
// memory, beyond which processors do not look ahead by themselves.
constexpr size_t kAhead = 2048;

// image [channels, height, width] -> the n-th of planes [channels, phases, images, grid_height, grid_width]; borders stay.
template <class T>
void spread(const Planes& p, const T* image, T* planes, int64_t n) {
  const Halves half(p);
  each_line(p, n, [&](int64_t to, int64_t from) {
    for (int64_t x = 0; x < p.width; x += 64 / sizeof(T)) __builtin_prefetch(image + from + x + kAhead / sizeof(T));
    if (p.phases_across == 1)
      copy(planes + to + p.pad_across, image + from, p.width);
    else if (p.phases_across == 2)
      split(planes + to + half.even, planes + to + half.odd, image + from, p.width);
    else
      each_pixel(p, [&](int64_t plane, int64_t x) { planes[to + plane] = image[from + x]; });
  });
}

// The way back; what borders hold is dropped.
template <class T>
void gather(const Planes& p, const T* planes, T* image, int64_t n) {
  const Halves half(p);
  each_line(p, n, [&](int64_t from, int64_t to) {
    if (p.phases_across == 1)
      copy(image + to, planes + from + p.pad_across, p.width);
    else if (p.phases_across == 2)
      merge(image + to, planes + from + half.even, planes + from + half.odd, p.width);
    else
      each_pixel(p, [&](int64_t plane, int64_t x) { image[to + x] = planes[from + plane]; });
  });
}

// Memory on cache lines, zeros at first.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size) : size_(size), data_(new (std::align_val_t{64}) T[std::max<int64_t>(size, 1)]()) {}
  ~Buffer() { ::operator delete[](data_, std::align_val_t{64}); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* data() { return data_; }
  int64_t size() const { return size_; }

 private:
  int64_t size_;
  T* data_;
};

// Images of a batch, [S, count, channels, height, width] or, with stride 0, shared by the replicates.
template <class T>
struct Batch {
  T* images;
  int64_t stride;
};

struct Work {
  int64_t replicates, count;
  int threads;

  int64_t blocks(const Planes& p) const { return (count + p.images - 1) / p.images; }
};

template <class T>
void spread_block(const Planes& p, const Batch<const T>& batch, T* planes, int64_t r, int64_t first, int64_t last) {
  // Where images are missing, others' would be left; with a NaN among them, no factor of 0 takes them away.
  if (last - first < p.images) std::fill(planes, planes + p.size(), T(0));
  for (int64_t i = first; i < last; ++i) spread(p, batch.images + r * batch.stride + i * p.pixels(), planes, i - first);
}

// to = the sums that `rows` describes over the planes of `from`; its `in` and `out` are set here.
template <class T, class Kernel>
void convolve(const Work& work, const Planes& from, const Planes& to, Rows<T> rows, Batch<const T> in, Batch<T> out,
              Kernel sum) {
  const int64_t blocks = work.blocks(from);
#pragma omp parallel num_threads(work.threads) if (work.threads > 1)
  {
    Buffer<T> operand(from.size()), result(to.size());
    Rows<T> mine = rows;
    mine.in = operand.data() + from.lead, mine.out = result.data() + to.lead;
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < work.replicates * blocks; ++unit) {
      const int64_t r = unit / blocks, first = unit % blocks * from.images;
      const int64_t last = std::min(first + from.images, work.count);
      spread_block(from, in, operand.data(), r, first, last);
      sum(mine, Range{0, mine.rows}, r);
      for (int64_t i = first; i < last; ++i)
        gather(to, result.data(), out.images + r * out.stride + i * to.pixels(), i - first);
    }
  }
}

// Both gradients of a convolution from that by its output, whose planes are laid out once for both: `by_weight`
// describes the rows of the weight's (its `out` [S, capacity] and `total` [S, rows], zero before, are the results),
// `by_input` the sums for the input's, wanted unless `out.images` is null.
template <class T, class Dot, class Sum>
void convolve_back(const Work& work, const Planes& from, const Planes& grad, const Planes& to, Rows<T> by_weight,
                   Rows<T> by_input, Batch<const T> in, Batch<const T> given, Batch<T> out, Dot dot, Sum sum) {
  const int64_t blocks = work.blocks(from);
  const int64_t weights = work.replicates * by_weight.out_stride, units = work.replicates * by_weight.rows;
  std::vector<std::vector<T>> parts(work.threads);  // of each thread, added up in their order
#pragma omp parallel num_threads(work.threads) if (work.threads > 1)
  {
    std::vector<T>& part = parts[omp_get_thread_num()];
    part.assign(weights + units, T(0));
    Buffer<T> x(from.size()), g(grad.size()), result(out.images ? to.size() : 0);
    Rows<T> one = by_weight, other = by_input;
    one.in = x.data() + from.lead, one.weight = g.data() + grad.lead, one.weights = 0;
    one.out = part.data(), one.total = part.data() + weights;
    other.in = g.data() + grad.lead, other.out = result.data() + to.lead;
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < work.replicates * blocks; ++unit) {
      const int64_t r = unit / blocks, first = unit % blocks * from.images;
      const int64_t last = std::min(first + from.images, work.count);
      spread_block(from, in, x.data(), r, first, last);
      spread_block(grad, given, g.data(), r, first, last);
      dot(one, Range{0, one.rows}, r);
      if (!out.images) continue;
      sum(other, Range{0, other.rows}, r);
      for (int64_t i = first; i < last; ++i)
        gather(to, result.data(), out.images + r * out.stride + i * to.pixels(), i - first);
    }
  }
  for (const std::vector<T>& part : parts) {
    if (part.empty()) continue;  // fewer threads came than were asked for
    for (int64_t i = 0; i < weights; ++i) by_weight.out[i] += part[i];
    for (int64_t i = 0; i < units; ++i) by_weight.total[i] += part[weights + i];
  }
}

}  // namespace winticket
