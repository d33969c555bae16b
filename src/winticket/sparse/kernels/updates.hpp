// The optimiser's update of many tensors at once, and what it shares with the chain.
#pragma once

#include <cstdint>
#include <vector>

#include "rows.hpp"

#ifdef WINTICKET_X86
#include <xmmintrin.h>
#endif

namespace winticket {

// Numbers below 1e-38 count as 0 while this lives. Adam's mean of a gradient that has become 0, as behind a dead ReLU,
// would stay there for ever, and arithmetic on such numbers takes a hundred times as long.
struct FlushTiny {
#ifdef WINTICKET_X86
  unsigned before = _mm_getcsr();
  FlushTiny() { _mm_setcsr(before | 0x8040); }
  ~FlushTiny() { _mm_setcsr(before); }
#else
  FlushTiny() {}
#endif
  FlushTiny(const FlushTiny&) = delete;
};

// The rule of update number `taken`, counted from 1.
Update at_step(const Rule& rule, double rate, double taken);

struct Whole {
  Piece piece;
  int64_t count;
};

void update_all(const Kernels& kernels, const Update& update, const std::vector<Whole>& all, int threads);

}  // namespace winticket
