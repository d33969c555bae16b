// The Python module: chooses the instruction set, checks nothing (winticket.sparse.products does), shares the work out.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "chain.hpp"
#include "choice.hpp"
#include "loss.hpp"
#include "outer.hpp"
#include "planes.hpp"
#include "rows.hpp"

namespace nb = nanobind;

namespace winticket {

namespace plain {
extern const Kernels kernels;
}
#ifdef WINTICKET_X86
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

namespace {

// Best first.
std::vector<InstructionSet> runnable() {
  std::vector<InstructionSet> all;
#ifdef WINTICKET_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) all.push_back({"avx512", &avx512::kernels});
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all.push_back({"avx2", &avx2::kernels});
#endif
  all.push_back({"plain", &plain::kernels});
  return all;
}

Choices choices(runnable());

std::vector<std::string> available() {
  std::vector<std::string> names;
  for (const InstructionSet& set : choices.sets()) names.push_back(set.name);
  return names;
}

using Shape = std::vector<int64_t>;

// Numbers: threads, replicates, rows, rows of the operand and length; of a convolution threads, replicates, images,
// rows, and the planes of its images.
Key key_of(const std::string& product, const Shape& numbers) {
  const Product kind = product_named(product);
  const bool planes = kind == Product::convolution || kind == Product::convolution_back;
  const size_t wanted = planes ? 4 + Planes::kNumbers : 5;
  if (numbers.size() != wanted)
    throw std::invalid_argument("'" + product + "' is known by " + std::to_string(wanted) + " numbers, not " +
                                std::to_string(numbers.size()));
  return Key(kind).add(numbers);
}

void prefer(const std::string& product, const Shape& numbers, const Choices::Ladder& ladder) {
  choices.prefer(key_of(product, numbers), ladder);
}

std::string preferred(const std::string& product, const Shape& numbers, int64_t entries) {
  return choices.of(key_of(product, numbers), entries).name;
}

// Replicates side by side; where there are fewer than threads, the rows of each in as many pieces as are wanted.
template <class Do>
void share(int64_t replicates, int64_t rows, int threads, const Do& work) {
  const int64_t pieces = std::max<int64_t>(1, std::min<int64_t>(rows, (threads + replicates - 1) / replicates));
  const int64_t units = replicates * pieces;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && units > 1)
  for (int64_t unit = 0; unit < units; ++unit) {
    const int64_t piece = unit % pieces;
    work(Range{rows * piece / pieces, rows * (piece + 1) / pieces}, unit / pieces);
  }
}

using Address = uintptr_t;  // of a tensor that the caller keeps alive; 0: there is none

template <class T>
const T* at(Address address) {
  return reinterpret_cast<const T*>(address);
}

// Rows of a stack without operands.
template <class T>
Rows<T> entries(int64_t rows, int64_t blocks, int64_t operands, int64_t capacity, Address start, Address place,
                Address order) {
  Rows<T> p{};
  p.rows = rows, p.blocks = blocks, p.operands = operands, p.capacity = capacity;
  p.start = at<int32_t>(start), p.place = at<int32_t>(place), p.order = at<int32_t>(order);
  return p;
}

// Shape: length and width of a dense row. A pair of strides: between replicates, between rows.
void sum(bool twice, int threads, int64_t replicates, int64_t rows, int64_t blocks, int64_t operands, int64_t capacity,
         Address start, Address place, Address order, int64_t length, int64_t width, Address weight, int64_t weights,
         Address in, int64_t in_stride, int64_t scale, Address out, int64_t out_stride, int64_t out_scale,
         Address begin, bool positive, Address gate, int64_t gate_stride, int64_t gate_scale) {
  const auto run = [&](auto zero, auto kernel) {
    using T = decltype(zero);
    Rows<T> p = entries<T>(rows, blocks, operands, capacity, start, place, order);
    p.length = length, p.width = width;
    p.weight = at<T>(weight), p.weights = weights;
    p.in = at<T>(in), p.in_stride = in_stride, p.scale = scale;
    p.out = reinterpret_cast<T*>(out), p.out_stride = out_stride, p.out_scale = out_scale;
    p.begin = at<T>(begin), p.positive = positive;
    p.gate = at<T>(gate), p.gate_stride = gate_stride, p.gate_scale = gate_scale;
    share(replicates, rows, threads, [&](const Range& range, int64_t r) { kernel(p, range, r); });
  };
  if (twice) return run(0.0, choices.standard().kernels->sum_double);
  const Key key = Key(order ? Product::by_input : Product::forward).add({threads, replicates, rows, operands, length});
  run(0.0f, choices.of(key, capacity).kernels->sum_float);
}

void dot(bool twice, int threads, int64_t replicates, int64_t rows, int64_t blocks, int64_t operands, int64_t capacity,
         Address start, Address place, int64_t length, int64_t width, Address dense, int64_t dense_stride,
         int64_t dense_scale, Address in, int64_t in_stride, int64_t scale, Address out, Address total) {
  const auto run = [&](auto zero, auto kernel) {
    using T = decltype(zero);
    Rows<T> p = entries<T>(rows, blocks, operands, capacity, start, place, 0);
    p.length = length, p.width = width;
    p.weight = at<T>(dense), p.weights = dense_stride, p.weight_scale = dense_scale;
    p.in = at<T>(in), p.in_stride = in_stride, p.scale = scale;
    p.out = reinterpret_cast<T*>(out), p.out_stride = capacity;
    p.total = reinterpret_cast<T*>(total);
    share(replicates, rows, threads, [&](const Range& range, int64_t r) { kernel(p, range, r); });
  };
  if (twice) return run(0.0, choices.standard().kernels->dot_double);
  const Key key = Key(Product::by_weight).add({threads, replicates, rows, operands, length});
  run(0.0f, choices.of(key, capacity).kernels->dot_float);
}

void check_rows(Address rows, int64_t numbers, int64_t count) {
  for (int64_t i = 0; i < numbers; ++i) {
    const int64_t row = at<int64_t>(rows)[i];
    if (row < 0 || row >= count)
      throw nb::index_error(("row " + std::to_string(row) + " of " + std::to_string(count)).c_str());
  }
}

// Replicate r's rows are `rows` of `in` from r · rows on or, where `chosen` [S, rows] is given, those it names, of `count`.
// What lies between `rows` and `width` becomes 0: products compute it as well, and denormals there would slow them down.
void transpose(bool twice, int threads, int64_t replicates, int64_t rows, int64_t columns, int64_t width, Address in,
               Address chosen_rows, int64_t count, Address out) {
  if (chosen_rows) check_rows(chosen_rows, replicates * rows, count);
  const auto run = [&](auto zero, auto kernel) {
    using T = decltype(zero);
    const int64_t* named = reinterpret_cast<const int64_t*>(chosen_rows);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && replicates > 1)
    for (int64_t r = 0; r < replicates; ++r) {
      T* to = reinterpret_cast<T*>(out) + r * columns * width;
      kernel(to, reinterpret_cast<const T*>(in) + (named ? 0 : r * rows * columns), named ? named + r * rows : nullptr,
             rows, columns, width);
      if (width > rows)
        for (int64_t c = 0; c < columns; ++c) std::fill(to + c * width + rows, to + (c + 1) * width, T(0));
    }
  };
  if (twice)
    run(0.0, choices.standard().kernels->transpose_double);
  else
    run(0.0f, choices.standard().kernels->transpose_float);
}

