// Everything between the products: copies, functions of elements, sums of values, pooling, means, softmax.
#pragma once

#include <cmath>
#include <limits>

#include "runs.hpp"

namespace winticket::ISA {

// Calls run(in, other, out, count) for every run of the innermost axis.
template <class Run>
inline void each_run(const Loop& l, const float* in, const float* other, float* out, const Run& run, int axis = 0) {
  if (axis + 1 == l.axes) return run(in, other, out, l.size[axis]);
  for (int64_t i = 0; i < l.size[axis]; ++i)
    each_run(l, in + i * l.in[axis], other ? other + i * l.other[axis] : nullptr, out + i * l.out[axis], run, axis + 1);
}

// Calls one(element offset) for vectors, and once more for a part of a vector: stores only what belongs to the run.
template <class F>
inline void each_vector(const float* in, float* out, int64_t count, const F& f) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, f(load(in + i)));
  if (i == count) return;
  float lane[kLanes] = {};
  std::memcpy(lane, in + i, (count - i) * sizeof(float));
  store(lane, f(load(lane)));
  std::memcpy(out + i, lane, (count - i) * sizeof(float));
}

inline void scaled(const Scaled& s, const float* in, float* out) {
  if (!s.scale)
    return each_run(s.loop, in, nullptr, out, [](const float* x, const float*, float* y, int64_t n) {
      std::memcpy(y, x, n * sizeof(float));
    });
  for (int64_t c = 0; c < s.loop.size[0]; ++c) {
    const float a = s.scale[c], b = s.shift[c];
    const auto run = [a, b](const float* x, const float*, float* y, int64_t n) {
      for (int64_t i = 0; i < n; ++i) y[i] = x[i] * a + b;
    };
    each_run(s.loop, in + c * s.loop.in[0], nullptr, out + c * s.loop.out[0], run, 1);
  }
}

inline void add(const Loop& loop, float low, float high, const float* in, const float* other, float* out) {
  each_run(loop, in, other, out, [low, high](const float* x, const float* y, float* z, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const float sum = x[i] + y[i], raised = sum < low ? low : sum;
      z[i] = raised > high ? high : raised;
    }
  });
}

typedef int32_t Integers __attribute__((vector_size(BYTES), aligned(4), may_alias));

// e^x as 2^n · e^r with |r| <= ln 2 / 2; the polynomial of Cephes' expf, whose error is below 2 units in the last place.
inline Floats exponential(Floats x) {
  const Floats most = Floats{} + 88.0f, least = Floats{} - 87.3f;
  const Floats y = x > most ? most : x < least ? least : x;
  const Floats half = Floats{} + 0.5f, scaled_up = y * 1.44269504088896341f;
  const Integers n = __builtin_convertvector(scaled_up + (y < 0 ? -half : half), Integers);
  const Floats whole = __builtin_convertvector(n, Floats);
  const Floats r = y - whole * 0.693359375f + whole * 2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Integers bits = (n + 127) << 23;
  return p * reinterpret_cast<const Floats&>(bits);
}

inline Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

// Cephes' tanhf: a polynomial near 0, else by the exponential.
inline Floats hyperbolic(Floats x) {
  const Floats z = x < 0 ? -x : x, s = x * x;
  Floats p = s * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  const Floats near = p * s * x + x;
  const Floats far = 1.0f - 2.0f / (exponential(z + z) + 1.0f);
  return z < 0.625f ? near : x < 0 ? -far : far;
}

// The error function after Abramowitz and Stegun 1964, 7.1.26, would be off by 1e-7; the library's is exact, and a
// network's few thousand elements can wait for it.
inline Floats error_function(Floats x) {
  float lane[kLanes];
  store(lane, x);
  for (float& v : lane) v = std::erf(v);
  return load(lane);
}

inline void unary(const Unary& u, const float* in, float* out) {
  const auto each = [&](auto f) {
    each_run(u.loop, in, nullptr, out, [&](const float* x, const float*, float* y, int64_t n) { each_vector(x, y, n, f); });
  };
  const float a = u.a, b = u.b;
  switch (u.function) {
    case Function::clamp: return each([a, b](Floats v) { return clamped(v, Finish{nullptr, a, b}); });
    case Function::leaky: return each([a](Floats v) { return v > 0 ? v : v * a; });
    case Function::gelu: return each([](Floats v) { return 0.5f * v * (1.0f + error_function(v * 0.70710678118654752f)); });
    case Function::gelu_tanh:
      return each([](Floats v) {
        return 0.5f * v * (1.0f + hyperbolic(0.79788456080286536f * (v + 0.044715f * v * v * v)));
      });
    case Function::silu: return each([](Floats v) { return v * sigmoid(v); });
    case Function::sigmoid: return each([](Floats v) { return sigmoid(v); });
    case Function::tanh: return each([](Floats v) { return hyperbolic(v); });
  }
}

