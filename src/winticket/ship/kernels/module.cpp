// The Python module winticket.ship._inference: winticket.ship.plan makes the plans, winticket.ship.engine runs them.
#include "bind.hpp"

#include <mutex>
#include <optional>

namespace winticket {
namespace {

std::vector<std::string> available() {
  std::vector<std::string> names;
  for (const Instructions& set : instruction_sets()) names.push_back(set.name);
  return names;
}

// Rows over runs of neighbours ("runs"), or one example's rows ("rows", "gathered").
void add_rows(Plan& plan, const std::string& kernel, const std::string& instructions, const std::string& label,
              const std::shared_ptr<Entries>& entries, const Array<float>& bias, const Where& at, const Numbers& numbers,
              float low, float high, int vectors) {
  const Inference& k = kernels_of(instructions);
  Product p = product_of(plan, at, numbers, entries->rows, entries->reach, vectors);
  const bool runs = kernel == "runs";
  const auto work = runs ? k.runs : kernel == "gathered" ? k.gathered : k.rows;
  require(work != nullptr, "this instruction set has no such kernel");
  // Runs of less than a vector read a whole one.
  require(!runs || at[0] != kInput, "runs are read from the memory");
  require(runs || (p.length == 1 && p.scale == 1 && entries->group == 1 && p.out_row == 1), "one example's rows alone");
  if (!runs)
    for (int64_t i = 0; i < entries->start.size(); ++i)
      require(entries->start.data()[i] % 4 == 0, "rows of multiples of four entries");
  const Biases held = biases(bias, entries->rows);
  p.finish = {held->data(), low, high};
  plan.candidate(label, instructions, [=](const Frame& f) {
    (void)held;
    work(p, *entries, from(f, at[0]), from(f, at[1]), f.memory + at[2]);
  });
}

template <class Weights, class Kernel>
void add_walk(Plan& plan, Kernel kernel, const std::string& instructions, const std::string& label,
              const std::shared_ptr<Weights>& weights, const Array<float>& bias, const Where& at, const Numbers& numbers,
              float low, float high, const std::optional<Array<float>>& zero, int64_t listed_at) {
  Product p = product_of(plan, at, numbers, weights->rows, weights->columns - 1, 1);
  require(p.length == 1 && p.scale == 1 && p.out_row == 1 && p.residual_row <= 1, "one example's columns alone");
  require(listed_at >= 0, "the list is in the memory");
  plan.check(listed_at, 0, 2 * (weights->columns + 16));
  const Biases held = biases(bias, weights->rows);
  const Biases zeros = zero ? biases(*zero, weights->columns) : nullptr;
  p.finish = {held->data(), low, high};
  plan.candidate(label, instructions, [=](const Frame& f) {
    (void)held;
    float* list = f.memory + listed_at;
    const Skipping s{zeros ? zeros->data() : nullptr, reinterpret_cast<int32_t*>(list), list + weights->columns + 16};
    kernel(p, *weights, s, from(f, at[0]), from(f, at[1]), f.memory + at[2]);
  });
}

void add_columns(Plan& plan, const std::string& instructions, const std::string& label,
                 const std::shared_ptr<Columns>& weights, const Array<float>& bias, const Where& at,
                 const Numbers& numbers, float low, float high, const std::optional<Array<float>>& zero,
                 int64_t listed_at) {
  add_walk(plan, kernels_of(instructions).columns, instructions, label, weights, bias, at, numbers, low, high, zero,
           listed_at);
}

void add_dense_columns(Plan& plan, const std::string& instructions, const std::string& label,
                       const std::shared_ptr<DenseColumns>& weights, const Array<float>& bias, const Where& at,
                       const Numbers& numbers, float low, float high, const std::optional<Array<float>>& zero,
                       int64_t listed_at) {
  const Inference& k = kernels_of(instructions);
  require(weights->lanes == k.lanes && weights->vectors <= k.most_vectors, "laid out for another instruction set");
  add_walk(plan, k.dense_columns, instructions, label, weights, bias, at, numbers, low, high, zero, listed_at);
}

void check_nest(const Plan& plan, const Loop& l, const Where& at) {
  plan.check(at[0], 0, extent(l, l.in));
  if (at[1] != kNone) plan.check(at[1], 0, extent(l, l.other));
  require(at[2] >= 0, "a result goes to the memory");
  plan.check(at[2], 0, extent(l, l.out));
}

void check_innermost(const Loop& l) {
  require(l.axes > 0, "a loop of no axis");
  const int last = l.axes - 1;
  require(l.size[last] == 1 || (l.in[last] == 1 && l.out[last] == 1 && l.other[last] <= 1), "the innermost step is not 1");
}

void add_scaled(Plan& plan, const std::string& instructions, const std::string& label, const Where& at,
                const Nest& nest, const std::optional<Array<float>>& scale, const std::optional<Array<float>>& shift) {
  const auto work = kernels_of(instructions).scaled;
  Scaled s{loop_of(nest), nullptr, nullptr};
  check_nest(plan, s.loop, at), check_innermost(s.loop);
  require(scale.has_value() == shift.has_value() && (!scale || s.loop.axes > 1), "a scale and a shift for each plane");
  const Biases a = scale ? biases(*scale, s.loop.size[0]) : nullptr, b = shift ? biases(*shift, s.loop.size[0]) : nullptr;
  if (a) s.scale = a->data(), s.shift = b->data();
  plan.candidate(label, instructions, [=](const Frame& f) {
    (void)a, (void)b;
    work(s, from(f, at[0]), f.memory + at[2]);
  });
}

void add_unary(Plan& plan, const std::string& instructions, const std::string& label, const Where& at, const Nest& nest,
               const std::string& function, float a, float b) {
  const std::vector<std::string> names = {"clamp", "leaky_relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh"};
  const auto name = std::find(names.begin(), names.end(), function);
  require(name != names.end(), "no such function");
  const auto work = kernels_of(instructions).unary;
  const Unary u{loop_of(nest), static_cast<Function>(name - names.begin()), a, b};
  check_nest(plan, u.loop, at), check_innermost(u.loop);
  plan.candidate(label, instructions, [=](const Frame& f) { work(u, from(f, at[0]), f.memory + at[2]); });
}

void add_sum(Plan& plan, const std::string& instructions, const std::string& label, const Where& at, const Nest& nest,
             float low, float high) {
  const auto work = kernels_of(instructions).add;
  const Loop l = loop_of(nest);
  check_nest(plan, l, at), check_innermost(l);
  require(at[1] != kNone, "a sum of two");
  plan.candidate(label, instructions,
                 [=](const Frame& f) { work(l, low, high, from(f, at[0]), from(f, at[1]), f.memory + at[2]); });
}

// size, result, kernel, stride, before, dilation
using Window = std::array<int64_t, 6>;
// planes, width, steps in the input from plane to plane and from row to row, the same in the output
using Image = std::array<int64_t, 6>;

Axis axis_of(const Window& w) {
  require(*std::min_element(w.begin(), w.end()) >= 0 && w[0] && w[1] && w[2] && w[3] && w[5], "no such window");
  return {w[0], w[1], w[2], w[3], w[4], w[5]};
}

void check_image(const Plan& plan, const Where& at, const Image& i, int64_t height, int64_t width, int64_t down,
                 int64_t across) {
  require(*std::min_element(i.begin(), i.end()) >= 0 && i[0] && i[1], "no such image");
  plan.check(at[0], 0, (i[0] - 1) * i[2] + (height - 1) * i[3] + width * i[1]);
  require(at[2] >= 0, "a result goes to the memory");
  plan.check(at[2], 0, (i[0] - 1) * i[4] + (down - 1) * i[5] + across * i[1]);
}

void add_pool(Plan& plan, const std::string& instructions, const std::string& label, const Where& at, const Image& i,
              const Window& down, const Window& across, bool maximum, bool count_padding) {
  const auto work = kernels_of(instructions).pool;
  const Pool p{i[0], i[2], i[3], i[4], i[5], i[1], axis_of(down), axis_of(across), maximum, count_padding};
  check_image(plan, at, i, p.down.size, p.across.size, p.down.result, p.across.result);
  plan.candidate(label, instructions, [=](const Frame& f) { work(p, from(f, at[0]), f.memory + at[2]); });
}

void add_adaptive(Plan& plan, const std::string& instructions, const std::string& label, const Where& at,
                  const Image& i, const std::array<int64_t, 2>& size, const std::array<int64_t, 2>& result) {
  const auto work = kernels_of(instructions).adaptive;
  const Adaptive p{i[0], i[2], i[3], i[4], i[5], i[1], size, result};
  // Below 2^31, so that low and high do not overflow.
  for (int64_t n : {size[0], size[1], result[0], result[1]}) require(n > 0 && n >> 31 == 0, "no such windows");
  check_image(plan, at, i, size[0], size[1], result[0], result[1]);
  plan.candidate(label, instructions, [=](const Frame& f) { work(p, from(f, at[0]), f.memory + at[2]); });
}

void add_mean(Plan& plan, const std::string& instructions, const std::string& label, const Where& at, const Nest& kept,
              const Nest& over, int64_t run, bool run_kept, float factor) {
  const auto work = kernels_of(instructions).mean;
  const Mean m{loop_of(kept), loop_of(over), run, run_kept, factor};
  require(run > 0 && at[2] >= 0, "no such mean");
  plan.check(at[0], 0, extent(m.kept, m.kept.in) + extent(m.over, m.over.in) + run - 2);
  plan.check(at[2], 0, extent(m.kept, m.kept.out) + (run_kept ? run - 1 : 0));
  plan.candidate(label, instructions, [=](const Frame& f) { work(m, from(f, at[0]), f.memory + at[2]); });
}

void add_softmax(Plan& plan, const std::string& instructions, const std::string& label, const Where& at,
                 const Nest& kept, int64_t count, int64_t in, int64_t out, bool logarithm) {
  const auto work = kernels_of(instructions).softmax;
  const Softmax s{loop_of(kept), count, in, out, logarithm};
  require(count > 0 && in >= 0 && out >= 0 && at[2] >= 0, "no such softmax");
  plan.check(at[0], 0, extent(s.kept, s.kept.in) + (count - 1) * in);
  plan.check(at[2], 0, extent(s.kept, s.kept.out) + (count - 1) * out);
  plan.candidate(label, instructions, [=](const Frame& f) { work(s, from(f, at[0]), f.memory + at[2]); });
}

void add_phases(Plan& plan, const std::string& instructions, const std::string& label, const Where& at, const Image& i,
                const Window& down, const Window& across, const std::vector<int64_t>& downs,
                const std::vector<int64_t>& acrosses) {
  const auto work = kernels_of(instructions).phases;
  const Phases p{i[0], i[2], i[3], i[1], axis_of(down), axis_of(across), i[4], i[5], downs, acrosses};
  require(!downs.empty() && downs.size() == acrosses.size() && i[5] % i[1] == 0, "no such phases");
  for (const auto& phases : {downs, acrosses})
    for (int64_t phase : phases) require(phase >= 0, "no such phase");
  Image whole = i;
  whole[0] = i[0] * static_cast<int64_t>(downs.size());
  check_image(plan, at, i, p.down.size, p.across.size, 1, 1);
  require(at[2] >= 0 && i[5] > 0, "a result goes to the memory");
  plan.check(at[2], 0, (whole[0] - 1) * i[4] + p.down.result * i[5]);
  plan.candidate(label, instructions, [=](const Frame& f) { work(p, from(f, at[0]), f.memory + at[2]); });
}

// lead, planes, plane, rows, row, used, tail: clears the borders of the value at `at` after the last step's work.
void clear_borders(Plan& plan, int64_t at, const std::array<int64_t, 7>& n) {
  require(*std::min_element(n.begin(), n.end()) >= 0 && n[1] && n[3] && n[5] <= n[4] && at >= 0, "no such borders");
  require((n[3] - 1) * n[4] + n[5] <= n[2], "rows do not fit into their plane");
  plan.check(at, -n[0], n[1] * n[2] + n[6]);
  const Borders b{n[0], n[1], n[2], n[3], n[4], n[5], n[6]};
  for (Candidate& c : plan.steps().back().candidates) {
    const auto clear = kernels_of(c.instructions).clear;
    c.work = [=, work = std::move(c.work)](const Frame& f) {
      work(f);
      clear(b, f.memory + at);
    };
  }
}

// A view of a numpy array, released when it goes.
class View {
 public:
  View(nb::handle object, int flags) { held_ = PyObject_GetBuffer(object.ptr(), &view_, flags) == 0; }
  ~View() {
    if (held_) PyBuffer_Release(&view_);
    else PyErr_Clear();
  }
  View(const View&) = delete;
  View& operator=(const View&) = delete;