// channels, height, width, strides, padding, height and width of a grid, images, length, lead, tail
Planes planes(const std::vector<int64_t>& v) {
  return {v.at(0), v.at(1), v.at(2), v.at(3), v.at(4), v.at(5), v.at(6),
          v.at(7), v.at(8), v.at(9), v.at(10), v.at(11), v.at(12)};
}

template <class T>
Batch<T> batch(Address images, int64_t stride) {
  return {reinterpret_cast<T*>(images), stride};
}

void conv(bool twice, int threads, int64_t replicates, int64_t images, const Shape& from, const Shape& to, int64_t rows,
          int64_t blocks, int64_t capacity, int64_t weights, Address start, Address place, Address weight,
          Address begin, Address in, int64_t in_stride, Address out, int64_t out_stride, bool positive) {
  const Planes one = planes(from), two = planes(to);
  const auto run = [&](auto zero, auto kernel) {
    using T = decltype(zero);
    Rows<T> p = entries<T>(rows, blocks, one.count(), capacity, start, place, 0);
    p.length = p.width = one.length;
    p.weight = at<T>(weight), p.weights = weights, p.scale = 1;
    p.out_scale = two.length;
    p.begin = at<T>(begin), p.positive = positive;
    convolve<T>({replicates, images, threads}, one, two, p, batch<const T>(in, in_stride), batch<T>(out, out_stride),
                kernel);
  };
  if (twice) return run(0.0, choices.standard().kernels->sum_double);
  const Key key = Key(Product::convolution).add({threads, replicates, images, rows}).add(from);
  run(0.0f, choices.of(key, capacity).kernels->sum_float);
}

