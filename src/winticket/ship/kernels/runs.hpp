// Products whose weights each multiply a run of neighbours: positions of an image, or the examples of a tile.
#pragma once

#include "../../sparse/kernels/products.hpp"
#include "steps.hpp"

#if BYTES > 16
#include <immintrin.h>
#endif

namespace winticket::ISA {

typedef Vector<float> Floats;
constexpr int64_t kLanes = Lane<float>::count;
// Sums that fit the registers beside what they are made from, and how many have to be under way to hide their latency.
constexpr int kSums = BYTES == 64 ? 16 : 12;
constexpr int kChains = BYTES == 64 ? 4 : 8;

inline Floats clamped(Floats v, const Finish& f) {
#if BYTES == 64
  // One instruction each, which the comparisons below are not. The form with masks: GCC 12 warns of the one without.
  constexpr __mmask16 all = 0xffff;
  const __m512 low = _mm512_set1_ps(f.low), high = _mm512_set1_ps(f.high);
  return static_cast<Floats>(_mm512_maskz_min_ps(all, high, _mm512_maskz_max_ps(all, low, v)));
#endif
  v = v < f.low ? Floats{} + f.low : v;
  return v > f.high ? Floats{} + f.high : v;
}

inline float clamped(float v, const Finish& f) { return v < f.low ? f.low : v > f.high ? f.high : v; }

// Adds the products of a group's entries to its R x NV sums. Few sums are each made of several parts, so that an
// addition need not wait for the one before.
template <int R, int NV>
inline void add_entries(Floats (&sum)[R][NV], const uint16_t* place, const float* weight, int64_t count, const float* in,
                        int64_t scale, int64_t last) {
  constexpr int U = R * NV >= kChains ? 1 : std::min(4, kChains / (R * NV));
  const auto add = [&](Floats (&to)[R][NV], int64_t k) {
    const float* x = in + place[k] * scale;
    UNROLLED for (int j = 0; j < NV; ++j) {
      const Floats v = load(x + (j + 1 < NV ? j * kLanes : last));
      UNROLLED for (int r = 0; r < R; ++r) to[r][j] += weight[k * R + r] * v;
    }
  };
  if constexpr (U == 1) {
    for (int64_t k = 0; k < count; ++k) add(sum, k);
  } else {
    Floats part[U - 1][R][NV] = {};
    int64_t k = 0;
    for (; k + U <= count; k += U) {
      add(sum, k);
      UNROLLED for (int u = 1; u < U; ++u) add(part[u - 1], k + u);
    }
    for (; k < count; ++k) add(sum, k);
    UNROLLED for (int u = 1; u < U; ++u)
      UNROLLED for (int r = 0; r < R; ++r) UNROLLED for (int j = 0; j < NV; ++j) sum[r][j] += part[u - 1][r][j];
  }
}

// A run of less than a vector is computed as a vector, of which only its beginning is stored.
inline void store_some(float* to, Floats v, int64_t count) {
  float lane[kLanes];
  store(lane, v);
  for (int64_t i = 0; i < count; ++i) to[i] = lane[i];
}

template <int R, int NV, bool Whole>
void run_slice(const Product& p, const Entries& e, const float* in, const float* residual, float* out, int64_t at) {
  const int64_t last = Whole ? std::min(at + (NV - 1) * kLanes, p.length - kLanes) - at : 0;
  const auto from = [&](int j) { return at + (j + 1 < NV ? j * kLanes : last); };
  for (int64_t block = 0; block < e.blocks; ++block) {
    const int32_t* start = e.start.data() + block * (e.groups + 1);
    const float* x = in + e.base[block] * p.scale + at;
    const bool first = block == 0, ends = block + 1 == e.blocks;
    for (int64_t g = 0; g < e.groups; ++g) {
      const int64_t k = start[g], count = start[g + 1] - k, row = g * R;
      if (!count && !first && !ends) continue;
      Floats sum[R][NV];
      UNROLLED for (int r = 0; r < R; ++r) {
        // Rows beyond the last have weights of 0 and are not stored.
        const int64_t o = std::min(row + r, e.rows - 1);
        UNROLLED for (int j = 0; j < NV; ++j) {
          if (!first) sum[r][j] = load(out + o * p.out_row + from(j));
          else if (residual) sum[r][j] = load(residual + o * p.residual_row + from(j)) + p.finish.bias[o];
          else sum[r][j] = Floats{} + p.finish.bias[o];
        }
      }
      add_entries<R, NV>(sum, e.place.data() + k, e.weight.data() + k * R, count, x, p.scale, last);
      UNROLLED for (int r = 0; r < R; ++r) {
        if (R > 1 && row + r >= e.rows) break;
        UNROLLED for (int j = 0; j < NV; ++j) {
          const Floats v = ends ? clamped(sum[r][j], p.finish) : sum[r][j];
          float* to = out + (row + r) * p.out_row + from(j);
          if (Whole) store(to, v);
          else store_some(to, v, p.length);
        }
      }
    }
  }
}

template <int R>
void run_line(const Product& p, const Entries& e, const float* in, const float* residual, float* out) {
  if (p.length < kLanes) return run_slice<R, 1, false>(p, e, in, residual, out, 0);
  // As few slices as possible, all of about the same width.
  const int64_t all = (p.length + kLanes - 1) / kLanes, widest = std::min<int64_t>(p.vectors, kSums / R);
  const int64_t slices = (all + widest - 1) / widest, most = (all + slices - 1) / slices;
  for (int64_t at = 0; at < p.length; at += most * kLanes) {
    const int64_t vectors = std::min<int64_t>(most, (p.length - at + kLanes - 1) / kLanes);
    const auto slice = [&](auto count) {
      // Larger counts than `most` are never asked for; they would be compiled in vain.
      constexpr int NV = std::min(decltype(count)::value, kSums / R);
      run_slice<R, NV, true>(p, e, in, residual, out, at);
    };
    switch (vectors) {
      case 1: slice(Constant<1>{}); break;
      case 2: slice(Constant<2>{}); break;
      case 3: slice(Constant<3>{}); break;
      case 4: slice(Constant<4>{}); break;
      case 5: slice(Constant<5>{}); break;
      case 6: slice(Constant<6>{}); break;
      case 7: slice(Constant<7>{}); break;
      case 8: slice(Constant<8>{}); break;
      case 9: slice(Constant<9>{}); break;
      case 10: slice(Constant<10>{}); break;
      case 11: slice(Constant<11>{}); break;
      case 12: slice(Constant<12>{}); break;
      case 13: slice(Constant<13>{}); break;
      case 14: slice(Constant<14>{}); break;
      case 15: slice(Constant<15>{}); break;
      default: slice(Constant<16>{}); break;
    }
  }
}

// out[row, i] = finish(Σ over the row's entries of weight · in[place, i]) for i of the run, on every line. A run of less
// than a vector is read, but not written, up to a vector's end.
inline void runs(const Product& p, const Entries& e, const float* in, const float* residual, float* out) {
  for (int64_t line = 0; line < p.lines.count; ++line) {
    const float* x = in + line * p.lines.in;
    const float* r = residual ? residual + line * p.lines.residual : nullptr;
    float* y = out + line * p.lines.out;
    if (e.group == 4) run_line<4>(p, e, x, r, y);
    else if (e.group == 2) run_line<2>(p, e, x, r, y);
    else run_line<1>(p, e, x, r, y);
  }
}

}  // namespace winticket::ISA
