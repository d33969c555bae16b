// What a kernel is given.
#pragma once

#include <cstdint>

namespace winticket {

// Sparse rows of a stack of S replicates, and their dense operand. Counts are of elements, never of bytes.
//
// Row o of replicate r has the entries start[r, o] .. start[r, o + 1] of `place` (and of `order`, where the weights lie
// in another order than the rows'; null where not). `capacity` entries are allotted to each replicate.
template <class T>
struct Rows {
  int64_t rows;      // of each replicate
  int64_t length;    // of a dense row: the batch, or all pixels of a batch
  int64_t capacity;  // entries of `place` and `order` per replicate
  int64_t weights;   // stride of `weight` between replicates
  int64_t scale;     // elements per unit of `place`
  int64_t in_stride;
  int64_t out_stride;
  const int32_t* start;
  const int32_t* place;
  const int32_t* order;
  const T* weight;
  const T* begin;  // what a row's sum begins with, [S, rows]; null: 0
  const T* in;
  T* out;
  bool positive;  // of a sum: what is below 0 becomes 0, as by a ReLU
  const T* gate;  // of a sum: what stands where `gate` [S, rows, length] is not above 0 becomes 0; null: nothing
  T* total;       // of a dot: the sums of the dense rows are added to it, [S, rows]; null: they are not wanted
};

struct Range {
  int64_t first, last;
};

struct Kernels {
  void (*sum_float)(const Rows<float>&, const Range&, int64_t);
  void (*sum_double)(const Rows<double>&, const Range&, int64_t);
  void (*dot_float)(const Rows<float>&, const Range&, int64_t);
  void (*dot_double)(const Rows<double>&, const Range&, int64_t);
  void (*transpose_float)(float*, const float*, const int64_t*, int64_t, int64_t, int64_t);
  void (*transpose_double)(double*, const double*, const int64_t*, int64_t, int64_t, int64_t);
};

}  // namespace winticket
