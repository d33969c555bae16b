// Which instruction set computes which product: the one that was measured fastest, unless one is forced for all.
//
// A product is known by its numbers: threads, replicates, rows, rows of the operand, length of a dense row; for
// convolutions also the layout of their planes. Every call looks itself up, so what a call costs here is arithmetic on
// these numbers and one search in a hash table.
#pragma once

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "rows.hpp"

namespace winticket {

struct InstructionSet {
  std::string name;
  const Kernels* kernels;
};

enum class Product : int64_t { forward, by_input, by_weight, convolution, convolution_back };

inline Product product_named(const std::string& name) {
  if (name == "forward") return Product::forward;
  if (name == "by_input") return Product::by_input;
  if (name == "by_weight") return Product::by_weight;
  if (name == "convolution") return Product::convolution;
  if (name == "convolution_back") return Product::convolution_back;
  throw std::invalid_argument("no product is called '" + name + "'");
}

// The numbers of a product, mixed into one as they come (the steps of SplitMix64).
class Key {
 public:
  explicit Key(Product product) { add(static_cast<int64_t>(product)); }
  Key& add(int64_t number) {
    uint64_t mixed = value_ + static_cast<uint64_t>(number) + 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    value_ = mixed ^ (mixed >> 31);
    return *this;
  }
  Key& add(std::initializer_list<int64_t> numbers) {
    for (const int64_t number : numbers) add(number);
    return *this;
  }
  Key& add(const std::vector<int64_t>& numbers) {
    for (const int64_t number : numbers) add(number);
    return *this;
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0;
};

class Choices {
 public:
  // Up to so many entries of a replicate, these kernels; the last ones also beyond.
  using Ladder = std::vector<std::pair<int64_t, std::string>>;

  explicit Choices(std::vector<InstructionSet> sets) : sets_(std::move(sets)) {}  // best first, at least one

  const std::vector<InstructionSet>& sets() const { return sets_; }

  // From now on one set computes everything; an empty name ends that.
  void force(const std::string& name) { forced_ = name.empty() ? nullptr : &named(name); }
  // The same for calls of this thread alone, before what is forced: for measurements beside which others compute.
  void attempt(const std::string& name) { attempted_ = name.empty() ? nullptr : &named(name); }
  std::string forced() const {
    const InstructionSet* set = forced_;
    return set ? set->name : "";
  }

  // The set for products that nothing is known about.
  const InstructionSet& standard() const {
    if (attempted_) return *attempted_;
    const InstructionSet* set = forced_;
    return set ? *set : sets_.front();
  }

  void prefer(const Key& key, const Ladder& ladder) {
    if (ladder.empty()) throw std::invalid_argument("there is no instruction set to prefer");
    std::vector<Rung> rungs;
    for (const auto& [entries, name] : ladder) rungs.push_back({entries, &named(name)});
    const std::unique_lock<std::shared_mutex> lock(mutex_);
    preferred_[key.value()] = std::move(rungs);
  }

  // The set for a product with so many entries of each replicate.
  const InstructionSet& of(const Key& key, int64_t entries) const {
    if (attempted_ || forced_) return standard();
    const std::shared_lock<std::shared_mutex> lock(mutex_);
    const auto known = preferred_.find(key.value());
    if (known == preferred_.end()) return sets_.front();
    for (const Rung& rung : known->second)
      if (entries <= rung.entries) return *rung.set;
    return *known->second.back().set;
  }

 private:
  struct Rung {
    int64_t entries;
    const InstructionSet* set;
  };

  const InstructionSet& named(const std::string& name) const {
    for (const InstructionSet& set : sets_)
      if (set.name == name) return set;
    throw std::invalid_argument("this processor does not run '" + name + "'");
  }

  const std::vector<InstructionSet> sets_;
  std::atomic<const InstructionSet*> forced_{nullptr};
  static inline thread_local const InstructionSet* attempted_ = nullptr;
  mutable std::shared_mutex mutex_;
  std::unordered_map<uint64_t, std::vector<Rung>> preferred_;
};

}  // namespace winticket
