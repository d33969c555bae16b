// Products of one example, whose inputs lie next to each other: rows summed up, or columns walked past inputs of zero.
#pragma once

#include "runs.hpp"

namespace winticket::ISA {

// Every row's sum by `dot(place, weight, count, x)`, block by block. Counts are multiples of four.
template <class Dot>
inline void each_row(const Product& p, const Entries& e, const float* in, const float* residual, float* out,
                     const Dot& dot) {
  for (int64_t line = 0; line < p.lines.count; ++line) {
    const float* more = residual ? residual + line * p.lines.residual : nullptr;
    float* to = out + line * p.lines.out;
    for (int64_t block = 0; block < e.blocks; ++block) {
      const int32_t* start = e.start.data() + block * (e.groups + 1);
      const float* x = in + line * p.lines.in + e.base[block];
      const bool ends = block + 1 == e.blocks;
      for (int64_t o = 0; o < e.rows; ++o) {
        const int64_t k = start[o];
        float sum = dot(e.place.data() + k, e.weight.data() + k, start[o + 1] - k, x);
        sum += block ? to[o] : p.finish.bias[o];
        if (ends && more) sum += more[o];
        to[o] = ends ? clamped(sum, p.finish) : sum;
      }
    }
  }
}

// On processors with slow gathers, loads one by one are the fastest.
inline void rows(const Product& p, const Entries& e, const float* in, const float* residual, float* out) {
  each_row(p, e, in, residual, out, [](const uint16_t* place, const float* weight, int64_t count, const float* x) {
    float a = 0, b = 0, c = 0, d = 0;
    for (int64_t k = 0; k < count; k += 4) {
      a += weight[k] * x[place[k]];
      b += weight[k + 1] * x[place[k + 1]];
      c += weight[k + 2] * x[place[k + 2]];
      d += weight[k + 3] * x[place[k + 3]];
    }
    return (a + b) + (c + d);
  });
}

#if BYTES == 64
// The forms of the intrinsics with masks, all set: GCC 12 warns of those without.
inline float dot_gathered(const uint16_t* place, const float* weight, int64_t count, const float* x) {
  constexpr __mmask16 all = 0xffff;
  Floats sum{};
  int64_t k = 0;
  for (; k + 16 <= count; k += 16) {
    const __m256i places = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(place + k));
    const __m512i at = _mm512_maskz_cvtepu16_epi32(all, places);
    sum += load(weight + k) * static_cast<Floats>(_mm512_mask_i32gather_ps(_mm512_setzero_ps(), all, at, x, 4));
  }
  float rest = 0;
  for (; k < count; ++k) rest += weight[k] * x[place[k]];
  return total<float>(sum) + rest;
}
#elif BYTES == 32
inline float dot_gathered(const uint16_t* place, const float* weight, int64_t count, const float* x) {
  Floats sum{};
  int64_t k = 0;
  for (; k + 8 <= count; k += 8) {
    const __m256i at = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(place + k)));
    sum += load(weight + k) * static_cast<Floats>(_mm256_i32gather_ps(x, at, 4));
  }
  float rest = 0;
  for (; k < count; ++k) rest += weight[k] * x[place[k]];
  return total<float>(sum) + rest;
}
#endif

#if BYTES > 16
inline void gathered(const Product& p, const Entries& e, const float* in, const float* residual, float* out) {
  each_row(p, e, in, residual, out, dot_gathered);
}
#else
constexpr void (*gathered)(const Product&, const Entries&, const float*, const float*, float*) = nullptr;
#endif

