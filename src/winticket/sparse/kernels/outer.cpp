#include "outer.hpp"

#if defined(WINTICKET_AMX) && defined(__linux__)

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#define ISA amx
#define BYTES 64
#include "update.hpp"
#include "updates.hpp"

namespace winticket {

namespace {

constexpr int64_t kSide = 16;   // rows of a tile, and columns of a tile of sums
constexpr int64_t kPairs = 16;  // a tile of bfloat16 holds so many pairs of examples

int64_t tiles(int64_t count, int64_t each) { return (count + each - 1) / each; }

// The tiles' shapes (Intel 64 manual, LDTILECFG): all eight are as large as can be.
struct alignas(64) Config {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// GCC's intrinsics do not say all that they read and write: whatever was written is in memory from here on.
inline void settle(const void* written) { __asm__ volatile("" : : "r"(written) : "memory"); }

// The tiles are ours while this lives; then those who had configured them find them configured as before.
struct Tiles {
  Config before;
  Tiles() {
    settle(&before);
    _tile_storeconfig(&before);
    const Config mine;
    settle(&mine);
    _tile_loadconfig(&mine);
  }
  ~Tiles() {
    settle(&before);
    _tile_loadconfig(&before);
  }
  Tiles(const Tiles&) = delete;
};

// What one thread needs: the factors of a replicate as tiles, sums of a tile, and the gradient of sixteen rows.
struct Scratch {
  int64_t depth, high, wide;  // tiles along the batch, the rows and the columns
  std::vector<uint32_t> left, right;
  std::vector<uint16_t> grad, zeros;
  alignas(64) float sums[4 * kSide * kSide] = {};

  explicit Scratch(const Factors& f)
      : depth(tiles(f.batch, 2 * kPairs)),
        high(tiles(f.rows, kSide)),
        wide(tiles(f.columns, kSide)),
        left(high * kSide * depth * kPairs),
        right(wide * depth * kPairs * kSide),
        grad(kSide * f.columns),
        zeros(std::max(f.rows, f.columns)) {}

  // left [rows, pairs]; right [tiles of columns, pairs, 16]. What lies beyond rows, columns and batch stays 0.
  void read(const Factors& f, int64_t r) {
    const uint16_t *by_output = f.by_output + r * f.by_output_stride, *in = f.in + r * f.in_stride;
    const int64_t pairs = depth * kPairs;
    for (int64_t p = 0; 2 * p < f.batch; ++p) {
      const bool both = 2 * p + 1 < f.batch;
      const uint16_t* low = by_output + 2 * p * f.by_output_step;
      const uint16_t* high = both ? low + f.by_output_step : zeros.data();
      for (int64_t o = 0; o < f.rows; ++o) left[o * pairs + p] = pair(low[o], high[o]);
      low = in + 2 * p * f.in_step, high = both ? low + f.in_step : zeros.data();
      for (int64_t tile = 0; tile < wide; ++tile, low += kSide, high += kSide)
        read_tile(&right[(tile * pairs + p) * kSide], low, high, f.columns - tile * kSide);
    }
  }

  // Two neighbouring examples' values in one number, the earlier one below: what a product of tiles reads.
  static uint32_t pair(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

  static void read_tile(uint32_t* to, const uint16_t* low, const uint16_t* high, int64_t left) {
    if (left >= kSide)
      for (int64_t i = 0; i < kSide; ++i) to[i] = pair(low[i], high[i]);
    else
      for (int64_t i = 0; i < left; ++i) to[i] = pair(low[i], high[i]);
  }

  // The gradient of sixteen rows from tile `row` on and of four tiles of columns from tile `column` on.
  void multiply(int64_t row, int64_t column, int64_t count) {
    const int64_t pairs = depth * kPairs;
    settle(this);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < depth; ++k) {
      const uint32_t* from = &right[(column * pairs + k * kPairs) * kSide];
      _tile_loadd(4, &left[row * kSide * pairs + k * kPairs], pairs * sizeof(uint32_t));
      _tile_loadd(5, from, 64);
      _tile_dpbf16ps(0, 4, 5);
      if (count > 1) {
        _tile_loadd(6, from + pairs * kSide, 64);
        _tile_dpbf16ps(1, 4, 6);
      }
      if (count > 2) {
        _tile_loadd(7, from + 2 * pairs * kSide, 64);
        _tile_dpbf16ps(2, 4, 7);
      }
      if (count > 3) {
        _tile_loadd(5, from + 3 * pairs * kSide, 64);
        _tile_dpbf16ps(3, 4, 5);
      }
    }
    constexpr int64_t across = 4 * kSide * sizeof(float);
    _tile_stored(0, sums, across);
    _tile_stored(1, sums + kSide, across);
    _tile_stored(2, sums + 2 * kSide, across);
    _tile_stored(3, sums + 3 * kSide, across);
  }

  // The gradient of sixteen rows (or as many as there are) into `grad`, row after row.
  void gradient(const Factors& f, int64_t row) {
    const int64_t last = std::min(kSide, f.rows - row * kSide);
    for (int64_t column = 0; column < wide; column += 4) {
      const int64_t count = std::min<int64_t>(4, wide - column);
      multiply(row, column, count);
      for (int64_t i = 0; i < last; ++i)
        for (int64_t tile = 0; tile < count; ++tile) {
          const int64_t at = (column + tile) * kSide, inside = f.columns - at;
          const __m512 sum = _mm512_load_ps(sums + (i * 4 + tile) * kSide);
          const __m256i rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sum));
          uint16_t* to = &grad[i * f.columns + at];
          if (inside >= kSide)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), rounded);
          else
            std::memcpy(to, &rounded, inside * sizeof(uint16_t));
        }
    }
  }
};

}  // namespace

bool has_amx() {
  static const bool has = [] {
    unsigned a, b, c, d;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512f") || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;  // every processor with these has AVX512-BF16
    constexpr long kAsk = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return (d & kBf16) && (d & kTile) && syscall(SYS_arch_prctl, kAsk, kTileData) == 0;
  }();
  return has;
}

void update_by_factors(const Update& update, const Piece& piece, const Factors& f, int threads) {
  const int64_t workers = std::max<int64_t>(1, std::min<int64_t>(threads, f.replicates));
  std::vector<Scratch> scratch(workers, Scratch(f));  // before any thread starts, since none may fail
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (workers > 1)
  for (int64_t w = 0; w < workers; ++w) {
    const FlushTiny flush;
    const Tiles ours;
    Scratch& s = scratch[w];
    for (int64_t r = w; r < f.replicates; r += workers) {
      s.read(f, r);
      for (int64_t row = 0; row < s.high; ++row) {
        const int64_t first = (r * f.rows + row * kSide) * f.columns;
        const int64_t count = std::min(kSide, f.rows - row * kSide) * f.columns;
        s.gradient(f, row);
        Piece part{piece.weight + first, s.grad.data(), true, amx::from(piece.first, first),
                   amx::from(piece.second, first), amx::from(piece.keep, first), amx::from(piece.copy, first)};
        amx::update(update, part, {0, count});
      }
    }
  }
}

}  // namespace winticket

#else

namespace winticket {

bool has_amx() { return false; }
void update_by_factors(const Update&, const Piece&, const Factors&, int) {}

}  // namespace winticket

#endif
