// A network as steps over one block of memory, for tiles of one width; each step has candidates that compute the same.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "steps.hpp"

namespace winticket {

namespace plain {
extern const Inference inference;
}
#ifdef WINTICKET_X86
namespace avx2 {
extern const Inference inference;
}
namespace avx512 {
extern const Inference inference;
}
#endif

struct Instructions {
  std::string name;
  const Inference* kernels;
};

// Those that this processor has, best first.
inline const std::vector<Instructions>& instruction_sets() {
  static const std::vector<Instructions> all = [] {
    std::vector<Instructions> sets;
#ifdef WINTICKET_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) sets.push_back({"avx512", &avx512::inference});
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) sets.push_back({"avx2", &avx2::inference});
#endif
    sets.push_back({"plain", &plain::inference});
    return sets;
  }();
  return all;
}

inline const Inference& kernels_of(const std::string& name) {
  for (const Instructions& set : instruction_sets())
    if (set.name == name) return *set.kernels;
  throw std::invalid_argument("this processor does not run '" + name + "'");
}

// Of one tile: where its examples come from, and the memory for everything else.
struct Frame {
  const float* input;
  float* memory;
};

using Work = std::function<void(const Frame&)>;

struct Candidate {
  std::string kernel, instructions;
  Work work;
};

struct Step {
  std::string operation;
  std::vector<Candidate> candidates;
  size_t chosen = 0;
};

constexpr int64_t kInput = -1, kNone = -2;  // for places in memory: the caller's example; nothing

class Plan {
 public:
  // input_at: where a tile's examples are laid out, or kInput if the steps read the caller's only example.
  Plan(int64_t width, int64_t memory, int64_t inputs, int64_t input_at, int64_t outputs, int64_t output_at)
      : width_(width), memory_(memory), inputs_(inputs), input_at_(input_at), outputs_(outputs), output_at_(output_at) {
    if (width < 1 || memory < 1 || (input_at == kInput && width != 1)) throw std::invalid_argument("no such plan");
    if (input_at != kInput) check(input_at, 0, inputs * width);
    check(output_at, 0, outputs * width);
  }

  int64_t width() const { return width_; }
  int64_t memory() const { return memory_ + kSlack; }
  std::vector<Step>& steps() { return steps_; }
  const std::vector<Step>& steps() const { return steps_; }

  void step(const std::string& operation) { steps_.push_back({operation, {}, 0}); }

  void candidate(const std::string& kernel, const std::string& instructions, Work work) {
    if (steps_.empty()) throw std::invalid_argument("a candidate without a step");
    steps_.back().candidates.push_back({kernel, instructions, std::move(work)});
  }

  void choose(size_t step, size_t candidate) {
    Step& s = steps_.at(step);
    if (candidate >= s.candidates.size()) throw std::out_of_range("no such candidate");
    s.chosen = candidate;
  }

  // Throws unless elements [low, high) from `at` on lie in the memory, or in the caller's example.
  void check(int64_t at, int64_t low, int64_t high) const {
    const int64_t size = at == kInput ? inputs_ : memory_, first = at == kInput ? 0 : at;
    if (first + low < 0 || first + high > size || low > high)
      throw std::out_of_range("elements " + std::to_string(first + low) + " to " + std::to_string(first + high) + " of " +
                              std::to_string(size));
  }

  // x [examples, inputs] -> y [examples, outputs], for as many examples as a tile has, or fewer. `memory` has the
  // plan's size and begins as zeros.
  void run(const float* x, int64_t examples, float* y, float* memory, const Inference& best) const {
    const Frame frame = entered(x, examples, memory, best);
    for (const Step& s : steps_) s.candidates[s.chosen].work(frame);
    leave(memory, examples, y);
  }

  // Adds the nanoseconds that every step takes to `spent`, and last of all those of entering and leaving.
  void profile(const float* x, int64_t examples, float* y, float* memory, const Inference& best,
               std::vector<double>& spent) const {
    using Clock = std::chrono::steady_clock;
    auto began = Clock::now();
    const auto since = [&began] {
      const auto now = Clock::now();
      const double passed = std::chrono::duration<double, std::nano>(now - began).count();
      began = now;
      return passed;
    };
    const Frame frame = entered(x, examples, memory, best);
    spent[steps_.size()] += since();
    for (size_t i = 0; i < steps_.size(); ++i) {
      steps_[i].candidates[steps_[i].chosen].work(frame);
      spent[i] += since();
    }
    leave(memory, examples, y);
    spent[steps_.size()] += since();
  }

 private:
  static constexpr int64_t kSlack = 64;  // for vectors that begin in the memory

  Frame entered(const float* x, int64_t examples, float* memory, const Inference& best) const {
    if (input_at_ == kInput) return {x, memory};
    best.turned(memory + input_at_, x, examples, inputs_, width_);
    return {nullptr, memory};
  }

  void leave(const float* memory, int64_t examples, float* y) const {
    const float* from = memory + output_at_;
    if (width_ == 1) {
      std::memcpy(y, from, static_cast<size_t>(outputs_) * sizeof(float));
      return;
    }
    for (int64_t e = 0; e < examples; ++e)
      for (int64_t o = 0; o < outputs_; ++o) y[e * outputs_ + o] = from[o * width_ + e];
  }

  int64_t width_, memory_, inputs_, input_at_, outputs_, output_at_;
  std::vector<Step> steps_;
};

