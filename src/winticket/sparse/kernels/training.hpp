// The rest of a training step, once for every instruction set, like the products: the loss and the optimiser's update.
#pragma once

#include <cmath>

#include "products.hpp"

namespace winticket::ISA {

typedef int32_t Whole __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef Vector<float> Float;

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

// torch's fused updates (aten/src/ATen/native/cpu/FusedSGDKernel.cpp and FusedAdamKernel.cpp, torch 2.13), without
// dampening, maximise and amsgrad. Slots: momentum of SGD; mean and mean square of Adam.
inline void sgd(const Update& u, float* weight, const float* grad, float* momentum, int64_t count) {
  const float decay = static_cast<float>(u.rule.weight_decay), keep = static_cast<float>(u.rule.momentum);
  const float rate = u.rate;
  const bool nesterov = u.rule.nesterov;
  if (!momentum) {
    for (int64_t i = 0; i < count; ++i) weight[i] -= rate * (grad[i] + decay * weight[i]);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const float g = grad[i] + decay * weight[i], m = keep * momentum[i] + g;
    momentum[i] = m;
    weight[i] -= rate * (nesterov ? g + keep * m : m);
  }
}

inline void adam(const Update& u, float* weight, const float* grad, float* mean, float* square, int64_t count) {
  const bool apart = u.rule.kind == Rule::adamw;
  const float decay = apart ? 0.0f : static_cast<float>(u.rule.weight_decay), shrink = apart ? u.decay : 1.0f;
  const float one = static_cast<float>(1 - u.rule.beta1), beta2 = static_cast<float>(u.rule.beta2);
  const float two = static_cast<float>(1 - u.rule.beta2), eps = static_cast<float>(u.rule.eps);
  const float root = u.root_correction, size = u.step_size;
  for (int64_t i = 0; i < count; ++i) {
    const float w = weight[i] * shrink, g = grad[i] + decay * w;
    const float m = mean[i] + one * (g - mean[i]), v = beta2 * square[i] + two * g * g;
    mean[i] = m, square[i] = v;
    weight[i] = w - size * m / (__builtin_sqrtf(v) / root + eps);
  }
}

inline void update(const Update& u, float* weight, const float* grad, float* first, float* second, int64_t count) {
  if (u.rule.kind == Rule::sgd)
    sgd(u, weight, grad, first, count);
  else
    adam(u, weight, grad, first, second, count);
}

extern const Kernels kernels;
const Kernels kernels = {sum<float>,       sum<double>,       dot<float>, dot<double>,
                         transpose<float>, transpose<double>, update,     loss};

}  // namespace winticket::ISA
