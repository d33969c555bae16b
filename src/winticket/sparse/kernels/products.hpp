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
#include <type_traits>

#include "rows.hpp"

// Arrays of vectors stay in registers only if the loops over them are unrolled, which GCC 12 does not do by itself.
#ifdef __clang__
#define UNROLLED _Pragma("unroll 16")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

namespace winticket::ISA {

// Reads and writes anywhere: the alignment is the element's.
template <class T>
struct Lane {
  typedef T V __attribute__((vector_size(BYTES), aligned(alignof(T)), may_alias));
  static constexpr int64_t count = BYTES / sizeof(T);
};
template <class T>
using Vector = typename Lane<T>::V;

constexpr int kMost = 8;  // vectors of a row's result that can stay in registers

template <int N>
struct Constant {
  static constexpr int value = N;
};

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

// The vectors of a row's result that stay in registers at once: fewer of the widest ones if that keeps what a block of
// the operand holds beneath them in the first-level cache. Below 256 bytes a weight meets too few neighbours to pay.
template <class T>
inline int64_t vectors_at_once(const Rows<T>& p) {
  constexpr int64_t kCache = 32 * 1024, kLeast = std::min<int64_t>(kMost, 256 / BYTES);
  const int64_t operands = (p.operands + p.blocks - 1) / p.blocks;
  return operands * kMost * BYTES <= kCache ? kMost : kLeast;
}

// Elements computed of a dense row: up to the end of the vector that its last element is in, if that may be touched.
template <class T>
inline int64_t computed(const Rows<T>& p) {
  constexpr int64_t W = Lane<T>::count;
  return std::min(p.width, (p.length + W - 1) / W * W);
}

// Calls work(number of vectors as a constant, first element) for one slice of the rows after the other.
template <class T, class Work>
inline void each_slice(const Rows<T>& p, const Work& work) {
  constexpr int64_t W = Lane<T>::count;
  const int64_t most = vectors_at_once(p), width = computed(p);
  for (int64_t at = 0; at < width; at += most * W) {
    switch (std::min<int64_t>(most, (width - at + W - 1) / W)) {
      case 1: work(Constant<1>{}, at); break;
      case 2: work(Constant<2>{}, at); break;
      case 3: work(Constant<3>{}, at); break;
      case 4: work(Constant<4>{}, at); break;
      case 5: work(Constant<5>{}, at); break;
      case 6: work(Constant<6>{}, at); break;
      case 7: work(Constant<7>{}, at); break;
      default: work(Constant<8>{}, at); break;
    }
  }
}

// Adds the products of one row's weights in one block to NV vectors, of which the last begins at `last` and may overlap
// the one before.
template <class T, int NV>
inline void add_row(Vector<T>* sum, const T* weight, const int32_t* order, const int32_t* place, int64_t count,
                    const T* in, int64_t scale, int64_t last) {
  constexpr int64_t W = Lane<T>::count;
  const auto at = [&](int64_t k) { return order ? weight[order[k]] : weight[k]; };
  int64_t k = 0;
  if constexpr (2 * NV <= kMost) {
    // Two weights at a time, each with sums of its own: a sum cannot take the next product before it has the last one.
    Vector<T> other[NV] = {};
    for (; k + 2 <= count; k += 2) {
      const T *x = in + place[k] * scale, *y = in + place[k + 1] * scale;
      const T w = at(k), v = at(k + 1);
      UNROLLED for (int j = 0; j < NV - 1; ++j) sum[j] += w * load(x + j * W), other[j] += v * load(y + j * W);
      sum[NV - 1] += w * load(x + last), other[NV - 1] += v * load(y + last);
    }
    UNROLLED for (int j = 0; j < NV; ++j) sum[j] += other[j];
  }
  for (; k < count; ++k) {
    const T* x = in + place[k] * scale;
    const T w = at(k);
    UNROLLED for (int j = 0; j < NV - 1; ++j) sum[j] += w * load(x + j * W);
    sum[NV - 1] += w * load(x + last);
  }
}

// One slice of the rows, block by block: what a block reads of the operand stays in the first-level cache.
template <class T, int NV>
void sum_rows(const Rows<T>& p, const Range& rows, int64_t r, int64_t at) {
  constexpr int64_t W = Lane<T>::count;
  const int64_t last = std::min(at + (NV - 1) * W, computed(p) - W) - at;
  const int32_t* place = p.place + r * p.capacity;
  const int32_t* order = p.order ? p.order + r * p.capacity : nullptr;
  const T* weight = p.weight + r * p.weights;
  const T* in = p.in + r * p.in_stride + at;
  T* out = p.out + r * p.out_stride + at;
  const T* gate = p.gate ? p.gate + r * p.gate_stride + at : nullptr;
  for (int64_t block = 0; block < p.blocks; ++block) {
    const int32_t* start = p.start + (r * p.blocks + block) * (p.rows + 1);
    const bool first = block == 0, ends = block + 1 == p.blocks;
    for (int64_t o = rows.first; o < rows.last; ++o) {
      const int64_t k = start[o], count = start[o + 1] - k;
      if (!count && !first && !ends) continue;
      T* to = out + o * p.out_scale;
      Vector<T> sum[NV];
      if (first) {
        UNROLLED for (int j = 0; j < NV; ++j) sum[j] = Vector<T>{} + (p.begin ? p.begin[r * p.rows + o] : T(0));
      } else {
        UNROLLED for (int j = 0; j < NV - 1; ++j) sum[j] = load(to + j * W);
        sum[NV - 1] = load(to + last);
      }
      add_row<T, NV>(sum, order ? weight : weight + k, order ? order + k : nullptr, place + k, count, in, p.scale, last);
      if (ends) {
        const T* by = gate ? gate + o * p.gate_scale : nullptr;
        UNROLLED for (int j = 0; j < NV - 1; ++j) sum[j] = finished(sum[j], p.positive, by ? by + j * W : nullptr);
        sum[NV - 1] = finished(sum[NV - 1], p.positive, by ? by + last : nullptr);
      }
      UNROLLED for (int j = 0; j < NV - 1; ++j) store(to + j * W, sum[j]);
      store(to + last, sum[NV - 1]);
    }
  }
}

// Rows shorter than a vector.
template <class T>
void sum_narrow(const Rows<T>& p, const Range& rows, int64_t r) {
  for (int64_t o = rows.first; o < rows.last; ++o) {
    T* out = p.out + r * p.out_stride + o * p.out_scale;
    std::fill(out, out + p.length, p.begin ? p.begin[r * p.rows + o] : T(0));
    for (int64_t block = 0; block < p.blocks; ++block) {
      const int32_t* start = p.start + (r * p.blocks + block) * (p.rows + 1);
      for (int64_t k = start[o]; k < start[o + 1]; ++k) {
        const T* x = p.in + r * p.in_stride + p.place[r * p.capacity + k] * p.scale;
        const T w = p.weight[r * p.weights + (p.order ? p.order[r * p.capacity + k] : k)];
        for (int64_t t = 0; t < p.length; ++t) out[t] += w * x[t];
      }
    }
    const T* gate = p.gate ? p.gate + r * p.gate_stride + o * p.gate_scale : nullptr;
    for (int64_t t = 0; t < p.length; ++t)
      if ((p.positive && out[t] < 0) || (gate && gate[t] <= 0)) out[t] = 0;
  }
}

// out[r, o, :] = begin[r, o] + Σ_k weight[r, k] · in[r, place[r, k], :] over the row's k; see `positive` and `gate`.
template <class T>
void sum(const Rows<T>& p, const Range& rows, int64_t r) {
  if (computed(p) < Lane<T>::count) return sum_narrow(p, rows, r);
  each_slice(p, [&](auto vectors, int64_t at) { sum_rows<T, decltype(vectors)::value>(p, rows, r, at); });
}

template <class T>
inline T total(Vector<T> v) {
  T lane[Lane<T>::count];
  store(lane, v);
  for (int64_t width = Lane<T>::count / 2; width > 0; width /= 2)
    for (int64_t i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
}

// Sums of `count` vectors, added to to[0 ..]: one by one, or for floats several in a few shuffles.
template <class T>
struct Totals {
  static constexpr int kTogether = 4;
  static inline void add(T* to, const Vector<T>* v) {
    UNROLLED for (int i = 0; i < kTogether; ++i) to[i] += total<T>(v[i]);
  }
  static inline void add_four(T* to, const Vector<T>* v) { add(to, v); }
};

typedef float Four __attribute__((vector_size(16), aligned(alignof(float)), may_alias));
typedef float Eight __attribute__((vector_size(32), aligned(alignof(float)), may_alias));

inline Four folded(Vector<float> v) {
  Four part[BYTES / 16];
  std::memcpy(part, &v, sizeof v);
  UNROLLED for (int width = BYTES / 32; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  return part[0];
}

inline void add_four_floats(float* to, const Vector<float>* v) {
  const Four p = folded(v[0]), q = folded(v[1]), r = folded(v[2]), s = folded(v[3]);
  const Four pq = __builtin_shufflevector(p, q, 0, 4, 1, 5) + __builtin_shufflevector(p, q, 2, 6, 3, 7);
  const Four rs = __builtin_shufflevector(r, s, 0, 4, 1, 5) + __builtin_shufflevector(r, s, 2, 6, 3, 7);
  const Four all = __builtin_shufflevector(pq, rs, 0, 1, 4, 5) + __builtin_shufflevector(pq, rs, 2, 3, 6, 7);
  *reinterpret_cast<Four*>(to) += all;
}

#if BYTES == 64
// Sixteen sums in fifteen pairs of shuffles: each level adds up halves of what is left of two vectors at a time.
template <>
struct Totals<float> {
  static constexpr int kTogether = 16;
  typedef Vector<float> V;
  static inline V elements(V p, V q) {
    return __builtin_shufflevector(p, q, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
           __builtin_shufflevector(p, q, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  }
  static inline V pairs(V p, V q) {
    return __builtin_shufflevector(p, q, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
           __builtin_shufflevector(p, q, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  }
  static inline V fours(V p, V q) {
    return __builtin_shufflevector(p, q, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
           __builtin_shufflevector(p, q, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  }
  static inline void add(float* to, const V* v) {
    V of[4];
    UNROLLED for (int i = 0; i < 4; ++i)
        of[i] = pairs(elements(v[4 * i], v[4 * i + 1]), elements(v[4 * i + 2], v[4 * i + 3]));
    store(to, load(to) + fours(fours(of[0], of[1]), fours(of[2], of[3])));
  }
  static inline void add_four(float* to, const V* v) {
    const V all = pairs(elements(v[0], v[1]), elements(v[2], v[3]));
    const Eight half = __builtin_shufflevector(all, all, 0, 1, 2, 3, 4, 5, 6, 7) +
                       __builtin_shufflevector(all, all, 8, 9, 10, 11, 12, 13, 14, 15);
    *reinterpret_cast<Four*>(to) +=
        __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
  }
};
#else
template <>
struct Totals<float> {
  static constexpr int kTogether = 4;
  static inline void add(float* to, const Vector<float>* v) { add_four_floats(to, v); }
  static inline void add_four(float* to, const Vector<float>* v) { add_four_floats(to, v); }
};
#endif

// Lanes of a vector that count: `first` up to, but without, `end`; the others become 0, even those that hold a NaN.
template <class T>
struct Part {
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Integer;
  typedef Integer Bits __attribute__((vector_size(BYTES), aligned(alignof(Integer)), may_alias));
  Bits bits;
  Part(int64_t first, int64_t end) {
    Integer lane[Lane<T>::count];
    for (int64_t i = 0; i < Lane<T>::count; ++i) lane[i] = i >= first && i < end ? -1 : 0;
    std::memcpy(&bits, lane, sizeof bits);
  }
  Vector<T> of(Vector<T> v) const { return reinterpret_cast<Vector<T>>(reinterpret_cast<Bits>(v) & bits); }
};

// Products of NV vectors g with `Count` rows of the operand. Where `Cut`, what the last vector reads beyond the batch
// is taken away: it may hold anything.
template <class T, int NV, int Count, bool Cut>
inline void dot_some(Vector<T>* sum, const Vector<T>* g, const T* const* x, int64_t last, const Part<T>& part) {
  constexpr int64_t W = Lane<T>::count;
  UNROLLED for (int i = 0; i < Count; ++i) {
    const Vector<T> end = load(x[i] + last);
    sum[i] = g[NV - 1] * (Cut ? part.of(end) : end);
    UNROLLED for (int j = 0; j < NV - 1; ++j) sum[i] += g[j] * load(x[i] + j * W);
  }
}

// `all`, where not null, gains the sum of `other`.
template <class T, int NV, bool Cut>
inline void dot_row(T* out, T* all, const int32_t* place, int64_t count, const T* in, int64_t scale, const T* other,
                    int64_t last, const Part<T>& part) {
  constexpr int64_t W = Lane<T>::count;
  constexpr int kTogether = NV <= 4 ? Totals<T>::kTogether : 4;
  Vector<T> g[NV];
  UNROLLED for (int j = 0; j < NV - 1; ++j) g[j] = load(other + j * W);
  g[NV - 1] = part.of(load(other + last));
  if (all) {
    Vector<T> sum = g[0];
    UNROLLED for (int j = 1; j < NV; ++j) sum += g[j];
    *all += total<T>(sum);
  }
  int64_t k = 0;
  if constexpr (kTogether > 4)
    for (; k + kTogether <= count; k += kTogether) {
      const T* x[kTogether];
      Vector<T> sum[kTogether];
      UNROLLED for (int i = 0; i < kTogether; ++i) x[i] = in + place[k + i] * scale;
      dot_some<T, NV, kTogether, Cut>(sum, g, x, last, part);
      Totals<T>::add(out + k, sum);
    }
  for (; k < count; k += 4) {
    const T* x[4];
    Vector<T> sum[4];
    // Past the end the last weight is counted again, and dropped: cheaper than one weight at a time.
    UNROLLED for (int i = 0; i < 4; ++i) x[i] = in + place[std::min(k + i, count - 1)] * scale;
    dot_some<T, NV, 4, Cut>(sum, g, x, last, part);
    if (k + 4 <= count) {
      Totals<T>::add_four(out + k, sum);
    } else {
      T some[4] = {};
      Totals<T>::add_four(some, sum);
      for (int64_t i = 0; i < count - k; ++i) out[k + i] += some[i];
    }
  }
}

template <class T, int NV, bool Cut>
void dot_rows(const Rows<T>& p, const Range& rows, int64_t r, int64_t at, int64_t last, const Part<T>& part) {
  for (int64_t block = 0; block < p.blocks; ++block) {
    const int32_t* start = p.start + (r * p.blocks + block) * (p.rows + 1);
    for (int64_t o = rows.first; o < rows.last; ++o) {
      const int64_t k = start[o], count = start[o + 1] - k;
      T* all = p.total && block == 0 ? p.total + r * p.rows + o : nullptr;
      if (!count && !all) continue;
      dot_row<T, NV, Cut>(p.out + r * p.out_stride + k, all, p.place + r * p.capacity + k, count,
                          p.in + r * p.in_stride + at, p.scale, p.weight + r * p.weights + o * p.weight_scale + at,
                          last, part);
    }
  }
}

template <class T>
void dot_narrow(const Rows<T>& p, const Range& rows, int64_t r) {
  for (int64_t block = 0; block < p.blocks; ++block) {
    const int32_t* start = p.start + (r * p.blocks + block) * (p.rows + 1);
    for (int64_t o = rows.first; o < rows.last; ++o) {
      const T* g = p.weight + r * p.weights + o * p.weight_scale;
      for (int64_t k = start[o]; k < start[o + 1]; ++k) {
        const T* x = p.in + r * p.in_stride + p.place[r * p.capacity + k] * p.scale;
        T sum = 0;
        for (int64_t t = 0; t < p.length; ++t) sum += g[t] * x[t];
        p.out[r * p.out_stride + k] += sum;
      }
      if (p.total && block == 0)
        for (int64_t t = 0; t < p.length; ++t) p.total[r * p.rows + o] += g[t];
    }
  }
}

// out[r, k] += weight[r, o, :] · in[r, place[r, k], :] for every k of row o; here `weight` is dense, [S, rows, length].
// total[r, o] += Σ weight[r, o, :].
template <class T>
void dot(const Rows<T>& p, const Range& rows, int64_t r) {
  constexpr int64_t W = Lane<T>::count;
  if (computed(p) < W) return dot_narrow(p, rows, r);
  each_slice(p, [&](auto vectors, int64_t at) {
    constexpr int NV = decltype(vectors)::value;
    const int64_t last = std::min(at + (NV - 1) * W, computed(p) - W) - at;
    // The last vector may overlap the one before, and may reach beyond the batch: neither counts.
    const int64_t end = std::min(p.length - at - last, W);
    const Part<T> part((NV - 1) * W - last, end);
    if (end < W)
      dot_rows<T, NV, true>(p, rows, r, at, last, part);
    else
      dot_rows<T, NV, false>(p, rows, r, at, last, part);
  });
}

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

}  // namespace winticket::ISA
