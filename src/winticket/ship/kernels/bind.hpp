// How Python adds steps to a plan. Everything that a candidate reads and writes is checked against the plan's memory.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>

#include "plan.hpp"

namespace winticket {

namespace nb = nanobind;

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
Aligned<T> copied(const Array<T>& from) {
  return Aligned<T>(from.data(), static_cast<int64_t>(from.size()));
}

inline void require(bool holds, const char* otherwise) {
  if (!holds) throw std::invalid_argument(otherwise);
}

template <class T>
void check_starts(const Aligned<int32_t>& start, const Aligned<T>& place) {
  const int32_t* s = start.data();
  require(start.size() && s[0] >= 0 && s[start.size() - 1] <= place.size(), "starts do not fit the places");
  for (int64_t i = 1; i < start.size(); ++i) require(s[i - 1] <= s[i], "starts do not rise");
}

inline std::shared_ptr<Entries> make_entries(int64_t rows, int64_t group, const std::vector<int64_t>& base,
                                             const Array<int32_t>& start, const Array<uint16_t>& place,
                                             const Array<float>& weight) {
  auto e = std::make_shared<Entries>();
  require(rows > 0 && (group == 1 || group == 2 || group == 4) && !base.empty(), "no such group of rows");
  const int64_t groups = (rows + group - 1) / group, blocks = static_cast<int64_t>(base.size());
  *e = {rows, group, groups, blocks, base, copied(start), copied(place), copied(weight), 0};
  require(e->start.size() == blocks * (groups + 1), "one start for each group of each block, and one more");
  require(e->weight.size() == e->place.size() * group, "one weight for each place and row of a group");
  check_starts(e->start, e->place);
  for (int64_t b = 0; b < blocks; ++b) {
    require(base[b] >= 0, "no such block");
    for (int64_t k = e->start.data()[b * (groups + 1)]; k < e->start.data()[(b + 1) * (groups + 1) - 1]; ++k)
      e->reach = std::max(e->reach, base[b] + e->place.data()[k]);
  }
  return e;
}

inline std::shared_ptr<Columns> make_columns(int64_t rows, const Array<int32_t>& start, const Array<uint16_t>& place,
                                             const Array<float>& weight) {
  auto c = std::make_shared<Columns>();
  *c = {rows, static_cast<int64_t>(start.size()) - 1, copied(start), copied(place), copied(weight)};
  require(rows > 0 && c->columns > 0 && c->weight.size() == c->place.size(), "one weight for each place");
  check_starts(c->start, c->place);
  for (int64_t k = 0; k < c->place.size(); ++k) require(c->place.data()[k] < rows, "a place beyond the rows");
  return c;
}

// weight: [rows, columns], row by row. Laid out for the vectors of an instruction set.
inline std::shared_ptr<DenseColumns> make_dense(int64_t rows, int64_t columns, const Array<float>& weight,
                                                const std::string& instructions) {
  const Inference& kernels = kernels_of(instructions);
  require(rows > 0 && columns > 0 && static_cast<int64_t>(weight.size()) == rows * columns, "no such matrix");
  const int64_t lanes = kernels.lanes, all = (rows + lanes - 1) / lanes;
  const int64_t passes = (all + kernels.most_vectors - 1) / kernels.most_vectors, vectors = (all + passes - 1) / passes;
  auto d = std::make_shared<DenseColumns>();
  *d = {rows, columns, lanes, vectors, passes, Aligned<float>(passes * columns * vectors * lanes)};
  const int64_t wide = vectors * lanes;
  for (int64_t o = 0; o < rows; ++o)
    for (int64_t j = 0; j < columns; ++j)
      d->weight.data()[(o / wide * columns + j) * wide + o % wide] = weight.data()[o * columns + j];
  return d;
}

// Places in memory: input, residual (kNone: there is none), output.
using Where = std::array<int64_t, 3>;
// Sizes of an axis with its steps in the input, in another one, and in the output; the outermost axis first.
using Nest = std::vector<std::array<int64_t, 4>>;

inline Loop loop_of(const Nest& nest) {
  require(nest.size() <= kAxes, "too many axes");
  Loop l{};
  l.axes = static_cast<int>(nest.size());
  for (int i = 0; i < l.axes; ++i) {
    l.size[i] = nest[i][0], l.in[i] = nest[i][1], l.other[i] = nest[i][2], l.out[i] = nest[i][3];
    require(l.size[i] > 0 && l.in[i] >= 0 && l.other[i] >= 0 && l.out[i] >= 0, "no such loop");
  }
  return l;
}

inline int64_t extent(const Loop& l, const int64_t (&steps)[kAxes]) {
  int64_t last = 0;
  for (int i = 0; i < l.axes; ++i) last += (l.size[i] - 1) * steps[i];
  return last + 1;
}

inline const float* from(const Frame& f, int64_t at) {
  return at == kNone ? nullptr : at == kInput ? f.input : f.memory + at;
}

// length, scale, out_row, residual_row, lines, and their steps in input, residual and output
using Numbers = std::array<int64_t, 8>;

inline Product product_of(const Plan& plan, const Where& at, const Numbers& n, int64_t rows, int64_t reach, int vectors) {
  Product p{n[0], n[1], n[2], n[3], {n[4], n[5], n[6], n[7]}, {}, vectors};
  require(p.length > 0 && p.scale > 0 && p.lines.count > 0 && vectors > 0 && vectors <= 16, "no such product");
  const int64_t last = p.lines.count - 1;
  plan.check(at[0], 0, reach * p.scale + last * p.lines.in + p.length);
  if (at[1] != kNone) plan.check(at[1], 0, (rows - 1) * p.residual_row + last * p.lines.residual + p.length);
  require(at[2] >= 0, "a result goes to the memory");
  plan.check(at[2], 0, (rows - 1) * p.out_row + last * p.lines.out + p.length);
  return p;
}

using Biases = std::shared_ptr<Aligned<float>>;

inline Biases biases(const Array<float>& bias, int64_t rows) {
  require(static_cast<int64_t>(bias.size()) == rows, "one bias for each row");
  return std::make_shared<Aligned<float>>(copied(bias));
}

struct Bounds {
  float low, high;
};

}  // namespace winticket