// Memory in which one call computes; `mutex` is held meanwhile.
struct Scratch {
  std::mutex mutex;
  std::vector<Aligned<float>> memory;  // of each thread
  Aligned<float> converted;
};

// Plans of several widths, and which to use for how many examples. Calls of several threads compute at once, each in
// another Scratch. Whoever holds one may read plans; to arrange others takes all.
class Engine {
 public:
  static constexpr size_t kAtOnce = 4;

  // Shapes of one example and of its outputs.
  Engine(std::vector<int64_t> input, std::vector<int64_t> output, int threads)
      : input_(std::move(input)), output_(std::move(output)), inputs_(product(input_)), outputs_(product(output_)),
        threads_(threads) {
    if (inputs_ < 1 || outputs_ < 1 || threads < 1) throw std::invalid_argument("no such engine");
  }

  const std::vector<int64_t>& input() const { return input_; }
  const std::vector<int64_t>& output() const { return output_; }
  int64_t inputs() const { return inputs_; }
  int threads() const { return threads_; }
  std::array<Scratch, kAtOnce>& scratches() { return scratches_; }
  // The one to wait for if all are in use: each in turn.
  size_t next() { return next_++ % kAtOnce; }
  // Whether a single example is computed so fast that the interpreter may wait for it.
  bool brief() const { return brief_; }
  bool ready(int64_t examples) const { return examples <= ready_; }

  // first[n]: the plan whose tile comes first when n examples are left, for n from 1 on; the last one counts for more.
  // Batches of more than `ready` examples are refused: their plans are still to be made.
  void arrange(std::vector<std::shared_ptr<Plan>> plans, std::vector<int64_t> first, int64_t ready, bool brief) {
    for (int64_t p : first)
      if (p < 0 || p >= static_cast<int64_t>(plans.size())) throw std::out_of_range("no such plan");
    if (first.size() < 2) throw std::invalid_argument("no plan is arranged");
    for (const auto& plan : plans)
      for (const Step& s : plan->steps())
        if (s.candidates.empty()) throw std::invalid_argument("a step without a candidate");
    plans_ = std::move(plans), first_ = std::move(first), ready_ = ready, brief_ = brief;
    largest_ = 0;
    for (const auto& plan : plans_) largest_ = std::max(largest_, plan->memory());
  }

  void run(const float* x, int64_t examples, float* y, Scratch& scratch) {
    const int64_t parts = std::min<int64_t>(threads(), examples);
    auto& memory = scratch.memory;
    if (static_cast<int64_t>(memory.size()) < parts) memory.resize(static_cast<size_t>(parts));
    for (int64_t part = 0; part < parts; ++part)
      if (memory[part].size() < largest_) memory[part] = Aligned<float>(largest_);
    if (parts == 1) return run_part(x, examples, y, memory[0].data());  // without OpenMP, which takes its time
#pragma omp parallel for num_threads(static_cast<int>(parts)) schedule(static)
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t begins = examples * part / parts, ends = examples * (part + 1) / parts;
      run_part(x + begins * inputs_, ends - begins, y + begins * outputs_, memory[part].data());
    }
  }

  // `count` numbers from bytes; they stay until the next call with this scratch.
  const float* converted(const uint8_t* from, int64_t count, Scratch& scratch) {
    if (scratch.converted.size() < count) scratch.converted = Aligned<float>(count);
    best().floats(from, scratch.converted.data(), count);
    return scratch.converted.data();
  }

  // Microseconds of every step of a plan, and of entering and leaving, over all examples one tile after the other: the
  // least of `rounds`.
  std::vector<double> profile(const Plan& plan, const float* x, int64_t examples, int rounds) {
    Aligned<float> memory(plan.memory());
    std::vector<float> y(static_cast<size_t>(plan.width() * outputs_));
    std::vector<double> least;
    for (int round = 0; round < rounds; ++round) {
      std::vector<double> spent(plan.steps().size() + 1);
      for (int64_t e = 0; e < examples; e += plan.width())
        plan.profile(x + e * inputs_, std::min(plan.width(), examples - e), y.data(), memory.data(), best(), spent);
      for (size_t i = 0; i < spent.size(); ++i)
        if (round == 0) least.push_back(spent[i] / 1000);
        else least[i] = std::min(least[i], spent[i] / 1000);
    }
    return least;
  }

  static const Inference& best() { return *instruction_sets().front().kernels; }

 private:
  void run_part(const float* x, int64_t left, float* y, float* memory) const {
    const int64_t most = static_cast<int64_t>(first_.size()) - 1;
    while (left > 0) {
      const Plan& plan = *plans_[first_[std::min(left, most)]];
      const int64_t taken = std::min(left, plan.width());
      plan.run(x, taken, y, memory, best());
      x += taken * inputs_, y += taken * outputs_, left -= taken;
    }
  }

  static int64_t product(const std::vector<int64_t>& shape) {
    int64_t size = 1;
    for (int64_t n : shape) size *= n;
    return size;
  }

  std::vector<int64_t> input_, output_;
  int64_t inputs_, outputs_, ready_ = 0, largest_ = 0;
  int threads_;
  bool brief_ = true;
  std::vector<std::shared_ptr<Plan>> plans_;
  std::vector<int64_t> first_;
  std::array<Scratch, kAtOnce> scratches_;
  std::atomic<size_t> next_{0};
};

}  // namespace winticket
