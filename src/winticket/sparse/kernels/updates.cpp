#include "updates.hpp"

#include <algorithm>
#include <cmath>

namespace winticket {

namespace {

constexpr int64_t kShare = 1 << 15;  // elements that one thread of several updates at a time

struct Part {
  const Piece* piece;
  Range range;
};

}  // namespace

Update at_step(const Rule& rule, double rate, double taken) {
  Update u{};
  u.rule = rule, u.rate = static_cast<float>(rate);
  u.step_size = static_cast<float>(rate / (1 - std::pow(rule.beta1, taken)));
  u.root_correction = static_cast<float>(std::sqrt(1 - std::pow(rule.beta2, taken)));
  u.decay = static_cast<float>(1 - rate * rule.weight_decay);
  return u;
}

void update_all(const Kernels& kernels, const Update& update, const std::vector<Whole>& all, int threads) {
  std::vector<Part> parts;
  for (const Whole& whole : all) {
    const int64_t share = threads > 1 ? kShare : std::max<int64_t>(whole.count, 1);
    for (int64_t first = 0; first < whole.count; first += share)
      parts.push_back({&whole.piece, {first, std::min(first + share, whole.count)}});
  }
  const int64_t count = static_cast<int64_t>(parts.size());
#pragma omp parallel num_threads(threads) if (threads > 1 && count > 1)
  {
    const FlushTiny flush;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < count; ++i) kernels.update(update, *parts[i].piece, parts[i].range);
  }
}

}  // namespace winticket