void conv_back(bool twice, int threads, int64_t replicates, int64_t images, const Shape& from, const Shape& grad,
               const Shape& to, int64_t rows, int64_t blocks, int64_t capacity, Address start, Address place,
               int64_t planes_of_input, int64_t row_blocks, Address by_plane, Address row_place, Address order,
               Address weight, Address in, int64_t in_stride, Address given, int64_t given_stride, Address out,
               int64_t out_stride, Address by_weight, Address by_bias) {
  const Planes one = planes(from), two = planes(grad), three = planes(to);
  const auto run = [&](auto zero, auto dot_kernel, auto sum_kernel) {
    using T = decltype(zero);
    Rows<T> weights = entries<T>(rows, blocks, one.count(), capacity, start, place, 0);
    weights.length = weights.width = one.length;
    weights.weight_scale = two.length, weights.scale = 1;
    weights.out = reinterpret_cast<T*>(by_weight), weights.out_stride = capacity;
    weights.total = reinterpret_cast<T*>(by_bias);
    Rows<T> inputs = entries<T>(planes_of_input, row_blocks, rows, capacity, by_plane, row_place, order);
    inputs.length = inputs.width = one.length;
    inputs.weight = at<T>(weight), inputs.weights = capacity, inputs.scale = 1;
    inputs.out_scale = three.length;
    convolve_back<T>({replicates, images, threads}, one, two, three, weights, inputs, batch<const T>(in, in_stride),
                     batch<const T>(given, given_stride), batch<T>(out, out_stride), dot_kernel, sum_kernel);
  };
  const Key key = Key(Product::convolution_back).add({threads, replicates, images, rows}).add(from);
  const Kernels& k = twice ? *choices.standard().kernels : *choices.of(key, capacity).kernels;
  if (twice)
    run(0.0, k.dot_double, k.sum_double);
  else
    run(0.0f, k.dot_float, k.sum_float);
}

// y may be shared by the replicates (y_stride 0). `sum` is float64 [S], `correct` int64 [S]; `grad` may be 0.
void loss(bool twice, int threads, int64_t replicates, int64_t rows, int64_t classes, int64_t y_stride, double scale,
          Address logits, Address y, Address grad, Address sum, Address correct) {
  const auto run = [&](auto zero) {
    using T = decltype(zero);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && replicates > 1)
    for (int64_t r = 0; r < replicates; ++r)
      cross_entropy<T>(reinterpret_cast<const T*>(logits) + r * rows * classes,
                       reinterpret_cast<const int64_t*>(y) + r * y_stride, rows, classes, static_cast<T>(scale),
                       grad ? reinterpret_cast<T*>(grad) + r * rows * classes : nullptr,
                       reinterpret_cast<double*>(sum) + r, reinterpret_cast<int64_t*>(correct) + r);
  };
  if (twice)
    run(0.0);
  else
    run(0.0f);
}

// Numbers of a link, in the order of `Link`.
Link link(const Shape& v) {
  Link l{};
  l.rows = v.at(0), l.columns = v.at(1), l.capacity = v.at(2), l.across = v.at(3), l.down = v.at(4);
  l.relu = v.at(5);
  l.start = at<int32_t>(v.at(6)), l.place = at<int32_t>(v.at(7)), l.by_column = at<int32_t>(v.at(8));
  l.row_of = at<int32_t>(v.at(9)), l.order = at<int32_t>(v.at(10));
  const auto writable = [&](size_t i) { return reinterpret_cast<float*>(static_cast<Address>(v.at(i))); };
  l.weight = writable(11), l.bias = writable(12), l.keep_bias = writable(13);
  for (size_t slot = 0; slot < 2; ++slot) l.weight_slots[slot] = writable(14 + slot), l.bias_slots[slot] = writable(16 + slot);
  return l;
}

