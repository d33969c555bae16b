// A tile's examples side by side: out[c * width + r] = in[r * columns + c].
#pragma once

#include "runs.hpp"

namespace winticket::ISA {

#if BYTES == 64
constexpr int64_t kTurned = 16;

// Exchanges element (i, j + S) with (i + S, j) in every square of 2 S rows; after S = 8, 4, 2, 1 rows are columns.
template <int S>
inline void exchanged(Floats (&a)[16]) {
  UNROLLED for (int i = 0; i < 16; ++i) {
    if (i & S) continue;
    const Floats upper = a[i], lower = a[i + S];
    if constexpr (S == 8) {
      a[i] = __builtin_shufflevector(upper, lower, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
      a[i + S] = __builtin_shufflevector(upper, lower, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    } else if constexpr (S == 4) {
      a[i] = __builtin_shufflevector(upper, lower, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
      a[i + S] = __builtin_shufflevector(upper, lower, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    } else if constexpr (S == 2) {
      a[i] = __builtin_shufflevector(upper, lower, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
      a[i + S] = __builtin_shufflevector(upper, lower, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    } else {
      a[i] = __builtin_shufflevector(upper, lower, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
      a[i + S] = __builtin_shufflevector(upper, lower, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
    }
  }
}

inline void turn_square(float* out, int64_t width, const float* in, int64_t columns) {
  Floats a[16];
  UNROLLED for (int i = 0; i < 16; ++i) a[i] = load(in + i * columns);
  exchanged<8>(a), exchanged<4>(a), exchanged<2>(a), exchanged<1>(a);
  UNROLLED for (int i = 0; i < 16; ++i) store(out + i * width, a[i]);
}
#else
constexpr int64_t kTurned = 8;

inline void turn_square(float* out, int64_t width, const float* in, int64_t columns) {
  const float* rows[8];
  for (int i = 0; i < 8; ++i) rows[i] = in + i * columns;
  turn(out, width, rows, 0);
}
#endif

// Columns go outermost, so that the lines of a square's result are still in the cache when their other part comes.
inline void turned(float* out, const float* in, int64_t rows, int64_t columns, int64_t width) {
  const int64_t whole = rows - rows % kTurned;
  for (int64_t c = 0; c < columns; c += kTurned) {
    const int64_t end = std::min(c + kTurned, columns);
    if (end - c == kTurned)
      for (int64_t r = 0; r < whole; r += kTurned) turn_square(out + c * width + r, width, in + r * columns + c, columns);
    for (int64_t r = end - c == kTurned ? whole : 0; r < rows; ++r)
      for (int64_t j = c; j < end; ++j) out[j * width + r] = in[r * columns + j];
  }
}

}  // namespace winticket::ISA
