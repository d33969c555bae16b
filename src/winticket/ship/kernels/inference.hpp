// The table of one instruction set's kernels: include with ISA (a namespace) and BYTES (of a vector) defined.
#pragma once

#include "layers.hpp"
#include "single.hpp"
#include "turned.hpp"

namespace winticket::ISA {

extern const Inference inference;
const Inference inference = {runs,     rows,   gathered, columns,  dense_columns, scaled,        unary,
                             add,      pool,   adaptive, mean,     softmax,       phases,        clear,
                             finite,   floats, turned, kLanes,        kSums};

}  // namespace winticket::ISA
