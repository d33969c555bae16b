// A chain of sparse Linear layers in training: gather, forward, loss, backward and update without leaving C++.
//
// Each replicate of a stack is trained on its own for as many steps as are asked for, so that its weights, its
// optimiser's state and its batch stay in the second-level cache. Operands have the batch innermost, as everywhere.
#pragma once

#include <cstdint>
#include <vector>

#include "rows.hpp"
#include "updates.hpp"

namespace winticket {

// One Linear layer of a stack of S replicates, perhaps with a ReLU behind it. See `Rows` for the index arrays.
struct Link {
  int64_t rows;      // outputs
  int64_t columns;   // inputs
  int64_t capacity;  // values per replicate
  int64_t across;    // blocks of the inputs
  int64_t down;      // blocks of the outputs
  bool relu;
  const int32_t* start;
  const int32_t* place;
  const int32_t* by_column;
  const int32_t* row_of;
  const int32_t* order;
  float* weight;           // [S, capacity]
  float* bias;             // [S, rows]; null: there is none
  const float* keep_bias;  // [S, rows], 1 or 0: factors after each update; null: all 1
  float* weight_slots[2];  // the optimiser's state, shaped like weight; null: it has none
  float* bias_slots[2];
  const Kernels* forward;  // of the instruction set that computes each product
  const Kernels* by_input;
  const Kernels* by_weight;
};

struct Examples {
  const float* x;    // [count, features]
  const int64_t* y;  // [count]
  int64_t count, features, classes;
};

struct Steps {
  const int64_t* rows;  // [steps, S, batch]: numbers of examples
  const double* rates;  // [steps]
  float* losses;        // [steps, S]: mean cross-entropy before the update
  int64_t steps, replicates, batch;
  double taken;  // updates before the first of these steps
};

// `kernels` compute what is no product.
void train_chain(const Kernels& kernels, const std::vector<Link>& links, const Examples& examples, const Steps& steps,
                 const Rule& rule, int threads);

// The links' answers to tiles of examples: x [tiles, features, width] holds `batch` examples each, the last one fewer.
void score_chain(const Kernels& kernels, const std::vector<Link>& links, const Examples& tiles, int64_t batch,
                 int64_t width, int64_t replicates, double* loss, int64_t* correct, int threads);

}  // namespace winticket
