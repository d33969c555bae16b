// A dense Linear layer's gradient by its weight in bfloat16, and the update by it, without the gradient in memory.
#pragma once

#include <cstdint>

#include "rows.hpp"

namespace winticket {

// The gradient [S, rows, columns] as its factors: the sum over the batch of by_output[s, b, :] times in[s, b, :], of
// bfloat16. Strides are between replicates and between examples.
struct Factors {
  int64_t replicates, batch, rows, columns;
  const uint16_t* by_output;
  int64_t by_output_stride, by_output_step;
  const uint16_t* in;
  int64_t in_stride, in_step;
};

// True if this processor has AMX for bfloat16 and the system lets this process use it.
bool has_amx();

// The update of `piece`, whose own gradient is not read. The gradient is rounded to bfloat16, as a product's result is.
void update_by_factors(const Update& update, const Piece& piece, const Factors& factors, int threads);

}  // namespace winticket