// Lists the inputs that are not zero, without a branch on any of them, and returns how many there are.
inline int64_t nonzeros(const float* in, int64_t count, const Skipping& s) {
  int64_t n = 0, j = 0;
#if BYTES == 64
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; j + 16 <= count; j += 16) {
    __m512 x = _mm512_loadu_ps(in + j);
    if (s.zero) x = _mm512_sub_ps(x, _mm512_loadu_ps(s.zero + j));
    const __mmask16 kept = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const __m512i at = _mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(j)));
    _mm512_storeu_si512(s.index + n, _mm512_maskz_compress_epi32(kept, at));
    _mm512_storeu_ps(s.value + n, _mm512_maskz_compress_ps(kept, x));
    n += __builtin_popcount(kept);
  }
#endif
  for (; j < count; ++j) {
    const float x = s.zero ? in[j] - s.zero[j] : in[j];
    s.index[n] = static_cast<int32_t>(j), s.value[n] = x;
    n += x != 0;
  }
  return n;
}

inline void finish_line(const Product& p, const float* residual, float* out, int64_t rows) {
  for (int64_t o = 0; o < rows; ++o) out[o] = clamped(residual ? out[o] + residual[o] : out[o], p.finish);
}

// Calls line(inputs that are not zero, residual, out) for every line.
template <class Line>
inline void each_listed(const Product& p, int64_t columns, const Skipping& s, const float* in, const float* residual,
                        float* out, const Line& line) {
  for (int64_t l = 0; l < p.lines.count; ++l)
    line(nonzeros(in + l * p.lines.in, columns, s), residual ? residual + l * p.lines.residual : nullptr,
         out + l * p.lines.out);
}

inline void columns(const Product& p, const Columns& c, const Skipping& s, const float* in, const float* residual,
                    float* out) {
  each_listed(p, c.columns, s, in, residual, out, [&](int64_t listed, const float* more, float* to) {
    std::memcpy(to, p.finish.bias, c.rows * sizeof(float));
    const uint16_t* place = c.place.data();
    const float* weight = c.weight.data();
    for (int64_t i = 0; i < listed; ++i) {
      const float x = s.value[i];
      const int64_t end = c.start.data()[s.index[i] + 1];
      for (int64_t k = c.start.data()[s.index[i]]; k < end; ++k) to[place[k]] += weight[k] * x;
    }
    finish_line(p, more, to, c.rows);
  });
}

// NV vectors of rows stay in registers while the columns go by.
template <int NV>
void walk_dense(const Skipping& s, int64_t listed, const float* weight, const float* bias, float* out, int64_t rows) {
  const int64_t wide = NV * kLanes;
  Floats sum[NV] = {};
  for (int64_t i = 0; i < listed; ++i) {
    const float* w = weight + s.index[i] * wide;
    const float x = s.value[i];
    UNROLLED for (int j = 0; j < NV; ++j) sum[j] += x * load(w + j * kLanes);
  }
  float lane[NV * kLanes];
  UNROLLED for (int j = 0; j < NV; ++j) store(lane + j * kLanes, sum[j]);
  for (int64_t o = 0; o < rows; ++o) out[o] = bias[o] + lane[o];
}

typedef void (*WalkDense)(const Skipping&, int64_t, const float*, const float*, float*, int64_t);

template <int... NV>
inline WalkDense walk_of(int64_t vectors, std::integer_sequence<int, NV...>) {
  static constexpr WalkDense all[] = {walk_dense<NV + 1>...};
  return all[vectors - 1];
}

inline void dense_columns(const Product& p, const DenseColumns& c, const Skipping& s, const float* in,
                          const float* residual, float* out) {
  const int64_t wide = c.vectors * kLanes;
  const WalkDense walk = walk_of(c.vectors, std::make_integer_sequence<int, kSums>{});
  each_listed(p, c.columns, s, in, residual, out, [&](int64_t listed, const float* more, float* to) {
    for (int64_t pass = 0; pass < c.passes; ++pass) {
      const int64_t first = pass * wide;
      walk(s, listed, c.weight.data() + first * c.columns, p.finish.bias + first, to + first,
           std::min(wide, c.rows - first));
    }
    finish_line(p, more, to, c.rows);
  });
}

}  // namespace winticket::ISA
