// The sparse products, once for every instruction set: include with ISA (a namespace) and BYTES (of a vector) defined.
//
// A stack of S replicates, each with sparse rows of its own, meets dense operands in which the batch (or the pixels of
// a whole batch of images) lies innermost: one weight then multiplies a run of neighbours, and no gather is needed.
// Column k of a row is a place in the operand, `place[k] * scale` elements from its beginning; a convolution is the
// same product with places that are shifted copies of a channel.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "rows.hpp"

namespace winticket::ISA {

// Reads and writes anywhere: the alignment is the element's.
template <class T>
struct Lane {
  typedef T V __attribute__((vector_size(BYTES), aligned(alignof(T)), may_alias));
  static constexpr int64_t count = BYTES / sizeof(T);
};
template <class T>
using Vector = typename Lane<T>::V;

constexpr int kBlock = 8;  // vectors of a row's result that stay in registers

template <class T>
inline Vector<T> load(const T* at) {
  return *reinterpret_cast<const Vector<T>*>(at);
}
template <class T>
inline void store(T* at, Vector<T> value) {
  *reinterpret_cast<Vector<T>*>(at) = value;
}

// A comparison with NaN is false, so that NaN passes both, as it passes PyTorch's ReLU and its gradient.
template <class T>
inline Vector<T> finished(Vector<T> sum, bool positive, const T* gate) {
  const Vector<T> zero{};
  if (positive) sum = sum < zero ? zero : sum;
  if (gate) sum = load(gate) <= zero ? zero : sum;
  return sum;
}

// One row of a block of columns: NV vectors, of which the last begins at `last` and may overlap the one before.
template <class T, int NV>
inline void sum_row(T* out, T begin, const T* weight, const int32_t* order, const int32_t* place, int64_t count,
                    const T* in, int64_t scale, int64_t last, bool positive, const T* gate) {
  constexpr int64_t W = Lane<T>::count;
  Vector<T> sum[NV];
  for (int j = 0; j < NV; ++j) sum[j] = Vector<T>{} + begin;
  for (int64_t k = 0; k < count; ++k) {
    const T* x = in + place[k] * scale;
    const T w = order ? weight[order[k]] : weight[k];
    for (int j = 0; j < NV - 1; ++j) sum[j] += w * load(x + j * W);
    sum[NV - 1] += w * load(x + last);
  }
  for (int j = 0; j < NV - 1; ++j) store(out + j * W, finished(sum[j], positive, gate ? gate + j * W : nullptr));
  store(out + last, finished(sum[NV - 1], positive, gate ? gate + last : nullptr));
}

template <class T, int NV>
void sum_rows(const Rows<T>& p, const Range& rows, int64_t r, int64_t at) {
  const int64_t last = std::min(at + (NV - 1) * Lane<T>::count, p.length - Lane<T>::count) - at;
  const int32_t* start = p.start + r * (p.rows + 1);
  const int32_t* place = p.place + r * p.capacity;
  const int32_t* order = p.order ? p.order + r * p.capacity : nullptr;
  const T* weight = p.weight + r * p.weights;
  const T* in = p.in + r * p.in_stride + at;
  T* out = p.out + r * p.out_stride + at;
  const T* gate = p.gate ? p.gate + r * p.out_stride + at : nullptr;
  for (int64_t o = rows.first; o < rows.last; ++o) {
    const int64_t k = start[o];
    sum_row<T, NV>(out + o * p.length, p.begin ? p.begin[r * p.rows + o] : T(0), order ? weight : weight + k,
                   order ? order + k : nullptr, place + k, start[o + 1] - k, in, p.scale, last, p.positive,
                   gate ? gate + o * p.length : nullptr);
  }
}

template <class T>
void sum_narrow(const Rows<T>& p, const Range& rows, int64_t r) {
  const int32_t* start = p.start + r * (p.rows + 1);
  for (int64_t o = rows.first; o < rows.last; ++o) {
    T* out = p.out + r * p.out_stride + o * p.length;
    std::fill(out, out + p.length, p.begin ? p.begin[r * p.rows + o] : T(0));
    for (int64_t k = start[o]; k < start[o + 1]; ++k) {
      const T* x = p.in + r * p.in_stride + p.place[r * p.capacity + k] * p.scale;
      const T w = p.weight[r * p.weights + (p.order ? p.order[r * p.capacity + k] : k)];
      for (int64_t t = 0; t < p.length; ++t) out[t] += w * x[t];
    }
    const T* gate = p.gate ? p.gate + r * p.out_stride + o * p.length : nullptr;
    for (int64_t t = 0; t < p.length; ++t)
      if ((p.positive && out[t] < 0) || (gate && gate[t] <= 0)) out[t] = 0;
  }
}

// out[r, o, :] = begin[r, o] + Σ_k weight[r, k] · in[r, place[r, k], :] over the row's k; see `positive` and `gate`.
template <class T>
void sum(const Rows<T>& p, const Range& rows, int64_t r) {
  constexpr int64_t W = Lane<T>::count;
  if (p.length < W) return sum_narrow(p, rows, r);
  for (int64_t at = 0; at < p.length; at += kBlock * W) {
    switch (std::min<int64_t>(kBlock, (p.length - at + W - 1) / W)) {
      case 1: sum_rows<T, 1>(p, rows, r, at); break;
      case 2: sum_rows<T, 2>(p, rows, r, at); break;
      case 3: sum_rows<T, 3>(p, rows, r, at); break;
      case 4: sum_rows<T, 4>(p, rows, r, at); break;
      case 5: sum_rows<T, 5>(p, rows, r, at); break;
      case 6: sum_rows<T, 6>(p, rows, r, at); break;
      case 7: sum_rows<T, 7>(p, rows, r, at); break;
      default: sum_rows<T, 8>(p, rows, r, at); break;
    }
  }
}

template <class T>
inline T total(Vector<T> v) {
  T lane[Lane<T>::count];
  store(lane, v);
  for (int64_t width = Lane<T>::count / 2; width > 0; width /= 2)
    for (int64_t i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
}

typedef float Four __attribute__((vector_size(16), aligned(alignof(float)), may_alias));

inline Four folded(Vector<float> v) {
  Four part[BYTES / 16];
  std::memcpy(part, &v, sizeof v);
  for (int width = BYTES / 32; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  return part[0];
}

// to[0..3] += the sums of four vectors.
template <class T>
inline void add_totals(T* to, Vector<T> a, Vector<T> b, Vector<T> c, Vector<T> d) {
  to[0] += total<T>(a), to[1] += total<T>(b), to[2] += total<T>(c), to[3] += total<T>(d);
}
template <>
inline void add_totals<float>(float* to, Vector<float> a, Vector<float> b, Vector<float> c, Vector<float> d) {
  const Four p = folded(a), q = folded(b), r = folded(c), s = folded(d);
  const Four pq = __builtin_shufflevector(p, q, 0, 4, 1, 5) + __builtin_shufflevector(p, q, 2, 6, 3, 7);
  const Four rs = __builtin_shufflevector(r, s, 0, 4, 1, 5) + __builtin_shufflevector(r, s, 2, 6, 3, 7);
  const Four all = __builtin_shufflevector(pq, rs, 0, 1, 4, 5) + __builtin_shufflevector(pq, rs, 2, 3, 6, 7);
  Four* place = reinterpret_cast<Four*>(to);
  *place += all;
}

// `all`, where not null, gains the sum of `other`.
template <class T, int NV>
inline void dot_row(T* out, T* all, const int32_t* place, int64_t count, const T* in, int64_t scale, const T* other,
                    int64_t last) {
  constexpr int64_t W = Lane<T>::count;
  Vector<T> g[NV];
  for (int j = 0; j < NV - 1; ++j) g[j] = load(other + j * W);
  // The last vector may overlap the one before: what was counted there counts no more.
  T lane[W];
  store(lane, load(other + last));
  std::fill(lane, lane + ((NV - 1) * W - last), T(0));
  g[NV - 1] = load(lane);
  if (all) {
    Vector<T> sum = g[0];
    for (int j = 1; j < NV; ++j) sum += g[j];
    *all += total<T>(sum);
  }
  for (int64_t k = 0; k < count; k += 4) {
    const T* x[4];
    Vector<T> sum[4];
    // Past the end the last weight is counted again, and dropped: cheaper than one weight at a time.
    for (int i = 0; i < 4; ++i) x[i] = in + place[std::min(k + i, count - 1)] * scale;
    for (int i = 0; i < 4; ++i) sum[i] = g[NV - 1] * load(x[i] + last);
    for (int j = 0; j < NV - 1; ++j)
      for (int i = 0; i < 4; ++i) sum[i] += g[j] * load(x[i] + j * W);
    if (k + 4 <= count) {
      add_totals<T>(out + k, sum[0], sum[1], sum[2], sum[3]);
    } else {
      T some[4] = {};
      add_totals<T>(some, sum[0], sum[1], sum[2], sum[3]);
      for (int64_t i = 0; i < count - k; ++i) out[k + i] += some[i];
    }
  }
}

template <class T, int NV>
void dot_rows(const Rows<T>& p, const Range& rows, int64_t r, int64_t at) {
  const int64_t last = std::min(at + (NV - 1) * Lane<T>::count, p.length - Lane<T>::count) - at;
  const int32_t* start = p.start + r * (p.rows + 1);
  for (int64_t o = rows.first; o < rows.last; ++o) {
    const int64_t k = start[o];
    dot_row<T, NV>(p.out + r * p.out_stride + k, p.total ? p.total + r * p.rows + o : nullptr, p.place + r * p.capacity + k, start[o + 1] - k,
                   p.in + r * p.in_stride + at, p.scale, p.weight + r * p.weights + o * p.length + at, last);
  }
}

template <class T>
void dot_narrow(const Rows<T>& p, const Range& rows, int64_t r) {
  const int32_t* start = p.start + r * (p.rows + 1);
  for (int64_t o = rows.first; o < rows.last; ++o) {
    const T* g = p.weight + r * p.weights + o * p.length;
    for (int64_t k = start[o]; k < start[o + 1]; ++k) {
      const T* x = p.in + r * p.in_stride + p.place[r * p.capacity + k] * p.scale;
      T sum = 0;
      for (int64_t t = 0; t < p.length; ++t) sum += g[t] * x[t];
      p.out[r * p.out_stride + k] += sum;
    }
    if (p.total)
      for (int64_t t = 0; t < p.length; ++t) p.total[r * p.rows + o] += g[t];
  }
}

// out[r, k] += weight[r, o, :] · in[r, place[r, k], :] for every k of row o; here `weight` is dense, [S, rows, length].
// total[r, o] += Σ weight[r, o, :].
template <class T>
void dot(const Rows<T>& p, const Range& rows, int64_t r) {
  constexpr int64_t W = Lane<T>::count;
  if (p.length < W) return dot_narrow(p, rows, r);
  for (int64_t at = 0; at < p.length; at += kBlock * W) {
    switch (std::min<int64_t>(kBlock, (p.length - at + W - 1) / W)) {
      case 1: dot_rows<T, 1>(p, rows, r, at); break;
      case 2: dot_rows<T, 2>(p, rows, r, at); break;
      case 3: dot_rows<T, 3>(p, rows, r, at); break;
      case 4: dot_rows<T, 4>(p, rows, r, at); break;
      case 5: dot_rows<T, 5>(p, rows, r, at); break;
      case 6: dot_rows<T, 6>(p, rows, r, at); break;
      case 7: dot_rows<T, 7>(p, rows, r, at); break;
      default: dot_rows<T, 8>(p, rows, r, at); break;
    }
  }
}

typedef float Eight __attribute__((vector_size(32), aligned(alignof(float)), may_alias));

// Eight rows of eight, turned in registers.
inline void turn(float* out, int64_t width, const float* const* rows, int64_t at) {
  Eight a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = *reinterpret_cast<const Eight*>(rows[i] + at);
  for (int i = 0; i < 8; i += 2) {
    b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      a[i + j] = __builtin_shufflevector(b[i + j], b[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      a[i + j + 2] = __builtin_shufflevector(b[i + j], b[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  for (int j = 0; j < 4; ++j) {
    *reinterpret_cast<Eight*>(out + j * width) = __builtin_shufflevector(a[j], a[j + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    *reinterpret_cast<Eight*>(out + (j + 4) * width) =
        __builtin_shufflevector(a[j], a[j + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

// out[c * width + r] = in[chosen[r] * columns + c]; without `chosen` (null), row r is in's own.
//
// Rows of a dataset come from main memory: while eight are turned, the next eight are fetched.
template <class T>
void transpose(T* out, const T* in, const int64_t* chosen, int64_t rows, int64_t columns, int64_t width) {
  constexpr int64_t kTile = 8, kAcross = 64 / sizeof(T);
  const auto row = [&](int64_t r) { return in + (chosen ? chosen[r] : r) * columns; };
  for (int64_t r = 0; r < rows; r += kTile) {
    const int64_t height = std::min(kTile, rows - r);
    const T *from[kTile], *next[kTile];
    for (int64_t i = 0; i < height; ++i) from[i] = row(r + i), next[i] = row(std::min(r + kTile + i, rows - 1));
    for (int64_t c = 0; c < columns; c += kAcross) {
      const int64_t end = std::min(c + kAcross, columns);
      for (int64_t i = 0; i < height; ++i) __builtin_prefetch(next[i] + c, 0, 2);
      int64_t j = c;
      if constexpr (sizeof(T) == sizeof(float))
        if (height == kTile)
          for (; j + kTile <= end; j += kTile) turn(out + j * width + r, width, from, j);
      for (; j < end; ++j)
        for (int64_t i = 0; i < height; ++i) out[j * width + r + i] = from[i][j];
    }
  }
}

extern const Kernels kernels;
const Kernels kernels = {sum<float>, sum<double>, dot<float>, dot<double>, transpose<float>, transpose<double>};

}  // namespace winticket::ISA
