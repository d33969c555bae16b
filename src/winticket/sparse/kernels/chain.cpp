#include "chain.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace winticket {

namespace {

constexpr int64_t kLine = 64;  // bytes of a cache line

struct Free {
  void operator()(float* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<float[], Free>;

// Zeros on a cache line.
Buffer zeros(int64_t count) {
  const size_t bytes = (std::max<int64_t>(count, 1) * sizeof(float) + kLine - 1) / kLine * kLine;
  float* memory = static_cast<float*>(std::aligned_alloc(kLine, bytes));
  if (!memory) throw std::bad_alloc();
  std::memset(memory, 0, bytes);
  return Buffer(memory);
}

int64_t padded(int64_t length) {
  constexpr int64_t line = kLine / sizeof(float);
  return (length + line - 1) / line * line;
}

// What one replicate of a stack needs beside its weights: the operands of every layer, and gradients.
struct Scratch {
  int64_t batch, width;
  std::vector<Buffer> operands;  // the batch, then every layer's result
  Buffer grads[2];
  Buffer by_weight, by_bias;
  std::vector<int64_t> y;

  Scratch(const std::vector<Link>& links, int64_t batch, bool backward) : batch(batch), width(padded(batch)), y(batch) {
    int64_t most_rows = 1, most_weights = 1;
    operands.push_back(zeros(links.front().columns * width));
    for (const Link& link : links) {
      operands.push_back(zeros(link.rows * width));
      most_rows = std::max(most_rows, link.rows);
      most_weights = std::max(most_weights, link.capacity);
    }
    for (Buffer& grad : grads) grad = zeros(most_rows * width);
    if (backward) by_weight = zeros(most_weights), by_bias = zeros(most_rows);
  }
};

// Before any thread starts, since none may fail for want of memory.
std::vector<Scratch> of_workers(const std::vector<Link>& links, int64_t batch, int64_t workers, bool backward) {
  std::vector<Scratch> all;
  for (int64_t w = 0; w < workers; ++w) all.emplace_back(links, batch, backward);
  return all;
}

Rows<float> entries(const Link& link, bool by_column, int64_t batch, int64_t width) {
  Rows<float> p{};
  p.rows = by_column ? link.columns : link.rows;
  p.operands = by_column ? link.rows : link.columns;
  p.blocks = by_column ? link.down : link.across;
  p.capacity = link.capacity;
  p.start = by_column ? link.by_column : link.start;
  p.place = by_column ? link.row_of : link.place;
  p.order = by_column ? link.order : nullptr;
  p.length = batch, p.width = width, p.scale = width;
  return p;
}

void forward(const Link& link, int64_t r, const float* in, float* out, int64_t batch, int64_t width) {
  Rows<float> p = entries(link, false, batch, width);
  p.weight = link.weight, p.weights = link.capacity;
  p.in = in, p.out = out, p.out_scale = width;
  p.begin = link.bias, p.positive = link.relu;
  link.forward->sum_float(p, {0, link.rows}, r);
}

void by_input(const Link& link, int64_t r, const float* grad, float* out, const float* gate, int64_t batch,
              int64_t width) {
  Rows<float> p = entries(link, true, batch, width);
  p.weight = link.weight, p.weights = link.capacity;
  p.in = grad, p.out = out, p.out_scale = width;
  p.gate = gate, p.gate_scale = width;
  link.by_input->sum_float(p, {0, link.columns}, r);
}

// `by_weight` and `by_bias` are those of replicate r alone.
void by_parameters(const Link& link, int64_t r, const float* grad, const float* in,
                   float* by_weight, float* by_bias, int64_t batch, int64_t width) {
  Rows<float> p = entries(link, false, batch, width);
  p.start += r * p.blocks * (p.rows + 1), p.place += r * p.capacity;
  p.weight = grad, p.weight_scale = width;
  p.in = in, p.out = by_weight;
  p.total = link.bias ? by_bias : nullptr;
  std::memset(by_weight, 0, link.capacity * sizeof(float));
  std::memset(by_bias, 0, link.rows * sizeof(float));
  link.by_weight->dot_float(p, {0, link.rows}, 0);
}

template <class T>
T* part(T* all, int64_t r, int64_t each) { return all ? all + r * each : nullptr; }

void update(const Kernels& kernels, const Link& link, int64_t r, const Scratch& s, const Update& rule) {
  const auto slot = [r](float* const* slots, int which, int64_t each) { return part(slots[which], r, each); };
  kernels.update(rule,
                 {part(link.weight, r, link.capacity), s.by_weight.get(), false, slot(link.weight_slots, 0, link.capacity),
                  slot(link.weight_slots, 1, link.capacity), nullptr, nullptr},
                 {0, link.capacity});
  if (!link.bias) return;
  kernels.update(rule,
                 {part(link.bias, r, link.rows), s.by_bias.get(), false, slot(link.bias_slots, 0, link.rows),
                  slot(link.bias_slots, 1, link.rows), part(link.keep_bias, r, link.rows), nullptr},
                 {0, link.rows});
}

float train_once(const Kernels& kernels, const std::vector<Link>& links, const Examples& examples,
                 const int64_t* chosen, int64_t r, Scratch& s, const Update& rule) {
  const int64_t count = static_cast<int64_t>(links.size());
  kernels.transpose_float(s.operands[0].get(), examples.x, chosen, s.batch, examples.features, s.width);
  for (int64_t i = 0; i < s.batch; ++i) s.y[i] = examples.y[chosen[i]];
  for (int64_t l = 0; l < count; ++l)
    forward(links[l], r, s.operands[l].get(), s.operands[l + 1].get(), s.batch, s.width);
  float *grad = s.grads[0].get(), *next = s.grads[1].get();
  double loss = 0;
  kernels.loss_float({s.operands[count].get(), s.y.data(), s.batch, s.width, examples.classes, grad, &loss, nullptr});
  for (int64_t l = count - 1; l >= 0; --l) {
    const float* in = s.operands[l].get();
    by_parameters(links[l], r, grad, in, s.by_weight.get(), s.by_bias.get(), s.batch, s.width);
    if (l) by_input(links[l], r, grad, next, links[l - 1].relu ? in : nullptr, s.batch, s.width);
    update(kernels, links[l], r, s, rule);
    std::swap(grad, next);
  }
  return static_cast<float>(loss / s.batch);
}

}  // namespace

void train_chain(const Kernels& kernels, const std::vector<Link>& links, const Examples& examples, const Steps& steps,
                 const Rule& rule, int threads) {
  std::vector<Update> updates;
  for (int64_t t = 0; t < steps.steps; ++t) updates.push_back(at_step(rule, steps.rates[t], steps.taken + t + 1));
  std::vector<Scratch> scratch = of_workers(links, steps.batch, std::min<int64_t>(threads, steps.replicates), true);
  const int64_t workers = static_cast<int64_t>(scratch.size());
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (workers > 1)
  for (int64_t w = 0; w < workers; ++w) {
    const FlushTiny flush;
    for (int64_t r = w; r < steps.replicates; r += workers)
      for (int64_t t = 0; t < steps.steps; ++t) {
        const int64_t* chosen = steps.rows + (t * steps.replicates + r) * steps.batch;
        steps.losses[t * steps.replicates + r] = train_once(kernels, links, examples, chosen, r, scratch[w], updates[t]);
      }
  }
}

void score_chain(const Kernels& kernels, const std::vector<Link>& links, const Examples& tiles, int64_t batch,
                 int64_t width, int64_t replicates, double* loss, int64_t* correct, int threads) {
  const int64_t count = static_cast<int64_t>(links.size());
  std::vector<Scratch> scratch = of_workers(links, width, std::min<int64_t>(threads, replicates), false);
  const int64_t workers = static_cast<int64_t>(scratch.size());
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (workers > 1)
  for (int64_t w = 0; w < workers; ++w)
    for (int64_t r = w; r < replicates; r += workers) {
      Scratch& s = scratch[w];
      loss[r] = 0, correct[r] = 0;
      for (int64_t first = 0; first < tiles.count; first += batch) {
        const int64_t length = std::min(batch, tiles.count - first);
        const float* in = tiles.x + first / batch * tiles.features * width;
        for (int64_t l = 0; l < count; ++l) {
          forward(links[l], r, in, s.operands[l + 1].get(), length, width);
          in = s.operands[l + 1].get();
        }
        double sum = 0;
        int64_t hits = 0;
        kernels.loss_float({in, tiles.y + first, length, width, tiles.classes, s.grads[0].get(), &sum, &hits});
        loss[r] += sum, correct[r] += hits;
      }
    }
}

}  // namespace winticket
