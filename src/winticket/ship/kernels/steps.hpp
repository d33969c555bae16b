// What a step of a network is given. A value is laid out as planes of positions, with the examples of a tile innermost:
// element ((plane * planes apart + position) * width + example). Strides and counts below are of elements, already
// multiplied by the width of the tile, unless they are called positions.
#pragma once

#include <array>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

namespace winticket {

// Memory on cache lines, zeros at first.
template <class T>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(int64_t size)
      : size_(size), data_(size ? new (std::align_val_t{64}) T[static_cast<size_t>(size)]() : nullptr) {}
  Aligned(const T* from, int64_t size) : Aligned(size) {
    for (int64_t i = 0; i < size; ++i) data_[i] = from[i];
  }
  Aligned(Aligned&& other) noexcept { swap(other); }
  Aligned& operator=(Aligned&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Aligned() { ::operator delete[](data_, std::align_val_t{64}); }
  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  void swap(Aligned& other) { std::swap(size_, other.size_), std::swap(data_, other.data_); }
  int64_t size_ = 0;
  T* data_ = nullptr;
};

// The kept weights of a layer by rows, `group` rows together: an entry is a place in the input and one weight for each
// of them. Inputs are read in blocks of positions, so that 16 bits are enough for a place within its block, and so that
// what a block reads can stay in the first-level cache. Group g of block b has the entries
// start[b * (groups + 1) + g] up to start[b * (groups + 1) + g + 1].
struct Entries {
  int64_t rows, group, groups, blocks;
  std::vector<int64_t> base;  // first position of each block
  Aligned<int32_t> start;
  Aligned<uint16_t> place;
  Aligned<float> weight;
  int64_t reach;  // greatest position that is read
};

// The kept weights by columns: column j has the entries start[j] up to start[j + 1]; `place` is the row.
struct Columns {
  int64_t rows, columns;
  Aligned<int32_t> start;
  Aligned<uint16_t> place;
  Aligned<float> weight;
};

// All weights by columns, for vectors of `lanes`: [passes, columns, vectors * lanes], rows beyond the last are 0.
struct DenseColumns {
  int64_t rows, columns, lanes, vectors, passes;
  Aligned<float> weight;
};

// What happens to a sum: out = min(max(bias + residual + sum, low), high).
struct Finish {
  const float* bias;  // [rows]
  float low, high;
};

// A product is repeated along lines; strides from one line to the next.
struct Lines {
  int64_t count, in, residual, out;
};

struct Product {
  int64_t length;                 // of a run: neighbours in the input that one weight multiplies
  int64_t scale;                  // elements per position
  int64_t out_row, residual_row;  // from one row of the result to the next
  Lines lines;
  Finish finish;
  int vectors;  // of a run that are computed at once, at most
};

// Where one example's nonzero inputs are listed, and what counts as zero (null: 0).
struct Skipping {
  const float* zero;  // [columns]
  int32_t* index;     // room for `columns` and one vector more
  float* value;
};

constexpr int kAxes = 10;

// Nested loops over the axes of a value, the innermost last; its steps are 1.
struct Loop {
  int axes;
  int64_t size[kAxes];
  int64_t in[kAxes], other[kAxes], out[kAxes];
};

enum class Function { clamp, leaky, gelu, gelu_tanh, silu, sigmoid, tanh };

struct Unary {
  Loop loop;
  Function function;
  float a, b;  // clamp: low and high; leaky: slope
};

// out = in * scale + shift by planes (the outermost axis); without scale (null), a copy.
struct Scaled {
  Loop loop;
  const float *scale, *shift;
};

struct Axis {
  int64_t size, result, kernel, stride, before, dilation;
};

struct Pool {
  int64_t planes, in_plane, in_row, out_plane, out_row, width;
  Axis down, across;
  bool maximum, count_padding;
};

// Averages of windows along both axes: number i of n over m elements goes from floor(i m / n) to ceil((i + 1) m / n).
struct Adaptive {
  int64_t planes, in_plane, in_row, out_plane, out_row, width;
  std::array<int64_t, 2> size, result;  // of the image and its means, down and across

  int64_t low(int axis, int64_t i) const { return i * size[axis] / result[axis]; }
  int64_t high(int axis, int64_t i) const { return ((i + 1) * size[axis] + result[axis] - 1) / result[axis]; }
};

// Sums over the axes of `over` for each place of `kept`, times `factor`. Innermost is a kept axis or a summed one.
struct Mean {
  Loop kept, over;  // `in` of both, `out` of kept
  int64_t run;      // of the innermost axis, which is in neither loop
  bool run_kept;
  float factor;
};

struct Softmax {
  Loop kept;
  int64_t count, in, out;  // along the axis
  bool logarithm;
};

// An image of a strided convolution, padded, parted into the phases of its coordinates.
struct Phases {
  int64_t planes, in_plane, in_row, width;
  Axis down, across;               // stride and padding; `result` is the size of a phase
  int64_t plane, row;              // of the result
  std::vector<int64_t> downs, acrosses;  // which phases, in order
};

// What lies between the lines and planes of a value, and before and after them, in elements.
struct Borders {
  int64_t lead, planes, plane, rows, row, used, tail;
};

// One instruction set's kernels. `in`, `residual` and `out` point to the first position of a value.
struct Inference {
  void (*runs)(const Product&, const Entries&, const float* in, const float* residual, float* out);
  void (*rows)(const Product&, const Entries&, const float* in, const float* residual, float* out);
  void (*gathered)(const Product&, const Entries&, const float* in, const float* residual, float* out);
  void (*columns)(const Product&, const Columns&, const Skipping&, const float* in, const float* residual, float* out);
  void (*dense_columns)(const Product&, const DenseColumns&, const Skipping&, const float* in, const float* residual,
                        float* out);
  void (*scaled)(const Scaled&, const float* in, float* out);
  void (*unary)(const Unary&, const float* in, float* out);
  void (*add)(const Loop&, float low, float high, const float* in, const float* other, float* out);
  void (*pool)(const Pool&, const float* in, float* out);
  void (*adaptive)(const Adaptive&, const float* in, float* out);
  void (*mean)(const Mean&, const float* in, float* out);
  void (*softmax)(const Softmax&, const float* in, float* out);
  void (*phases)(const Phases&, const float* in, float* out);
  void (*clear)(const Borders&, float* value);
  bool (*finite)(const float* x, int64_t count);
  void (*floats)(const uint8_t* from, float* to, int64_t count);
  void (*turned)(float* out, const float* in, int64_t rows, int64_t columns, int64_t width);
  int64_t lanes, most_vectors;  // of a vector; of a pass over dense columns
};

}  // namespace winticket