// First and last-but-one window (of a.result) that tap k reaches with an input, not with padding.
inline std::pair<int64_t, int64_t> reached(const Axis& a, int64_t k) {
  const int64_t from = k * a.dilation - a.before;  // the input that window 0 meets
  const int64_t first = from >= 0 ? 0 : (-from + a.stride - 1) / a.stride;
  const int64_t end = a.size - from <= 0 ? 0 : (a.size - from - 1) / a.stride + 1;
  return {first, std::min(end, a.result)};
}

template <bool Maximum>
inline float joined(float a, float b) {
  return Maximum ? (a < b ? b : a) : a + b;
}

// One tap's inputs joined to the windows [first, end) of a line.
template <bool Maximum>
inline void join_line(const float* in, float* out, int64_t first, int64_t end, int64_t stride, int64_t width) {
  if (stride == 1) {
    for (int64_t i = first * width; i < end * width; ++i) out[i] = joined<Maximum>(out[i], in[i]);
  } else if (width > 1) {
    for (int64_t x = first; x < end; ++x)
      for (int64_t i = 0; i < width; ++i)
        out[x * width + i] = joined<Maximum>(out[x * width + i], in[x * stride * width + i]);
  } else {
    for (int64_t x = first; x < end; ++x) out[x] = joined<Maximum>(out[x], in[x * stride]);
  }
}

// 2 * kLanes elements.
struct Halves {
  Floats even, odd;
};

inline Halves halves(const float* x) {
  const Floats low = load(x), high = load(x + kLanes);
#if BYTES == 64
  return {__builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
          __builtin_shufflevector(low, high, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)};
#elif BYTES == 32
  return {__builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14),
          __builtin_shufflevector(low, high, 1, 3, 5, 7, 9, 11, 13, 15)};
#else
  return {__builtin_shufflevector(low, high, 0, 2, 4, 6), __builtin_shufflevector(low, high, 1, 3, 5, 7)};
#endif
}

// The commonest pooling: windows of two by two side by side, of a single image.
template <bool Maximum>
void pool_pairs(const Pool& p, const float* in, float* out) {
  const float factor = Maximum ? 1.0f : 0.25f;
  for (int64_t c = 0; c < p.planes; ++c)
    for (int64_t y = 0; y < p.down.result; ++y) {
      const float* above = in + c * p.in_plane + 2 * y * p.in_row;
      const float* below = above + p.in_row;
      float* line = out + c * p.out_plane + y * p.out_row;
      int64_t x = 0;
      for (; x + kLanes <= p.across.result; x += kLanes) {
        const auto [a, b] = halves(above + 2 * x);
        const auto [c, d] = halves(below + 2 * x);
        if constexpr (Maximum) {
          const Floats e = a < b ? b : a, f = c < d ? d : c;
          store(line + x, e < f ? f : e);
        } else {
          store(line + x, ((a + b) + (c + d)) * factor);
        }
      }
      for (; x < p.across.result; ++x)
        line[x] = joined<Maximum>(joined<Maximum>(above[2 * x], above[2 * x + 1]),
                                  joined<Maximum>(below[2 * x], below[2 * x + 1])) * factor;
    }
}

inline bool in_pairs(const Axis& a) {
  return a.kernel == 2 && a.stride == 2 && a.before == 0 && a.dilation == 1 && a.result * 2 <= a.size;
}

