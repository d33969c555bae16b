// The rest of a training step, once for every instruction set, like the products: the loss and the optimiser's update.
#pragma once

#include <cmath>

#include "update.hpp"

namespace winticket::ISA {

typedef int32_t Whole __attribute__((vector_size(BYTES), aligned(4), may_alias));

// e to the power of x, to within 2 units in the last place; NaN stays NaN. Cephes' range reduction and polynomial
// (expf.c; Moshier 1992).
inline Float exponential(Float x) {
  const Float below = Float{} + -87.0f, above = Float{} + 88.0f;
  const Float y = x < below ? below : (x > above ? above : x);
  const Float turns = y * 1.44269504088896341f;
  const Whole n = __builtin_convertvector(turns + (turns < Float{} ? Float{} - 0.5f : Float{} + 0.5f), Whole);
  const Float whole = __builtin_convertvector(n, Float);
  const Float r = (y - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Float p = Float{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Float value = p * r * r + r + 1.0f;
  const Float power = reinterpret_cast<Float>((n + 127) << 23);
  return x < below ? Float{} : value * power;
}

// A vector of examples at a time, the classes one after the other.
inline void loss(const Loss& p) {
  constexpr int64_t W = Lane<float>::count;
  double total = 0;
  int64_t right = 0;
  const float scale = 1.0f / static_cast<float>(p.length);
  for (int64_t at = 0; at < p.width; at += W) {
    const float* z = p.logits + at;
    float* grad = p.grad + at;
    Float most = load(z);
    Whole best{};
    for (int64_t k = 1; k < p.classes; ++k) {
      const Float v = load(z + k * p.width);
      const Whole more = v > most;
      most = more ? v : most;
      best = more ? Whole{} + static_cast<int32_t>(k) : best;
    }
    Float mass{};
    for (int64_t k = 0; k < p.classes; ++k) {
      const Float e = exponential(load(z + k * p.width) - most);
      store(grad + k * p.width, e);
      mass += e;
    }
    const int64_t inside = std::min(W, p.length - at);
    const Part<float> real(0, inside);
    const Float share = scale / mass;
    for (int64_t k = 0; k < p.classes; ++k) store(grad + k * p.width, real.of(load(grad + k * p.width) * share));
    float masses[W], tops[W];
    int32_t bests[W];
    store(masses, mass), store(tops, most);
    std::memcpy(bests, &best, sizeof best);
    for (int64_t i = 0; i < inside; ++i) {
      const int64_t y = p.y[at + i];
      if (y < 0 || y >= p.classes) {
        total += std::nan("");
        continue;
      }
      grad[y * p.width + i] -= scale;
      total += static_cast<double>(std::log(masses[i]) - (z[y * p.width + i] - tops[i]));
      right += bests[i] == y;
    }
  }
  *p.sum = total;
  if (p.correct) *p.correct = right;
}

extern const Kernels kernels;
const Kernels kernels = {sum<float>,       sum<double>,       dot<float>, dot<double>,
                         transpose<float>, transpose<double>, update,     loss};

}  // namespace winticket::ISA
