// What a kernel is given.
#pragma once

#include <cstdint>

namespace winticket {

// Sparse rows of a stack of S replicates, and their dense operand. Counts are of elements, never of bytes.
//
// The operand's rows are met in blocks, so that what a block reads can stay in the first-level cache. Within block b of
// replicate r, row o has the entries start[r, b, o] .. start[r, b, o + 1] of `place` (and of `order`, if the weights lie
// in another order than the entries; else null). `capacity` entries are allotted to each replicate.
template <class T>
struct Rows {
  int64_t rows;      // of each replicate
  int64_t blocks;    // of the operand
  int64_t operands;  // rows of the operand
  int64_t length;    // of a dense row: the batch, or all pixels of a batch
  int64_t width;     // what may be read and written of a dense row; what lies beyond `length` means nothing
  int64_t capacity;  // entries of `place` and `order` per replicate
  const int32_t* start;
  const int32_t* place;
  const int32_t* order;
  const T* weight;       // of a dot: the dense rows
  int64_t weights;       // stride of `weight` between replicates
  int64_t weight_scale;  // of a dot: from one dense row to the next
  const T* in;
  int64_t in_stride;  // between replicates
  int64_t scale;      // elements per unit of `place`
  T* out;
  int64_t out_stride;  // between replicates
  int64_t out_scale;   // of a sum: from one row to the next
  const T* begin;      // what a row's sum begins with, [S, rows]; null: 0
  bool positive;       // of a sum: what is below 0 becomes 0, as by a ReLU
  const T* gate;       // of a sum: where `gate` [S, rows, length] is not above 0, the result is 0; null: nothing
  int64_t gate_stride;
  int64_t gate_scale;
  T* total;  // of a dot: the sums of the dense rows are added to it, [S, rows]; null: they are not wanted
};

struct Range {
  int64_t first, last;
};

// How an optimiser updates: SGD with momentum, Adam or AdamW, as torch.optim has them.
struct Rule {
  enum Kind { sgd, adam, adamw } kind;
  double momentum;
  bool nesterov;
  double weight_decay;
  double beta1, beta2, eps;
};

// A rule at one step.
struct Update {
  Rule rule;
  float rate;
  float step_size;        // of Adam: the rate over the bias correction of the mean
  float root_correction;  // of Adam: the root of the bias correction of the squares
  float decay;            // of AdamW: the factor of the weights
};

// A tensor and all that an update reads and writes of it.
struct Piece {
  float* weight;
  const void* grad;   // float, or bfloat16 if `half`
  bool half;
  float* first;       // the optimiser's state; null: it has none
  float* second;
  const float* keep;  // factors of the weights after the update, 1 or 0; null: all 1
  uint16_t* copy;     // gets the updated weights as bfloat16; null: not wanted
};

// Cross-entropy of logits [classes, width], of which `length` columns are examples.
struct Loss {
  const float* logits;
  const int64_t* y;  // [length]
  int64_t length, width, classes;
  float* grad;       // [classes, width]: of the mean, by the logits; what lies beyond `length` becomes 0
  double* sum;       // of the examples' losses
  int64_t* correct;  // how many have their largest (first such) logit at y; null: not wanted
};

struct Kernels {
  void (*sum_float)(const Rows<float>&, const Range&, int64_t);
  void (*sum_double)(const Rows<double>&, const Range&, int64_t);
  void (*dot_float)(const Rows<float>&, const Range&, int64_t);
  void (*dot_double)(const Rows<double>&, const Range&, int64_t);
  void (*transpose_float)(float*, const float*, const int64_t*, int64_t, int64_t, int64_t);
  void (*transpose_double)(double*, const double*, const int64_t*, int64_t, int64_t, int64_t);
  void (*update)(const Update&, const Piece&, const Range&);
  void (*loss_float)(const Loss&);
};

}  // namespace winticket