template <bool Maximum>
void pool_all(const Pool& p, const float* in, float* out) {
  if (p.width == 1 && in_pairs(p.down) && in_pairs(p.across)) return pool_pairs<Maximum>(p, in, out);
  for (int64_t c = 0; c < p.planes; ++c)
    for (int64_t y = 0; y < p.down.result; ++y) {
      float* line = out + c * p.out_plane + y * p.out_row;
      std::fill(line, line + p.across.result * p.width, Maximum ? -std::numeric_limits<float>::infinity() : 0.0f);
      int64_t rows = 0;
      for (int64_t k = 0; k < p.down.kernel; ++k) {
        const int64_t from = y * p.down.stride + k * p.down.dilation - p.down.before;
        if (from < 0 || from >= p.down.size) continue;
        ++rows;
        for (int64_t j = 0; j < p.across.kernel; ++j) {
          const auto [first, end] = reached(p.across, j);
          const int64_t shift = j * p.across.dilation - p.across.before;
          join_line<Maximum>(in + c * p.in_plane + from * p.in_row + shift * p.width, line, first, end, p.across.stride,
                             p.width);
        }
      }
      if (Maximum) continue;
      for (int64_t x = 0; x < p.across.result; ++x) {
        int64_t columns = 0;
        for (int64_t j = 0; j < p.across.kernel; ++j) {
          const auto [first, end] = reached(p.across, j);
          columns += x >= first && x < end;
        }
        const int64_t count = p.count_padding ? p.down.kernel * p.across.kernel : rows * columns;
        for (int64_t i = 0; i < p.width; ++i) line[x * p.width + i] /= static_cast<float>(count);
      }
    }
}

inline void pool(const Pool& p, const float* in, float* out) {
  p.maximum ? pool_all<true>(p, in, out) : pool_all<false>(p, in, out);
}

inline void adaptive(const Adaptive& p, const float* in, float* out) {
  for (int64_t c = 0; c < p.planes; ++c)
    for (int64_t y = 0; y < p.result[0]; ++y)
      for (int64_t x = 0; x < p.result[1]; ++x) {
        const int64_t top = p.low(0, y), bottom = p.high(0, y), left = p.low(1, x), right = p.high(1, x);
        float* to = out + c * p.out_plane + y * p.out_row + x * p.width;
        std::fill(to, to + p.width, 0.0f);
        for (int64_t i = top; i < bottom; ++i) {
          const float* from = in + c * p.in_plane + i * p.in_row;
          for (int64_t j = left; j < right; ++j)
            for (int64_t e = 0; e < p.width; ++e) to[e] += from[j * p.width + e];
        }
        const float count = static_cast<float>((bottom - top) * (right - left));
        for (int64_t e = 0; e < p.width; ++e) to[e] /= count;
      }
}

inline float sum_of(const float* x, int64_t count) {
  constexpr int kParts = 4;
  Floats sum[kParts] = {};
  int64_t i = 0;
  for (; i + kParts * kLanes <= count; i += kParts * kLanes)
    UNROLLED for (int j = 0; j < kParts; ++j) sum[j] += load(x + i + j * kLanes);
  for (; i + kLanes <= count; i += kLanes) sum[0] += load(x + i);
  float rest = total<float>((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; i < count; ++i) rest += x[i];
  return rest;
}

// Loops over all axes of `l`, the innermost among them.
template <class One>
inline void each_one(const Loop& l, const float* in, float* out, const One& one, int axis = 0) {
  if (axis == l.axes) return one(in, out);
  for (int64_t i = 0; i < l.size[axis]; ++i) each_one(l, in + i * l.in[axis], out + i * l.out[axis], one, axis + 1);
}

inline void mean(const Mean& m, const float* in, float* out) {
  each_one(m.kept, in, out, [&](const float* x, float* y) {
    if (!m.run_kept) {
      float sum = 0;
      each_one(m.over, x, nullptr, [&](const float* from, float*) { sum += sum_of(from, m.run); });
      *y = sum * m.factor;
      return;
    }
    // One sum of thousands of numbers, unlike many partial sums, needs more than single precision.
    constexpr int64_t kStrip = 64;
    for (int64_t at = 0; at < m.run; at += kStrip) {
      const int64_t count = std::min(kStrip, m.run - at);
      double sum[kStrip] = {};
      each_one(m.over, x + at, nullptr, [&](const float* from, float*) {
        for (int64_t i = 0; i < count; ++i) sum[i] += from[i];
      });
      for (int64_t i = 0; i < count; ++i) y[at + i] = static_cast<float>(sum[i] * m.factor);
    }
  });
}

inline void softmax(const Softmax& s, const float* in, float* out) {
  each_one(s.kept, in, out, [&](const float* x, float* y) {
    float most = x[0], sum = 0;
    for (int64_t i = 1; i < s.count; ++i) most = std::max(most, x[i * s.in]);
    for (int64_t i = 0; i < s.count; ++i) {
      const float power = std::exp(x[i * s.in] - most);
      if (!s.logarithm) y[i * s.out] = power;
      sum += power;
    }
    const float logarithm = std::log(sum);
    for (int64_t i = 0; i < s.count; ++i)
      y[i * s.out] = s.logarithm ? x[i * s.in] - most - logarithm : y[i * s.out] / sum;
  });
}

#if BYTES == 64
// Lanes [low, high) of a vector.
inline __mmask16 lanes(int64_t low, int64_t high) {
  const auto below = [](int64_t n) { return n <= 0 ? 0u : n >= 16 ? 0xffffu : (1u << n) - 1; };
  return static_cast<__mmask16>(below(high) & ~below(low));
}

// Every second input of a single example: elements [first, end) of `count`, zeros before and after.
inline void second_line(const float* from, float* out, int64_t first, int64_t end, int64_t count) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  for (int64_t x = 0; x < count; x += 16) {
    const int64_t low = 2 * (first - x), high = 2 * (end - x) - 1;
    const __m512 a = _mm512_maskz_loadu_ps(lanes(low, high), from + 2 * x);
    const __m512 b = _mm512_maskz_loadu_ps(lanes(low - 16, high - 16), from + 2 * x + 16);
    _mm512_mask_storeu_ps(out + x, lanes(0, count - x), _mm512_permutex2var_ps(a, even, b));
  }
}
#endif