  bool of(char format) const {
    const char* f = view_.format;
    return held_ && f && f[0] == format && !f[1];
  }
  // How many things of that shape it holds; -1 if it holds others.
  int64_t count(const std::vector<int64_t>& shape) const {
    if (view_.ndim != static_cast<int>(shape.size()) + 1) return -1;
    return std::equal(shape.begin(), shape.end(), view_.shape + 1) ? view_.shape[0] : -1;
  }
  int64_t size() const { return view_.len / view_.itemsize; }
  void* data() const { return view_.buf; }

 private:
  Py_buffer view_{};
  bool held_;
};

enum Answer { kDone, kUnfit, kNotFinite, kNotReady };

// Nobody waits for a Scratch with Python's lock held: its owner may want that lock first, and everyone else would stand.
std::unique_lock<std::mutex> locked(std::mutex& mutex) {
  std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
  if (lock.owns_lock()) return lock;
  const nb::gil_scoped_release unlocked;
  lock.lock();
  return lock;
}

void arrange(Engine& engine, std::vector<std::shared_ptr<Plan>> plans, std::vector<int64_t> first, int64_t ready,
             bool brief) {
  std::vector<std::unique_lock<std::mutex>> all;
  for (Scratch& each : engine.scratches()) all.push_back(locked(each.mutex));
  engine.arrange(std::move(plans), std::move(first), ready, brief);
}

// Writes the logits of x [N, inputs...], float32 or (if `bytes`) uint8, to y [N, outputs...]. Says what is wrong with
// them in a number only, since this is called for single examples.
int run(Engine& engine, nb::handle x, nb::handle y, bool bytes) {
  const View from(x, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT), to(y, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE);
  const bool floats = from.of('f');
  if (!(floats || (bytes && from.of('B'))) || !to.of('f')) return kUnfit;
  const int64_t count = from.count(engine.input());
  if (count < 1 || to.count(engine.output()) != count) return kUnfit;
  std::optional<nb::gil_scoped_release> unlocked;
  if (count > 1 || !engine.brief()) unlocked.emplace();
  if (floats && !Engine::best().finite(static_cast<const float*>(from.data()), from.size())) return kNotFinite;
  std::unique_lock<std::mutex> alone;
  Scratch* scratch = nullptr;
  for (Scratch& each : engine.scratches()) {
    alone = std::unique_lock<std::mutex>(each.mutex, std::try_to_lock);
    if (alone.owns_lock()) {
      scratch = &each;
      break;
    }
  }
  if (!scratch) {
    if (!unlocked) unlocked.emplace();
    scratch = &engine.scratches()[engine.next()];
    alone = std::unique_lock<std::mutex>(scratch->mutex);
  }
  if (!engine.ready(count)) return kNotReady;
  const float* values = floats ? static_cast<const float*>(from.data())
                               : engine.converted(static_cast<const uint8_t*>(from.data()), from.size(), *scratch);
  engine.run(values, count, static_cast<float*>(to.data()), *scratch);
  return kDone;
}

std::vector<double> profile(Engine& engine, const Plan& plan, const Array<float>& x, int rounds) {
  const int64_t inputs = engine.inputs(), size = static_cast<int64_t>(x.size());
  require(size > 0 && size % inputs == 0 && rounds > 0, "no such examples");
  const nb::gil_scoped_release unlocked;
  return engine.profile(plan, x.data(), size / inputs, rounds);
}

}  // namespace

NB_MODULE(_inference, m) {
  m.doc() = "Compiled inference; call winticket.ship.SparseModel, which makes the plans.";
  m.def("available", available);
  nb::class_<Entries>(m, "Entries");
  m.def("entries", make_entries);
  nb::class_<Columns>(m, "Columns");
  m.def("columns", make_columns);
  nb::class_<DenseColumns>(m, "DenseColumns");
  m.def("dense_columns", make_dense);
  nb::class_<Plan>(m, "Plan")
      .def(nb::init<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>())
      .def("step", &Plan::step)
      .def("choose", &Plan::choose)
      .def("candidates",
           [](const Plan& plan) {
             std::vector<std::vector<std::array<std::string, 2>>> all;
             for (const Step& s : plan.steps()) {
               all.emplace_back();
               for (const Candidate& c : s.candidates) all.back().push_back({c.kernel, c.instructions});
             }
             return all;
           })
      .def("operations",
           [](const Plan& plan) {
             std::vector<std::string> all;
             for (const Step& s : plan.steps()) all.push_back(s.operation);
             return all;
           })
      .def("rows", add_rows)
      .def("columns", add_columns, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg(), nb::arg().none(), nb::arg())
      .def("dense_columns", add_dense_columns, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg(), nb::arg(), nb::arg().none(), nb::arg())
      .def("scaled", add_scaled, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none())
      .def("unary", add_unary)
      .def("add", add_sum)
      .def("pool", add_pool)
      .def("adaptive", add_adaptive)
      .def("mean", add_mean)
      .def("softmax", add_softmax)
      .def("phases", add_phases)
      .def("clear", clear_borders);
  nb::class_<Engine>(m, "Engine")
      .def(nb::init<std::vector<int64_t>, std::vector<int64_t>, int>())
      .def("arrange", arrange)
      .def("profile", profile)
      .def("run", run);
}

}  // namespace winticket