std::vector<Link> links(const std::vector<Shape>& all, int threads, int64_t replicates, int64_t batch) {
  std::vector<Link> made;
  for (const Shape& one : all) {
    Link l = link(one);
    const auto chosen = [&](Product product, int64_t rows, int64_t operands) {
      return choices.of(Key(product).add({threads, replicates, rows, operands, batch}), l.capacity).kernels;
    };
    l.forward = chosen(Product::forward, l.rows, l.columns);
    l.by_weight = chosen(Product::by_weight, l.rows, l.columns);
    l.by_input = chosen(Product::by_input, l.columns, l.rows);
    made.push_back(l);
  }
  return made;
}

// options: momentum, weight decay, beta1, beta2, epsilon.
Rule rule_of(int kind, bool nesterov, const std::vector<double>& options) {
  return {static_cast<Rule::Kind>(kind), options.at(0), nesterov, options.at(1), options.at(2), options.at(3),
          options.at(4)};
}

// shape: steps, replicates, batch.
void train(int threads, const std::vector<Shape>& of_links, Address x, Address y, int64_t count, int64_t features,
           int64_t classes, const Shape& shape, Address rows, Address rates, Address losses, double taken, int kind,
           bool nesterov, const std::vector<double>& options) {
  const Steps steps{at<int64_t>(rows), at<double>(rates), reinterpret_cast<float*>(losses), shape.at(0), shape.at(1),
                    shape.at(2), taken};
  check_rows(rows, steps.steps * steps.replicates * steps.batch, count);
  train_chain(*choices.standard().kernels, links(of_links, threads, steps.replicates, steps.batch),
              {at<float>(x), at<int64_t>(y), count, features, classes}, steps, rule_of(kind, nesterov, options),
              threads);
}

// Numbers of a tensor: elements, whether the gradient is bfloat16, and the addresses of `Piece` without the gradient.
// Of a gradient: its address; or the numbers of `Factors` in their order.
void update(int threads, const std::vector<Shape>& tensors, const std::vector<Shape>& grads, double rate, double taken,
            int kind, bool nesterov, const std::vector<double>& options) {
  std::vector<Whole> all;
  const Update update = at_step(rule_of(kind, nesterov, options), rate, taken);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Shape &v = tensors[i], &g = grads.at(i);
    const auto floats = [&](size_t k) { return reinterpret_cast<float*>(static_cast<Address>(v.at(k))); };
    const Piece piece{floats(2), g.size() == 1 ? at<void>(g[0]) : nullptr, v.at(1) != 0, floats(3), floats(4),
                      floats(5), reinterpret_cast<uint16_t*>(static_cast<Address>(v.at(6)))};
    if (g.size() == 1)
      all.push_back({piece, v.at(0)});
    else
      update_by_factors(update, piece, {g.at(0), g.at(1), g.at(2), g.at(3), at<uint16_t>(g.at(4)), g.at(5), g.at(6),
                                        at<uint16_t>(g.at(7)), g.at(8), g.at(9)}, threads);
  }
  update_all(*choices.standard().kernels, update, all, threads);
}

// shape: replicates, batch, width.
void score(int threads, const std::vector<Shape>& of_links, Address x, Address y, int64_t count, int64_t features,
           int64_t classes, const Shape& shape, Address loss, Address correct) {
  score_chain(*choices.standard().kernels, links(of_links, threads, shape.at(0), shape.at(1)),
              {at<float>(x), at<int64_t>(y), count, features, classes}, shape.at(1),
              shape.at(2), shape.at(0), reinterpret_cast<double*>(loss), reinterpret_cast<int64_t*>(correct), threads);
}

}  // namespace

NB_MODULE(_kernels, m) {
  m.doc() = "Compiled sparse products; call winticket.sparse, which checks what it passes on.";
  m.def("available", available);
  m.def("chosen", [] { return choices.standard().name; });
  m.def("forced", [] { return choices.forced(); });
  m.def("use", [](const std::string& name) { choices.force(name); });
  m.def("attempt", [](const std::string& name) { choices.attempt(name); });
  m.def("prefer", prefer);
  m.def("preferred", preferred);
  const auto unlocked = nb::call_guard<nb::gil_scoped_release>();
  m.def("sum", sum, unlocked);
  m.def("dot", dot, unlocked);
  m.def("transpose", transpose, unlocked);
  m.def("loss", loss, unlocked);
  m.def("has_amx", has_amx);
  m.def("update", update, unlocked);
  m.def("train_chain", train, unlocked);
  m.def("score_chain", score, unlocked);
  m.def("conv", conv, unlocked);
  m.def("conv_back", conv_back, unlocked);
}

}  // namespace winticket