// One line of one phase: the inputs at `from`, and every stride after it, are elements [first, end); others are 0.
inline void phase_line(const Phases& p, const float* from, float* out, int64_t first, int64_t end) {
  const int64_t stride = p.across.stride, count = p.row / p.width;
#if BYTES == 64
  if (p.width == 1 && stride == 2 && first < end) return second_line(from, out, first, end, count);
#endif
  for (int64_t i = 0; i < first * p.width; ++i) out[i] = 0;
  int64_t x = first;
  if (p.width == 1) {
    if (stride == 2)
      for (; x + kLanes < end; x += kLanes) store(out + x, halves(from + 2 * x).even);
    for (; x < end; ++x) out[x] = from[x * stride];
  }
  for (; x < end; ++x)
    for (int64_t i = 0; i < p.width; ++i) out[x * p.width + i] = from[x * stride * p.width + i];
  for (int64_t i = end * p.width; i < count * p.width; ++i) out[i] = 0;
}

inline void phases(const Phases& p, const float* in, float* out) {
  const int64_t count = static_cast<int64_t>(p.downs.size());
  for (int64_t k = 0; k < count; ++k) {
    const int64_t shift = p.acrosses[k] - p.across.before;
    const Axis one{p.across.size, p.row / p.width, 1, p.across.stride, -shift, 1};
    const auto [begins, ends] = reached(one, 0);
    const int64_t first = std::min(begins, one.result), end = std::max(first, ends);
    for (int64_t c = 0; c < p.planes; ++c)
      for (int64_t y = 0; y < p.down.result; ++y) {
        const int64_t from = y * p.down.stride + p.downs[k] - p.down.before;
        float* line = out + (c * count + k) * p.plane + y * p.row;
        if (from < 0 || from >= p.down.size) std::fill(line, line + p.row, 0.0f);
        else phase_line(p, in + c * p.in_plane + from * p.in_row + shift * p.width, line, first, end);
      }
  }
}

// `value` is the first position of the first plane.
inline void clear(const Borders& b, float* value) {
  std::fill(value - b.lead, value, 0.0f);
  for (int64_t c = 0; c < b.planes; ++c) {
    float* plane = value + c * b.plane;
    for (int64_t y = 0; y + 1 < b.rows; ++y) std::fill(plane + y * b.row + b.used, plane + (y + 1) * b.row, 0.0f);
    std::fill(plane + (b.rows - 1) * b.row + b.used, plane + b.plane, 0.0f);
  }
  std::fill(value + b.planes * b.plane, value + b.planes * b.plane + b.tail, 0.0f);
}

// A number times 0 is 0, unless it is infinite or no number.
inline bool finite(const float* x, int64_t count) {
  Floats sum[2] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) sum[0] += load(x + i) * 0.0f, sum[1] += load(x + i + kLanes) * 0.0f;
  float rest = total<float>(sum[0] + sum[1]);
  for (; i < count; ++i) rest += x[i] * 0.0f;
  return rest == 0;
}

inline void floats(const uint8_t* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]);
}

}  // namespace winticket::ISA
